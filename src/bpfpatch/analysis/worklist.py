"""Which blocks are still to be run, and on which states.

The verifier follows each way on its own, and stops where it has been with a
state that covers the new one. So does this, as long as a block is not visited
too often; from there on all states that come to it are joined, and what still
changes is widened. So the time is linear in the program's length.

Source: linux v6.18, kernel/bpf/verifier.c, is_state_visited().
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Final

from .decoded import Code
from .state import State
from .values import Ids

# How much is done on single ways, in instructions, and how many of them a block always has.
_BUDGET: Final = 100_000
_FEWEST_VISITS, _MOST_VISITS = 2, 300
_COMPARED: Final = 8
_WIDEN_AFTER: Final = 3

Key = tuple[int, int]
"""Chain of calls, and block."""


class Worklist:
    """States on their way.

    Args:
        code: the program.
        run_block: runs a block on a state, which it may change.
    """

    def __init__(self, code: Code, run_block: Callable[[int, State], None]) -> None:
        self._block_of = code.block_of
        self._dead = code.dead
        self._run_block = run_block
        self._most_visits = min(
            max(_BUDGET // max(len(code.kind), 1), _FEWEST_VISITS), _MOST_VISITS
        )
        self._n_ids = 0
        self._pending: dict[Key, list[State]] = {}
        self._heap: list[tuple[int, int, int]] = []
        self._visited: dict[Key, list[State]] = {}
        self._visits: dict[Key, int] = {}
        self._merged: dict[Key, State] = {}

    def fresh(self) -> int:
        """An id that no value has."""
        self._n_ids += 1
        return self._n_ids

    def push(self, slot: int, state: State) -> None:
        """Control comes to a block's start with a state, which is taken over."""
        block = self._block_of[slot]
        key = (state.chain, block)
        waiting = self._pending.get(key)
        if waiting is not None:
            waiting.append(state)
            return
        self._pending[key] = [state]
        # Callees first, then in the order of the code: so most states that meet have met
        # before a block is run.
        heappush(self._heap, (-len(state.stacks), block, state.chain))

    def run(self) -> None:
        """Go on until nothing new comes anywhere."""
        while self._heap:
            _, block, chain = heappop(self._heap)
            self._visit((chain, block), self._pending.pop((chain, block)))

    def _visit(self, key: Key, states: list[State]) -> None:
        block = key[1]
        for state in states:
            regs = state.regs
            for register in self._dead[block]:
                regs[register] = None
        merged = self._merged.get(key)
        if merged is None and self._visits.get(key, 0) + len(states) <= self._most_visits:
            visited = self._visited.setdefault(key, [])
            for state in states:
                if not any(old.covers(state) for old in reversed(visited)):
                    self._keep(key, visited, state)
                    self._run_block(block, state.copy())
            return
        changed = self._merge(key, merged, states)
        if changed is not None:
            self._run_block(block, changed.copy())

    def _keep(self, key: Key, visited: list[State], state: State) -> None:
        self._visits[key] = self._visits.get(key, 0) + 1
        visited.append(state)
        if len(visited) > _COMPARED:
            del visited[0]

    def _merge(self, key: Key, merged: State | None, states: list[State]) -> State | None:
        """All states in one; None where that is known already."""
        self._visits[key] = visits = self._visits.get(key, 0) + 1
        ids = Ids(self._n_ids)
        is_changed = merged is None
        for state in states:
            if merged is None:
                merged = state
            elif not merged.covers(state):
                merged = merged.joined(state, ids, widen=visits > self._most_visits + _WIDEN_AFTER)
                is_changed = True
        self._n_ids = ids.n_fresh
        assert merged is not None
        self._merged[key] = merged
        return merged if is_changed else None
