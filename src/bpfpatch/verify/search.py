"""The search for an input on which two programs differ.

Every input is run on both. One that takes a new way through either of them is
kept, and then made use of: entries are put where it looked into maps in vain;
each of its bytes is changed to see which comparisons depend on it; and these
bytes are then set to what makes a comparison come out the other way, or to the
values at which it tips. In between inputs are changed at random.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from bpfpatch.interp.contexts import ETH_HEADER

from .case import Case
from .checksums import repaired, right_sums, spoiled
from .compare import Difference, differences, is_inconclusive
from .coverage import Compare, Edge
from .entries import Places, filled, hits, with_initial
from .generate import MAX_PACKET, MIN_PACKET, Mutator, first_cases, resized, with_marked_fields
from .kinds import Shape
from .observer import OTHERWISE
from .side import Observation, Side
from .solve import Effort, Place, SolveTarget, more_for, solutions

_ROOM: Final = 100_000
"""Instructions that the rewritten program may take beside what the original took."""
_FACTOR: Final = 64
"""How many instructions may stand for one of the original."""

_SAMPLED: Final = 16
"""Every so many inputs one goes into the sample."""

_SWEPT: Final = 4096
"""Bytes of a buffer that are changed."""
_PIECES: Final = (_SWEPT, 512, 64, 8, 1)
"""How many of them together: where these have an effect, it is looked which of them have."""
_STEPS: Final = (1, -1, 64)
"""By how many bytes packets are made longer to see which comparisons depend on their length."""
_SPELLED: Final = 8
"""Elements of arrays, and results of helpers, that an input is given to be changed."""
_SHARE: Final = 0.5
"""Part of the time that is spent at least while there are ways that no run took."""
_ON_LEFT, _ON_RIGHT, _IS_GONE = 1, 2, 4
_ATTEMPTS: Final = (1200, 400)
"""Inputs that are made for one comparison, all in all: of the original, of the rewritten
program, whose comparisons are mostly the original's."""
_MOST_WAYS: Final = 1024
"""Ways through both programs that are known again."""
_OCCURRENCES: Final = 3
"""Of a comparison that runs again and again the first ones are looked at."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far a search goes.

    Attributes:
        seconds: most time that is spent in each mode.
        runs: most inputs.
        patience: stop after so many inputs that showed nothing new; not before half of the
            time is over while there are branches that only went one way.
        seed: the same seed makes the same inputs.
        budget: instructions that the original may take for one input.
    """

    seconds: float = 10.0
    runs: int = 100_000
    patience: int = 2000
    seed: int = 0
    budget: int = 200_000


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """An input that took a new way.

    Attributes:
        case: the input.
        compares: of each side what it compared.
        lookups: what it looked up in maps: map, key, whether it was there.
        perturbed: results of helpers that may be anything.
        reaches: bytes of the packet that were looked for beyond its end.
    """

    case: Case
    compares: tuple[tuple[Compare, ...], tuple[Compare, ...]]
    lookups: tuple[tuple[str, bytes, bool], ...]
    perturbed: tuple[tuple[str, int, int], ...]
    reaches: tuple[int, ...] = ()


class Found(Exception):  # noqa: N818 - it is what the search is for
    """An input on which the programs differ."""

    def __init__(self, case: Case, found: tuple[Difference, ...]) -> None:
        self.case = case
        self.found = found
        super().__init__(str(found[0]))


class _Over(Exception):  # noqa: N818 - control flow out of nested generators
    """A bound is reached."""


