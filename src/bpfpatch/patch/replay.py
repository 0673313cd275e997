"""Apply edits one by one, over a linked list: for logs in which the order matters.

This takes some microseconds an edit, however long the program is, after a
start that is linear in the program, as merging is. It is the fallback for
edits that build on each other; the vectorised merge does the rest.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bpfpatch.program.types import LOST, Slots

from .body import Body, To
from .log import Edits, Verb
from .state import ListState


class _Labels:
    """What sits on which node: sets of references that move and merge together.

    A label stands for all references of one kind (jumps or calls) that have
    sat on one node. The label of a node of the old order is that node's
    number; a node that lost its label to a body gets a new one when an edit
    refers to it.
    """

    __slots__ = ("_next", "_on", "_parent", "at")

    def __init__(self, n_pool: int, total: int) -> None:
        self._on: dict[int, int] = {}  # node -> label, or LOST for none; default: itself
        self._parent: dict[int, int] = {}
        self._next = total
        self.at: dict[int, int] = {}  # label -> node; default: itself
        for node in range(n_pool, total):
            self._on[node] = LOST

    def on(self, node: int) -> int:
        return self._on.get(node, node)

    def ensure(self, node: int) -> int:
        """The label on a node; a new one where it has none."""
        label = self.on(node)
        if label == LOST:
            label = self._next
            self._next += 1
            self._put(label, node)
        return label

    def move(self, node: int, to: int) -> None:
        """What sits on ``node`` now sits on ``to``, which may have a label of its own."""
        label = self.on(node)
        self._on[node] = LOST
        if label == LOST:
            return
        if to == LOST:
            self.at[label] = LOST
            return
        # Two sets on one node can never part again, so they become one: with that, each edit costs
        # one step, however many references have gathered on its site (union by label, below).
        other = self.on(to)
        if other == LOST:
            self._put(label, to)
        else:
            self._parent[label] = other

    def find(self, label: int) -> int:
        """The label that this one was merged into."""
        parent = self._parent
        root = label
        while root in parent:
            root = parent[root]
        # Let all on the way point at the root: long chains of captures would cost their square.
        while label != root:
            parent[label], label = root, parent[label]
        return root

    def place(self, label: int) -> int:
        """The node that a label now sits on, or LOST."""
        root = self.find(label)
        return self.at.get(root, root)

    def moved(self, n_pool: int) -> Slots:
        """(n_pool,) the node on which what sat on each old node now sits."""
        out = np.arange(n_pool, dtype=np.int32)
        for label in (*self.at, *self._parent):
            if label < n_pool:
                out[label] = self.place(label)
        return out

    def _put(self, label: int, node: int) -> None:
        self._on[node] = label
        self.at[label] = node


class _Replay:
    """One replay: the linked list, the labels, and the references that came in."""

    def __init__(self, state: ListState, edits: Edits, bodies: list[Body], total: int) -> None:
        self.state = state
        self.edits = edits
        self.bodies = bodies
        self.total = total
        order = state.order
        after = np.full(total + 1, LOST, np.int32)
        before = np.full(total + 1, LOST, np.int32)
        # The list is a ring through a node that does not exist: no edit at either end is special.
        head = total
        ring = np.concatenate([[head], order, [head]]).astype(np.int32)
        after[ring[:-1]] = ring[1:]
        before[ring[1:]] = ring[:-1]
        self.after: list[int] = after.tolist()
        self.before: list[int] = before.tolist()
        self.head = head
        self.jumps = _Labels(state.n_pool, total)
        self.calls = _Labels(state.n_pool, total)
        self.starts = set(state.subprog_heads().tolist())  # labels of calls, by their roots
        self.refs: dict[int, tuple[_Labels, int]] = {}  # new node -> label it refers to
        self.old_refs: dict[int, int] | None = None

    def run(self) -> None:
        edits = self.edits
        rows = zip(
            edits.verb.tolist(),
            edits.site.tolist(),
            edits.body.tolist(),
            edits.first.tolist(),
            edits.n_pre.tolist(),
            edits.keeps.tolist(),
            strict=True,
        )
        for verb, site, body_id, first, n_pre, keeps in rows:
            self._apply(verb, site, self.bodies[body_id], first, n_pre, keeps)

    def _apply(self, verb: int, site: int, body: Body, first: int, n_pre: int, keeps: bool) -> None:
        named = self._named_targets(body, site)
        nodes = [first + slot for slot in body.nodes.tolist()]
        self._link(self.before[site], nodes[:n_pre])
        self._link(site, nodes[n_pre:])
        if n_pre:
            self.calls.move(site, nodes[0])
            if verb != Verb.PREPEND:
                self.jumps.move(site, nodes[0])
        if not keeps:
            self._remove(site)
        if body.has_refs:
            last = site if keeps and n_pre == len(nodes) else nodes[-1]
            end = site if verb <= Verb.PREPEND else self._next_in_subprog(last)
            self._add_refs(body, first, site, end, named)

    def _link(self, node: int, nodes: list[int]) -> None:
        """Put nodes after ``node``."""
        follower = self.after[node]
        for new in nodes:
            self.after[node] = new
            self.before[new] = node
            node = new
        self.after[node] = follower
        self.before[follower] = node

    def _remove(self, site: int) -> None:
        previous, following = self.before[site], self.after[site]
        heir = self._next_in_subprog(site)
        self.after[previous], self.before[following] = following, previous
        label = self.calls.on(site)
        self.jumps.move(site, heir)
        self.calls.move(site, heir)
        if label in self.starts and heir != LOST:
            self.starts.add(self.calls.on(heir))

    def _next_in_subprog(self, node: int) -> int:
        following = self.after[node]
        if following == self.head or self.calls.on(following) in self.starts:
            return LOST
        return following

    def _named_targets(self, body: Body, site: int) -> dict[int, int]:
        """Labels, by body slot, of what must be looked up before the edit captures it."""
        named: dict[int, int] = {}
        for ref in body.refs:
            if ref.to is To.TARGET:
                named[ref.slot] = self._target_label(site)
            elif ref.is_entry:
                named[ref.slot] = self.calls.ensure(site if ref.to is To.ORIG else ref.value)
        return named

    def _target_label(self, site: int) -> int:
        if site in self.refs:
            return self.refs[site][1]
        if self.old_refs is None:
            state = self.state
            self.old_refs = dict(
                zip(state.ref_node.tolist(), state.ref_target.tolist(), strict=True)
            )
        return self.old_refs[site]

    def _add_refs(self, body: Body, first: int, site: int, end: int, named: dict[int, int]) -> None:
        for ref in body.refs:
            family = self.calls if ref.is_entry else self.jumps
            if ref.slot in named:
                label = named[ref.slot]
            elif ref.to is To.ORIG:
                label = family.ensure(site)
            elif ref.to is To.LOCAL:
                label = family.ensure(first + ref.value)
            elif ref.to is To.NODE:
                label = family.ensure(ref.value)
            else:
                label = LOST if end == LOST else family.ensure(end)
            self.refs[first + ref.slot] = (family, label)

    def _walk(self) -> Iterator[int]:
        node = self.after[self.head]
        while node != self.head:
            yield node
            node = self.after[node]

    def finish(self) -> None:
        """Put the result into the state."""
        state = self.state
        land, entry = self.jumps.moved(state.n_pool), self.calls.moved(state.n_pool)
        state.land = np.where(state.land == LOST, LOST, land[state.land])
        state.entry = np.where(state.entry == LOST, LOST, entry[state.entry])
        moved = np.where(state.ref_is_entry, entry[state.ref_target], land[state.ref_target])
        moved = np.where(state.ref_target == LOST, LOST, moved)
        node = np.fromiter(self.refs, np.int32, len(self.refs))
        target = [
            LOST if label == LOST else family.place(label) for family, label in self.refs.values()
        ]
        is_entry = [family is self.calls for family, _ in self.refs.values()]
        state.ref_node = np.concatenate([state.ref_node, node])
        state.ref_target = np.concatenate([moved, np.array(target, np.int32)])
        state.ref_is_entry = np.concatenate([state.ref_is_entry, np.array(is_entry, bool)])
        state.order = np.fromiter(self._walk(), np.int32)
        state.order.flags.writeable = False  # it is handed out
        state.n_pool = self.total
        state.is_pristine = False
        state.has_foreign_refs |= bool(self.refs)


def replay(state: ListState, edits: Edits, bodies: list[Body], n_pool: int) -> None:
    """Apply edits to a state in their order.

    Args:
        state: changed in place.
        edits: any edits that the list accepted.
        bodies: what ``edits.body`` counts.
        n_pool: length of the pool with these edits' nodes in it.
    """
    run = _Replay(state, edits, bodies, n_pool)
    run.run()
    run.finish()
