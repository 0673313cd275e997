"""Helpers of the Internet checksum.

Source: RFC 1071; linux v6.18, net/core/filter.c, bpf_csum_diff(),
bpf_l3_csum_replace(), bpf_l4_csum_replace(); include/net/checksum.h.
"""

from __future__ import annotations

from errno import EFAULT, EINVAL, EOPNOTSUPP
from typing import TYPE_CHECKING, Final

from ..errors import BadHelperUse
from ..registry import helper

if TYPE_CHECKING:
    from ..machine import Machine
    from ..packet import Packet

_U32: Final = 0xFFFF_FFFF
_PSEUDO_HEADER: Final = 0x10
_MARK_MANGLED: Final = 0x20
_FIELD_SIZE: Final = 0xF


def _fold32(total: int) -> int:
    """A sum in 32 bits, with the carries added in again."""
    while total > _U32:
        total = (total & _U32) + (total >> 32)
    return total


def _fold16(total: int) -> int:
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def _sum(content: bytes, machine: Machine) -> int:
    """The folded sum of 16-bit words, in the machine's byte order as the kernel keeps it.

    Since 2**16 is 1 modulo 0xffff, the words' sum and the whole number are alike
    modulo 0xffff; of the two forms of 0 only zeros give 0 itself.
    """
    padded = content + b"\0" * (len(content) % 2)
    return int.from_bytes(padded, machine.byteorder) % 0xFFFF or (0xFFFF if any(padded) else 0)


@helper("csum_diff")
def csum_diff(machine: Machine, old: int, old_size: int, new: int, new_size: int, seed: int) -> int:
    """The seed, less what is in one place, plus what is in another, as 16 bits."""
    old_size, new_size = old_size & _U32, new_size & _U32
    if old_size % 4 or new_size % 4:
        return -EINVAL
    total = seed & _U32
    if old_size:
        total += ~_fold16(_sum(machine.memory.read(old, old_size), machine)) & 0xFFFF
    if new_size:
        total += _sum(machine.memory.read(new, new_size), machine)
    return _fold16(total)


def _packet(machine: Machine) -> Packet:
    if machine.packet is None:
        raise BadHelperUse("there is no packet; run the program on an Skb or Xdp")
    return machine.packet


@helper("l3_csum_replace")
def l3_csum_replace(
    machine: Machine, context: int, byte_off: int, old: int, new: int, flags: int
) -> int:
    """Bring the checksum of a network header up to date."""
    if flags & ~_FIELD_SIZE:
        return -EINVAL
    return _replace(machine, byte_off, old, new, flags, False)


@helper("l4_csum_replace")
def l4_csum_replace(
    machine: Machine, context: int, byte_off: int, old: int, new: int, flags: int
) -> int:
    """Bring the checksum of a transport header up to date."""
    if flags & ~(_FIELD_SIZE | _PSEUDO_HEADER | _MARK_MANGLED | 0x40 | 0x80):
        return -EINVAL
    return _replace(machine, byte_off, old, new, flags, bool(flags & _MARK_MANGLED))


def _replace(
    machine: Machine, byte_off: int, old: int, new: int, flags: int, is_marked: bool
) -> int:
    byte_off &= _U32
    if byte_off > 0xFFFF or byte_off % 2:
        return -EFAULT
    packet, order = _packet(machine), machine.byteorder
    field = packet.read(byte_off, 2)
    if field is None:
        return -EFAULT
    check = int.from_bytes(field, order)
    if is_marked and not check and not flags & 0x40:
        return 0
    size = flags & _FIELD_SIZE
    if size == 0:
        if old:
            return -EINVAL
        difference = new & _U32
    elif size in (2, 4):
        low = (1 << 8 * size) - 1
        difference = (~old & low) + (new & low)
    else:
        return -EINVAL
    result = ~_fold16((~check & 0xFFFF) + _fold32(difference)) & 0xFFFF
    if is_marked and not result:
        result = 0xFFFF
    packet.write(byte_off, result.to_bytes(2, order))
    return 0


@helper("csum_update")
def csum_update(machine: Machine, context: int, value: int) -> int:
    """The packet has no sum of its own to be brought up to date."""
    return -EOPNOTSUPP


@helper("csum_level")
def csum_level(machine: Machine, context: int, level: int) -> int:
    """The packet has no sum of its own."""
    return -EOPNOTSUPP if level == 0 else 0
