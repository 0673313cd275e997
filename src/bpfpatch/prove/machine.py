"""Straight code run on terms: registers, memory, and whether its jump is taken."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from bpfpatch import isa
from bpfpatch.errors import UnsupportedError
from bpfpatch.isa.semantics import ALU, ALU64, CLASS_MASK, JMP, JMP32, SRC_X

from .semantics import alu, condition
from .solver import Term

_LDX, _ST, _STX = 0x01, 0x02, 0x03
_MODE_MASK, _SIZE_MASK = 0xE0, 0x18
_MEM, _MEMSX = 0x60, 0x80
_SIZES: Final = {0x00: 4, 0x08: 2, 0x10: 1, 0x18: 8}
_NO_COMPARISON: Final = (isa.JA, isa.GOTOL, isa.CALL, isa.EXIT)


class Fields(NamedTuple):
    """One instruction; ``off`` and ``imm`` are numbers or terms.

    Attributes:
        code: opcode.
        dst: register.
        src: register, or what else the field says.
        off: 16 bits as a number, or a term of 64 of them, sign-extended.
        imm: 32 bits as a number, or such a term; of an ld_imm64 all 64.
    """

    code: int
    dst: int
    src: int
    off: Term
    imm: Term


@dataclass(frozen=True, slots=True)
class SymbolicState:
    """What a machine holds at a point.

    Attributes:
        regs: terms of 64 bits, by register.
        memory: an array from addresses of 64 bits to bytes.
        taken: whether a jump has been taken, a boolean term; False without one.
        read: (address, size) of each load so far.
        written: (address, size) of each store so far.
    """

    regs: dict[int, Term]
    memory: Term
    taken: Term
    read: tuple[tuple[Term, int], ...] = field(default=())
    written: tuple[tuple[Term, int], ...] = field(default=())


class SymbolicCode:
    """Steps on terms.

    Args:
        z3: the module.
        little: the byte order of the machine.
    """

    def __init__(self, z3: Any, *, little: bool = True) -> None:
        self.z3 = z3
        self.little = little

    def start(self, registers: tuple[int, ...] = tuple(range(isa.AX))) -> SymbolicState:
        """A state in which registers and memory may be anything."""
        z3 = self.z3
        memory = z3.Array("memory", z3.BitVecSort(64), z3.BitVecSort(8))
        regs = {number: z3.BitVec(f"r{number}", 64) for number in registers}
        return SymbolicState(regs, memory, z3.BoolVal(False))

    def step(self, state: SymbolicState, insn: Fields) -> SymbolicState:
        """The state after one instruction, of which nothing is run after a jump.

        Raises:
            UnsupportedError: calls, atomics, jumps that compare nothing, and what only the kernel
                makes: what they do is not said here.
        """
        kind = insn.code & CLASS_MASK
        if insn.code == isa.LD_IMM64 and insn.src == 0:
            return self._with(state, insn.dst, self._wide(insn.imm))
        operand = state.regs[insn.src] if insn.code & SRC_X else self._wide(insn.imm)
        if kind in (ALU, ALU64) and isinstance(insn.off, int):
            imm = insn.imm if isinstance(insn.imm, int) else 0
            dst = state.regs[insn.dst]
            value = alu(self.z3, insn.code, insn.off, imm, dst, operand, little=self.little)
            if value is not None:
                return self._with(state, insn.dst, value)
        elif kind == _LDX and insn.code & _MODE_MASK in (_MEM, _MEMSX):
            return self._load(state, insn)
        elif kind in (_ST, _STX) and insn.code & _MODE_MASK == _MEM:
            value = state.regs[insn.src] if kind == _STX else self._wide(insn.imm)
            return self._store(state, insn, value)
        elif kind in (JMP, JMP32) and insn.code not in _NO_COMPARISON:
            taken = condition(self.z3, insn.code, state.regs[insn.dst], operand)
            if taken is not None:
                return replace(state, taken=taken)
        raise UnsupportedError(
            f"opcode {insn.code:#04x} (off {insn.off}, imm {insn.imm}) has no meaning in proofs: "
            "these know arithmetic, moves, plain loads and stores, and comparisons"
        )

    def _wide(self, number: Term) -> Term:
        """A constant of 64 bits."""
        return self.z3.BitVecVal(number, 64) if isinstance(number, int) else number

    def _with(self, state: SymbolicState, register: int, value: Term) -> SymbolicState:
        return replace(state, regs={**state.regs, register: value})

    def _load(self, state: SymbolicState, insn: Fields) -> SymbolicState:
        z3 = self.z3
        address = state.regs[insn.src] + self._wide(insn.off)
        size = _SIZES[insn.code & _SIZE_MASK]
        found = [z3.Select(state.memory, address + at) for at in range(size)]
        # The first is the upper one where the machine has its bytes so.
        parts = found[::-1] if self.little else found
        value = z3.Concat(*parts) if size > 1 else parts[0]
        if size < 8:
            is_signed = insn.code & _MODE_MASK == _MEMSX
            value = (z3.SignExt if is_signed else z3.ZeroExt)(64 - 8 * size, value)
        state = replace(state, read=(*state.read, (address, size)))
        return self._with(state, insn.dst, value)

    def _store(self, state: SymbolicState, insn: Fields, value: Term) -> SymbolicState:
        z3 = self.z3
        address = state.regs[insn.dst] + self._wide(insn.off)
        size = _SIZES[insn.code & _SIZE_MASK]
        memory = state.memory
        for at in range(size):
            low = 8 * (at if self.little else size - 1 - at)
            memory = z3.Store(memory, address + at, z3.Extract(low + 7, low, value))
        return replace(state, memory=memory, written=(*state.written, (address, size)))
