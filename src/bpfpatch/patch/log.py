"""The log that edits are appended to until the next look at the list."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bpfpatch.program.types import Mask, Slots, ascends

from .body import Body, To


class Verb(IntEnum):
    """The five edits."""

    INSERT_BEFORE = 0
    PREPEND = 1
    INSERT_AFTER = 2
    REPLACE = 3
    DELETE = 4


@dataclass(frozen=True, slots=True, eq=False)
class Edits:
    """Edits in the order in which they were made.

    Attributes:
        verb: (e,) uint8 of `Verb`.
        site: (e,) int32 nodes.
        body: (e,) int32 index into the list's bodies.
        first: (e,) int32 node of the body's first instruction.
        n_pre: (e,) nodes that go in front of the site.
        n_post: (e,) nodes that go after it.
        keeps: (e,) whether the site's own instruction stays.
    """

    verb: NDArray[np.uint8]
    site: Slots
    body: Slots
    first: Slots
    n_pre: Slots
    n_post: Slots
    keeps: Mask

    def __len__(self) -> int:
        return int(self.site.size)

    def is_replaced(self) -> Mask:
        """(e,) whether a body takes the site's place."""
        return self._each(~_few(self.keeps) & (_few(self.n_pre) > 0))

    def captures(self) -> Mask:
        """(e,) whether jumps to the site now reach the body."""
        return self._each((_few(self.n_pre) > 0) & (_few(self.verb) != Verb.PREPEND))

    def is_prologue(self) -> Mask:
        """(e,) whether calls of the site, and no jumps to it, now reach the body."""
        return self._each((_few(self.n_pre) > 0) & (_few(self.verb) == Verb.PREPEND))

    def slides(self) -> Mask:
        """(e,) whether the site goes, and what referred to it moves on."""
        return self._each(~_few(self.keeps) & (_few(self.n_pre) == 0))

    def _each(self, found: Mask) -> Mask:
        return np.broadcast_to(found, self.site.shape)

    def growth(self) -> int:
        """By how many nodes all of them make a list longer."""
        counts = (self.n_pre, self.n_post, self.keeps)
        return sum(int(np.sum(count, dtype=np.int64)) for count in counts) - len(self)

    def rows(self, which: NDArray[np.intp]) -> Edits:
        """These edits, in this order."""
        return Edits(
            self.verb[which],
            self.site[which],
            self.body[which],
            self.first[which],
            self.n_pre[which],
            self.n_post[which],
            self.keeps[which],
        )

    def part(self, start: int, stop: int) -> Edits:
        """The edits from ``start`` up to ``stop``."""
        if start == 0 and stop == len(self):
            return self
        cut = slice(start, stop)
        return Edits(
            self.verb[cut],
            self.site[cut],
            self.body[cut],
            self.first[cut],
            self.n_pre[cut],
            self.n_post[cut],
            self.keeps[cut],
        )


def _few(values: NDArray[Any]) -> NDArray[Any]:
    """One of many equal values, where they take no memory; else all."""
    return values[:1] if values.strides == (0,) else values


