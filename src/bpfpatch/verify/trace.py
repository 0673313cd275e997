"""Both programs' steps side by side, up to where they part and a little beyond.

Steps of instructions that only one of the programs has are left out of the
comparison: what was inserted may do what it likes with registers that are not
live. The programs part where the next instruction that both have is not the
same one, or where one that both have writes something else to its register or
to memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from bpfpatch import isa
from bpfpatch.isa import OPCODES, Kind
from bpfpatch.program import Program
from bpfpatch.program.types import Slots
from bpfpatch.report.insntext import InsnTexts

from .calls import Call
from .case import Case
from .kinds import Shape
from .side import RunSubject, Side

MOST_STEPS: Final = 200_000
CONTEXT: Final = 4
"""Steps that are shown before the programs part, and after."""

_CODE_WINDOW: Final = 0x20
_PAST_CODE: Final = 0x20 + 0x1000
_WINDOW_BITS: Final = 28


class TraceStep(NamedTuple):
    """One instruction that ran.

    Attributes:
        slot: of it.
        regs: R0 to R11 before it.
        n_calls: helpers that had been called before it.
    """

    slot: int
    regs: tuple[int, ...]
    n_calls: int = 0


class Recorded(NamedTuple):
    """A run.

    Attributes:
        steps: its instructions, of a long one the first.
        calls: its helper calls.
    """

    steps: Sequence[TraceStep]
    calls: Sequence[Call] = ()


@dataclass(frozen=True, slots=True)
class TraceRow:
    """A step of either program, or of both.

    Attributes:
        before: (slot, instruction, what it wrote) in the original, or None.
        after: the same in the rewritten program, or None.
        source: the source line, or "".
        is_parting: whether the programs part here.
    """

    before: tuple[int, str, str] | None
    after: tuple[int, str, str] | None
    source: str
    is_parting: bool = False

    def to_json(self) -> dict[str, Any]:
        """In JSON's types."""
        return {
            "before": self.before,
            "after": self.after,
            "source": self.source,
            "is_parting": self.is_parting,
        }


def record(subject: RunSubject, shape: Shape, case: Case, budget: int) -> Recorded:
    """All steps of a run, of a long one the first."""
    steps: list[TraceStep] = []

    def hook(slot: int, regs: tuple[int, ...]) -> None:
        if len(steps) < MOST_STEPS:
            steps.append(TraceStep(slot, regs, len(side.machine.calls)))

    side = Side(subject, shape, budget=budget, hook=hook)
    side.run(case)
    return Recorded(steps, tuple(side.machine.calls))


class SideBySide:
    """Two recorded runs.

    Args:
        old: the original.
        new: the rewritten program.
        before: the original's run.
        after: the rewritten program's.
        pairs: for each slot of the new program the old one, or -1.
        names: by slot, what relocations refer to, in the original and in the other.
    """

    def __init__(
        self,
        old: Program,
        new: Program,
        before: Recorded,
        after: Recorded,
        pairs: Slots,
        names: tuple[Mapping[int, str], Mapping[int, str]] = ({}, {}),
    ) -> None:
        self._old, self._new = _Listing(old, before, names[0]), _Listing(new, after, names[1])
        self._pairs = pairs.tolist()
        has_pair = np.zeros(len(old), bool)
        has_pair[pairs[pairs >= 0]] = True
        self._has_pair = has_pair.tolist()

    def rows(self) -> list[TraceRow]:
        """The last steps that both took, where they part, and what each did then."""
        # Where all common steps agree, a store or call that only one of them has is to blame.
        return self._rows(strict=False) or self._rows(strict=True) or self._last()

    def _rows(self, *, strict: bool) -> list[TraceRow]:
        common: list[tuple[int | None, int | None]] = []
        for at, to, is_same in self._walk(strict=strict):
            if not is_same:
                return [*self._shown(common), *self._parted(at, to)]
            common.append((at, to))
            del common[: -4 * CONTEXT]
        return []

    def _last(self) -> list[TraceRow]:
        return self._shown([(at, to) for at, to, _ in self._walk(strict=False)])

    def _walk(self, *, strict: bool) -> Iterator[tuple[int | None, int | None, bool]]:
        """Pairs of steps: an index in each, None where only one has it; whether they agree."""
        old, new = self._old.steps, self._new.steps
        at = to = 0
        while at < len(old) or to < len(new):
            if to < len(new) and self._pair(new[to].slot) < 0:
                yield None, to, not (strict and self._new.acts(to))
                to += 1
            elif at < len(old) and not self._is_paired(old[at].slot):
                yield at, None, not (strict and self._old.acts(at))
                at += 1
            elif at == len(old) or to == len(new):
                yield (at if at < len(old) else None), (to if to < len(new) else None), False
                return
            else:
                same = self._pair(new[to].slot) == old[at].slot and self._agree(at, to)
                yield at, to, same
                if not same:
                    return
                at, to = at + 1, to + 1

    def _pair(self, slot: int) -> int:
        return self._pairs[slot] if slot < len(self._pairs) else -1

    def _is_paired(self, slot: int) -> bool:
        return slot < len(self._has_pair) and self._has_pair[slot]

    def _agree(self, at: int, to: int) -> bool:
        """Whether two steps wrote the same."""
        first, second = self._old.effect(at), self._new.effect(to)
        if len(first) != len(second):
            return False
        return self._old.call(at) == self._new.call(to) and all(
            _alike(a, b) for a, b in zip(first, second, strict=True)
        )

    def _shown(self, common: list[tuple[int | None, int | None]]) -> list[TraceRow]:
        return [self._row(at, to) for at, to in common[-2 * CONTEXT :]]

    def _parted(self, at: int | None, to: int | None) -> Iterator[TraceRow]:
        yield self._row(at, to, is_parting=True)
        for step in range(1, CONTEXT + 1):
            first = None if at is None or at + step >= len(self._old.steps) else at + step
            second = None if to is None or to + step >= len(self._new.steps) else to + step
            if first is not None or second is not None:
                yield self._row(first, second)

    def _row(self, at: int | None, to: int | None, *, is_parting: bool = False) -> TraceRow:
        source = self._old.source(at) if at is not None else self._new.source(to or 0)
        return TraceRow(
            None if at is None else self._old.line(at),
            None if to is None else self._new.line(to),
            source,
            is_parting,
        )


