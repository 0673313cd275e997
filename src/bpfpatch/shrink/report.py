"""What shrinking an object did: by function, by step and rule, by program."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bpfpatch.elf import ElfObject
from bpfpatch.passes import Result
from bpfpatch.program.types import LOST

from .search import Search

_RULE = "peephole:"


@dataclass(frozen=True, slots=True)
class FunctionRow:
    """A function.

    Attributes:
        name: its name, or its number.
        slots_before: slots as it was.
        slots_after: slots now; 0 where it is gone.
        undone: steps and rules that were left out in it; ``*`` for all.
    """

    name: str
    slots_before: int
    slots_after: int
    undone: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ProgramRow:
    """A program.

    Attributes:
        name: its name.
        verified_before: instructions that the verifier looked at; None where it does not load.
        verified_after: the same now.
        reason: why it does not load, or "".
    """

    name: str
    verified_before: int | None
    verified_after: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class ShrinkReport:
    """What shrinking an object did.

    Attributes:
        slots_before: slots of the code as it was.
        slots_after: and as it is.
        steps: by step how many slots it took out.
        rules: by rule of ``peephole`` how often it was applied.
        functions: the functions.
        programs: the programs, where a kernel was asked.
        undone: why something was left out, a sentence each.
        n_tries: how often something was shrunk only to ask the kernel.
        notices: what else there is to say.
    """

    slots_before: int
    slots_after: int
    steps: Mapping[str, int]
    rules: Mapping[str, int]
    functions: tuple[FunctionRow, ...]
    programs: tuple[ProgramRow, ...]
    undone: tuple[str, ...]
    n_tries: int
    notices: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, obj: ElfObject, result: Result, search: Search, notices: tuple[str, ...]
    ) -> ShrinkReport:
        """The report of a search that has ended."""
        counts = result.report.passes[0].counts
        names = _names(obj)
        return cls(
            slots_before=len(obj.code),
            slots_after=len(result.program),
            steps={name: n for name, n in counts.items() if not name.startswith(_RULE)},
            rules={
                name.removeprefix(_RULE): n for name, n in counts.items() if name.startswith(_RULE)
            },
            functions=tuple(_functions(obj, result, search, names)),
            programs=tuple(_programs(search)),
            undone=tuple(
                f"{names[one.subprog]}: {'all' if one.what == '*' else one.what} left out, since "
                f"{one.program} else {one.why}"
                for one in search.undone
            ),
            n_tries=search.n_tries,
            notices=(*notices, *result.notices),
        )

    def __str__(self) -> str:
        """One line."""
        saved = self.slots_before - self.slots_after
        part = 100 * saved / self.slots_before if self.slots_before else 0.0
        return f"{self.slots_before} -> {self.slots_after} instructions, {part:.1f} % fewer"

    def to_json(self) -> dict[str, Any]:
        """In JSON's types."""
        return {
            "insns_before": self.slots_before,
            "insns_after": self.slots_after,
            "steps": dict(self.steps),
            "rules": dict(self.rules),
            "functions": [asdict(row) | {"undone": list(row.undone)} for row in self.functions],
            "programs": [asdict(row) for row in self.programs],
            "undone": list(self.undone),
            "tries": self.n_tries,
            "notices": list(self.notices),
        }


def _names(obj: ElfObject) -> list[str]:
    return [name or str(number) for number, name in enumerate(obj.code.subprogs.names)]


def _functions(
    obj: ElfObject, result: Result, search: Search, names: list[str]
) -> Iterator[FunctionRow]:
    old, new = obj.code, result.program
    sizes = old.subprogs.ends(len(old)) - old.subprogs.start
    entry = result.remap.entry[old.subprogs.start]
    new_sizes = new.subprogs.ends(len(new)) - new.subprogs.start
    undone: dict[int, list[str]] = {}
    for one in search.undone:
        undone.setdefault(one.subprog, []).append(one.what)
    # Where a function is gone, its entry is lost, or is that of the one after it.
    at = np.searchsorted(new.subprogs.start, entry)
    last = {slot: number for number, slot in enumerate(entry.tolist())}
    for number, (name, size, slot, row) in enumerate(
        zip(names, sizes.tolist(), entry.tolist(), at.tolist(), strict=True)
    ):
        is_there = slot != LOST and last[slot] == number
        after = int(new_sizes[row]) if is_there else 0
        yield FunctionRow(name, size, after, tuple(dict.fromkeys(undone.get(number, ()))))


def _programs(search: Search) -> Iterator[ProgramRow]:
    for name, before in search.before.items():
        after = search.after.get(name)
        yield ProgramRow(
            name,
            before.n_verified if before.is_loaded else None,
            after.n_verified if after is not None and after.is_loaded else None,
            before.reason,
        )
