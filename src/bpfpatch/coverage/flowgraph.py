"""Which blocks every path leads through, and which loop each is in.

Source: Cooper, Harvey, Kennedy, "A Simple, Fast Dominance Algorithm"; loops by collapsing inner
ones first, as Havlak does, so that a block is looked at once however deep it lies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

NONE: Final = -1


class FlowGraph:
    """Dominators and loops of one function.

    Args:
        n_blocks: how many blocks there are; 0 is where the function starts.
        edges: (source, goal) between blocks.

    Attributes:
        order: reachable blocks, each before those that it leads to, loops aside.
        rank: by block, its place in ``order``, or -1.
        loop: by block, the first block of the innermost loop that it is in, or -1.
    """

    def __init__(self, n_blocks: int, edges: Sequence[tuple[int, int]]) -> None:
        self._after: list[list[int]] = [[] for _ in range(n_blocks)]
        self._before: list[list[int]] = [[] for _ in range(n_blocks)]
        for source, goal in edges:
            self._after[source].append(goal)
            self._before[goal].append(source)
        self.order = self._ordered()
        self.rank = [NONE] * n_blocks
        for at, block in enumerate(self.order):
            self.rank[block] = at
        self._first, self._last = self._spans(self._dominators())
        self.loop = self._loops()

    def dominates(self, one: int, other: int) -> bool:
        """Whether every path to ``other`` leads through ``one``, which may be the same block."""
        if self.rank[one] < 0 or self.rank[other] < 0:
            return one == other
        return self._first[one] <= self._first[other] <= self._last[one]

    def is_back(self, source: int, goal: int) -> bool:
        """Whether an edge closes a loop."""
        return self.dominates(goal, source)

    def _ordered(self) -> list[int]:
        if not self._after:
            return []
        seen, out = {0}, []
        stack = [(0, iter(self._after[0]))]
        while stack:
            block, rest = stack[-1]
            for goal in rest:
                if goal not in seen:
                    seen.add(goal)
                    stack.append((goal, iter(self._after[goal])))
                    break
            else:
                out.append(block)
                stack.pop()
        return out[::-1]

    def _dominators(self) -> list[int]:
        """By rank, the rank of the nearest block that all paths lead through."""
        before = [
            [self.rank[source] for source in self._before[block] if self.rank[source] >= 0]
            for block in self.order
        ]
        found = [NONE] * len(before)
        if found:
            found[0] = 0
        changed = True
        while changed:
            changed = False
            for at in range(1, len(before)):
                best = NONE
                for source in before[at]:
                    if found[source] < 0:
                        continue
                    best = source if best < 0 else _common(found, best, source)
                changed |= found[at] != best
                found[at] = best
        return found

    def _spans(self, found: list[int]) -> tuple[list[int], list[int]]:
        """By block, the span of numbers of what it dominates."""
        below: list[list[int]] = [[] for _ in found]
        for at in range(1, len(found)):
            below[found[at]].append(at)
        first, last = [NONE] * len(self.rank), [NONE] * len(self.rank)
        count = 0
        stack = [(0, False)] if found else []
        while stack:
            at, is_done = stack.pop()
            block = self.order[at]
            if is_done:
                last[block] = count - 1
                continue
            first[block] = count
            count += 1
            stack.append((at, True))
            stack += [(one, False) for one in below[at]]
        return first, last

    def _loops(self) -> list[int]:
        """Innermost loops first: what is known to be in one is its first block from then on."""
        leader = list(range(len(self.rank)))
        out = [NONE] * len(self.rank)

        def find(block: int) -> int:
            while leader[block] != block:
                leader[block] = leader[leader[block]]
                block = leader[block]
            return block

        for head in reversed(self.order):
            work = [source for source in self._before[head] if self._closes(source, head)]
            if work:
                out[head] = head
            while work:
                block = find(work.pop())
                if block == head or not self._closes(block, head):
                    continue
                if out[block] < 0:
                    out[block] = head
                leader[block] = head
                work += self._before[block]
        return out

    def _closes(self, source: int, head: int) -> bool:
        return self.rank[source] >= 0 and self.dominates(head, source)


def _common(found: list[int], one: int, other: int) -> int:
    while one != other:
        while one > other:
            one = found[one]
        while other > one:
            other = found[other]
    return one
