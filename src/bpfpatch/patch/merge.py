"""Merge a run of commuting edits into a list's state, all at once."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.program.types import LOST, Mask, Slots, ascends, compress, gather, scatter

from .body import Body, To
from .log import Edits, Verb, is_uniform
from .state import ListState, NewRefs, RefTable


def merge_run(state: ListState, edits: Edits, bodies: list[Body], n_pool: int) -> None:
    """Apply edits whose order does not matter (see `log.commuting_prefix`) to a state.

    In plain Python, for each position i of the order and the one edit of it::

        new_order += pre_nodes(i)
        if keeps(i): new_order.append(order[i])
        new_order += post_nodes(i)

    and every reference, ``land`` and ``entry`` that pointed at node n now
    points at ``moved[n]``: n itself; the body's first node, where one captured
    it; the next live node of the subprog, where n is gone.

    Args:
        state: changed in place.
        edits: sites are distinct, live and in ``state.order``.
        bodies: what ``edits.body`` counts.
        n_pool: length of the pool with these edits' nodes in it.
    """
    position = state.positions()
    at = edits.site if position is state.order else gather(position, edits.site)
    heads = _Heads(state, edits, at, position)
    # A node that no edit touches keeps its references. Only nodes of before the run can have any:
    # whoever refers to a node that comes in is counted among the fresh ones below.
    moved_land = np.arange(state.n_pool, dtype=np.int32)
    captures = edits.captures()
    if captures.any():
        scatter(moved_land, compress(edits.site, captures), compress(edits.first, captures))
    slides = edits.slides()
    if slides.any():
        scatter(moved_land, compress(edits.site, slides), heads.after(compress(at, slides)))
    prologues = edits.is_prologue()
    # Calls and jumps part only at a prologue, which a call must run and a back edge must not.
    # Without one, both share an array, and following it once does for both.
    moved_entry = moved_land
    if prologues.any():
        moved_entry = moved_land.copy()
        moved_entry[edits.site[prologues]] = edits.first[prologues]

    moved = _Moved(moved_land, moved_entry)
    fresh = _fresh_refs(state, edits, bodies, heads, at, moved)
    order = _spread(state.order, edits, bodies, at)

    # Each original slot's place is composed with this run's moves. Of a list that no run has moved
    # yet, every place is its own node, and the composition is the moves themselves.
    if state.is_pristine:
        state.land, state.entry = moved_land, moved_entry
    else:
        same = moved_entry is moved_land and state.entry is state.land
        state.land = _follow(moved_land, state.land)
        state.entry = state.land if same else _follow(moved_entry, state.entry)
    state.is_pristine = False
    state.ref_target = moved.follow(state.ref_target, state.ref_is_entry)
    if fresh is not None:
        node, target, is_entry = fresh
        state.ref_node = _joined(state.ref_node, node)
        state.ref_target = _joined(state.ref_target, target)
        state.ref_is_entry = _joined(state.ref_is_entry, is_entry)
    order.flags.writeable = False  # it is handed out
    state.order = order
    state.n_pool = n_pool


class _Heads:
    """Where what falls or slides to a position of the old order arrives after the run."""

    __slots__ = ("_at", "_edits", "_head", "_next", "_position", "_state")

    def __init__(self, state: ListState, edits: Edits, at: Slots, position: Slots) -> None:
        self._state = state
        self._edits = edits
        self._at = at
        self._position = position
        self._next: Slots | None = None

    def after(self, at: Slots) -> Slots:
        """(n,) the first node that comes from a later position of the same subprog, or LOST."""
        if self._next is None:
            self._prepare()
        assert self._next is not None
        n_order = self._state.order.size
        starts = self._position[self._state.subprog_heads()]
        out = np.empty(at.size, np.int32)
        for part in isa.portions(at.size):
            here = at[part]
            later = self._next[here + 1]
            is_same = np.searchsorted(starts, here, "right") == (
                np.searchsorted(starts, later, "right")
            )
            is_same &= later < n_order
            out[part] = np.where(is_same, self._head[np.minimum(later, n_order - 1)], LOST)
        return out

    def _prepare(self) -> None:
        """Compute each position's head, and the next position that has one."""
        edits, order = self._edits, self._state.order
        head = order.copy()
        following = np.arange(order.size + 1, dtype=np.int32)
        for part in isa.portions(len(edits)):
            at = self._at[part]
            gone = at[~edits.keeps[part] & (edits.n_pre[part] == 0)]
            head[gone] = LOST
            following[gone] = order.size
            # A prologue needs no case of its own: commuting_prefix() puts it in no run with edits
            # that let something slide, since what slides must not run one.
            has_pre = edits.n_pre[part] > 0
            head[at[has_pre]] = edits.first[part][has_pre]
        backward = following[::-1]
        np.minimum.accumulate(backward, out=backward)
        self._head = head
        self._next = following


