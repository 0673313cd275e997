"""Where a rule fits.

What a rule looks for is found from its last instruction backwards, along the definitions of the
registers that it reads. So it need not stand together: it must be that nothing between its
instructions touches what they define, changes what they read, or, where they load, memory. Then
what is there does the same as if all stood where the last one stands.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.dataflow.backward import Masks
from bpfpatch.dataflow.knownbits import ORIGIN_CTX, ORIGIN_STACK, Traced
from bpfpatch.isa.semantics import U64, signed
from bpfpatch.program.types import Mask, Slots

from .code import NONE, RuleCode, between
from .expr import RuleExpr
from .rule import Operand, Rule, RuleInsn

_NO_SLOTS: Final = np.zeros(0, np.int32)
_FIELD_OFF: Final = (-(1 << 15), (1 << 15) - 1)


@dataclass(frozen=True, slots=True)
class Match:
    """One place where a rule fits.

    Attributes:
        rule: which.
        slots: of its instructions, in the rule's order; what comes in goes to the last.
        registers: numbers of its register variables.
        constants: values of its constants, signed.
    """

    rule: Rule
    slots: tuple[int, ...]
    registers: dict[str, int]
    constants: dict[str, int]

    def register(self, operand: int | str) -> int:
        """A register's number."""
        return operand if isinstance(operand, int) else self.registers[operand]

    def number(self, operand: Operand) -> int:
        """A field's value."""
        if isinstance(operand, int):
            return operand
        if isinstance(operand, str):
            return self.constants[operand]
        value: int = operand.run(self.constants)
        return value

    def insns(self) -> isa.Insns:
        """What comes in; a jump with a distance of 0."""
        parts = []
        for insn in self.rule.after:
            dst, src = self.register(insn.dst), self.register(insn.src)
            imm = self.number(insn.imm)
            if insn.code == isa.LD_IMM64:
                parts.append(isa.ld_imm64(dst, imm))
                continue
            parts.append(isa.make(insn.code, dst, src, self.number(insn.off), signed(imm, 32)))
        return isa.concat(parts)


class RuleMatcher:
    """Finds the places of one rule.

    Args:
        rule: which.
    """

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self._last = last = rule.before[-1]
        self._codes = {insn.code for insn in rule.before}
        self._definers = _definers(rule)
        self._first_use = _first_uses(rule)
        self._reads = [insn.reads() for insn in rule.before]
        self._writes = [insn.writes() for insn in rule.before]
        touched = {reg for insn in rule.before for reg in (*insn.reads(), *insn.writes())}
        self._literals = [
            (name, value)
            for name, value in (("off", last.off), ("imm", last.imm))
            if isinstance(value, int)
            and not (name == "off" and last.target)
            and last.code != isa.LD_IMM64
        ]
        n_last = len(rule.before) - 1
        self._definers_of_last = [
            (register == last.dst, rule.before[definer].code)
            for consumer, register, definer in self._definers
            if consumer == n_last
        ]
        self._last_is_dead = last.dst in rule.dead
        self._last_is_low = last.dst in rule.low
        self._last_is_clear = any(
            self._first_use[register] == (n_last, True) for register, _ in rule.clear
        )
        self._known_at_last = [
            is_dst
            for at, is_dst in (self._first_use[register] for register, _ in rule.known)
            if at == n_last
        ]
        self._definers_at = [
            [
                (register, definer)
                for consumer, register, definer in self._definers
                if consumer == at
            ]
            for at in range(len(rule.before))
        ]
        self._named = {reg for reg in touched if isinstance(reg, int)}

    def find(self, code: RuleCode) -> Iterator[Match]:
        """All places, by ascending last slots; they may overlap."""
        for slot in self._candidates(code).tolist():
            match = self._match(code, slot)
            if match is not None:
                yield match

    def _candidates(self, code: RuleCode) -> Slots:
        """(k,) slots at which the last instruction may be, by what is quickly seen."""
        last, insns = self._last, code.view.insns
        slots = code.slots_of.get(last.code, _NO_SLOTS)
        if not slots.size or not self._codes <= code.slots_of.keys():
            return _NO_SLOTS
        for name, value in self._literals:
            slots = slots[insns[name][slots] == value]
        for is_dst, opcode in self._definers_of_last:
            found = (code.defines_dst if is_dst else code.defines_src)[slots]
            slots = slots[(found != NONE) & (code.codes[found] == opcode)]
        if self._last_is_dead:
            slots = slots[_is_free(code.live_after, insns, slots)]
        if self._last_is_low and slots.size:
            slots = slots[_is_free(code.upper_live_after, insns, slots)]
        if self._last_is_clear and slots.size:
            slots = slots[code.has_bits_dst[slots]]
        for is_dst in self._known_at_last if slots.size else ():
            slots = slots[(code.is_known_dst if is_dst else code.is_known_src)[slots]]
        return slots

    def _match(self, code: RuleCode, slot: int) -> Match | None:
        before = self.rule.before
        slots = [NONE] * len(before)
        slots[-1] = slot
        registers: dict[str, int] = {}
        constants: dict[str, int] = {}
        for at in range(len(before) - 1, -1, -1):
            here = slots[at]
            if here == NONE or not _unify(before[at], code, here, registers, constants):
                return None
            for register, definer in self._definers_at[at]:
                found = code.definition(_number(register, registers), here)
                if found == NONE or slots[definer] not in (NONE, found):
                    return None
                slots[definer] = found
        # Different letters are different registers, and none that the rule names itself.
        numbers = {*registers.values(), *self._named}
        if len(numbers) < len(registers) + len(self._named) or len(set(slots)) < len(slots):
            return None
        match = Match(self.rule, tuple(slots), registers, constants)
        if len(before) > 1 and not self._is_together(code, match):
            return None
        return match if self._holds(code, match) else None

    def _is_together(self, code: RuleCode, match: Match) -> bool:
        """Whether all does the same as if it stood where the last one stands."""
        slots, own = match.slots, set(match.slots)
        root = slots[-1]
        if max(slots) != root:
            return False
        for at, insn in enumerate(self.rule.before):
            definers = {reg for reg, _ in self._definers_at[at]}
            for register in self._reads[at]:
                number = match.register(register)
                # What comes in from outside must still be there at the last one.
                if register not in definers and (
                    code.definition(number, slots[at]) in own
                    or not own.issuperset(between(code.writers[number], slots[at], root))
                ):
                    return False
            for register in self._writes[at]:
                number = match.register(register)
                if not own.issuperset(between(code.touchers[number], slots[at], root)):
                    return False
            if insn.is_load and between(code.changers, slots[at], root):
                return False
        return self._is_in_order(match)

    def _is_in_order(self, match: Match) -> bool:
        """Whether what is defined several times is so in the rule's order."""
        latest: dict[int | str, int] = {}
        for slot, registers in zip(match.slots, self._writes, strict=True):
            for register in registers:
                if latest.get(register, NONE) > slot:
                    return False
                latest[register] = slot
        return True

    def _holds(self, code: RuleCode, match: Match) -> bool:  # noqa: PLR0911 - one way out for each kind
        """Whether the rule's conditions hold there, and what comes in fits its fields."""
        rule, constants = self.rule, match.constants
        for register, name in rule.known:
            ones, unknown, _ = self._value(code, match, register)
            if unknown:
                return False
            constants[name] = signed(ones, 64)
        if not all(condition.run(constants) for condition in rule.when):
            return False
        for register, mask in rule.clear:
            ones, unknown, _ = self._value(code, match, register)
            if (ones | unknown) & mask.run(constants) & U64:
                return False
        for registers, origins in (
            (rule.plain, ORIGIN_CTX | ORIGIN_STACK),
            (rule.noctx, ORIGIN_CTX),
        ):
            if any(self._value(code, match, reg)[2] & origins for reg in registers):
                return False
        root = match.slots[-1]
        if any(code.live_after[root] >> match.register(reg) & 1 for reg in rule.dead):
            return False
        if any(code.upper_live_after[root] >> match.register(reg) & 1 for reg in rule.low):
            return False
        return all(
            _FIELD_OFF[0] <= match.number(insn.off) <= _FIELD_OFF[1]
            for insn in rule.after
            if isinstance(insn.off, RuleExpr)
        )

    def _value(self, code: RuleCode, match: Match, register: str) -> Traced:
        """What is known of a register's value in front of it all."""
        at, is_dst = self._first_use[register]
        bits = code.bits
        return (bits.dst if is_dst else bits.src)[match.slots[at]]