def _alike(a: int, b: int) -> bool:
    """Whether two numbers count as the same: functions may have moved."""
    return a == b or (_is_code(a) and _is_code(b))


def _is_code(number: int) -> bool:
    return _CODE_WINDOW <= number >> _WINDOW_BITS < _PAST_CODE


class _Listing:
    """One program's steps, and what to say of them."""

    def __init__(self, program: Program, run: Recorded, names: Mapping[int, str]) -> None:
        self.steps = run.steps
        self._calls = run.calls
        self._program = program
        self._texts = InsnTexts(program, names)
        self._rows = isa.rows(program.insns).tolist()
        self._dst = isa.dst(program.insns).tolist()
        self._src = isa.src(program.insns).tolist()
        self._writes = isa.writes(program.insns).tolist()

    def effect(self, at: int) -> tuple[int, ...]:
        """What a step wrote: registers, of a store the value, of an exit what it returns."""
        step = self.steps[at]
        if step.slot >= len(self._rows):
            return ()
        written = tuple(value for _, value in self._written(at))
        if self._kind(step.slot) is Kind.EXIT:
            return step.regs[:1]
        if self._kind(step.slot) is Kind.STORE:
            return (step.regs[self._src[step.slot]],) if self._has_source(step.slot) else ()
        return written

    def call(self, at: int) -> Call | None:
        """The helper call that a step made, or None."""
        step = self.steps[at]
        if step.slot >= len(self._rows) or self._kind(step.slot) is not Kind.CALL:
            return None
        following = self._next(at)
        n_then = len(self._calls) if following is None else following.n_calls
        return self._calls[step.n_calls] if step.n_calls < n_then else None

    def acts(self, at: int) -> bool:
        """Whether a step does something beside writing registers."""
        slot = self.steps[at].slot
        return slot < len(self._rows) and self._kind(slot) in (
            Kind.STORE,
            Kind.ATOMIC,
            Kind.CALL,
        )

    def _kind(self, slot: int) -> Kind | None:
        row = self._rows[slot]
        return OPCODES[row].kind if 0 <= row < len(OPCODES) else None

    def _written(self, at: int) -> Iterator[tuple[int, int]]:
        """Registers that a step wrote, with what is in them at the next step of its function."""
        slot = self.steps[at].slot
        kind = self._kind(slot)
        if kind is Kind.CALL:
            # What follows is the callee's first step, unless this called a helper.
            following = self._next(at)
            if following is not None and following.slot == slot + 1:
                yield 0, following.regs[0]
            return
        following = self._next(at)
        if following is None:
            return
        for register in range(10):
            if self._writes[slot] >> register & 1:
                yield register, following.regs[register]

    def _has_source(self, slot: int) -> bool:
        return "stx" in OPCODES[self._rows[slot]].name

    def _next(self, at: int) -> TraceStep | None:
        return self.steps[at + 1] if at + 1 < len(self.steps) else None

    def line(self, at: int) -> tuple[int, str, str]:
        """Slot, instruction and what it wrote."""
        step = self.steps[at]
        if step.slot >= len(self._rows):
            return step.slot, "in another program", ""
        kind = self._kind(step.slot)
        if kind is Kind.COND_JUMP:
            shown = f"r{self._dst[step.slot]}={_shown_reg(step, self._dst[step.slot])}"
        elif kind is Kind.CALL and (call := self.call(at)) is not None:
            shown = call.shown_args
        elif kind is Kind.STORE:
            has_source = self._has_source(step.slot)
            shown = _shown_reg(step, self._src[step.slot]) if has_source else ""
        elif kind is Kind.EXIT:
            shown = f"r0={step.regs[0]:#x}"
        else:
            shown = " ".join(f"r{register}={value:#x}" for register, value in self._written(at))
        return step.slot, self._texts.text(step.slot), shown

    def source(self, at: int) -> str:
        """The source line."""
        slot = self.steps[at].slot
        found = self._program.source(slot) if slot < len(self._rows) else None
        return "" if found is None else f"{found}  {found.text}".rstrip()


def _shown_reg(step: TraceStep, number: int) -> str:
    """What is in a register; raw code may name one that does not exist."""
    return f"{step.regs[number]:#x}" if number < len(step.regs) else "?"
