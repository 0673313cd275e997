"""Find what to leave out so that every program that loaded still does, and costs no more."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar

import numpy as np

from bpfpatch.elf import ElfObject
from bpfpatch.elf.rewrite import Dwarf
from bpfpatch.passes import Pipeline, Result, Target
from bpfpatch.passes.shrinking.shrink import STEPS, UNSAFE, Shrink

from .judge import ProgramCost

_ALL: Final = "*"
_PEEPHOLE: Final = "peephole"
_RULE: Final = "peephole:"
SUSPECTS: Final = ("tails", "stores", "jumps", "copies", "peephole", "dead-stores", "dce")
"""Steps by how likely it is that the verifier minds them."""
assert sorted(SUSPECTS) == sorted(STEPS)

Unit = TypeVar("Unit", bound=Hashable)


class Judge(Protocol):
    """Who says what a program costs."""

    def names(self) -> list[str]:
        """Programs to ask about."""

    def cost(self, obj: ElfObject, name: str) -> ProgramCost:
        """What one of them costs."""


@dataclass(frozen=True, slots=True)
class Wish:
    """How to shrink.

    Attributes:
        skip: steps and rules to leave out everywhere, with ``+`` between them, or None.
        rules: a file of further rules, or None.
        target: for whom.
        seconds: most time to look for what to leave out; then whole functions are.
        dwarf: what to do with DWARF in the end.
    """

    skip: str | None = None
    rules: str | None = None
    target: Target = field(default_factory=Target)
    seconds: float = 120.0
    dwarf: Dwarf = "update"


@dataclass(frozen=True, slots=True)
class Undone:
    """What was left out in a function, and why.

    Attributes:
        subprog: its number in the original.
        what: a step, a rule, or ``*`` for all.
        program: which program would have been worse.
        why: how.
    """

    subprog: int
    what: str
    program: str
    why: str


class Search:
    """Shrinks an object, and leaves out what the judge does not like.

    Args:
        obj: stays as it is.
        judge: who says what programs cost; None for safe steps only.
        wish: how.
        progress: told what goes on.

    Attributes:
        before: by program what it cost.
        after: and what it costs now.
        undone: what was left out.
        n_tries: how often something was shrunk for the judge to see.
    """

    def __init__(
        self,
        obj: ElfObject,
        judge: Judge | None,
        wish: Wish,
        progress: Callable[[str], None] | None = None,
    ) -> None:
        self.obj, self.judge, self.wish = obj, judge, wish
        self._say = progress or (lambda _: None)
        self.before: dict[str, ProgramCost] = {}
        self.after: dict[str, ProgramCost] = {}
        self.undone: list[Undone] = []
        self.n_tries = 0
        self._keeps: dict[int, set[str]] = {}
        self._began = time.monotonic()

    def run(self) -> tuple[ElfObject, Result]:
        """Shrink."""
        if self.judge is None:
            return self._make({}, self.wish.dwarf, is_safe=True)
        for name in self.judge.names():
            self._say(f"loading {name}")
            self.before[name] = self.judge.cost(self.obj, name)
        self._functions = {name: self._functions_of(name) for name in self.before}
        judged = {one for name in self._loaded() for one in self._functions[name]}
        for one in range(len(self.obj.code.subprogs)):
            if one not in judged:
                self._keeps[one] = {UNSAFE}
        for name, functions in self._functions.items():
            if not self.before[name].is_loaded:
                for one in functions:
                    self._keeps[one] = {UNSAFE}
        return self._settle()

    def _loaded(self) -> list[str]:
        return [name for name, cost in self.before.items() if cost.is_loaded]

    def _functions_of(self, name: str) -> list[int]:
        """The subprogs of a program."""
        origin = self.obj.link(name).origin
        found: list[int] = np.unique(self.obj.code.subprogs.of(origin[origin >= 0])).tolist()
        return found

    def _settle(self) -> tuple[ElfObject, Result]:
        """Leave out more until no program is worse."""
        is_last = False
        while True:
            made = self._make(self._keeps, "drop")
            worse = [name for name in self._loaded() if self._is_worse(name, made[0])]
            if not worse:
                self._say("writing")
                return self._make(self._keeps, self.wish.dwarf)
            for name in worse:
                if is_last or self._is_late():
                    self._leave_all(name)
                else:
                    self._look_into(name)
            is_last = True

    def _is_worse(self, name: str, made: ElfObject) -> bool:
        assert self.judge is not None
        self._say(f"loading {name}, shrunk")
        self.after[name] = self.judge.cost(made, name)
        return self.after[name].is_worse_than(self.before[name])

    def _is_late(self) -> bool:
        return time.monotonic() - self._began > self.wish.seconds

    def _leave_all(self, name: str) -> None:
        """Leave all functions of a program as they are."""
        why = self.after[name].against(self.before[name])
        for one in self._functions[name]:
            if self._keeps.get(one) != {_ALL}:
                self._keeps[one] = {_ALL}
                self.undone.append(Undone(one, _ALL, name, why))

    def _look_into(self, name: str) -> None:
        """Find the functions of a program, and the steps and rules in them, that make it worse."""
        why = self.after[name].against(self.before[name])
        functions = [one for one in self._functions[name] if _ALL not in self._keeps.get(one, ())]

        def test_functions(off: set[int]) -> bool:
            return self._is_fine(name, {one: {_ALL} for one in off})

        guilty = sorted(blame(functions, test_functions))
        kept: dict[int, set[str]] = {one: {_ALL} for one in guilty}
        for one in guilty:
            kept[one] = self._steps(name, one, kept)
        for one, steps in kept.items():
            self._keeps.setdefault(one, set()).update(steps)
            self.undone += [Undone(one, step, name, why) for step in sorted(steps)]

    def _steps(self, name: str, one: int, kept: dict[int, set[str]]) -> set[str]:
        """The steps, or rules, that have to be left out in a function, with others as they are."""

        def test(off: set[str]) -> bool:
            return self._is_fine(name, {**kept, one: off})

        if self._is_late():
            return {_ALL}
        found = blame(SUSPECTS, test)
        if _PEEPHOLE not in found or self._is_late():
            return found
        others = found - {_PEEPHOLE}
        rules = sorted(self._rules)
        by_rule = blame(rules, lambda off: test(others | off)) | others
        return by_rule if test(by_rule) else found

    def _is_fine(self, name: str, more: dict[int, set[str]]) -> bool:
        """Whether a program is no worse if more is left out; other programs stay as they are."""
        assert self.judge is not None
        mine = self._functions[name]
        keeps = {
            one: ({_ALL} if one not in mine else self._keeps.get(one, set()) | more.get(one, set()))
            for one in range(len(self.obj.code.subprogs))
        }
        made, result = self._make(keeps, "drop")
        self.n_tries += 1
        self._rules = [
            rule.removeprefix(_RULE)
            for rule in result.report.passes[0].counts
            if rule.startswith(_RULE)
        ] or getattr(self, "_rules", [])
        self._say(f"looking into {name}, try {self.n_tries}")
        return not self.judge.cost(made, name).is_worse_than(self.before[name])

    def _make(
        self, keeps: dict[int, set[str]], dwarf: Dwarf, *, is_safe: bool = False
    ) -> tuple[ElfObject, Result]:
        words = [
            str(one) if step == _ALL else f"{one}:{step}"
            for one, steps in sorted(keeps.items())
            for step in sorted({_ALL} if _ALL in steps else steps)
        ]
        one = Shrink(is_safe, self.wish.skip, "+".join(words) or None, self.wish.rules)
        return Pipeline((one,)).run_object(self.obj, self.wish.target, dwarf)


def blame(units: Sequence[Unit], is_fine: Callable[[set[Unit]], bool]) -> set[Unit]:
    """A small set of units without which all is fine; without all of them it is taken to be.

    In plain Python, if fewer are never better: the shortest run of units from the first on whose
    lack makes it fine ends in one that has to go; then the same again with that one gone, until
    it is fine with only such gone. Each takes a logarithm of tries.
    """
    found: set[Unit] = set()
    left = list(units)
    while left:
        low, high = 0, len(left)  # fine without the first `high`, not without the first `low`
        while high - low > 1:
            middle = (low + high) // 2
            if is_fine(found | set(left[:middle])):
                high = middle
            else:
                low = middle
        found.add(left[high - 1])
        left = left[: high - 1]
        if not left or is_fine(found):
            break
    return found
