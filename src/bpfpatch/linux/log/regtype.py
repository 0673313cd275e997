"""What a register points to, from the way the verifier's log prints it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from bpfpatch.facts.columns import MemType

_MODIFIERS: Final = ("rdonly_", "ringbuf_", "user_", "percpu_", "rcu_", "untrusted_", "trusted_")
_OR_NULL: Final = "_or_null"
_MAP: Final = re.compile(r"(?:map=([^,)]*),)?ks=(\d+),vs=(\d+)")
_NUMBER: Final = re.compile(r"P?(-?(?:0x[0-9a-f]+|\d+))$")
_STACK: Final = re.compile(r"fp(?=[-\d\[]|$)")
_KINDS: Final = {
    "ctx": MemType.CTX,
    "fp": MemType.STACK,
    "pkt": MemType.PACKET,
    "pkt_meta": MemType.PACKET_META,
    "map_value": MemType.MAP_VALUE,
    "map_key": MemType.MAP_KEY,
    "map_ptr": MemType.MAP_PTR,
    "mem": MemType.MEM,
    "buf": MemType.BUF,
    "tp_buffer": MemType.TP_BUFFER,
    "flow_keys": MemType.FLOW_KEYS,
    "sock": MemType.SOCKET,
    "sock_common": MemType.SOCK_COMMON,
    "tcp_sock": MemType.TCP_SOCK,
    "xdp_sock": MemType.XDP_SOCK,
    "arena": MemType.ARENA,
}
_BTF_KINDS: Final = (MemType.BTF_ID, MemType.BTF_ID_PROBE)


@dataclass(frozen=True, slots=True)
class MapKey:
    """How the log tells one map from another; several maps may have the same key.

    Attributes:
        name: up to 15 characters; None where the log prints none.
        key_size: bytes.
        value_size: bytes.
    """

    name: str | None
    key_size: int
    value_size: int


@dataclass(frozen=True, slots=True)
class RegType:
    """A register, as printed.

    Attributes:
        type: what it points to; UNKNOWN for a number and for what points to no memory.
        flavor: its modifiers: two of one type and another flavor are different to the verifier.
        struct: of a kernel object, the name of its type; otherwise "".
        map: of a map, and of its keys and values; otherwise None.
        number: of a constant, its value; otherwise None.
    """

    type: MemType = MemType.UNKNOWN
    flavor: str = ""
    struct: str = ""
    map: MapKey | None = None
    number: int | None = None

    @property
    def is_object(self) -> bool:
        """Whether it is a kernel object with a type."""
        return self.type in _BTF_KINDS


@lru_cache(maxsize=4096)
def parse_reg(text: str) -> RegType:
    """Read what the log prints of a register, up to the first nested parenthesis.

    A pointer that may be NULL counts as what it is otherwise: nothing can go through it
    before it has been tested.

    Source: linux v6.18, kernel/bpf/log.c, reg_type_str(), print_reg_state(); and
    kernel/bpf/verifier.c, convert_ctx_accesses(), for which of them are probed.
    """
    head, _, args = text.partition("(")
    number = _NUMBER.match(head)
    if number:
        return RegType(number=int(number[1], 0))
    base = head
    flavor = []
    while base.startswith(_MODIFIERS):
        modifier, _, base = base.partition("_")
        flavor.append(modifier)
    if base.startswith("ptr_"):
        return _object(base[4:].removeprefix("or_null_"), flavor, args)
    if _STACK.match(base):
        return RegType(MemType.STACK)
    kind = _KINDS.get(base.removesuffix(_OR_NULL), MemType.UNKNOWN)
    if kind is MemType.MEM and {"rdonly", "untrusted"} <= set(flavor):
        return RegType(MemType.BTF_ID_PROBE, "mem")
    shown = _MAP.search(args)
    key = MapKey(shown[1], int(shown[2]), int(shown[3])) if shown else None
    return RegType(kind, "_".join(flavor), map=key)


def _object(struct: str, flavor: list[str], args: str) -> RegType:
    """A kernel object, or one that the program allocated.

    The kernel has no modifier for the latter: it is known by being owned, or by not being so.
    """
    shown = "_".join(flavor)
    if not flavor and ("ref_obj_id=" in args or "non_own_ref" in args):
        return RegType(MemType.ALLOC, shown, struct)
    is_there = bool({"trusted", "rcu"} & set(flavor)) and "untrusted" not in flavor
    kind = MemType.BTF_ID if is_there else MemType.BTF_ID_PROBE
    return RegType(kind, shown, struct)


def merge(seen: list[RegType]) -> MemType:
    """What one access goes through that went through all of these.

    Where the verifier lets kernel objects of different trust meet, the load becomes a probing
    one; otherwise it keeps what it saw first.

    Args:
        seen: at least one, in the order of visits.

    Source: linux v6.18, kernel/bpf/verifier.c, save_aux_ptr_type().
    """
    flavors = {(one.type, one.flavor) for one in seen}
    if len(flavors) > 1 and any(one.is_object for one in seen):
        return MemType.BTF_ID_PROBE
    return seen[0].type