@dataclass(frozen=True, slots=True, eq=False)
class _Moved:
    """Where what referred to each node goes: jumps by ``land``, calls by ``entry``."""

    land: Slots
    entry: Slots

    def follow(self, target: Slots, is_entry: Mask) -> Slots:
        """(n,) where these references go now."""
        out = _follow(self.land, target)
        if self.entry is not self.land:
            out[is_entry] = _follow(self.entry, target[is_entry])
        return out


def _fresh_refs(
    state: ListState, edits: Edits, bodies: list[Body], heads: _Heads, at: Slots, moved: _Moved
) -> tuple[Slots, Slots, Mask] | None:
    """The references that the edits bring in: nodes, targets after the run, and which are calls."""
    if not any(body.has_refs for body in bodies):
        return None
    table = RefTable(bodies)
    assert ascends(state.ref_node)  # later edits have greater nodes
    n_refs = table.count(edits)
    node, target = np.empty(n_refs, np.int32), np.empty(n_refs, np.int32)
    is_entry = np.empty(n_refs, bool)
    done = 0
    for part in isa.portions(len(edits)):
        some = edits.part(part.start, part.stop)
        fresh = table.of(some)
        found = _fresh_targets(state, fresh, some, heads, at[part])
        is_old = (fresh.to == To.TARGET) | (fresh.to == To.NODE)
        if is_old.any():
            # A new reference to an old node means the node as it is after the run, as all others.
            found[is_old] = moved.follow(found[is_old], fresh.is_entry[is_old])
            state.has_foreign_refs |= bool((fresh.to == To.NODE).any())
        rows = slice(done, done + fresh.node.size)
        node[rows], target[rows], is_entry[rows] = fresh.node, found, fresh.is_entry
        done += fresh.node.size
    return node, target, is_entry


def _fresh_targets(
    state: ListState, fresh: NewRefs, edits: Edits, heads: _Heads, at: Slots
) -> Slots:
    """(r,) nodes that the new references refer to, those to old nodes not moved yet."""
    target = fresh.value.copy()
    site = edits.site[fresh.edit]
    is_orig = fresh.to == To.ORIG
    target[is_orig] = site[is_orig]
    is_target = fresh.to == To.TARGET
    if is_target.any():
        target[is_target] = state.targets_of(site[is_target])
    is_end = fresh.to == To.END
    if is_end.any():
        ends_at_site = is_end & (edits.verb[fresh.edit] <= Verb.PREPEND)
        target[ends_at_site] = site[ends_at_site]
        ends_after = is_end & ~ends_at_site
        target[ends_after] = heads.after(at[fresh.edit[ends_after]])
    return target


def _joined(old: NDArray[Any], new: NDArray[Any]) -> NDArray[Any]:
    """One array after the other."""
    return np.concatenate([old, new]) if old.size else new