@dataclass(slots=True)
class Search:
    """One search.

    Attributes:
        before: the original.
        after: the rewritten program.
        shape: what they are run on.
        bounds: when to stop.
        ignore: what need not be the same.
        vary_rodata: also change what is in read-only sections.
        progress: called now and then with the number of inputs so far.
        fixed: map and key of what a setup gives, which is not changed.
        goes_on: keep inputs on which the programs differ as ``suspects``, and search on.
        suspects: these.
        n_runs: inputs so far.
        n_inconclusive: of these, how many the original itself did not get through.
        n_errors: of these, on how many both ended with the same error.
        errors: the first such error of each kind.
        kept: inputs that took new ways.
        sample: some of all inputs, for modes that do not show which path a run takes.
    """

    before: Side
    after: Side
    shape: Shape
    bounds: Bounds
    ignore: Collection[str] = ()
    vary_rodata: bool = True
    progress: Callable[[int], None] | None = None
    fixed: Places = ()
    goes_on: bool = False
    suspects: list[Case] = field(default_factory=list)
    n_runs: int = 0
    n_inconclusive: int = 0
    n_errors: int = 0
    errors: dict[str, str] = field(default_factory=dict)
    kept: list[Kept] = field(default_factory=list)
    sample: list[Case] = field(default_factory=list)
    _features: set[tuple[int, Edge, int]] = field(default_factory=set)
    _ways: set[tuple[tuple[tuple[Edge, int], ...], ...]] = field(default_factory=set)
    _tipped: set[tuple[int, int]] = field(default_factory=set)
    _attempts: dict[tuple[int, int], int] = field(default_factory=dict)
    _out_of_reach: set[tuple[int, int]] = field(default_factory=set)
    _minds_sums: bool = False
    _last_new: int = 0
    _deadline: float = 0.0
    _rng: random.Random = field(default_factory=random.Random)

    def run(self, given: Iterable[Case] = ()) -> None:
        """Search until a bound is reached.

        Args:
            given: inputs to run before all others.

        Raises:
            Found: there is an input on which the programs differ.
        """
        self._rng = random.Random(self.bounds.seed)
        self._deadline = time.monotonic() + self.bounds.seconds
        try:
            self._search(given)
        except _Over:
            return

    def _search(self, given: Iterable[Case]) -> None:
        for case in given:
            self.try_case(case)
        for case in first_cases(self.shape, self._rng):
            self.try_case(case)
        state, vary = self.before.state, self.vary_rodata
        self._try_all(filled(state, self._rng, vary_rodata=vary, fixed=self.fixed))
        mutator = Mutator(self._rng, self.shape, self._numbers())
        n_explored = n_turned = n_tipped = 0
        self._last_new = self.n_runs
        while self.kept:
            # What is cheap comes first, for all that is new.
            if n_explored < len(self.kept):
                self._explore(self.kept[n_explored])
                n_explored += 1
            elif n_turned < len(self.kept):
                self._turn(self.kept[n_turned], Effort.OPEN)
                n_turned += 1
                self._last_new = self.n_runs
            elif n_tipped < len(self.kept):
                self._turn(self.kept[n_tipped], Effort.TIP)
                n_tipped += 1
                self._last_new = self.n_runs
            elif self.n_runs - self._last_new < self.bounds.patience:
                for _ in range(100):
                    kept = self._rng.choice(self.kept)
                    case = kept.case if self._rng.random() < 0.5 else self._spelled_out(kept)
                    self._try_with_sums(mutator.mutate(case), case)
            elif self._gives_up():
                return
            else:
                self._turn_again()

    def _gives_up(self) -> bool:
        """Whether nothing is left that more time might bring: ways not taken, and time."""
        left = self._deadline - time.monotonic()
        return left <= (1 - _SHARE) * self.bounds.seconds or not any(
            self._is_open(side, slot) and (number, slot) not in self._out_of_reach
            for number, side in enumerate((self.before, self.after))
            for slot in side.reached_branches()
        )

    def _turn_again(self) -> None:
        """Try comparisons anew, beginning with other inputs."""
        self._attempts.clear()
        for kept in self._rng.sample(self.kept, min(len(self.kept), 20)):
            self._turn(kept, Effort.OPEN)
        self._last_new = self.n_runs

    def _numbers(self) -> list[int]:
        """What the programs compare with."""
        sides = (self.before, self.after)
        found = {one.imm for side in sides for one in side.recorder.branches.values()}
        return sorted(found)

    def _try_all(self, changes: Iterable[Callable[[Case], Case]]) -> None:
        """Make changes to a few inputs."""
        for change in changes:
            for kept in self.kept[:4]:
                self.try_case(change(kept.case))

    def try_case(self, case: Case) -> tuple[Observation, Observation]:
        """Run both programs on one input.

        Raises:
            Found: they differ.
        """
        if self.n_runs >= self.bounds.runs or time.monotonic() >= self._deadline:
            raise _Over
        self.n_runs += 1
        if self.progress is not None and self.n_runs % 256 == 0:
            self.progress(self.n_runs)
        before, after = run_both(self.before, self.after, case)
        if is_inconclusive(before):
            self.n_inconclusive += 1
            return before, before
        found = differences(before, after, self.ignore)
        if found and self.goes_on:
            self.suspects.append(case)
        elif found:
            raise Found(case, found)
        if before.error is not None:
            self.n_errors += 1
            self.errors.setdefault(type(before.error).__name__, str(before.error))
        if self.n_runs % _SAMPLED == 0:
            self.sample.append(case)
        self._keep(case)
        return before, after

    def _keep(self, case: Case) -> None:
        sides = (self.before, self.after)
        ways = tuple(tuple(side.recorder.edges.items()) for side in sides)
        if ways in self._ways:
            return  # to tell what is new in a way takes longer than to know it again
        if len(self._ways) < _MOST_WAYS:
            self._ways.add(ways)
        features = {
            (number, edge, min(count.bit_length(), 6))
            for number, way in enumerate(ways)
            for edge, count in way
        }
        if self.kept and features <= self._features:
            return
        self._features |= features
        self._last_new = self.n_runs
        machine = self.before.machine
        self.kept.append(
            Kept(
                case,
                (tuple(self.before.compares), tuple(self.after.compares)),
                tuple(machine.lookups),
                tuple(machine.perturbed),
                tuple(dict.fromkeys(machine.reaches)),
            )
        )

    # Making use of an input.

    def _repaired(self, case: Case, like: Case) -> Case:
        """The input with those checksums right that are right in another one, if programs look."""
        if not self._minds_sums or case.packet is None or like.packet is None:
            return case
        return case.with_buffer(0, repaired(case.packet, right_sums(like.packet)))

    def _try_with_sums(self, case: Case, like: Case) -> None:
        """Try an input as it is, and with its checksums right where that is another one."""
        self.try_case(case)
        other = self._repaired(case, like)
        if other != case:
            self.try_case(other)

    def _look_at_sums(self, kept: Kept) -> None:
        """Find out whether the programs take another path for wrong checksums."""
        packet = kept.case.packet
        if self._minds_sums or packet is None or not right_sums(packet):
            return
        self.try_case(kept.case)
        as_it_is = set(self.before.recorder.edges)
        self.try_case(kept.case.with_buffer(0, spoiled(packet)))
        self._minds_sums = as_it_is != set(self.before.recorder.edges)

    def _explore(self, kept: Kept) -> None:
        self._look_at_sums(kept)
        for case in hits(kept.case, kept.lookups, self.before.state, self._rng, self.fixed):
            self.try_case(case)
        for name, number, value in kept.perturbed:
            others = (0, value ^ 1, (1 << 64) - 1, self._rng.getrandbits(32))
            for other in (OTHERWISE[name],) if name in OTHERWISE else others:
                self.try_case(kept.case.with_result(name, number, other))
        for case in self._other_lengths(kept):
            self.try_case(case)
        self.try_case(with_marked_fields(kept.case))

    def _other_lengths(self, kept: Kept) -> Iterator[Case]:
        """Packets as long as comparisons with the packet's end, and calls, ask for."""
        packet = kept.case.packet
        if packet is None:
            return
        # What the program's packet starts with may not be the Ethernet header.
        steps = {end + more - len(packet) for end in kept.reaches for more in (0, ETH_HEADER)}
        for one in kept.compares[0]:
            if is_of_packet(one):
                gap = one.left - one.right
                if abs(gap) < 1 << 16:
                    steps |= {gap - 1, gap, gap + 1, -gap}
        for step in sorted(steps)[:24]:
            changed = resized(packet, len(packet) + step)
            if changed != packet:
                yield kept.case.with_buffer(0, changed)

    def _turn(self, kept: Kept, effort: Effort) -> None:
        """Make comparisons come out the other way, or tip over."""
        for number, side in enumerate((self.before, self.after)):
            targets = [
                target
                for target in occurrences(kept.compares[number])
                if self._is_wanted(number, target.compare.slot, effort)
            ]
            if not targets:
                continue
            self._turn_by_length(kept, number, targets)
            for target, places, is_left in self._dependent(kept, side, targets):
                self._turn_one(kept, number, target, places, effort, is_left=is_left)

    def _turn_by_length(self, kept: Kept, number: int, targets: list[SolveTarget]) -> None:
        """Make packets as long as comparisons of their length, or of what follows from it, ask."""
        packet = kept.case.packet
        if packet is None:
            return
        side = (self.before, self.after)[number]
        sizes: dict[int, None] = {}
        for step in _STEPS:
            longer = resized(packet, len(packet) + step)
            if len(longer) == len(packet):
                continue
            self.try_case(kept.case.with_buffer(0, longer))
            now = _by_occurrence(side.compares)
            for target in targets:
                other = now.get((target.compare.slot, target.occurrence))
                if other is None:
                    continue
                branch = side.recorder.branches[target.compare.slot]
                for more in more_for(target.compare, other, len(longer) - len(packet), branch):
                    size = len(packet) + more
                    sizes[size] = None
                    if not MIN_PACKET <= size <= MAX_PACKET and is_of_packet(target.compare):
                        self._out_of_reach.add((number, branch.slot))
        for size in list(sizes)[: _ATTEMPTS[1]]:
            self.try_case(kept.case.with_buffer(0, resized(packet, size)))

    def _is_wanted(self, number: int, slot: int, effort: Effort) -> bool:
        """Whether something is to be gained at a comparison: a new way, or its tipping points."""
        site = (number, slot)
        if self._attempts.get(site, 0) >= _ATTEMPTS[number]:
            return False
        if effort is Effort.OPEN:
            return self._is_open((self.before, self.after)[number], slot)
        # The rewritten program's comparisons are mostly the original's: tip these only.
        return number == 0 and site not in self._tipped

    def _turn_one(
        self,
        kept: Kept,
        number: int,
        target: SolveTarget,
        places: list[Place],
        effort: Effort,
        *,
        is_left: bool,
    ) -> None:
        slot = target.compare.slot
        if not self._is_wanted(number, slot, effort):
            return
        side = (self.before, self.after)[number]
        if effort is Effort.TIP:
            self._tipped.add((number, slot))
        branch = side.recorder.branches[slot]
        case = self._spelled_out(kept)
        for changed in solutions(case, target.compare, branch, places, effort, is_left=is_left):
            self._attempts[number, slot] = self._attempts.get((number, slot), 0) + 1
            self._try_with_sums(changed, kept.case)
            if effort is Effort.OPEN and not self._is_open(side, slot):
                return

    def _is_open(self, side: Side, slot: int) -> bool:
        branch = side.recorder.branches[slot]
        return any(edge not in side.seen for edge in branch.edges)

    def _dependent(
        self, kept: Kept, side: Side, targets: list[SolveTarget]
    ) -> Iterator[tuple[SolveTarget, list[Place], bool]]:
        """Which bytes of the input each comparison depends on, and on which of its sides."""
        case = self._spelled_out(kept)
        left: dict[SolveTarget, list[Place]] = {target: [] for target in targets}
        right: dict[SolveTarget, list[Place]] = {target: [] for target in targets}
        for buffer, content in enumerate(case.buffers()):
            for at in self._touchy(case, side, targets, (buffer, 0, min(len(content), _SWEPT))):
                effects = self._effects_of_byte(case, side, targets, (buffer, at))
                for target, effect in zip(targets, effects, strict=True):
                    if effect & _ON_LEFT:
                        left[target].append((buffer, at))
                    if effect & _ON_RIGHT:
                        right[target].append((buffer, at))
        for target in targets:
            if left[target]:
                yield target, left[target], True
            elif right[target]:
                yield target, right[target], False

    def _touchy(
        self,
        case: Case,
        side: Side,
        targets: list[SolveTarget],
        piece: tuple[int, int, int],
        level: int = 0,
    ) -> Iterator[int]:
        """Bytes of a piece of a buffer, but for those of smaller pieces that have no effect."""
        buffer, start, end = piece
        if _PIECES[level] == 1:
            yield from range(start, end)
            return
        for first in range(start, end, _PIECES[level]):
            part = (buffer, first, min(first + _PIECES[level], end))
            # A whole that is no larger than its part need not be tried twice.
            is_tried = level > 0 and part == piece
            if is_tried or any(self._effects(case, side, targets, part, 0xFF)):
                yield from self._touchy(case, side, targets, part, level + 1)

    def _effects_of_byte(
        self, case: Case, side: Side, targets: list[SolveTarget], place: Place
    ) -> list[int]:
        piece = (place[0], place[1], place[1] + 1)
        effects = self._effects(case, side, targets, piece, 0xFF)
        if not any(effect & _IS_GONE for effect in effects):
            return effects
        # A smaller change may not lead away from the comparison.
        small = self._effects(case, side, targets, piece, 0x01)
        return [first | second for first, second in zip(effects, small, strict=True)]

    def _effects(
        self,
        case: Case,
        side: Side,
        targets: list[SolveTarget],
        piece: tuple[int, int, int],
        change: int,
    ) -> list[int]:
        """What changing bytes of a buffer does to each comparison: `_ON_LEFT` and so on."""
        buffer, start, end = piece
        content = bytearray(case.buffers()[buffer])
        for at in range(start, end):
            content[at] ^= change
        self.try_case(self._repaired(case.with_buffer(buffer, bytes(content)), case))
        now = _by_occurrence(side.compares)
        out = []
        for target in targets:
            other = now.get((target.compare.slot, target.occurrence))
            if other is None:
                out.append(_IS_GONE)
                continue
            effect = _ON_LEFT if other.left != target.compare.left else 0
            out.append(effect | (_ON_RIGHT if other.right != target.compare.right else 0))
        return out

    def _spelled_out(self, kept: Kept) -> Case:
        """The input with what it leaves to the machine, so that it can be changed.

        That is: results of helpers, elements of arrays that it looks up, global data.
        """
        case = kept.case
        perturbed = [one for one in kept.perturbed if one[0] not in OTHERWISE]
        for name, number, value in perturbed[:_SPELLED]:
            case = case.with_result(name, number, value)
        places = [(name, key) for name, key, is_there in kept.lookups if is_there]
        places = list(dict.fromkeys(places))[:_SPELLED]
        state, vary = self.before.state, self.vary_rodata
        return with_initial(case, places, state, vary_rodata=vary, fixed=self.fixed)


def run_both(before: Side, after: Side, case: Case) -> tuple[Observation, Observation]:
    """Run both programs on one input; the second gets as much time as any rewriting needs."""
    first = before.run(case)
    return first, after.run(case, _ROOM + _FACTOR * max(first.n_insns, 1))


def occurrences(compares: Sequence[Compare]) -> list[SolveTarget]:
    """The first few of each comparison."""
    counts: dict[int, int] = {}
    out = []
    for compare in compares:
        count = counts.get(compare.slot, 0)
        counts[compare.slot] = count + 1
        if count < _OCCURRENCES:
            out.append(SolveTarget(compare, count))
    return out


def _by_occurrence(compares: Sequence[Compare]) -> dict[tuple[int, int], Compare]:
    return {(one.compare.slot, one.occurrence): one.compare for one in occurrences(compares)}


def is_of_packet(compare: Compare) -> bool:
    """Whether both sides may be addresses in a packet: they are below 4 GiB."""
    return all(1 << 28 <= one < 1 << 32 for one in (compare.left, compare.right))
