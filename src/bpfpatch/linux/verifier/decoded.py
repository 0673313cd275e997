"""A program's instructions as lists, and its blocks, for an analysis of one at a time."""

from __future__ import annotations

from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.dataflow.backward import Masks
from bpfpatch.dataflow.blocks import Blocks
from bpfpatch.dataflow.liveness import Liveness
from bpfpatch.facts.columns import LD_MAP
from bpfpatch.patch import CodeView
from bpfpatch.program import JUMP_TABLE, Program
from bpfpatch.program.types import LOST, Slots

from .helperfacts import CHANGES_PACKET, SYNCHRONOUS

MOV_IMM, ALU, LOAD, STORE, CALL, WIDE, ATOMIC, LEGACY_LOAD, SECOND = range(9)
BRANCH, GOTO, EXIT, GOTOX = range(9, 13)
"""What an instruction is; the last four end a block."""
_MOV64_IMM: Final = 0xB7
_N_REGISTERS: Final = 10


class DecodedCode:
    """Instructions and blocks.

    A list access costs a tenth of one of an array. Blocks end in front of and
    after calls that run other code of the program, too.

    Attributes:
        view: the code.
        kind: what each is, see above.
        opcode: its code; further its fields dst, src, off and imm.
        imm64: imm, sign-extended to unsigned 64 bits.
        target: where its reference leads, or LOST.
        ld_map: the column, or None.
        live: (n,) masks of registers that are read later, in front of each.
        start: first slot of each block.
        end: slot after each block's last.
        block_of: block of each slot.
        subprog: of each block, index into the view's starts.
        dead: registers whose values are not used from each block's start on.
        is_in_loop: whether control can come back to a block within its subprog's frame.
        indirect: slots that a gotox can reach, by subprog.
        changes_packet: whether each subprog may move packet data.
    """

    def __init__(self, program: Program) -> None:
        self.view = CodeView.of_program(program)
        self._decode(program)
        self._split(program)
        self.changes_packet = _packet_changers(self.view)

    def _decode(self, program: Program) -> None:
        view = self.view
        insns = view.insns
        target = np.full(len(insns), LOST, np.int32)
        target[view.ref_slot] = view.ref_target
        opcode = np.ascontiguousarray(insns["code"])
        kind = np.full(len(insns), BRANCH, np.uint8)
        kind[(opcode == isa.JA) | (opcode == isa.GOTOL)] = GOTO
        kind[target == LOST] = GOTOX
        kind[opcode == isa.EXIT] = EXIT
        is_alu = isa.is_alu(insns)
        kind[is_alu] = ALU
        kind[is_alu & (opcode == _MOV64_IMM)] = MOV_IMM
        kind[isa.is_load(insns)] = LOAD
        kind[isa.is_store(insns)] = STORE
        kind[isa.is_atomic(insns)] = ATOMIC
        kind[isa.is_ld_imm64(insns)] = WIDE
        kind[isa.is_packet_load(insns)] = LEGACY_LOAD
        kind[isa.is_call(insns)] = CALL
        kind[view.node < 0] = SECOND
        self.kind: list[int] = kind.tolist()
        self.opcode: list[int] = opcode.tolist()
        self.dst: list[int] = isa.dst(insns).tolist()
        self.src: list[int] = isa.src(insns).tolist()
        self.off: list[int] = insns["off"].tolist()
        self.imm: list[int] = insns["imm"].tolist()
        self.imm64: list[int] = insns["imm"].astype(np.int64).view(np.uint64).tolist()
        self.target: list[int] = target.tolist()
        column = program.columns.get(LD_MAP)
        self.ld_map: list[int] | None = None if column is None else column.values.tolist()

    def _split(self, program: Program) -> None:
        view = self.view
        table = program.tables.get(JUMP_TABLE)
        indirect = table.insn if table is not None else np.zeros(0, np.int32)
        blocks = Blocks.of(view, indirect)
        self.live = Liveness.of(view, blocks).before
        is_leader = np.zeros(len(view) + 1, bool)
        is_leader[blocks.start] = True
        is_helper = isa.is_helper_call(view.insns)
        is_leader[np.flatnonzero(isa.is_call(view.insns) & ~is_helper) + 1] = True
        repeats = np.isin(view.insns["imm"], list(SYNCHRONOUS))
        is_leader[np.flatnonzero(is_helper & repeats)] = True
        start = np.flatnonzero(is_leader[:-1])
        block_of = np.cumsum(is_leader[:-1], dtype=np.int32) - 1
        subprog = view.subprog_of(start.astype(np.int32))
        self.start: list[int] = start.tolist()
        self.end: list[int] = np.append(start[1:], len(view)).tolist()
        self.block_of: list[int] = block_of.tolist()
        self.subprog: list[int] = subprog.tolist()
        self.dead = _dead(self.live[start])
        self.indirect = {
            owner: [int(blocks.start[block]) for block in found]
            for owner, found in blocks.indirect.items()
        }
        repeating = block_of[is_helper & repeats]
        self.is_in_loop = _in_loops(view, block_of, subprog, self.indirect, repeating)


def _dead(alive: Masks) -> list[tuple[int, ...]]:
    """For each mask of registers those that are not in it; equal masks share one tuple."""
    masks, which = np.unique(alive, return_inverse=True)
    found = [
        tuple(register for register in range(_N_REGISTERS) if not mask >> register & 1)
        for mask in masks.tolist()
    ]
    return [found[index] for index in which.tolist()]


def _in_loops(
    view: CodeView,
    block_of: Slots,
    subprog: Slots,
    indirect: dict[int, list[int]],
    repeating: Slots,
) -> list[bool]:
    """Say of each block whether an edge leads from it, or one after it, back to it or before.

    Args:
        view: the code.
        block_of: (n,) block of each slot.
        subprog: (b,) of each block.
        indirect: slots that a gotox can reach, by subprog.
        repeating: blocks that a callback comes back to.
    """
    is_jump = ~view.ref_is_entry & (view.ref_target != LOST)
    source, goal = block_of[view.ref_slot[is_jump]], block_of[view.ref_target[is_jump]]
    # Of a gotox it is enough to know how far back it may go, and from how far.
    first = block_of[np.array([min(slots) for slots in indirect.values()], np.int64)]
    last = np.searchsorted(subprog, np.array(list(indirect), np.int64), side="right") - 1
    source = np.concatenate([source, last, repeating])
    goal = np.concatenate([goal, first, repeating])
    is_back = goal <= source
    depth = np.zeros(len(subprog) + 1, np.int64)
    np.add.at(depth, goal[is_back], 1)
    np.add.at(depth, source[is_back] + 1, -1)
    found: list[bool] = (np.cumsum(depth[:-1]) > 0).tolist()
    return found


def _packet_changers(view: CodeView) -> list[bool]:
    """Which subprogs, or what they call, call a helper that may move packet data."""
    insns = view.insns
    is_one = isa.is_helper_call(insns) & np.isin(insns["imm"], list(CHANGES_PACKET))
    out = np.zeros(len(view.starts), bool)
    out[view.subprog_of(np.flatnonzero(is_one).astype(np.int32))] = True
    alive = view.ref_is_entry & (view.ref_target != LOST)
    caller = view.subprog_of(view.ref_slot[alive])
    callee = view.subprog_of(view.ref_target[alive])
    n_before = -1
    while n_before != out.sum():
        n_before = int(out.sum())
        out[caller[out[callee]]] = True
    found: list[bool] = out.tolist()
    return found