def _spread(order: Slots, edits: Edits, bodies: list[Body], at: Slots) -> Slots:
    """The new order: the old one with the edits' nodes spread into it.

    In portions of the old order: then nothing but the result leaves the cache.
    """
    is_one = is_uniform(edits)
    if is_one and _is_range(at):
        return _spread_range(order, edits, bodies[int(edits.body[0])], int(at[0]))
    if edits.growth() == -at.size:
        return _without(order, at)
    if not ascends(at):
        by_place = np.argsort(at)
        at, edits = at[by_place], edits.rows(by_place)
    out = np.empty(order.size + edits.growth(), np.int32)
    table = None if is_one else _node_table(bodies)
    portions = list(isa.portions(order.size))
    begins = np.array([portion.start for portion in portions], at.dtype)
    bounds = pairwise([*np.searchsorted(at, begins).tolist(), at.size])
    done = 0
    for portion, (low, high) in zip(portions, bounds, strict=True):
        part = order[portion]
        if low == high:
            out[done : done + part.size] = part
            done += part.size
            continue
        some = edits.part(low, high)
        here = at[low:high].astype(np.intp) - portion.start
        grown = np.ones(part.size, np.intp)
        grown[here] = some.n_pre + some.n_post + some.keeps
        place = np.cumsum(grown)
        end = done + int(place[-1])
        place -= grown
        base = place.take(here)
        block = out[done:end]
        done = end
        if some.keeps.all():
            place[here] += some.n_pre
            block[place] = part
        elif grown.all() and not some.keeps.any():
            block[place] = part  # at the sites, too: there the bodies' first nodes will be
        else:
            place[here] += some.n_pre
            grown[here] = some.keeps
            stays = np.flatnonzero(grown)
            block[place.take(stays)] = part.take(stays)
        if table is None:
            _spread_one_body(block, some, bodies[int(edits.body[0])], base)
        else:
            _spread_bodies(block, some, table, base)
    return out


def _without(order: Slots, at: Slots) -> Slots:
    """What is left of an order without these positions."""
    stays = np.ones(order.size, bool)
    stays[at] = False
    out = np.empty(order.size - at.size, np.int32)
    done = 0
    for part in isa.portions(order.size):
        left = np.flatnonzero(stays[part])
        np.take(order[part], left, out=out[done : done + left.size], mode="clip")
        done += left.size
    return out


def _is_range(at: Slots) -> bool:
    """Whether positions follow each other without a gap."""
    return int(at[-1]) - int(at[0]) == at.size - 1 and ascends(at)


def _spread_range(order: Slots, edits: Edits, body: Body, begin: int) -> Slots:
    """One body at all positions of a range: columns of a table, and nothing to look up."""
    n_sites, n_pre, keeps = len(edits), int(edits.n_pre[0]), bool(edits.keeps[0])
    width = body.nodes.size + keeps
    after = begin + n_sites
    out = np.empty(order.size + n_sites * (width - 1), np.int32)
    out[:begin] = order[:begin]
    out[begin + n_sites * width :] = order[after:]
    block = out[begin : begin + n_sites * width].reshape(n_sites, width)
    for index, slot in enumerate(body.nodes.tolist()):
        np.add(edits.first, np.int32(slot), out=block[:, index + (keeps and index >= n_pre)])
    if keeps:
        block[:, n_pre] = order[begin:after]
    return out


def _spread_one_body(out: Slots, edits: Edits, body: Body, place: NDArray[np.intp]) -> None:
    """Put the nodes of one body at many places; ``place`` is used up."""
    n_pre, at_node = int(edits.n_pre[0]), 0
    for index, slot in enumerate(body.nodes.tolist()):
        if index == n_pre:
            place += edits.keeps  # over the kept site
        place += index - at_node
        at_node = index
        out[place] = edits.first + np.int32(slot)


def _spread_bodies(
    out: Slots, edits: Edits, table: tuple[Slots, Slots], base: NDArray[np.intp]
) -> None:
    """Put the nodes of any bodies at their places; ``table`` is that of `_node_table`."""
    nodes, body_start = table
    count = edits.n_pre + edits.n_post
    edit = np.repeat(np.arange(len(edits), dtype=np.int32), count)
    within = np.arange(edit.size, dtype=np.int32) - np.repeat(np.cumsum(count) - count, count)
    place = base[edit] + within
    place += (within >= edits.n_pre[edit]) & edits.keeps[edit]
    out[place] = edits.first[edit] + nodes[body_start[edits.body[edit]] + within]


def _node_table(bodies: list[Body]) -> tuple[Slots, Slots]:
    """The bodies' node slots in one array, and where each body's begin."""
    count = np.array([body.nodes.size for body in bodies], np.int32)
    nodes = np.concatenate([body.nodes for body in bodies])
    return nodes, (np.cumsum(count) - count).astype(np.int32)


def _follow(moved: Slots, nodes: Slots) -> Slots:
    """``moved[nodes]``, with LOST left as it is."""
    out = gather(moved, nodes)  # LOST, which is -1, is put right below
    is_lost = nodes == LOST
    if is_lost.any():
        out[is_lost] = LOST
    return out
