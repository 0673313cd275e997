"""Far jumps made to fit by islands: jumps within reach, which jump on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.program.types import Mask, Slots

from .plan import PATIENCE, REACH, Relaxed, RelaxedCode, RelaxPlan, StuckError, is_far

_TRIES: Final = ((16, 2), (16, 4), (8, 4), (4, 5))
"""How many places for islands are in a reach, and by which shift of what is needed there is more
room than that. Many places are near to a reach's end, and much room saves rounds; where so many
jumps cross that their islands push each other out, fewer places and less room are better."""


@dataclass(frozen=True, slots=True, eq=False)
class _Sites:
    """Where islands may stand: after these instructions.

    Attributes:
        slot: (m,) the instructions, ascending.
        bound: (m,) the slots after them.
        around: (m,) 1 where a jump must lead around the islands, else 0.
    """

    slot: NDArray[np.int64]
    bound: NDArray[np.int64]
    around: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class _Room:
    """Code with some room at each site, in the direction of some jumps.

    Coordinates grow in that direction, from 0 up.

    Attributes:
        near: (m,) the first slot of each site's islands, ascending.
        end: (m,) the last one.
        reach: how far a jump gets.
    """

    near: NDArray[np.int64]
    end: NDArray[np.int64]
    reach: int


@dataclass(frozen=True, slots=True, eq=False)
class _Chains:
    """Islands for groups of jumps to one target.

    Attributes:
        group: (k,) group of each island, ascending.
        site: (k,) its place; within a group in the order in which they are run.
    """

    group: NDArray[np.intp]
    site: NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class _Way:
    """The jumps in one direction.

    Attributes:
        sign: 1 for those that lead forward, -1 for those that lead back.
        row: (r,) the jumps, as rows of `RelaxedCode`.
        group: (r,) of all that jump to one target.
        source: (g,) of each group the slot of the jump that is farthest from the target.
        target: (g,) the target.
        source_room: (g,) how many sites are in front of the source.
        target_room: (g,) how many are in front of the target.
    """

    sign: int
    row: NDArray[np.intp]
    group: Slots
    source: Slots
    target: NDArray[np.intp]
    source_room: NDArray[np.intp]
    target_room: NDArray[np.intp]


def by_islands(code: RelaxedCode, reach: int) -> RelaxPlan:
    """Put islands between jumps and their targets."""
    far = is_far(code.target - code.slot - 1, reach)
    leaving = np.flatnonzero(far & code.leaves())
    if leaving.size:
        raise StuckError(
            code.row[leaving],
            "it leaves its subprog, so that an island would be part of neither; allow cpu v4, "
            "whose gotol reaches any target",
        )
    code = _of_long_subprogs(code, far)
    for n_sites, spare in _TRIES[:-1]:
        try:
            return _placed(code, reach, n_sites, spare)
        except StuckError:
            continue
    return _placed(code, reach, *_TRIES[-1])


def _placed(code: RelaxedCode, reach: int, n_sites: int, spare: int) -> RelaxPlan:
    """Put islands at so many places a reach, with a little room to spare at first."""
    sites = _sites(code, max(reach // n_sites, 1))
    ways = (_way(code, sites, 1), _way(code, sites, -1))
    size = np.zeros(sites.slot.size, np.int64)
    n_rounds = 0
    while True:
        room = size + np.where(size > 0, sites.around, 0)
        chains = [_chains(code, sites, way, room, reach) for way in ways]
        counts = [np.bincount(found.site, minlength=size.size) for found in chains]
        count = counts[0] + counts[1]
        if (count <= size).all():
            return _islands(code, sites, ways, chains, room, reach)
        # More than is needed now, since room for one island moves others.
        needed = count + (count >> spare)
        # At first room is given back, so that it is close; then it only grows, which has an end.
        size = needed if n_rounds < PATIENCE else np.maximum(size + (size >> 4), needed)
        n_rounds += 1


def _of_long_subprogs(code: RelaxedCode, far: Mask) -> RelaxedCode:
    """The same, without the references in subprogs where nothing is far: nothing changes there."""
    which = np.searchsorted(code.heads, code.slot, side="right")
    is_long = np.zeros(code.heads.size + 1, bool)
    is_long[which[far]] = True
    rows = np.flatnonzero(is_long[which] & ~code.leaves())
    return replace(code, row=code.row[rows], slot=code.slot[rows], target=code.target[rows])


def _sites(code: RelaxedCode, step: int) -> _Sites:
    """The best place in every ``step`` slots of the subprogs that the references are in.

    That is the last one that control cannot fall into, or the last one.
    """
    n_slots = code.n_slots
    free = code.places_of(_IS_END)
    edge = np.minimum(np.arange(step, n_slots + step, step), n_slots)
    last = code.at_or_before(edge - 1)
    # After the last instruction of a subprog, a jump around would lead into the next subprog.
    last = np.where(code.is_last(last), code.at_or_before(np.maximum(last - 1, 0)), last)
    last = last[~code.is_last(last)]
    best = np.full(edge.size, -1, np.int64)
    best[last // step] = last
    best[free // step] = free  # of several values for one place NumPy keeps the last
    slot = np.unique(best[best >= 0])
    owner = np.searchsorted(code.heads, slot, side="right")
    has_far = np.zeros(code.heads.size + 1, bool)
    has_far[np.searchsorted(code.heads, code.slot, side="right")] = True
    slot = slot[has_far[owner]]
    return _Sites(slot, code.following(slot), (~_IS_END[code.opcode(slot)]).astype(np.int64))


def _ends() -> Mask:
    """By opcode byte, whether the next instruction cannot run after it."""
    out = np.zeros(256, bool)
    out[[opcode.code for opcode in isa.OPCODES if not opcode.falls_through]] = True
    return out


_IS_END: Final = _ends()


def _way(code: RelaxedCode, sites: _Sites, sign: int) -> _Way:
    """The jumps in one direction, by their targets."""
    row = np.flatnonzero((code.target > code.slot) == (sign > 0))
    slot, target = code.slot[row], code.target[row]
    low = int(target.min(initial=code.n_slots)) if row.size else 0
    span = int(target.max(initial=-1)) + 1 - low if row.size else 0
    farthest = np.full(span, -1, np.int32)
    # The farthest one is the first in the way, and the last to be written.
    farthest[target[::-sign] - low] = slot[::-sign]
    targets = np.flatnonzero(farthest >= 0)
    number = np.empty(span, np.int32)
    number[targets] = np.arange(targets.size, dtype=np.int32)
    source, group, targets = farthest[targets], number[target - low], targets + low
    return _Way(
        sign,
        row,
        group,
        source,
        targets,
        np.searchsorted(sites.bound, source, side="right"),
        np.searchsorted(sites.bound, targets, side="right"),
    )


def _room(sites: _Sites, sign: int, room: NDArray[np.int64], total: int, reach: int) -> _Room:
    start = sites.bound + np.cumsum(room) - room
    first = start + np.where(room > 0, sites.around, 0)
    last = start + np.maximum(room, 1) - 1
    if sign > 0:
        return _Room(first, last, reach)
    return _Room(total - last[::-1], total - first[::-1], reach - 1)


def _towards(sign: int, total: int, places: NDArray[np.int64]) -> NDArray[np.int64]:
    return places if sign > 0 else total - places


def _chains(
    code: RelaxedCode, sites: _Sites, way: _Way, room: NDArray[np.int64], reach: int
) -> _Chains:
    """For each group whose farthest jump is too far, the fewest islands that get it there.

    An island goes to the farthest site in reach, in any place there: so the first place counts
    where it jumps on, the last one where it is jumped to.
    """
    total = code.n_slots + int(room.sum())
    map_ = _room(sites, way.sign, room, total, reach)
    grown = np.append(0, np.cumsum(room))
    at = _towards(way.sign, total, way.source + grown[way.source_room])
    goal = _towards(way.sign, total, way.target + grown[way.target_room])
    live = np.flatnonzero(goal - at > map_.reach)
    at = at[live]
    site = np.searchsorted(map_.end, at + map_.reach, side="right") - 1
    # From the second island on the places are few: those of sites.
    onward = np.searchsorted(map_.end, map_.near + map_.reach, side="right") - 1
    groups, places = [np.zeros(0, np.intp)], [np.zeros(0, np.intp)]
    while live.size:
        stuck = (site < 0) | (map_.near[site] <= at)
        if stuck.any():
            raise StuckError(
                code.row[way.row[np.isin(way.group, live[stuck])]],
                "so many jumps cross here that their islands are out of one another's reach; "
                "allow cpu v4, whose gotol reaches any target, or split the subprog",
            )
        groups.append(live)
        places.append(site)
        at = map_.near[site]
        too_far = goal[live] - at > map_.reach
        live, at, site = live[too_far], at[too_far], onward[site[too_far]]
    group, site = np.concatenate(groups), np.concatenate(places)
    by_group = _by(group)
    site = site[by_group]
    return _Chains(group[by_group], site if way.sign > 0 else sites.slot.size - 1 - site)


def _by(keys: NDArray[np.intp]) -> NDArray[np.intp]:
    """An order by small numbers, stable: NumPy sorts those of 16 bits in linear time."""
    is_small = int(keys.max(initial=0)) < 1 << 16
    return np.argsort(keys.astype(np.uint16) if is_small else keys, kind="stable")


def _islands(
    code: RelaxedCode,
    sites: _Sites,
    ways: tuple[_Way, _Way],
    chains: list[_Chains],
    room: NDArray[np.int64],
    reach: int,
) -> RelaxPlan:
    """The plan, once there is room enough."""
    node, n_pool = code.node, code.merged.state.n_pool
    n_forward = chains[0].site.size
    site = np.concatenate([found.site for found in chains])
    # At each site in use: the jump around, then its islands, those of the first way first.
    count = np.bincount(site, minlength=sites.slot.size)
    used = np.flatnonzero(count)
    count, is_around = count[used], sites.around[used] > 0
    begin = np.cumsum(count + is_around) - count - is_around
    number = np.empty(site.size, np.intp)
    number[_by(site)] = np.arange(site.size) + np.repeat(np.cumsum(is_around), count)
    around = begin[is_around]
    n_new = site.size + around.size
    target, of_jump = np.empty(n_new, np.int32), np.empty(n_new, np.int32)
    target[around] = node(sites.bound[used[is_around]])
    of_jump[around] = node(sites.slot[used[is_around]])
    jumps: list[Slots] = []
    to: list[Slots] = []
    for way, found, mine in zip(
        ways, chains, (number[:n_forward], number[n_forward:]), strict=True
    ):
        is_end = np.append(found.group[1:] != found.group[:-1], True)[: mine.size]
        onward = np.append(n_pool + mine[1:], 0).astype(np.int32)[: mine.size]
        target[mine] = np.where(is_end, node(way.target[found.group]), onward)
        of_jump[mine] = node(way.source[found.group])
        rows, island = _joins(code, sites, way, found, room, reach)
        jumps.append(node(code.slot[way.row[rows]]))
        to.append((n_pool + mine[island]).astype(np.int32))
    has_line = np.ones(n_new, bool)
    has_line[around] = False
    jump = np.concatenate(jumps)
    return RelaxPlan(
        after=np.repeat(sites.slot[used], count + is_around),
        word=np.full(n_new, isa.JA, np.uint64),
        target=target,
        site=of_jump,
        has_line=has_line,
        jump=jump,
        to=np.concatenate(to),
        changed=np.zeros(0, np.int32),
        changed_word=np.zeros(0, np.uint64),
        relaxed=Relaxed("islands", jump.size, site.size, int(count[is_around].sum()), n_new),
    )


def _joins(
    code: RelaxedCode,
    sites: _Sites,
    way: _Way,
    chains: _Chains,
    room: NDArray[np.int64],
    reach: int,
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The jumps of a way that are too far, and the island of its group that each goes to.

    That is the one nearest to the target of those in reach. The farthest jump of the group
    cannot do but take the first, so that every island is in use.
    """
    total = code.n_slots + int(room.sum())
    map_ = _room(sites, way.sign, room, total, reach)
    grown = np.append(0, np.cumsum(room))
    slot = code.slot[way.row]
    at = slot + grown[np.searchsorted(sites.bound, slot, side="right")]
    at = _towards(way.sign, total, at)
    goal = _towards(way.sign, total, way.target + grown[way.target_room])[way.group]
    rows = np.flatnonzero(goal - at > map_.reach)
    place = chains.site if way.sign > 0 else sites.slot.size - 1 - chains.site
    base = np.int64(total + 2 * REACH)  # greater than any place: a group's keys stay together
    keys = chains.group * base + map_.end[place]
    island = np.searchsorted(keys, way.group[rows] * base + at[rows] + map_.reach, side="right") - 1
    return rows, island
