"""Which blocks are still to be run, and on which states.

The verifier follows each way on its own, and stops where it has been with a
state that covers the new one. So does this, as long as a block is not visited
too often; from there on all states that come to it are joined, and what still
changes is widened. So the time is linear in the program's length, for one chain
of calls. All chains together have a limit of their own: beyond it each of them
joins all its states, and no new one begins; and if that is not enough, blocks
lose their chains, and what is left is run once, on a state of which nothing is
known. Both only make more of the program reachable, and less of it known.

Source: linux v6.18, kernel/bpf/verifier.c, is_state_visited().
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Final

from .decoded import DecodedCode
from .state import VerifierState
from .values import Ids

# How much is done on single ways, in instructions, and how many of them a block always has.
_BUDGET: Final = 100_000
_FEWEST_VISITS, _MOST_VISITS = 2, 300
_COMPARED: Final = 8
_WIDEN_AFTER: Final = 3
# How much is done on all chains of calls until they join their states, in instructions and steps
# from block to block, and how much of that again until they are given up.
_WORK, _WORK_PER_SLOT = 120_000, 30
_JOINED_WORK_SHARE: Final = 3
# A stack costs something to copy and compare: so many of its slots are one step.
_STACK_SLOTS_SHIFT: Final = 3

_FIELD: Final = 32
_FIELD_MASK: Final = (1 << _FIELD) - 1


class Worklist:
    """States on their way.

    A chain of calls and a block are one number, by which they take turns: callees first, then in
    the order of the code. So most states that meet have met before a block is run, and where no
    loop leads back to a block, neither in its subprog nor in those that called that, all of them
    have: such a block has one turn, and nothing of it is kept.

    Args:
        code: the program.
        run_block: runs a block on a state, which it may change.
        is_repeated: for each chain of calls, whether a loop leads back to one of the calls; more
            may be appended at any time.
        anything: gives a state of which nothing is known for a block that must be run once more.
        spent: is called when there is too much work for single paths, right after `is_spent`.

    Attributes:
        is_spent: whether no new chain of calls may begin.
    """

    def __init__(
        self,
        code: DecodedCode,
        run_block: Callable[[int, VerifierState], None],
        is_repeated: list[bool],
        anything: Callable[[int], VerifierState],
        spent: Callable[[], None],
    ) -> None:
        self.is_spent = False
        self._start, self._end = code.start, code.end
        self._block_of = code.block_of
        self._dead = code.dead
        self._is_in_loop = code.is_in_loop
        self._is_repeated = is_repeated
        self._run_block = run_block
        self._anything = anything
        self._spent = spent
        self._work = 0
        self._most_work = _WORK + _WORK_PER_SLOT * len(code.kind)
        self._is_flooding = False
        self._flooded: set[int] = set()
        self._to_flood: list[int] = []
        self._most_visits = min(
            max(_BUDGET // max(len(code.kind), 1), _FEWEST_VISITS), _MOST_VISITS
        )
        self._n_ids = 0
        self._pending: dict[int, list[VerifierState]] = {}
        self._heap: list[int] = []
        self._visited: dict[int, list[VerifierState]] = {}
        self._visits: dict[int, int] = {}
        self._merged: dict[int, VerifierState] = {}

    def fresh(self) -> int:
        """An id that no value has."""
        self._n_ids += 1
        return self._n_ids

    def push(self, slot: int, state: VerifierState) -> None:
        """Control comes to a block's start with a state, which is taken over."""
        if self._is_flooding:
            self._flood(slot)
            return
        depth = len(state.stacks)
        self._work += 1 + (sum(map(len, state.stacks)) >> _STACK_SLOTS_SHIFT)
        turn = (-depth << _FIELD | self._block_of[slot]) << _FIELD | state.chain
        waiting = self._pending.get(turn)
        if waiting is not None:
            waiting.append(state)
            return
        self._pending[turn] = [state]
        heappush(self._heap, turn)

    def run(self) -> None:
        """Go on until nothing new comes anywhere."""
        heap, pending = self._heap, self._pending
        while heap:
            turn = heappop(heap)
            block, chain = turn >> _FIELD & _FIELD_MASK, turn & _FIELD_MASK
            states = pending.pop(turn)
            for register in self._dead[block]:
                for state in states:
                    state.regs[register] = None
            if self._is_in_loop[block] or self._is_repeated[chain]:
                self._visit(turn, block, states)
            else:
                self._visit_once(block, states)
            if self._work > self._most_work:
                self._tighten()

    def _run(self, block: int, state: VerifierState) -> None:
        self._work += self._end[block] - self._start[block] + 1
        self._run_block(block, state)

    def _tighten(self) -> None:
        """There was too much work."""
        if not self.is_spent:
            self.is_spent = True
            self._most_visits = 0
            self._most_work += self._most_work // _JOINED_WORK_SHARE
            self._spent()
            return
        self._is_flooding = True
        for turn, states in self._pending.items():
            self._flood(self._start[turn >> _FIELD & _FIELD_MASK])
            for state in states:
                for back, _, _ in state.callers:
                    self._flood(back)
        self._pending.clear()
        self._heap.clear()
        while self._to_flood:
            block = self._to_flood.pop()
            self._run_block(block, self._anything(block))

    def _flood(self, slot: int) -> None:
        """Control comes to a block's start with any state."""
        block = self._block_of[slot]
        if block not in self._flooded:
            self._flooded.add(block)
            self._to_flood.append(block)

    def _visit_once(self, block: int, states: list[VerifierState]) -> None:
        """A block's only turn."""
        if len(states) > self._most_visits:
            states = [self._gathered(states[0], states[1:], widen=False).copy()]
        last = states.pop()
        visited: list[VerifierState] = []
        for state in states:
            if not _is_covered(state, visited):
                _keep(state, visited)
                self._run(block, state.copy())
        if not _is_covered(last, visited):
            self._run(block, last)

    def _visit(self, turn: int, block: int, states: list[VerifierState]) -> None:
        merged = self._merged.get(turn)
        visits = self._visits.get(turn, 0)
        if merged is None and visits + len(states) <= self._most_visits:
            visited = self._visited.setdefault(turn, [])
            for state in states:
                if not _is_covered(state, visited):
                    _keep(state, visited)
                    self._visits[turn] = visits = visits + 1
                    self._run(block, state.copy())
            return
        self._visits[turn] = visits = visits + 1
        widen = visits > self._most_visits + _WIDEN_AFTER
        first, *rest = states if merged is None else (merged, *states)
        self._merged[turn] = changed = self._gathered(first, rest, widen=widen)
        if changed is not merged:
            self._run(block, changed.copy())

    def _gathered(
        self, first: VerifierState, others: list[VerifierState], *, widen: bool
    ) -> VerifierState:
        """All states in one: the first one itself, where that covers the others."""
        ids = Ids(self._n_ids)
        for state in others:
            if not first.covers(state):
                first = first.joined(state, ids, widen=widen)
        self._n_ids = ids.n_fresh
        return first


def _is_covered(state: VerifierState, visited: list[VerifierState]) -> bool:
    return any(old.covers(state) for old in reversed(visited)) if visited else False


def _keep(state: VerifierState, visited: list[VerifierState]) -> None:
    visited.append(state)
    if len(visited) > _COMPARED:
        del visited[0]