def _is_free(live: Masks, insns: isa.Insns, slots: Slots) -> Mask:
    """(k,) whether what instructions define is not among what is read afterwards."""
    free: Mask = live[slots] >> isa.dst(insns[slots]) & 1 == 0
    return free


def _definers(rule: Rule) -> list[tuple[int, int | str, int]]:
    """(instruction, register that it reads, instruction of the rule that defines this)."""
    out = []
    defined: dict[int | str, int] = {}
    for at, insn in enumerate(rule.before):
        out += [(at, reg, defined[reg]) for reg in insn.reads() if reg in defined]
        defined.update(dict.fromkeys(insn.writes(), at))
    return out


def _first_uses(rule: Rule) -> dict[int | str, tuple[int, bool]]:
    """By register, the first instruction that names it, and whether as its destination."""
    out: dict[int | str, tuple[int, bool]] = {}
    for at, insn in enumerate(rule.before):
        touched = {*insn.reads(), *insn.writes()}
        for register, is_dst in ((insn.dst, True), (insn.src, False)):
            if register in touched:
                out.setdefault(register, (at, is_dst))
    return out


def _number(register: int | str, registers: dict[str, int]) -> int:
    return register if isinstance(register, int) else registers[register]


def _unify(
    insn: RuleInsn,
    code: RuleCode,
    slot: int,
    registers: dict[str, int],
    constants: dict[str, int],
) -> bool:
    """Whether an instruction of a rule may be the one at a slot; what its variables are goes in."""
    if code.code[slot] != insn.code:
        return False
    for register, number in ((insn.dst, code.dst[slot]), (insn.src, code.src[slot])):
        if isinstance(register, int):
            if register != number:
                return False
        elif registers.setdefault(register, number) != number:
            return False
    imm = code.imm[slot]
    if insn.code == isa.LD_IMM64:
        imm = signed(code.imm[slot + 1] << 32 | imm & 0xFFFFFFFF, 64)
    fields: tuple[tuple[Operand, int], ...] = ((insn.imm, imm),)
    if not insn.target:
        fields = ((insn.off, code.off[slot]), (insn.imm, imm))
    for operand, value in fields:
        if isinstance(operand, int):
            if operand != value:
                return False
        elif isinstance(operand, str) and constants.setdefault(operand, value) != value:
            return False
    return True
