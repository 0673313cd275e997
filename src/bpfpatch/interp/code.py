"""A program's instructions as plain Python numbers, decoded once."""

from __future__ import annotations

from functools import cached_property
from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.isa import OPCODES, Kind, Opcode
from bpfpatch.program import JUMP_TABLE, Program

U64: Final = (1 << 64) - 1


class InterpCode:
    """One program, decoded.

    Attributes:
        program: what it was decoded from.
        insns: (code, dst, src, off, imm) of each slot.
        opcodes: the table's row of each slot; None for an unknown one and for the second
            slot of an ld_imm64.
        reads: bitmask of the registers that each slot reads.
        writes: bitmask of the registers that each slot writes or clobbers.
        broken: what is wrong with a slot's encoding, by slot.
        stack_args: which argument each slot loads or stores by R11, see `isa.stack_args`.
        has_stack_args: whether any does.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        insns = program.insns
        self.insns: list[tuple[int, int, int, int, int]] = list(
            zip(
                insns["code"].tolist(),
                isa.dst(insns).tolist(),
                isa.src(insns).tolist(),
                insns["off"].tolist(),
                insns["imm"].tolist(),
                strict=True,
            )
        )
        names: list[Opcode | None] = [*OPCODES, None, None]
        self.opcodes = [names[row] for row in isa.rows(insns).tolist()]
        self.reads: list[int] = isa.reads(insns).tolist()
        self.writes: list[int] = isa.writes(insns).tolist()
        hidden = isa.hidden_register(insns)
        self.broken = dict(isa.reserved_violations(insns, allow_internal=True, hidden=hidden))
        which = isa.stack_args(insns) if hidden != isa.PARAMS else np.zeros(len(insns), np.int8)
        self.stack_args: list[int] = which.tolist()
        self.has_stack_args = bool(which.any())

    def __len__(self) -> int:
        return len(self.insns)

    @cached_property
    def jump_table_targets(self) -> list[int]:
        """Slots that an indirect jump may reach."""
        table = self.program.tables.get(JUMP_TABLE)
        return [] if table is None else np.unique(table.insn).tolist()

    def successors(self, slot: int) -> tuple[int | None, int | None]:
        """Where control goes from an instruction that ends a block: (next slot, jump's target).

        Either is None where there is no such way. They need not exist in the program.
        """
        opcode = self.opcodes[slot]
        if opcode is None:
            return None, None
        _, _, _, off, imm = self.insns[slot]
        after = slot + (2 if opcode.kind is Kind.LD_IMM64 else 1)
        if opcode.kind is Kind.COND_JUMP:
            return after, slot + 1 + off
        if opcode.name == "ja":
            return None, slot + 1 + off
        if opcode.name == "gotol":
            return None, slot + 1 + imm
        return (after if opcode.falls_through else None), None

    def why_unsound(self, slot: int) -> str | None:
        """Why an instruction cannot run, or None where it can."""
        opcode = self.opcodes[slot]
        if opcode is None and self.program.second_slots[slot]:
            return "control arrived at the second slot of an ld_imm64"
        if opcode is None:
            return f"opcode {self.insns[slot][0]:#04x} with these fields is unknown"
        if opcode.name == "call_args":
            return "only the kernel's own interpreter can run this"
        if opcode.kind is Kind.CALL and opcode.name != "callx":
            return None  # the kernel's dumps keep notes in what else must be zero
        second = slot + 1 if opcode.kind is Kind.LD_IMM64 else slot
        return self.broken.get(slot) or self.broken.get(second)

    def imm64(self, slot: int) -> int:
        """The constant of an ld_imm64; its upper half is 0 where the program ends too early."""
        high = self.insns[slot + 1][4] if slot + 1 < len(self.insns) else 0
        return (self.insns[slot][4] & 0xFFFF_FFFF) | (high & 0xFFFF_FFFF) << 32
