"""Helpers of tunnel keys and options, which lie beside the packet.

Source: linux v6.18, net/core/filter.c: bpf_skb_set_tunnel_key(), bpf_skb_get_tunnel_key(),
bpf_skb_set_tunnel_opt() and bpf_skb_get_tunnel_opt(); include/uapi/linux/bpf.h,
struct bpf_tunnel_key.
"""

from __future__ import annotations

from errno import EINVAL, ENOENT, ENOMEM, EPROTO
from typing import TYPE_CHECKING, Final

from ..errors import BadHelperUse
from ..registry import helper
from .packets import skb_of

if TYPE_CHECKING:
    from ..machine import Machine

_U32: Final = 0xFFFF_FFFF
_SIZE: Final = 44
_REMOTE, _TOS, _EXT, _LABEL, _LOCAL = 4, 20, 22, 24, 28
_SIZES: Final = frozenset({_SIZE, _LOCAL, _LABEL, _EXT, _REMOTE + 4})
"""Of the structure as it is, and as older programs know it."""
_IPV6, _SET_FLAGS = 1, 0x1F
_FLOW_LABEL: Final = 0xF_FFFF
_GET_RAW_FLAGS: Final = 1 << 4
_MOST_OPTIONS: Final = 255


@helper("skb_set_tunnel_key")
def skb_set_tunnel_key(machine: Machine, context: int, key: int, size: int, flags: int) -> int:
    """Say through which tunnel the packet is to go."""
    skb, size = skb_of(machine), size & _U32
    content = machine.memory.read(key, size)
    if flags & ~_SET_FLAGS or size not in _SIZES:
        return -EINVAL
    whole = content.ljust(_SIZE, b"\0")
    has_label = any(whole[_LABEL:_LOCAL]) and not flags & _IPV6
    if has_label or any(whole[_EXT:_LABEL]):
        return -EINVAL
    skb.tunnel_key, skb.is_tunnel_ipv6, skb.tunnel_options = whole, bool(flags & _IPV6), None
    return 0


@helper("skb_get_tunnel_key")
def skb_get_tunnel_key(machine: Machine, context: int, key: int, size: int, flags: int) -> int:
    """Through which tunnel the packet came: none, or the one that the program has set itself.

    One that was set goes out: what was its remote end is the local one of who receives it.
    """
    skb, size = skb_of(machine), size & _U32
    error = _check_get(skb.tunnel_key, size, flags, is_ipv6=skb.is_tunnel_ipv6)
    if error or skb.tunnel_key is None:
        machine.memory.write(key, bytes(size))
        return error
    if size == _REMOTE + 4 and skb.is_tunnel_ipv6:
        return -EINVAL  # the only one that leaves the memory as it was
    old = skb.tunnel_key
    n_address = 16 if skb.is_tunnel_ipv6 else 4
    new = bytearray(_SIZE)
    new[:_REMOTE] = old[:_REMOTE]
    new[_REMOTE : _REMOTE + n_address] = old[_LOCAL : _LOCAL + n_address]
    new[_LOCAL : _LOCAL + n_address] = old[_REMOTE : _REMOTE + n_address]
    new[_TOS:_EXT] = old[_TOS:_EXT]
    if skb.is_tunnel_ipv6:
        label = int.from_bytes(old[_LABEL:_LOCAL], machine.byteorder) & _FLOW_LABEL
        new[_LABEL:_LOCAL] = label.to_bytes(4, machine.byteorder)
    machine.memory.write(key, bytes(new[:size]))
    return 0


def _check_get(known: bytes | None, size: int, flags: int, *, is_ipv6: bool) -> int:
    if known is None or flags & ~(_IPV6 | _GET_RAW_FLAGS):
        return -EINVAL
    if is_ipv6 != bool(flags & _IPV6):
        return -EPROTO
    if size not in _SIZES:
        return -EINVAL
    if flags & _GET_RAW_FLAGS:
        raise BadHelperUse("a tunnel's flags (BPF_F_TUNINFO_FLAGS) are not simulated")
    return 0


@helper("skb_set_tunnel_opt")
def skb_set_tunnel_opt(machine: Machine, context: int, options: int, size: int) -> int:
    """Give the tunnel that was set options."""
    skb, size = skb_of(machine), size & _U32
    content = machine.memory.read(options, size)
    if skb.tunnel_key is None or size % 4:
        return -EINVAL
    if size > _MOST_OPTIONS:
        return -ENOMEM
    skb.tunnel_options = content
    return 0


@helper("skb_get_tunnel_opt")
def skb_get_tunnel_opt(machine: Machine, context: int, target: int, size: int) -> int:
    """The options of the tunnel that the program has set itself; how many bytes they have."""
    known, size = skb_of(machine).tunnel_options, size & _U32
    if known is None or size < len(known):
        machine.memory.write(target, bytes(size))
        return -ENOENT if known is None else -ENOMEM
    machine.memory.write(target, known.ljust(size, b"\0"))
    return len(known)
