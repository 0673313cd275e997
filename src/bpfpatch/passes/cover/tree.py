"""As few counters as possible: what a spanning tree of a flow graph leaves over.

What flows into a node flows out of it. So once every arc off a spanning tree
is counted, the tree's arcs follow: a leaf has one unknown arc, and without it
the tree has another leaf.

Source: D. E. Knuth and F. R. Stevenson, Optimal measurement points for program
frequency counts, BIT 13 (1973).
"""

from __future__ import annotations

from collections.abc import Sequence


def counted_arcs(n_nodes: int, arcs: Sequence[tuple[int, int]], cost: Sequence[float]) -> list[int]:
    """Choose the arcs to count: those off a spanning forest of the costliest ones.

    Args:
        n_nodes: nodes are 0 to n_nodes - 1.
        arcs: (tail, head) of each.
        cost: what counting each would cost, infinity for one that cannot be counted.

    Returns:
        Their indices, ascending. One of infinite cost among them closes a cycle of arcs that
        all cannot be counted, and those alone stay unknown.
    """
    leader = list(range(n_nodes))

    def find(node: int) -> int:
        while leader[node] != node:
            leader[node] = leader[leader[node]]
            node = leader[node]
        return node

    chosen = []
    for arc in sorted(range(len(arcs)), key=lambda arc: -cost[arc]):
        tail, head = find(arcs[arc][0]), find(arcs[arc][1])
        if tail == head:
            chosen.append(arc)
        else:
            leader[tail] = head
    return sorted(chosen)


def derive(
    n_nodes: int, arcs: Sequence[tuple[int, int]], known: dict[int, int]
) -> list[int | None]:
    """All arcs' counts from those that are known.

    Args:
        n_nodes: nodes are 0 to n_nodes - 1.
        arcs: (tail, head) of each.
        known: count by arc. Where these are all arcs off a spanning forest, all others follow.

    Returns:
        A count an arc, None for one that does not follow: what lies on a cycle of arcs that
        are not known. Below 0 is one that follows from counts that do not fit together.
    """
    rest = [arc for arc in range(len(arcs)) if arc not in known]
    looping = _on_cycles(n_nodes, arcs, rest)
    if looping:
        # Nothing tells what goes round a cycle; what goes in and comes out of it fits all the same.
        leader = _joined(n_nodes, [arcs[arc] for arc in looping])
        arcs = [(leader[tail], leader[head]) for tail, head in arcs]
    count = [known.get(arc) for arc in range(len(arcs))]
    surplus = [0] * n_nodes  # what is known to flow in, less what is known to flow out
    unknown: list[set[int]] = [set() for _ in range(n_nodes)]
    for arc, (tail, head) in enumerate(arcs):
        if arc in known:
            surplus[head] += known[arc]
            surplus[tail] -= known[arc]
        elif tail != head:  # what leaves and comes back says nothing
            unknown[tail].add(arc)
            unknown[head].add(arc)
    leaves = [node for node in range(n_nodes) if len(unknown[node]) == 1]
    while leaves:
        node = leaves.pop()
        if not unknown[node]:
            continue
        arc = unknown[node].pop()
        tail, head = arcs[arc]
        flow = surplus[node] if tail == node else -surplus[node]
        count[arc] = flow
        other = head if tail == node else tail
        surplus[other] += flow if other == head else -flow
        unknown[other].discard(arc)
        if len(unknown[other]) == 1:
            leaves.append(other)
    return count


def _joined(n_nodes: int, pairs: Sequence[tuple[int, int]]) -> list[int]:
    """For each node one that stands for all it hangs together with."""
    leader = list(range(n_nodes))

    def find(node: int) -> int:
        while leader[node] != node:
            leader[node] = leader[leader[node]]
            node = leader[node]
        return node

    for one, other in pairs:
        leader[find(one)] = find(other)
    return [find(node) for node in range(n_nodes)]


def _on_cycles(n_nodes: int, arcs: Sequence[tuple[int, int]], some: Sequence[int]) -> list[int]:
    """Those of some arcs that lie on a cycle of them, whichever way they point.

    Source: R. E. Tarjan, A note on finding the bridges of a graph, Information Processing
    Letters 2 (1974).
    """
    if len(some) < n_nodes and len(set(_joined(n_nodes, [arcs[arc] for arc in some]))) == (
        n_nodes - len(some)
    ):
        return []  # a forest, as where all is well
    beside: list[list[tuple[int, int]]] = [[] for _ in range(n_nodes)]
    for arc in some:
        tail, head = arcs[arc]
        if tail != head:
            beside[tail].append((head, arc))
            beside[head].append((tail, arc))
    order, low = [-1] * n_nodes, [0] * n_nodes
    bridges = set()
    clock = 0
    for root in range(n_nodes):
        if order[root] >= 0:
            continue
        order[root] = low[root] = clock
        clock += 1
        stack = [(root, -1, iter(beside[root]))]
        while stack:
            node, came, rest = stack[-1]
            found = next(rest, None)
            if found is None:
                stack.pop()
                if stack:
                    above = stack[-1][0]
                    low[above] = min(low[above], low[node])
                    if low[node] > order[above]:
                        bridges.add(came)
                continue
            goal, arc = found
            if order[goal] < 0:
                order[goal] = low[goal] = clock
                clock += 1
                stack.append((goal, arc, iter(beside[goal])))
            elif arc != came:
                low[node] = min(low[node], order[goal])
    return [arc for arc in some if arc not in bridges and arcs[arc][0] != arcs[arc][1]]
