"""Which registers, and which upper halves of registers, will be read."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from bpfpatch import isa
from bpfpatch.facts.helpers import helper_args, is_variadic
from bpfpatch.patch import CodeView
from bpfpatch.program.types import LOST, Insns, Mask, Slots

from .backward import Masks, solve
from .blocks import Blocks
from .givenargs import may_be_given
from .segments import Segments

_LD, _LDX, _ST, _STX, _ALU, _JMP, _JMP32, _ALU64 = range(8)
_OP_MASK: Final = 0xF0
_END: Final = 0xD0
_SIZE_MASK, _DW = 0x18, 0x18
_LOAD_ACQUIRE: Final = 0x100
_R0: Final = np.uint16(1)


@dataclass(frozen=True, slots=True, eq=False)
class Liveness:
    """Which registers hold what will be read, in masks: bit r is register r.

    A helper call reads the arguments that the helper takes, one of a subprog
    those that the subprog reads, any other those of R1 to R5 that some path to
    it has set; so does a variadic helper beyond its named ones. Every call
    destroys R0 to R5. An exit reads R0.

    Attributes:
        before: (n,) registers that are read later, before each instruction.
        after: (n,) the same after it.
        reads: (n,) registers that it reads itself.
        writes: (n,) registers that it defines or destroys.
    """

    before: Masks
    after: Masks
    reads: Masks
    writes: Masks

    @classmethod
    def of(
        cls,
        view: CodeView,
        blocks: Blocks,
        args: Masks | None = None,
        takes: Masks | None = None,
        roots: Collection[int] | None = None,
    ) -> Self:
        """The liveness of a view.

        The time is linear in instructions and in edges between blocks.

        Args:
            view: the code.
            blocks: its blocks.
            args: (n,) registers; those of R1 to R5 that these have at a call of a subprog count
                as read there, whether the subprog reads them or not. The verifier checks all
                arguments of a global function against its type: `initialized` has them.
            takes: (m,) arguments that each subprog may have at most, where its type is known.
            roots: the subprogs, by number, whose R0 the kernel looks at; an exit of another one
                reads R0 only where a caller does. By default each exit reads it.
        """
        segments = Segments.of(view, blocks)
        reads, writes = _reads(view), isa.writes(view.insns)
        is_call = _own_calls(view)
        if args is not None:
            reads[is_call] = args[is_call] & isa.ARGS
        follows = roots is not None
        flow = solve(view, segments, reads, writes, follows_returns=follows, roots=roots)
        open_calls = _open_calls(view, is_call)
        if open_calls.size:
            given = may_be_given(view, blocks, writes, flow.before, takes)
            reads[open_calls] |= given[open_calls]
            flow = solve(view, segments, reads, writes, follows_returns=follows, roots=roots)
        reads[is_call] = flow.before[is_call] & isa.ARGS
        return cls(flow.before, flow.after, reads, writes)

    def free(self) -> Masks:
        """(n,) registers, R0 to R9, that are unused at an instruction.

        One may be written in front of the instruction, and has no use after
        it: it is not read there, nor by the instruction, nor does that define it.
        """
        taken = self.after | self.reads | self.writes
        return ~taken & np.uint16((1 << isa.R10) - 1)


def upper_halves_read(
    view: CodeView,
    blocks: Blocks,
    seen: Mask | None = None,
    roots: Collection[int] | None = None,
) -> Mask:
    """Find instructions that define 32 bits of a register whose upper half is read.

    What counts as reading 64 bits is the kernel's rule: 64-bit arithmetic and
    comparisons, addresses, 64-bit stores, arguments of helpers and kernel
    functions, what goes back to the kernel. What goes into or comes out of a
    subprog of the program counts if it is read there.

    Args:
        view: the code.
        blocks: its blocks.
        seen: (n,) slots that can be reached; by default all. Others read nothing.
        roots: the subprogs, by number, whose R0 goes back to the kernel; by default those whose
            address is taken, and those without a caller. For the verifier, what a callback
            returns to the helper that calls it does not count.

    Returns:
        (n,) bool; false at instructions that define no 32 bits, see `isa.defines_32`.

    Source: linux v6.18, kernel/bpf/verifier.c, is_reg64(), insn_def_regno(), check_func_arg().
    """
    insns = view.insns
    uses, defines = reads_64(view), isa.writes(insns)
    if seen is not None:
        uses[~seen], defines[~seen] = 0, np.uint16(0xFFF)
    segments = Segments.of(view, blocks)
    flow = solve(view, segments, uses, defines, follows_returns=True, roots=roots)
    out: Mask = isa.defines_32(insns) & ((flow.after & defined_registers(insns)) != 0)
    return out


def defined_registers(insns: Insns) -> Masks:
    """(n,) registers that instructions define, as masks; destroyed ones do not count."""
    out = isa.writes(insns)
    has_result = isa.is_call(insns) | isa.is_packet_load(insns)
    out[has_result] &= _R0
    return out


def _own_calls(view: CodeView) -> Mask:
    """(n,) calls of subprogs that are there to be looked at, and not in another object."""
    out = np.zeros(len(view), bool)
    out[view.ref_slot[view.ref_is_entry & (view.ref_target != LOST)]] = True
    return out & isa.is_subprog_call(view.insns)


def _reads(view: CodeView, *, are_checked: bool = False) -> Masks:
    """(n,) what each certainly reads, with no more arguments than a helper takes.

    What calls of subprogs of the code read is for the data flow to find, and what open calls read
    depends on what they are given.

    Args:
        view: the code.
        are_checked: leave out arguments of helpers that the verifier does not look at.
    """
    insns = view.insns
    out = isa.reads(insns)
    calls = np.flatnonzero(isa.is_helper_call(insns))
    is_own = _own_calls(view)
    out[is_own] = 0
    out[_open_calls(view, is_own)] &= np.uint16(~isa.ARGS & 0xFFFF)
    out[calls] = helper_args(insns[calls], are_checked=are_checked)
    return out


def _open_calls(view: CodeView, is_own: Mask) -> Slots:
    """Calls that take as many arguments as they are given, as far as the code tells."""
    insns = view.insns
    is_open = isa.is_kfunc_call(insns) | isa.is_subprog_call(insns) & ~is_own
    is_open |= isa.is_helper_call(insns) & is_variadic(insns)
    return np.flatnonzero(is_open).astype(np.int32)


def reads_64(view: CodeView) -> Masks:
    """(n,) registers whose upper half each reads.

    Of the arguments of what is not known, a kernel function or one of another object, all; a call
    of a subprog of the code reads none.
    """
    insns = view.insns
    out = _reads(view, are_checked=True)
    code = np.ascontiguousarray(insns["code"])
    kind, operation = code & 7, code & _OP_MASK
    # A byte swap reads the bits that it swaps; its width is in imm.
    is_swap = ((kind == _ALU) | (kind == _ALU64)) & (operation == _END)
    is_narrow = (kind == _ALU) | (kind == _JMP32)
    is_narrow = np.where(is_swap, insns["imm"] != 64, is_narrow)
    out[is_narrow] = 0
    # A narrow store reads all of the address only.
    is_store = isa.is_store(insns) | isa.is_atomic(insns)
    at = np.flatnonzero(is_store & (kind == _STX) & ((code & _SIZE_MASK) != _DW))
    is_acquire = isa.is_atomic(insns[at]) & (insns["imm"][at] == _LOAD_ACQUIRE)
    address = np.where(is_acquire, isa.src(insns[at]), isa.dst(insns[at]))
    out[at] = np.uint16(1) << address
    # All of what is not known.
    others = np.flatnonzero(isa.is_kfunc_call(insns) | isa.is_subprog_call(insns))
    others = others[~_own_calls(view)[others]]
    out[others] = isa.reads(insns[others])
    return out
