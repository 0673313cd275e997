"""A handle: one instruction of a patch list, by identity."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bpfpatch import isa
from bpfpatch.program.types import INSERTED, Insns

if TYPE_CHECKING:
    from .patchlist import PatchList


class Insn:
    """One instruction of a patch list.

    It stays valid through any edit; once its instruction is deleted,
    ``is_deleted`` says so and edits of it are refused.

    Attributes:
        patches: the list.
        node: its number in the list; an original instruction's is its slot.
    """

    __slots__ = ("node", "patches")

    def __init__(self, patches: PatchList, node: int) -> None:
        self.patches = patches
        self.node = node

    @property
    def word(self) -> int:
        """The instruction's first eight bytes as one little-endian number."""
        return self.patches.word(self.node)

    @property
    def code(self) -> int:
        """The opcode byte."""
        return self.word & 0xFF

    @property
    def dst(self) -> int:
        """The destination register's number."""
        return self.word >> 8 & 0xF

    @property
    def src(self) -> int:
        """The source register's number, or what kind of call or ld_imm64 it is."""
        return self.word >> 12 & 0xF

    @property
    def off(self) -> int:
        """The signed 16-bit field. A reference's distance is not in it: see `target`."""
        return ((self.word >> 16 & 0xFFFF) ^ 0x8000) - 0x8000

    @property
    def imm(self) -> int:
        """The signed 32-bit field; of an ld_imm64 the low half. See `imm64`."""
        return ((self.word >> 32) ^ 0x80000000) - 0x80000000

    @property
    def imm64(self) -> int:
        """The unsigned 64-bit value of an ld_imm64; of others, ``imm`` sign-extended."""
        if not self.is_ld_imm64:
            return self.imm & 0xFFFFFFFFFFFFFFFF
        return (self.patches.word(self.node + 1) >> 32) << 32 | self.word >> 32

    @property
    def insns(self) -> Insns:
        """(1,) or (2,) `isa.INSN`, a copy; the reference field is meaningless."""
        words = [self.word]
        if self.is_ld_imm64:
            words.append(self.patches.word(self.node + 1))
        return np.array(words, np.uint64).view(isa.INSN)

    @property
    def _opcode(self) -> isa.Opcode:
        """Its row of the opcode table, which every instruction of a list has."""
        opcode = isa.opcode_of(self.word)
        assert opcode is not None
        return opcode

    @property
    def is_ld_imm64(self) -> bool:
        """Whether it takes two slots."""
        return self.code == isa.LD_IMM64

    @property
    def is_exit(self) -> bool:
        """Whether it returns from its subprog."""
        return self._opcode.kind is isa.Kind.EXIT

    @property
    def is_jump(self) -> bool:
        """Whether it is any jump: always, conditionally, may_goto, gotox."""
        return self._opcode.kind in {isa.Kind.JUMP, isa.Kind.COND_JUMP}

    @property
    def is_cond_jump(self) -> bool:
        """Whether it jumps or falls through."""
        return self._opcode.kind is isa.Kind.COND_JUMP

    @property
    def is_call(self) -> bool:
        """Whether it calls a helper, kfunc or subprog."""
        return self._opcode.kind is isa.Kind.CALL

    @property
    def is_helper_call(self) -> bool:
        """Whether it calls a helper."""
        return self._opcode.name == "call_helper"

    @property
    def is_subprog_call(self) -> bool:
        """Whether it calls a function of the program."""
        return self._opcode.name == "call_subprog"

    @property
    def is_load(self) -> bool:
        """Whether it loads from memory."""
        return self._opcode.kind is isa.Kind.LOAD

    @property
    def is_store(self) -> bool:
        """Whether it stores to memory."""
        return self._opcode.kind is isa.Kind.STORE

    @property
    def is_deleted(self) -> bool:
        """Whether an edit has taken it out."""
        return not self.patches.is_alive(self.node)

    @property
    def is_inserted(self) -> bool:
        """Whether an edit has put it in."""
        return self.orig_idx == INSERTED

    @property
    def orig_idx(self) -> int:
        """The original slot, or INSERTED."""
        return self.node if self.node < len(self.patches.program) else INSERTED

    @property
    def target(self) -> Insn | None:
        """What it refers to: an instruction, or None where it holds no live reference."""
        node = self.patches.target_of(self.node)
        return None if node is None else Insn(self.patches, node)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Insn) and other.patches is self.patches and other.node == self.node

    def __hash__(self) -> int:
        return hash((id(self.patches), self.node))

    def __repr__(self) -> str:
        state = "deleted " if self.is_deleted else ""
        origin = "inserted" if self.is_inserted else f"slot {self.node}"
        return f"<{state}Insn {self.node} ({origin}): {isa.describe(self.insns, 0)}>"
