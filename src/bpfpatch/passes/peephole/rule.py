"""A rule: what is looked for, what comes in its place, and when."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.errors import OptionError
from bpfpatch.isa.semantics import CLASS_MASK, JMP, JMP32

from .expr import RuleExpr

Operand = int | str | RuleExpr
"""A number, the name of a variable, or an expression of constants."""

_ST, _STX, _LDX = 0x02, 0x03, 0x01


@dataclass(frozen=True, slots=True)
class RuleInsn:
    """An instruction of a rule.

    Attributes:
        code: opcode.
        dst: register, by number or as a variable's letter.
        src: the same, or what else the field holds.
        off: number, constant or expression.
        imm: the same; of an ld_imm64 all 64 bits.
        target: name of what a jump jumps to; empty for none.
    """

    code: int
    dst: int | str
    src: int | str
    off: Operand
    imm: Operand
    target: str = ""

    @property
    def opcode(self) -> isa.Opcode:
        """Its row of the table."""
        return _row(
            self.code,
            self.src if isinstance(self.src, int) else None,
            self.off if isinstance(self.off, int) else None,
            self.imm if isinstance(self.imm, int) else None,
        )

    def reads(self) -> tuple[int | str, ...]:
        """Registers that it reads."""
        return self._touched(self.opcode.reads, self.opcode.reads_fixed)

    def writes(self) -> tuple[int | str, ...]:
        """Registers that it defines."""
        return self._touched(self.opcode.writes, self.opcode.writes_fixed)

    def _touched(self, words: frozenset[str], fixed: int) -> tuple[int | str, ...]:
        fields = {"dst": self.dst, "src": self.src}
        named = [reg for word, reg in fields.items() if word in words]
        return (*dict.fromkeys(named), *(reg for reg in range(isa.R10) if fixed >> reg & 1))

    @property
    def n_slots(self) -> int:
        """1, or 2 for an ld_imm64."""
        return 2 if self.code == isa.LD_IMM64 else 1

    @property
    def is_load(self) -> bool:
        """Whether it reads memory."""
        return self.code & CLASS_MASK == _LDX

    @property
    def is_store(self) -> bool:
        """Whether it writes memory."""
        return self.code & CLASS_MASK in (_ST, _STX)

    @property
    def is_jump(self) -> bool:
        """Whether it may go elsewhere."""
        return self.code & CLASS_MASK in (JMP, JMP32)

    @property
    def cpu(self) -> int:
        """The lowest cpu version that has it."""
        return self.opcode.cpu


@functools.cache
def _row(code: int, src: int | None, off: int | None, imm: int | None) -> isa.Opcode:
    """The row of an instruction; None for fields that a variable stands for.

    Raises:
        OptionError: there is none.
    """
    fields = {"src": src, "off": off, "imm": imm}
    for opcode in isa.OPCODES:
        wanted = {name: getattr(opcode, name) for name in fields}
        is_it = all(one is None or fields[name] == one for name, one in wanted.items())
        if opcode.code == code and is_it and opcode.cpu != isa.CPU_INTERNAL:
            return opcode
    raise OptionError(f"no instruction has opcode {code:#04x} with fields {fields}")


NUMBER_OF: Final = {chr(ord("A") + at): 1 + at for at in range(8)}
"""Register numbers that stand for variables while a rule is looked at by itself.

Rules name no registers but R0, R10 and variables, so that 1 to 8 are free.
"""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, with its variants spelt out: each is a rule of its own.

    What is looked for need not stand together: instructions between may do what they like with
    other registers. In a file::

        rule name: One line of why.
          from   rA <<= 32; rA >>= 32
          to     wA = wA

    Attributes:
        name: of all variants together.
        variant: what is particular to this one; empty if it is the only one.
        why: the reason, a line.
        before: instructions, each but the last of which gives a register that a later one reads.
        after: those that come in their place, where the last one was.
        known: (register, constant): the register's value is known, and the constant is it.
        clear: (register, mask): these bits of the register are known to be 0.
        plain: registers that are no address of a context or a stack frame.
        noctx: registers that are no address of a context.
        dead: registers that hold nothing of use afterwards.
        low: registers of which only the lower 32 bits are of use afterwards.
        when: conditions on constants.
        is_safe: whether it leaves the verifier all that it knew.
        little: whether it holds on little-endian machines only.
    """

    name: str
    variant: str
    why: str
    before: tuple[RuleInsn, ...]
    after: tuple[RuleInsn, ...]
    known: tuple[tuple[str, str], ...] = ()
    clear: tuple[tuple[str, RuleExpr], ...] = ()
    plain: tuple[str, ...] = ()
    noctx: tuple[str, ...] = ()
    dead: tuple[str, ...] = ()
    low: tuple[str, ...] = ()
    when: tuple[RuleExpr, ...] = ()
    is_safe: bool = True
    little: bool = False

    def __str__(self) -> str:
        return f"{self.name}[{self.variant}]" if self.variant else self.name

    @property
    def cpu(self) -> int:
        """The lowest cpu version that has all that it puts in."""
        return max((insn.cpu for insn in self.after), default=1)

    @property
    def saves(self) -> int:
        """How many slots fewer there are."""
        return sum(one.n_slots for one in self.before) - sum(one.n_slots for one in self.after)

    @property
    def entry_reads(self) -> frozenset[int | str]:
        """Registers whose value in front of all it reads."""
        written: set[int | str] = set()
        read: set[int | str] = set()
        for insn in self.before:
            read.update(reg for reg in insn.reads() if reg not in written)
            written.update(insn.writes())
        return frozenset(read)

    @property
    def written(self) -> frozenset[int | str]:
        """Registers that it defines."""
        return frozenset(reg for insn in self.before for reg in insn.writes())

    @property
    def revives(self) -> bool:
        """Whether it goes by what a register holds that the code does not read there."""
        asked = {reg for reg, _ in (*self.known, *self.clear)}
        return not asked <= self.entry_reads


def fields_of(insns: isa.Insns) -> list[tuple[int, int, int, int, int]]:
    """(code, dst, src, off, imm) of each slot."""
    columns = (insns["code"], isa.dst(insns), isa.src(insns), insns["off"], insns["imm"])
    return list(zip(*(np.asarray(one).tolist() for one in columns), strict=True))
