"""Which instructions have an immediate that blinding hides, and how."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.errors import SlotError, Where
from bpfpatch.patch import CodeView
from bpfpatch.program.types import Mask, Slots

FUNC_ADDRESS: Final = 4
"""The src of an ld_imm64 of a subprog's address."""


class Form(IntEnum):
    """What kind of immediate an instruction has, as far as blinding goes."""

    NONE = 0
    ALU32 = 1
    ALU64 = 2
    MOV32 = 3
    MOV64 = 4
    JMP32 = 5
    JMP64 = 6
    STORE = 7
    LD_IMM64 = 8


Forms = NDArray[np.uint8]
"""One `Form` each."""

_ALU, _JMP, _JMP32, _ALU64 = 0x04, 0x05, 0x06, 0x07
_MOV: Final = 0xB0
# add, sub, mul, div, or, and, mod, xor: no shifts, whose numbers are small.
_OPERATIONS: Final = (0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0x90, 0xA0)
_CONDITIONS: Final = (0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0xA0, 0xB0, 0xC0, 0xD0)
_STORES: Final = (0x62, 0xA2)
"""Stores of an immediate: plain ones, and the kernel's own into an arena."""
_SIZES: Final = (0x00, 0x08, 0x10, 0x18)


def _table() -> NDArray[np.uint8]:
    forms = np.zeros(256, np.uint8)
    for operation in _OPERATIONS:
        forms[_ALU | operation] = Form.ALU32
        forms[_ALU64 | operation] = Form.ALU64
    forms[_ALU | _MOV] = Form.MOV32
    forms[_ALU64 | _MOV] = Form.MOV64
    for condition in _CONDITIONS:
        forms[_JMP | condition] = Form.JMP64
        forms[_JMP32 | condition] = Form.JMP32
    for mode in _STORES:
        for size in _SIZES:
            forms[mode | size] = Form.STORE
    forms[isa.LD_IMM64] = Form.LD_IMM64
    return forms


_FORMS: Final = _table()


def form_of_codes(codes: NDArray[np.uint8]) -> Forms:
    """(k,) `Form` of opcodes, whatever the other fields say."""
    found: Forms = _FORMS.take(codes, mode="clip")
    return found


def forms_of(view: CodeView) -> Forms:
    """(n,) `Form` of each instruction.

    What the kernel's hidden register is part of, and the address of a subprog, has none.

    Source: linux v6.18, kernel/bpf/core.c, bpf_jit_blind_insn() and bpf_jit_blind_constants().
    """
    out = np.empty(len(view), np.uint8)
    for part in isa.portions(len(view)):
        insns = view.insns[part]
        here = form_of_codes(np.ascontiguousarray(insns["code"]))
        src, dst = isa.src(insns), isa.dst(insns)
        skips: Mask = (view.node[part] < 0) | (dst == isa.AX) | (src == isa.AX)
        skips |= (here == Form.LD_IMM64) & (src == FUNC_ADDRESS)
        here[skips] = Form.NONE
        out[part] = here
    return out


def with_register(codes: NDArray[np.uint8], forms: Forms) -> NDArray[np.uint8]:
    """(k,) opcodes of the same instructions, with a register in place of the immediate."""
    return codes | np.where(forms == Form.STORE, np.uint8(0x01), np.uint8(0x08))


def is_narrow(forms: Forms) -> Mask:
    """(k,) whether 32 bits are all that is to be computed."""
    out: Mask = (forms == Form.ALU32) | (forms == Form.MOV32) | (forms == Form.JMP32)
    return out


def slots_where(mask: Mask) -> Slots:
    """The slots at which a mask of (n,) is set."""
    return np.flatnonzero(mask).astype(np.int32)


def by_register(insns: isa.Insns) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """Each destination register that (k,) instructions have, and the rows that have it."""
    registers = isa.dst(insns)
    for register in np.flatnonzero(np.bincount(registers, minlength=1)).tolist():
        yield register, np.flatnonzero(registers == register)


def halves(view: CodeView, slots: Slots) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The lower and upper immediates of ld_imm64 at these slots.

    Raises:
        SlotError: the program ends in the first half of one.
    """
    imm = view.insns["imm"]
    if slots.size and slots[-1] + 1 >= imm.size:
        raise SlotError(Where(int(slots[-1])), "this ld_imm64 lacks its second slot")
    return imm[slots], imm[slots + 1]
