"""Accept well-formed instructions by one mask over their first two bytes; look at the rest."""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

from .decode import portions, second_slots
from .encoding import INSN, Insns, words
from .opcodes import AX, LD_IMM64, OPCODES, Opcode
from .pseudo import Pseudo

FP: Final = 10
"""The frame pointer, which nothing may write."""

_ALL: Final = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
_OFF: Final = np.uint64(0xFFFF_0000)
_IMM: Final = np.uint64(0xFFFF_FFFF_0000_0000)
_BUT_IMM: Final = np.uint64(0xFFFF_FFFF)
_CODE: Final = np.uint64(0xFF)
_SRC: Final = np.uint64(0xF000)
_MAP_FD, _MAP_IDX = np.uint64(Pseudo.MAP_FD << 12), np.uint64(Pseudo.MAP_IDX << 12)


def may_hold(opcode: Opcode, field: str) -> bool:
    """Whether a field of "dst src off imm" may be other than zero, or selects the opcode."""
    return field in opcode.fields or getattr(opcode, field, None) is not None


def suspects(
    insns: Insns, *, allow_internal: bool = False, hidden: int = AX
) -> npt.NDArray[np.int64]:
    """Find the slots at which something might be wrong.

    All others hold an opcode that the table has, with registers that exist, a
    target that may be written, and zeros where they belong. What ``off`` or
    ``imm`` make a rarer form of its opcode takes a closer look, and so does the
    second slot of an ld_imm64 of a map, and whatever names R11 where it is not hidden.

    Args:
        insns: (n,) `INSN`.
        allow_internal: take the kernel's hidden register.
        hidden: its number: 11, and from Linux 7.2 on 12.

    Returns:
        (k,) slots, ascending.
    """
    some = words(insns)
    # Code and registers are the first two bytes, and one number in this form.
    heads = some.view(np.uint16)[::4]
    masks = _masks(hidden if allow_internal else FP)
    is_suspect = np.empty(len(some), np.bool_)
    for part in portions(len(some)):
        word = some[part]
        here = masks[np.ascontiguousarray(heads[part])]
        here &= word
        np.not_equal(here, 0, out=is_suspect[part])
        # No mask finds a word of zeros.
        is_suspect[part] |= word == 0
    _look_at_pairs(some, is_suspect)
    return np.flatnonzero(is_suspect)


def _look_at_pairs(some: npt.NDArray[np.uint64], is_suspect: npt.NDArray[np.bool_]) -> None:
    """Clear second slots of which the first and the slot itself are whole, and no others."""
    if not some.size:
        return
    is_second = second_slots(some.view(INSN))
    if some[-1] & _CODE == LD_IMM64 and not is_second[-1]:
        is_suspect[-1] = True  # it is cut off
    seconds = np.flatnonzero(is_second)
    for part in portions(seconds.size):
        slots = seconds[part]
        first = some[slots - 1]
        is_low = (first & _SRC == _MAP_FD) | (first & _SRC == _MAP_IDX)
        is_suspect[slots] = is_suspect[slots - 1] | is_low | (some[slots] & _BUT_IMM != 0)


@cache
def _masks(last: int) -> npt.NDArray[np.uint64]:
    """By code and registers, the bits that are zero in an instruction that is not a suspect.

    Args:
        last: a register beside R0 to R10.
    """
    masks = np.full((16, 16, 256), _ALL)  # by src, dst and code
    for opcode in OPCODES:
        is_plain = not opcode.off and not opcode.imm
        if not is_plain:
            continue
        mask = np.uint64(0)
        if opcode.off == 0 or not may_hold(opcode, "off"):
            mask |= _OFF
        if opcode.imm == 0 or not may_hold(opcode, "imm"):
            mask |= _IMM
        src = _numbers(opcode, "src", last)
        dst = _numbers(opcode, "dst", last)
        for one in src:  # mostly one or a row: plain indices are the fastest
            row = masks[one, dst, opcode.code]
            assert (row == _ALL).all(), opcode.name
            masks[one, dst, opcode.code] = mask
    masks.flags.writeable = False
    return masks.reshape(-1)


def _numbers(opcode: Opcode, field: str, last: int) -> list[int]:
    """What a register field may hold."""
    selector = getattr(opcode, field, None)
    if selector is not None:
        return [selector]
    if field not in opcode.fields:
        return [0]
    is_written = field in opcode.writes
    some = sorted({*range(FP + 1), last})
    return [number for number in some if not (is_written and number == FP)]