class EditLog:
    """Edits that were made but not merged yet, cheap to append to.

    Attributes:
        bodies: the bodies of these edits; an edit names its index.
        verbs: verbs of edits by handle since the last bulk edit; `sites` and
            `body_ids` go with it. Public so that a verb costs three appends.
    """

    __slots__ = ("_chunks", "_ids", "bodies", "body_ids", "sites", "verbs")

    def __init__(self) -> None:
        self.bodies: list[Body] = []
        self._ids: dict[Body, int] = {}
        self._chunks: list[tuple[NDArray[np.uint8], Slots, Slots, Slots | None]] = []
        self.verbs = array("B")
        self.sites = array("i")
        self.body_ids = array("i")

    def __bool__(self) -> bool:
        return bool(self._chunks or self.verbs)

    def id_of(self, body: Body) -> int:
        """The index of a body, which is registered if it is new."""
        index = self._ids.get(body)
        if index is None:
            index = self._ids[body] = len(self.bodies)
            self.bodies.append(body)
        return index

    def extend(self, verb: Verb, sites: Slots, body_id: int, firsts: Slots) -> None:
        """Append edits in bulk: one verb, one body, and the nodes that its copies begin at."""
        self._seal()
        verbs = np.broadcast_to(np.uint8(verb), sites.shape)
        bodies = np.broadcast_to(np.int32(body_id), sites.shape)
        self._chunks.append((verbs, sites, bodies, firsts))

    def drain(self, next_node: int) -> tuple[Edits, list[Body]]:
        """Take all edits and bodies out; the first body's nodes count from ``next_node``."""
        self._seal()
        chunks, self._chunks = self._chunks, []
        bodies, self.bodies = self.bodies, []
        self._ids = {}
        if len(chunks) == 1:
            verb, site, body, firsts = chunks[0]
            if firsts is not None:
                return _uniform(Verb(int(verb[0])), site, body, bodies[0], firsts), bodies
        else:
            verb = np.concatenate([chunk[0] for chunk in chunks])
            site = np.concatenate([chunk[1] for chunk in chunks])
            body = np.concatenate([chunk[2] for chunk in chunks])
        n_slots = np.array([b.n_slots for b in bodies], np.int32)[body]
        first = np.cumsum(n_slots, dtype=np.int32)
        first += next_node - n_slots
        n_nodes = np.array([b.nodes.size for b in bodies], np.int32)[body]
        n_pre = np.array([b.n_pre for b in bodies], np.int32)[body]
        n_pre[verb == Verb.INSERT_AFTER] = 0
        body_keeps = np.array([b.keeps for b in bodies], bool)[body]
        keeps = (verb <= Verb.INSERT_AFTER) | ((verb == Verb.REPLACE) & body_keeps)
        return Edits(verb, site, body, first, n_pre, n_nodes - n_pre, keeps), bodies

    def _seal(self) -> None:
        """Close the run of edits by handle."""
        if not self.verbs:
            return
        self._chunks.append(
            (
                np.array(self.verbs, np.uint8),
                np.array(self.sites, np.int32),
                np.array(self.body_ids, np.int32),
                None,
            )
        )
        self.verbs = array("B")
        self.sites = array("i")
        self.body_ids = array("i")


def _uniform(verb: Verb, site: Slots, body: Slots, one: Body, first: Slots) -> Edits:
    """Edits that all put one body in by one verb: columns of one value take no memory."""
    n_pre = 0 if verb is Verb.INSERT_AFTER else one.n_pre
    keeps = verb <= Verb.INSERT_AFTER or (verb is Verb.REPLACE and one.keeps)
    return Edits(
        np.broadcast_to(np.uint8(verb), site.shape),
        site,
        body,
        first,
        np.broadcast_to(np.int32(n_pre), site.shape),
        np.broadcast_to(np.int32(one.nodes.size - n_pre), site.shape),
        np.broadcast_to(np.bool_(keeps), site.shape),
    )


def commuting_prefix(edits: Edits, bodies: list[Body], start: int, previous: Slots) -> int:
    """How far from ``start`` edits do not depend on each other's order: the end of that run.

    They do where two touch one node, where a site was put in by an earlier
    edit of the run, and where both a prepend and something that lets control
    or jumps slide to the next instruction are among them: whether a jump
    to a deleted instruction runs the prologue in front of the next one depends
    on which came first.

    Args:
        edits: all edits.
        bodies: what ``edits.body`` counts.
        start: where the run begins.
        previous: (e,) from `previous_touch`.
    """
    if start == 0 and is_uniform(edits) and int(previous.max()) < 0:
        # Of one verb and body, edits of old nodes commute; a chain of new ones does not.
        if int(edits.site.max()) < int(edits.first[0]):
            return len(edits)
        new = np.flatnonzero(edits.site >= edits.first[0])
        return int(new[0])
    slides = np.array([_slides(body) for body in bodies], bool)
    verb = edits.verb[start:]
    is_sliding = (verb == Verb.DELETE) | ((verb >= Verb.INSERT_AFTER) & slides[edits.body[start:]])
    is_sliding |= (verb == Verb.REPLACE) & (edits.n_pre[start:] == 0)
    is_prepend = verb == Verb.PREPEND
    clash = (previous[start:] >= start) | (
        _farthest_node(edits, bodies)[start:] >= edits.first[start]
    )
    if is_prepend.any() and is_sliding.any():
        clash |= np.logical_or.accumulate(is_prepend) & np.logical_or.accumulate(is_sliding)
    if not clash.any():
        return len(edits)
    return start + int(np.argmax(clash))


