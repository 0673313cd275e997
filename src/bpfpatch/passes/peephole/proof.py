"""Proofs of rules: over all values of registers, constants and memory."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from bpfpatch import isa
from bpfpatch.errors import OptionError, UnsupportedError
from bpfpatch.isa.semantics import ALU, ALU64, CLASS_MASK, END, OP_MASK
from bpfpatch.prove import Fields, SymbolicCode, SymbolicState, Term, require_z3

from .expr import SPLITS, RuleExpr
from .rule import NUMBER_OF, Operand, Rule, RuleInsn

SECONDS: Final = 20.0
"""What a proof may take; one that takes longer is none."""
_SWAPS: Final = (ALU, ALU64)

Byte = tuple[Term, int]


@dataclass(frozen=True, slots=True)
class RuleProof:
    """That a rule holds.

    Attributes:
        rule: which.
        milliseconds: how long it took to prove.
        n_cases: cases it was split into: byte orders, values of constants.
    """

    rule: Rule
    milliseconds: float
    n_cases: int


def prove_rule(rule: Rule, seconds: float = SECONDS) -> RuleProof:
    """Prove that what comes in does what was there.

    For all registers, constants and memory for which the rule's conditions hold: the registers
    that may be of use afterwards are the same, so is memory, the jump goes the same way, and
    nothing is read or written that was not before.

    Args:
        rule: which.
        seconds: what each case may take.

    Raises:
        OptionError: it is refuted, with an example, or not decided in time; z3 is not installed.
        UnsupportedError: it has instructions of which no proof knows what they do.
    """
    z3 = require_z3()
    began = time.perf_counter()
    cases = list(_cases(rule))
    for little, given in cases:
        _Case(z3, rule, given, little=little).prove(seconds)
    return RuleProof(rule, 1000 * (time.perf_counter() - began), len(cases))


def check_rules(rules: tuple[Rule, ...], seconds: float = SECONDS) -> tuple[RuleProof, ...]:
    """Prove rules; see `prove_rule`.

    Raises:
        OptionError: one has no proof.
    """
    proofs = []
    for rule in rules:
        try:
            proofs.append(prove_rule(rule, seconds))
        except UnsupportedError as error:
            raise OptionError(f"rule {rule} has no proof: {error}") from None
    return tuple(proofs)


def _cases(rule: Rule) -> Iterator[tuple[bool, dict[str, int]]]:
    """Byte orders and values of constants to look at one by one."""
    insns = (*rule.before, *rule.after)
    has_order = any(
        one.is_load
        or one.is_store
        or (one.code & CLASS_MASK in _SWAPS and one.code & OP_MASK == END)
        for one in insns
    )
    exprs = [*rule.when, *(mask for _, mask in rule.clear)]
    for insn in rule.after:
        exprs += [one for one in (insn.off, insn.imm) if isinstance(one, RuleExpr)]
    splits = dict(sorted(split for expr in exprs for split in expr.splits))
    for little in (True, False) if has_order and not rule.little else (True,):
        for values in itertools.product(*(SPLITS[how] for how in splits.values())):
            yield little, dict(zip(splits, values, strict=True))


class _Case:
    """One case of a rule: a byte order, and values of some constants."""

    def __init__(self, z3: Any, rule: Rule, given: Mapping[str, int], *, little: bool) -> None:
        self.z3 = z3
        self.rule = rule
        self.little = little
        self.assumed: list[Term] = []
        self.constants: dict[str, Term] = {}
        self._bind(given)

    def _bind(self, given: Mapping[str, int]) -> None:
        """Make terms of the constants, each as wide as the field that it is in."""
        z3 = self.z3
        for insn in self.rule.before:
            width = 64 if insn.code == isa.LD_IMM64 else 32
            for operand, bits in ((insn.off, 16), (insn.imm, width)):
                if isinstance(operand, str) and operand not in self.constants:
                    value = z3.BitVec(operand, bits)
                    self.constants[operand] = z3.SignExt(64 - bits, value) if bits < 64 else value
        narrow = {name for condition in self.rule.when for name in condition.fitting}
        for _, name in self.rule.known:
            # What fits is a term of 32 bits: an equation that says so hides it from multiplication.
            value = z3.SignExt(32, z3.BitVec(name, 32)) if name in narrow else None
            self.constants.setdefault(name, z3.BitVec(name, 64) if value is None else value)
        for name, value in given.items():
            self.assumed.append(self.constants[name] == value)
        self.constants.update(given)

    def prove(self, seconds: float) -> None:
        """Prove it.

        Raises:
            OptionError: it does not hold, or is not decided in time.
        """
        z3, rule = self.z3, self.rule
        machine = SymbolicCode(z3, little=self.little)
        start = machine.start()
        for register, name in rule.known:
            # In place of an equation: division by a constant is hard to follow through one.
            start.regs[NUMBER_OF[register]] = self._number(name)
        for register, mask in rule.clear:
            bits = mask.term(z3, self.constants)
            self.assumed.append(start.regs[NUMBER_OF[register]] & bits == 0)
        self.assumed += [one.term(z3, self.constants) for one in rule.when]
        old = self._run(machine, start, rule.before)
        new = self._run(machine, start, rule.after)
        solver = z3.Solver()
        solver.set("timeout", int(1000 * seconds))
        solver.add(*self.assumed)
        solver.add(z3.Not(z3.And(*self._same(old, new))))
        answer = solver.check()
        if answer == z3.sat:
            raise OptionError(
                f"rule {rule} is wrong: it changes what the code does with "
                f"{self._example(solver.model(), start)}"
            )
        if answer != z3.unsat:
            raise OptionError(
                f"rule {rule} has no proof: z3 did not decide it in {seconds:g} s "
                f"({solver.reason_unknown()})"
            )

    def _run(
        self, machine: SymbolicCode, state: SymbolicState, insns: tuple[RuleInsn, ...]
    ) -> SymbolicState:
        for insn in insns:
            state = machine.step(state, self._fields(insn))
        return state

    def _fields(self, insn: RuleInsn) -> Fields:
        off, imm = self._number(insn.off), self._number(insn.imm)
        if isinstance(insn.off, RuleExpr):
            self.assumed.append(off == self._cut(off, 16))
        if isinstance(insn.imm, RuleExpr) and insn.code != isa.LD_IMM64:
            imm = self._cut(imm, 32)
        return Fields(insn.code, _register(insn.dst), _register(insn.src), off, imm)

    def _cut(self, value: Term, bits: int) -> Term:
        return self.z3.SignExt(64 - bits, self.z3.Extract(bits - 1, 0, value))

    def _number(self, operand: Operand) -> Term:
        if isinstance(operand, int):
            return operand
        if isinstance(operand, RuleExpr):
            return operand.term(self.z3, self.constants)
        value = self.constants[operand]
        return self.z3.BitVecVal(value, 64) if isinstance(value, int) else value

    def _same(self, old: SymbolicState, new: SymbolicState) -> Iterator[Term]:
        """What must hold."""
        z3, rule = self.z3, self.rule
        dead = {NUMBER_OF[reg] for reg in rule.dead}
        low = {NUMBER_OF[reg] for reg in rule.low}
        for number in old.regs.keys() - dead:
            one, other = old.regs[number], new.regs[number]
            if one is not other:
                if number in low:
                    one, other = z3.Extract(31, 0, one), z3.Extract(31, 0, other)
                yield one == other
        yield old.taken == new.taken
        if old.memory is not new.memory:
            anywhere = z3.BitVec("address", 64)
            yield z3.Select(old.memory, anywhere) == z3.Select(new.memory, anywhere)
        touched = list(_bytes((*old.read, *old.written)))
        written = list(_bytes(old.written))
        for known, accesses in ((touched, new.read), (written, new.written)):
            for address, at in _bytes(accesses):
                yield z3.Or(*(one + i == address + at for one, i in known))

    def _example(self, model: Any, start: SymbolicState) -> str:
        letters = {NUMBER_OF[name]: f"r{name}" for name in NUMBER_OF}
        values = {
            **{letters.get(number, f"r{number}"): term for number, term in start.regs.items()},
            **self.constants,
        }
        shown = []
        touched = self.rule.entry_reads | self.rule.written
        used = {_register(reg) for reg in touched}
        for name, term in values.items():
            number = next((key for key, value in letters.items() if value == name), None)
            if name.startswith("r") and (number is None or number not in used):
                continue
            value = term
            if not isinstance(term, int):
                value = model.eval(term, model_completion=True).as_long()
            shown.append(f"{name} = {value:#x}")
        return ", ".join(shown) or "any values"


def _bytes(accesses: tuple[tuple[Term, int], ...]) -> Iterator[Byte]:
    for address, size in accesses:
        for at in range(size):
            yield address, at


def _register(operand: int | str) -> int:
    return operand if isinstance(operand, int) else NUMBER_OF[operand]
