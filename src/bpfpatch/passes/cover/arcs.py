"""What can be counted of a function: its blocks, or its edges, as arcs of a flow graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .flow import OUTSIDE, Edge, Flow

_LOOP: Final = 8.0
"""A loop is taken to run so many times."""
_DEEPEST: Final = 12


@dataclass(frozen=True, slots=True)
class Arc:
    """One thing to count: a block, a function's calls, or an edge.

    Attributes:
        tail: node of the flow graph.
        head: the same.
        weight: how often it is taken to happen.
        block: the block, or -1.
        edge: the edge, or None.
    """

    tail: int
    head: int
    weight: float
    block: int
    edge: Edge | None


def _weight(flow: Flow, block: int) -> float:
    return float(_LOOP ** min(flow.depth[block - flow.blocks.start], _DEEPEST))


def block_arcs(flow: Flow) -> tuple[int, list[Arc]]:
    """Blocks as arcs: from what flows into a block to what flows out of it.

    Edges make one node of their source's end and their goal's start.
    """
    n_blocks, base = len(flow.blocks), flow.blocks.start
    leader = list(range(2 * (n_blocks + 1)))  # start and end of each block, then of the outside

    def find(node: int) -> int:
        while leader[node] != node:
            leader[node] = leader[leader[node]]
            node = leader[node]
        return node

    def number(block: int) -> int:
        return n_blocks if block == OUTSIDE else block - base

    for edge in flow.edges:
        leader[find(2 * number(edge.source) + 1)] = find(2 * number(edge.goal))
    names: dict[int, int] = {}

    def node_of(point: int) -> int:
        return names.setdefault(find(point), len(names))

    arcs = [
        Arc(node_of(2 * at), node_of(2 * at + 1), _weight(flow, base + at), base + at, None)
        for at in range(n_blocks)
    ]
    arcs.append(Arc(node_of(2 * n_blocks), node_of(2 * n_blocks + 1), 1.0, -1, None))
    return len(names), arcs


def edge_arcs(flow: Flow) -> tuple[int, list[Arc]]:
    """Edges as arcs between blocks."""
    n_blocks, base = len(flow.blocks), flow.blocks.start

    def number(block: int) -> int:
        return n_blocks if block == OUTSIDE else block - base

    def weight(edge: Edge) -> float:
        inside = [block for block in (edge.source, edge.goal) if block != OUTSIDE]
        return min(_weight(flow, block) for block in inside)

    return n_blocks + 1, [
        Arc(number(edge.source), number(edge.goal), weight(edge), -1, edge) for edge in flow.edges
    ]


def all_arcs(flow: Flow) -> tuple[int, list[Arc]]:
    """Blocks as arcs from their start to their end, the outside after them, then the edges."""
    n_blocks, base = len(flow.blocks), flow.blocks.start
    weight = {block: _weight(flow, block) for block in flow.blocks}

    def number(block: int) -> int:
        return n_blocks if block == OUTSIDE else block - base

    arcs = [Arc(2 * at, 2 * at + 1, weight[base + at], base + at, None) for at in range(n_blocks)]
    arcs.append(Arc(2 * n_blocks, 2 * n_blocks + 1, 1.0, -1, None))
    for edge in flow.edges:
        inside = [weight[block] for block in (edge.source, edge.goal) if block != OUTSIDE]
        tail, head = 2 * number(edge.source) + 1, 2 * number(edge.goal)
        arcs.append(Arc(tail, head, min(inside), -1, edge))
    return 2 * (n_blocks + 1), arcs
