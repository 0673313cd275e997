"""What comes out of verifying."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from bpfpatch.elf.setup import Setup
from bpfpatch.text import plural

from .case import Case
from .compare import Difference
from .coverage import BranchCoverage
from .trace import TraceRow


@dataclass(frozen=True, slots=True)
class Counterexample:
    """An input on which the programs differ, made as small as it gets.

    Attributes:
        case: the input.
        mode: in which the programs were run.
        differences: what differs.
        trace: steps of both up to where they part; empty where the interpreter sees none.
        earlier: inputs that have to be run before, where one alone does not do it.
        setup: what all runs started with.
    """

    case: Case
    mode: str
    differences: tuple[Difference, ...]
    trace: tuple[TraceRow, ...] = ()
    earlier: tuple[Case, ...] = ()
    setup: Setup = field(default_factory=Setup)

    def lines(self) -> Iterator[str]:
        """All of it as text."""
        yield from _setup_lines(self.setup)
        for number, case in enumerate(self.earlier):
            yield f"first, input {number + 1} of {len(self.earlier)}:"
            yield from (f"  {line}" for line in case.lines())
        yield "input:"
        yield from (f"  {line}" for line in self.case.lines())
        yield f"mode: {self.mode}"
        yield "what differs:"
        yield from (f"  {difference}" for difference in self.differences)
        if self.trace:
            is_parted = any(row.is_parting for row in self.trace)
            yield "where they part (before | after):" if is_parted else "the last steps of both:"
            yield from trace_lines(self.trace)

    def to_json(self) -> dict[str, Any]:
        """In JSON's types."""
        return {
            "input": self.case.to_json(),
            "mode": self.mode,
            "differences": [one.to_json() for one in self.differences],
            "trace": [row.to_json() for row in self.trace],
            "earlier": [case.to_json() for case in self.earlier],
            "setup": self.setup.to_json(),
        }


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a rewritten program does what the original does, as far as it was tried.

    Attributes:
        name: the program's, or "".
        counterexample: an input on which they differ, or None.
        runs: how many inputs were compared, by mode. Those that the original did not get
            through, and those that end in the same error at once, are not among them.
        coverage: how much of the original and of the rewritten program these runs saw.
        not_checked: why something was not checked, a sentence each.
        notes: what limits the verdict, a sentence each.
        seconds: how long it took.
        is_lost: whether the rewritten object has no such program.
    """

    name: str
    counterexample: Counterexample | None
    runs: dict[str, int] = field(default_factory=dict)
    coverage: tuple[BranchCoverage, BranchCoverage] | None = None
    not_checked: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    is_lost: bool = False

    @property
    def is_same(self) -> bool:
        """Whether no input was found on which they differ, and some were tried."""
        return self.counterexample is None and self.is_checked

    @property
    def differs(self) -> bool:
        """Whether they differ: on some input, or since there is no rewritten program at all."""
        return self.counterexample is not None or self.is_lost

    @property
    def is_checked(self) -> bool:
        """Whether anything was compared at all."""
        return self.differs or any(self.runs.values())

    @property
    def is_wholly_checked(self) -> bool:
        """Whether something was compared in every mode that was asked for."""
        return self.differs or (bool(self.runs) and all(self.runs.values()))

    def lines(self) -> Iterator[str]:
        """All of it as text."""
        yield f"{self.name or 'program'}: {self._summary()}"
        yield from (f"  not checked: {reason}" for reason in self.not_checked)
        yield from (f"  note: {note}" for note in self.notes)
        if self.counterexample is not None:
            yield from (f"  {line}" for line in self.counterexample.lines())

    def __str__(self) -> str:
        """All of it as text."""
        return "\n".join(self.lines())

    def _summary(self) -> str:
        if self.is_lost:
            return "LOST (the rewritten object has no such program)"
        if not self.is_checked:
            return "not checked"
        word = "DIFFERENT" if self.differs else "same"
        runs = ", ".join(
            f"{plural(count, 'input')} in {mode}" for mode, count in self.runs.items() if count
        )
        parts = [runs] if runs else []
        unchecked = [mode for mode, count in self.runs.items() if not count]
        if unchecked:
            parts.append(f"not checked in {', '.join(unchecked)}")
        if self.coverage is not None:
            parts.append(f"{self.coverage[0]} before, {self.coverage[1]} after")
        return f"{word} ({'; '.join(parts)}; {self.seconds:.1f} s)"

    def _word(self) -> str:
        if self.is_lost:
            return "lost"
        return "different" if self.differs else "same" if self.is_checked else "unchecked"

    def to_json(self) -> dict[str, Any]:
        """In JSON's types."""
        found = self.counterexample
        names = ("before", "after")
        coverage = {} if self.coverage is None else dict(zip(names, self.coverage, strict=True))
        return {
            "program": self.name,
            "verdict": self._word(),
            "runs": self.runs,
            "coverage": {
                name: {"taken": one.taken, "edges": one.edges} for name, one in coverage.items()
            },
            "not_checked": list(self.not_checked),
            "notes": list(self.notes),
            "seconds": round(self.seconds, 3),
            "counterexample": None if found is None else found.to_json(),
        }


def _setup_lines(setup: Setup) -> Iterator[str]:
    found = setup.to_json()
    for name, value in found["variables"].items():
        yield f"set {name} = {_shown(value)}"
    for name, rows in found["maps"].items():
        for row in rows:
            yield f"map {name}[{_shown(row['key'])}] = {_shown(row['value'])}"


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def trace_lines(rows: tuple[TraceRow, ...]) -> Iterator[str]:
    """Two columns, with source lines above what they belong to."""
    cells = [(_cell(row.before), _cell(row.after)) for row in rows]
    width = min(max((len(left) for left, _ in cells), default=0), 64)
    shown = ""
    for row, (left, right) in zip(rows, cells, strict=True):
        if row.source and row.source != shown:
            yield f"    ; {row.source}"
            shown = row.source
        mark = ">" if row.is_parting else " "
        yield f"  {mark} {left.ljust(width)} | {right}".rstrip()


def _cell(step: tuple[int, str, str] | None) -> str:
    if step is None:
        return ""
    slot, text, wrote = step
    return f"{slot:5d}: {text}" + (f"  [{wrote}]" if wrote else "")
