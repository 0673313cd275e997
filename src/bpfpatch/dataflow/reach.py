"""Which code can be reached from a program's entry points, through jumps and calls."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bpfpatch.patch import CodeView
from bpfpatch.program.types import LOST, Mask, Slots

from .blocks import Blocks
from .constants import Constants, Known


@dataclass(frozen=True, slots=True, eq=False)
class Reach:
    """What `reachable` found.

    Attributes:
        block: (b,) whether each block can be reached.
        subprog: (m,) whether each subprog of the view can be.
        taken: (t,) slots of reached branches that always jump, ascending.
        never: (k,) slots of reached branches that never do, ascending.
    """

    block: Mask
    subprog: Mask
    taken: Slots
    never: Slots


def reachable(
    view: CodeView,
    blocks: Blocks,
    roots: Slots,
    constants: Constants | None = None,
    pads: Slots | None = None,
    follows: Mask | None = None,
) -> Reach:
    """Follow jumps, fall-through, calls and taken function addresses from entry points.

    A conditional jump goes both ways, unless the constants decide it. A block
    knows on entry what all the jumps and fall-throughs agree on that can enter
    it: one that cannot run spoils nothing. A call or a function address takes
    no knowledge along, but for what ``follows`` says.

    Linear in blocks and calls: what is known on a block's entry only ever
    shrinks, so that no block is run more often than there are registers, and
    once.

    Args:
        view: the code.
        blocks: its blocks.
        roots: indices into ``view.starts`` that are entered from outside.
        constants: what decides branches; None for nothing.
        pads: slots, starts of blocks, to which control may come from anywhere in their subprog.
        follows: (m,) subprogs that know the arguments that all reached calls of them agree on;
            for constants that follow data. By default none.

    Source: conditional constant propagation as in Wegman and Zadeck, "Constant
    Propagation with Conditional Branches", TOPLAS 13(2), 1991.
    """
    search = _Search(view, blocks, constants, follows)
    search.run(roots)
    if pads is not None:
        search.land(pads)
    block = np.array([known is not None for known in search.known], bool)
    return Reach(
        block,
        block[np.searchsorted(blocks.start, view.starts)],
        taken=blocks.last[_where(search.verdict, True)],
        never=blocks.last[_where(search.verdict, False)],
    )


class _Search:
    """One search: what is known on entry of every block so far, None where none has come."""

    __slots__ = (
        "blocks",
        "calls",
        "constants",
        "entry_block",
        "follows",
        "known",
        "todo",
        "verdict",
    )

    def __init__(
        self, view: CodeView, blocks: Blocks, constants: Constants | None, follows: Mask | None
    ) -> None:
        self.follows = np.zeros(len(view.starts), bool) if follows is None else follows
        self.blocks = blocks
        self.constants = constants
        self.entry_block = np.searchsorted(blocks.start, view.starts).tolist()
        self.calls = _calls_by_block(view, blocks)
        self.known: list[Known | None] = [None] * len(blocks)
        self.verdict: list[bool | None] = [None] * len(blocks)
        self.todo: list[int] = []

    def run(self, roots: Slots) -> None:
        blocks = self.blocks
        falls, jump = blocks.falls.tolist(), blocks.jump.tolist()
        owner, is_indirect = blocks.subprog.tolist(), blocks.is_indirect.tolist()
        for root in roots.tolist():
            self._enter(self.entry_block[root], {})
        self._follow(falls, jump, owner, is_indirect)

    def land(self, pads: Slots) -> None:
        """Go on at landing pads of subprogs that were reached, until there are no more."""
        blocks = self.blocks
        falls, jump = blocks.falls.tolist(), blocks.jump.tolist()
        owner, is_indirect = blocks.subprog.tolist(), blocks.is_indirect.tolist()
        todo = set(np.searchsorted(blocks.start, pads).tolist())
        while todo:
            now = {pad for pad in todo if self.known[self.entry_block[owner[pad]]] is not None}
            if not now:
                return
            todo -= now
            for pad in now:
                self._enter(pad, {})
            self._follow(falls, jump, owner, is_indirect)

    def _follow(
        self, falls: list[bool], jump: list[int], owner: list[int], is_indirect: list[bool]
    ) -> None:
        blocks, constants = self.blocks, self.constants
        while self.todo:
            block = self.todo.pop()
            known: Known = {}
            verdict = None
            if constants is not None:
                known, verdict = constants.run(block, self.known[block] or {})
            self.verdict[block] = verdict
            if falls[block] and verdict is not True and block + 1 < len(falls):
                self._enter(block + 1, known)
            if jump[block] != LOST and verdict is not False:
                self._enter(jump[block], known)
            for target in blocks.indirect.get(owner[block], ()) if is_indirect[block] else ():
                self._enter(target, known)
            for slot, callee in self.calls.get(block, ()):
                self._enter(self.entry_block[callee], self._arguments(slot, callee))

    def _arguments(self, slot: int, callee: int) -> Known:
        """What a call takes along; the address of a function says nothing of its calls."""
        if self.constants is None or not self.follows[callee]:
            return {}
        return self.constants.arguments.get(slot, {})

    def _enter(self, block: int, known: Known) -> None:
        """Control can come into a block with this knowledge."""
        before = self.known[block]
        if before is not None:
            known = {r: value for r, value in before.items() if known.get(r) == value}
            if len(known) == len(before):
                return
        self.known[block] = known
        self.todo.append(block)


def _where(verdicts: list[bool | None], wanted: bool) -> Slots:
    """(k,) blocks with this verdict."""
    rows = [block for block, verdict in enumerate(verdicts) if verdict is wanted]
    return np.array(rows, np.int32)


def _calls_by_block(view: CodeView, blocks: Blocks) -> dict[int, list[tuple[int, int]]]:
    """By block, slot and subprog of each that it calls or takes the address of."""
    alive = view.ref_is_entry & (view.ref_target != LOST)
    caller = np.searchsorted(blocks.start, view.ref_slot[alive], side="right") - 1
    callee = view.subprog_of(view.ref_target[alive])
    out: dict[int, list[tuple[int, int]]] = {}
    rows = zip(caller.tolist(), view.ref_slot[alive].tolist(), callee.tolist(), strict=True)
    for block, slot, subprog in rows:
        out.setdefault(block, []).append((slot, subprog))
    return out
