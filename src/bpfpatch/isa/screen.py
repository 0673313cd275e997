"""A quick look that tells most instructions to be whole, by their first two bytes and one mask."""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

from bpfpatch.isa.decode import portions, second_slots
from bpfpatch.isa.encoding import Insns, words
from bpfpatch.isa.opcodes import AX, LD_IMM64, OPCODES, Opcode

FP: Final = 10
"""The frame pointer, which nothing may write."""

_ALL: Final = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
_OFF: Final = np.uint64(0xFFFF_0000)
_IMM: Final = np.uint64(0xFFFF_FFFF_0000_0000)


def may_hold(opcode: Opcode, field: str) -> bool:
    """Whether a field of "dst src off imm" may be other than zero, or selects the opcode."""
    return field in opcode.fields or getattr(opcode, field, None) is not None


def suspects(insns: Insns, *, allow_internal: bool = False) -> npt.NDArray[np.int64]:
    """Find the slots at which something might be wrong.

    All others hold an opcode that the table has, with registers that exist, a
    target that may be written, and zeros where they belong. Every ld_imm64 is a
    suspect with its second slot, and what ``off`` or ``imm`` make a rarer form
    of its opcode: those take a closer look.

    Args:
        insns: (n,) `INSN`.
        allow_internal: take the kernel's hidden register AX (R11).

    Returns:
        (k,) slots, ascending.
    """
    some = words(insns)
    # Code and registers are the first two bytes, and one number in this form.
    heads = some.view(np.uint16)[::4]
    masks = _masks(AX if allow_internal else FP)
    is_suspect = np.empty(len(some), np.bool_)
    for part in portions(len(some)):
        word = some[part]
        here = masks.take(heads[part], mode="clip")
        here &= word
        np.not_equal(here, 0, out=is_suspect[part])
        # No mask finds a word of zeros.
        is_suspect[part] |= word == 0
    if is_suspect.any():
        is_suspect |= second_slots(insns)
    return np.flatnonzero(is_suspect)


@cache
def _masks(highest: int) -> npt.NDArray[np.uint64]:
    """By code and registers, the bits that are zero in an instruction that is no suspect.

    Args:
        highest: number of the last register.
    """
    masks = np.full((16, 16, 256), _ALL)  # by src, dst and code
    for opcode in OPCODES:
        is_plain = not opcode.off and not opcode.imm
        if opcode.code == LD_IMM64 or not is_plain:
            continue
        mask = np.uint64(0)
        if opcode.off == 0 or not may_hold(opcode, "off"):
            mask |= _OFF
        if opcode.imm == 0 or not may_hold(opcode, "imm"):
            mask |= _IMM
        src = _numbers(opcode, "src", highest)
        dst = _numbers(opcode, "dst", highest)
        place = np.ix_(src, dst, [opcode.code])
        assert (masks[place] == _ALL).all(), opcode.name
        masks[place] = mask
    masks.flags.writeable = False
    return masks.reshape(-1)


def _numbers(opcode: Opcode, field: str, highest: int) -> list[int]:
    """What a register field may hold."""
    selector = getattr(opcode, field, None)
    if selector is not None:
        return [selector]
    if field not in opcode.fields:
        return [0]
    is_written = field in opcode.writes
    return [number for number in range(highest + 1) if not (is_written and number == FP)]
