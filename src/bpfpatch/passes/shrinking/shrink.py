"""shrink: run all passes that make programs smaller until they find nothing more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from bpfpatch.errors import OptionError
from bpfpatch.patch import PatchList
from bpfpatch.program import Program

from ..base import Pass, register
from ..dce import remove_unreachable
from ..peephole.builtin import builtin_rules, read_rules
from ..peephole.peephole import Peephole
from ..setting import Setting
from .code import Scope, fingerprints, scope_for
from .copies import drop_copies
from .deadstores import drop_dead_stores
from .jumps import straighten
from .stores import byteorder_of, merge_stores
from .tails import merge_tails

_ROUNDS: Final = 8
_PEEPHOLE_ROUNDS: Final = 2
"""It looks at all code each time, and finds next to nothing once others find little."""
_FEW: Final = 256
"""One edit in so many instructions is not worth another round."""
_ALL: Final = "*"
UNSAFE: Final = "unsafe"
"""In place of a step: all that may take something from a verifier."""

Step = Callable[[PatchList, Scope], int]

STEPS: Final = ("dce", "dead-stores", "copies", "peephole", "stores", "jumps", "tails")
"""What `Shrink` runs, in this order."""


@register
@dataclass(frozen=True)
class Shrink(Pass):
    """Make a program smaller: all passes that do, until they find nothing more.

    The result is never longer. The verifier may know less of it, or take longer for it: where
    there is a kernel, the command ``shrink`` asks it, and undoes what it does not take.

    Attributes:
        safe: whether to do only what takes nothing from any kernel's verifier.
        skip: names of steps, and of rules of ``peephole``, to leave out, with ``+`` between them.
        keep: functions to leave as they are, with ``+`` between them; ``NAME:STEP`` leaves out
            that step for one only, ``NAME:unsafe`` what is not safe. A function without a name of
            its own is its number.
        rules: a file of further rules for ``peephole``.
    """

    name = "shrink"
    knows_landing_pads = True
    safe: bool = True
    skip: str | None = None
    keep: str | None = None
    rules: str | None = None

    def run_for(self, patches: PatchList, setting: Setting) -> None:
        """Go round until nothing is found, or for a bounded number of rounds.

        Raises:
            OptionError: no such step, rule or function; or rules that are not proved.
        """
        own = read_rules(self.rules) if self.rules else ()
        rules = frozenset(rule.name for rule in (*builtin_rules(), *own))
        keeps = Keeps.of(patches.program, self.skip, self.keep, rules)
        _Driver(patches, setting, keeps, self).run()


@dataclass(frozen=True, slots=True)
class Keeps:
    """What is left out, and where.

    Attributes:
        everywhere: steps and rules that are left out everywhere.
        subprogs: by subprog, by its number, what is left out there, or ``*`` for all.
        rules: names of rules that there are.
    """

    everywhere: frozenset[str]
    subprogs: Mapping[int, frozenset[str]]
    rules: frozenset[str]

    @classmethod
    def of(
        cls, program: Program, skip: str | None, keep: str | None, rules: frozenset[str]
    ) -> Keeps:
        """From the options of `Shrink`.

        Raises:
            OptionError: no such step, rule or function.
        """
        known = {*STEPS, *rules}
        everywhere = frozenset(skip.split("+")) if skip else frozenset()
        found: dict[int, set[str]] = {}
        for word in keep.split("+") if keep else ():
            name, _, step = word.partition(":")
            for subprog in _numbers(program, name):
                found.setdefault(subprog, set()).add(step or _ALL)
        named = everywhere.union(*found.values()) - known - {_ALL, UNSAFE}
        if named:
            raise OptionError(
                f"pass shrink has no step or rule {min(named)!r}; there are: "
                f"{', '.join(sorted(known))}"
            )
        return cls(everywhere, {one: frozenset(steps) for one, steps in found.items()}, rules)

    def skipped(self, step: str) -> frozenset[int]:
        """The subprogs that a step leaves as they are."""
        return frozenset(one for one, steps in self.subprogs.items() if steps & {step, _ALL})

    def safe_only(self) -> frozenset[int]:
        """The subprogs in which only safe steps are taken."""
        return frozenset(one for one, steps in self.subprogs.items() if UNSAFE in steps)

    def rules_off(self, subprog: int) -> frozenset[str]:
        """The rules that are left out in a subprog."""
        return (self.everywhere | self.subprogs.get(subprog, frozenset())) & self.rules


def _numbers(program: Program, name: str) -> list[int]:
    names = program.subprogs.names
    found = [number for number, one in enumerate(names) if one == name]
    if not found and name.isdigit() and int(name) < len(names):
        found = [int(name)]
    if not found:
        known = ", ".join(one for one in names if one) or "none with a name"
        raise OptionError(f"pass shrink: no function {name!r} to keep; there are: {known}")
    return found


class _Driver:
    """One run. A step looks at a function again only once another one has changed that."""

    def __init__(self, patches: PatchList, setting: Setting, keeps: Keeps, options: Shrink) -> None:
        self.patches, self.setting, self.keeps, self.options = patches, setting, keeps, options
        self.scope = scope_for(patches, setting, is_safe=options.safe)
        self.done: dict[str, dict[int, bytes]] = {}
        self.steps: dict[str, Step] = {
            "dce": lambda patches, scope: remove_unreachable(patches, kept=scope.skipped),
            "dead-stores": drop_dead_stores,
            "copies": drop_copies,
            "peephole": self._peephole,
            "stores": lambda patches, scope: merge_stores(patches, scope, byteorder_of(setting)),
            "jumps": straighten,
            "tails": merge_tails,
        }

    def run(self) -> None:
        """Go round."""
        for number in range(_ROUNDS):
            steps = [name for name in STEPS if name != "peephole" or number < _PEEPHOLE_ROUNDS]
            n_edits = sum(self._step(name) for name in steps)
            if n_edits <= _n_slots(self.patches) // _FEW:
                break

    def _step(self, name: str) -> int:
        if name in self.keeps.everywhere:
            return 0
        before = fingerprints(self.patches.view())
        done = self.done.get(name, {})
        unchanged = frozenset(one for one, mark in done.items() if before.get(one) == mark)
        skipped = self.keeps.skipped(name) | (unchanged if name != "dce" else frozenset())
        n_before = _n_slots(self.patches)
        n_edits = sum(
            self.steps[name](self.patches, scope) for scope in self._scopes(skipped, set(before))
        )
        self.done[name] = fingerprints(self.patches.view())
        self.setting.counts[name] += n_before - _n_slots(self.patches)
        return n_edits

    def _scopes(self, skipped: frozenset[int], subprogs: set[int]) -> list[Scope]:
        """What a step may change: once what it does safely, once the rest."""
        whole = replace(self.scope, n_rounds=1)
        if self.options.safe:
            return [replace(whole, skipped=skipped, is_safe=True)]
        is_safe = self.keeps.safe_only()
        groups = ((is_safe, True), (frozenset(subprogs) - is_safe, False))
        return [
            replace(whole, skipped=skipped | frozenset(subprogs - group), is_safe=safe)
            for group, safe in groups
            if group & subprogs - skipped
        ]

    def _peephole(self, patches: PatchList, scope: Scope) -> int:
        """Run the rules, on functions with the same ones together."""
        groups: dict[frozenset[str], list[str]] = {}
        for subprog in sorted(set(range(len(patches.program.subprogs))) - scope.skipped):
            groups.setdefault(self.keeps.rules_off(subprog), []).append(str(subprog))
        counts: Counter[str] = Counter()
        for off, subprogs in groups.items():
            one = Peephole(
                self.options.rules,
                scope.is_safe,
                "+".join(sorted(off)) or None,
                "+".join(subprogs),
            )
            one.run_for(patches, replace(self.setting, counts=counts))
        for rule, count in counts.items():
            self.setting.counts[f"peephole:{rule}"] += count
        return counts.total()


def _n_slots(patches: PatchList) -> int:
    return int(np.size(patches.view().node))