def previous_touch(edits: Edits, bodies: list[Body], n_pool: int) -> Slots:
    """(e,) the latest earlier edit whose site this one touches, or -1.

    An edit touches its site, and the nodes that its body refers to. A reference
    that came before an edit of its target is not a clash: that edit moves it along.
    """
    n_edits = len(edits)
    refs = _node_refs(edits, bodies)
    if not refs[0].size and ascends(edits.site):
        return np.broadcast_to(np.int32(-1), (n_edits,))
    out = np.full(n_edits, -1, np.int32)
    index = np.arange(n_edits, dtype=np.int32)
    if not refs[0].size:
        last = np.empty(n_pool, np.int32)
        last[edits.site] = index
        if (last[edits.site] == index).all():
            return out
    node = np.concatenate([edits.site, refs[1]])
    edit = np.concatenate([index, refs[0]])
    is_site = np.arange(node.size) < n_edits
    by_node = np.lexsort((~is_site, edit, node))
    node, edit, is_site = node[by_node], edit[by_node], is_site[by_node]
    is_head = np.append(True, node[1:] != node[:-1])
    group = np.maximum.accumulate(np.where(is_head, np.arange(node.size), 0))
    latest_site = np.maximum.accumulate(np.where(is_site, np.arange(node.size), -1))
    row = np.append(-1, latest_site[:-1])
    valid = row >= group
    # An edit's own body may refer to its site: that is not a clash with itself.
    valid &= edit[np.maximum(row, 0)] != edit
    np.maximum.at(out, edit[valid], edit[row[valid]])
    return out


def _slides(body: Body) -> bool:
    return any(ref.to is To.END for ref in body.refs)


def is_uniform(edits: Edits) -> bool:
    """Whether all edits put in one body in one way: the common case, and the fast one."""
    return _is_constant(edits.body) and _is_constant(edits.n_pre) and _is_constant(edits.verb)


def _is_constant(values: NDArray[Any]) -> bool:
    return values.strides == (0,) or bool((values == values[0]).all())


def _node_refs(edits: Edits, bodies: list[Body]) -> tuple[Slots, Slots]:
    """(edit, node) pairs for the references to nodes in the edits' bodies."""
    named = [[ref.value for ref in body.refs if ref.to is To.NODE] for body in bodies]
    nodes = np.array([node for of_body in named for node in of_body], np.int32)
    if not nodes.size:
        return nodes, nodes
    count = np.array([len(of_body) for of_body in named], np.int32)
    start = np.cumsum(count) - count
    per_edit = count[edits.body]
    edit = np.repeat(np.arange(len(edits), dtype=np.int32), per_edit)
    within = np.arange(edit.size) - np.repeat(np.cumsum(per_edit) - per_edit, per_edit)
    return edit, nodes[np.repeat(start[edits.body], per_edit) + within]


def _farthest_node(edits: Edits, bodies: list[Body]) -> Slots:
    """(e,) the greatest node that each edit touches."""
    edit, node = _node_refs(edits, bodies)
    if not edit.size:
        return edits.site
    out = edits.site.copy()
    np.maximum.at(out, edit, node)
    return out
