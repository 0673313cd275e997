"""peephole: rewrite short runs of instructions by proved rules."""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import dataclass
from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.errors import OptionError
from bpfpatch.patch import Body, PatchList
from bpfpatch.program.types import Mask

from ..base import Pass, register
from ..setting import Setting
from .builtin import builtin_rules, proved_rules
from .code import RuleCode
from .match import Match, RuleMatcher
from .rule import Rule, fields_of

MOST_ROUNDS: Final = 12
"""Each of what is found leaves less code, or reads fewer registers; few objects take five."""
_V3: Final = 3
_NEWEST_NAMED: Final = 4


@register
@dataclass(frozen=True)
class Peephole(Pass):
    """Rewrite short runs of instructions by proved rules.

    Rules are tried until none fits any more; the result is never longer. What a loader fills in
    or checks stays as it is. Each round finds all places of all rules on the code as it is, and
    rewrites those that do not overlap.

    Attributes:
        rules: a file of further rules, see `bpfpatch.passes.peephole.rulefile`; they are proved
            first, which takes z3.
        safe: whether only rules are used that leave the verifier all that it knew, and nothing is
            concluded from comparisons, of which it may conclude less.
        skip: names of rules to leave out, with ``+`` between them.
        functions: numbers of the subprogs to rewrite, with ``+`` between them; by default all.
    """

    name = "peephole"
    knows_landing_pads = True
    rules: str | None = None
    safe: bool = True
    skip: str | None = None
    functions: str | None = None

    def run_for(self, patches: PatchList, setting: Setting) -> None:
        """Rewrite until nothing is found.

        Raises:
            OptionError: a file of rules that is none or not proved, or no such rule or subprog.
        """
        chosen = self._chosen(patches, setting)
        # What saves more goes first: of what overlaps, one is taken.
        chosen.sort(key=lambda rule: -rule.saves)
        groups = [[_matcher(rule) for rule in group] for group in _groups(chosen)]
        wanted = self._subprogs(len(patches.program.subprogs))
        # By subprog, the turn in which it is done with, unless something is found until then.
        ends = np.where(wanted, len(groups), 0)
        code = None
        for turn in range(MOST_ROUNDS * len(groups)):
            now = ends > turn
            if not now.any():
                return
            if code is None or (now != wanted).any():
                code, wanted = RuleCode(patches, now, branches=not self.safe), now
            found = _places(code, groups[turn % len(groups)])
            if not found:
                continue
            setting.counts.update(Counter(match.rule.name for match in found))
            ends[code.owner[[match.slots[-1] for match in found]]] = turn + 1 + len(groups)
            _rewrite(patches, code, found)
            code = None

    def _chosen(self, patches: PatchList, setting: Setting) -> list[Rule]:
        """The rules to try."""
        rules = [*builtin_rules(), *self._own()]
        names = {rule.name for rule in rules}
        skipped = set(self.skip.split("+")) if self.skip else set()
        if skipped - names:
            raise OptionError(
                f"pass peephole has no rule {', '.join(sorted(skipped - names))}; there are: "
                f"{', '.join(sorted(names))}"
            )
        cpu, little = _cpu(patches, setting), _is_little(setting)
        return [
            rule
            for rule in rules
            if rule.name not in skipped
            and rule.cpu <= cpu
            and (rule.is_safe or not self.safe)
            and (little or not rule.little)
        ]

    def _own(self) -> tuple[Rule, ...]:
        """The user's rules, proved."""
        if self.rules is None:
            return ()
        return proved_rules(self.rules)

    def _subprogs(self, n_subprogs: int) -> Mask:
        """(m,) whether each is to be rewritten."""
        if self.functions is None:
            return np.ones(n_subprogs, bool)
        out = np.zeros(n_subprogs, bool)
        for word in self.functions.split("+"):
            if not word.isdigit() or int(word) >= n_subprogs:
                raise OptionError(
                    f"pass peephole: functions are numbers below {n_subprogs}, not {word!r}"
                )
            out[int(word)] = True
        return out


def _places(code: RuleCode, matchers: list[RuleMatcher]) -> list[Match]:
    """All places where rules fit, but for those that overlap with one before."""
    taken = bytearray(len(code.view))
    found: list[Match] = []
    for matcher in matchers:
        for match in matcher.find(code):
            if not any(taken[slot] for slot in match.slots):
                found.append(match)
                for slot in match.slots:
                    taken[slot] = 1
    return found


@functools.cache
def _matcher(rule: Rule) -> RuleMatcher:
    return RuleMatcher(rule)


def _groups(rules: list[Rule]) -> list[list[Rule]]:
    """Rules that may be applied at once, to what was found out about the code without them.

    What a rule goes by must stay true when the others are applied. Most rules keep all that is
    read later, and go by registers that are read there. One that goes by what a register holds
    that would not be read there runs with its like alone, which keep all registers; so do those
    that change upper halves which nothing reads, and which go by no register's value.
    """
    plain = [rule for rule in rules if not rule.revives and not rule.low]
    return [
        plain, [rule for rule in rules if rule.revives], [rule for rule in rules if rule.low],
    ]  # fmt: skip


def _cpu(patches: PatchList, setting: Setting) -> int:
    """The highest cpu version that may be used: the target's, or what the program needs anyway.

    Who loads variables as maps has a kernel that knows v3.
    """
    if setting.target.cpu is not None:
        return setting.target.cpu
    needed = isa.min_cpu(patches.view().insns)
    known = needed[needed <= _NEWEST_NAMED]
    least = int(known.max(initial=1))
    has_variables = setting.edit is not None and bool(setting.edit.obj.variables)
    return max(least, _V3) if has_variables else least


def _is_little(setting: Setting) -> bool:
    if setting.edit is not None:
        return setting.edit.obj.byteorder == "little"
    return setting.target.arch.byteorder == "little"


def _rewrite(patches: PatchList, code: RuleCode, matches: list[Match]) -> None:
    """Put in what the rules say."""
    node = code.view.node
    gone: list[int] = []
    changed: list[tuple[int, ...]] = []
    turned: list[tuple[int, ...]] = []
    for match in matches:
        *others, last = (int(node[slot]) for slot in match.slots)
        gone += others
        after = match.rule.after
        if not after:
            gone.append(last)
            continue
        insns = match.insns()
        is_one = len(insns) == 1 and match.rule.before[-1].n_slots == 1
        if is_one and after[0].is_jump:
            turned.append((last, *fields_of(insns)[0]))
        elif is_one and not patches.program.columns:
            changed.append((last, *fields_of(insns)[0]))
        else:
            patches.replace(last, Body(insns))
    if changed:
        rows = np.array(changed, np.int64).T
        patches.modify(
            rows[0].astype(np.int32), code=rows[1], dst=rows[2], src=rows[3], off=rows[4],
            imm=rows[5],
        )  # fmt: skip
    if turned:
        rows = np.array(turned, np.int64).T
        patches.modify(
            rows[0].astype(np.int32), code=rows[1], dst=rows[2], src=rows[3], imm=rows[5]
        )
    if gone:
        patches.delete(np.array(gone, np.int32))
