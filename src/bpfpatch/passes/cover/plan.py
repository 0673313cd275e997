"""Choose what to count in each function, and how."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final, Literal, Self

import numpy as np

from bpfpatch.dataflow.blocks import Blocks
from bpfpatch.errors import UnsupportedError
from bpfpatch.patch import CodeView, PatchList
from bpfpatch.program import Program

from ..scratch import Place, Scratch
from ..sites import place_of
from .arcs import Arc, block_arcs, edge_arcs
from .flow import OUTSIDE, Edge, Flow, Way
from .mapping import FunctionMap
from .tree import counted_arcs

Verb = Literal["insert", "prepend", "split"]

_SPLIT: Final = 4.0
"""Counting an edge that needs a place of its own costs so much more."""
_NEVER: Final = float("inf")
_REGISTERS: Final = 2
"""A pointer to the counter, and its value."""


@dataclass(frozen=True, slots=True)
class How:
    """How something can be counted.

    Attributes:
        verb: code is inserted into a block; prepended to one, for what falls into it or calls
            it; or put where nothing falls into it, and a jump split to go over it.
        place: where, and with which registers; of a split in front of the jump's target.
        factor: how costly that is.
        jump: of a split the slot of the jump.
        behind: of a split the slot of an instruction that nothing falls out of.
    """

    verb: Verb
    place: Place
    factor: float
    jump: int = -1
    behind: int = -1


@dataclass(frozen=True, slots=True)
class Work:
    """A counter to put in."""

    how: How
    counter: int


@dataclass(frozen=True, slots=True, eq=False)
class Code:
    """The code that is instrumented."""

    patches: PatchList
    view: CodeView
    blocks: Blocks
    scratch: Scratch

    @property
    def program(self) -> Program:
        """The program that the list was made from."""
        return self.patches.program


@dataclass(frozen=True, slots=True, eq=False)
class _Function:
    """A function, with the number of edges that leave, and come to, each block."""

    flow: Flow
    leaving: Counter[int]
    coming: Counter[int]

    @classmethod
    def of(cls, flow: Flow) -> Self:
        return cls(
            flow,
            Counter(edge.source for edge in flow.edges),
            Counter(edge.goal for edge in flow.edges),
        )


class Planner:
    """Plans functions one after the other, and numbers their counters.

    Attributes:
        n_counters: how many there are so far.
    """

    def __init__(self, code: Code, *, of_edges: bool, has_tree: bool) -> None:
        self._code = code
        self._of_edges = of_edges
        self._has_tree = has_tree
        self._gaps = code.blocks.last[~code.blocks.falls]
        self.n_counters = 0

    def plan(self, flow: Flow) -> tuple[FunctionMap, list[Work]]:
        """What one function's counters will mean, and how to put them in.

        Raises:
            UnsupportedError: something that has to be counted has no place for it.
        """
        n_nodes, arcs = edge_arcs(flow) if self._of_edges else block_arcs(flow)
        function = _Function.of(flow)
        hows = [self._how(function, arc) for arc in arcs]
        cost = [
            _NEVER if isinstance(how, str) else arc.weight * how.factor
            for arc, how in zip(arcs, hows, strict=True)
        ]
        chosen = counted_arcs(n_nodes, [(arc.tail, arc.head) for arc in arcs], cost)
        if not self._has_tree:
            chosen = sorted({*chosen, *(at for at, one in enumerate(cost) if one != _NEVER)})
        counter: dict[int, int] = {}
        works = []
        for at in chosen:
            how = hows[at]
            if isinstance(how, str):
                raise self._impossible(flow, arcs[at], how)
            counter[at] = self.n_counters
            works.append(Work(how, self.n_counters))
            self.n_counters += 1
        return self._describe(flow, n_nodes, arcs, counter), works

    def _how(self, function: _Function, arc: Arc) -> How | str:
        """How to count an arc, or why that is not possible."""
        if arc.edge is not None and arc.edge.way is not Way.ENTER:
            return self._edge(function, arc.edge)
        if arc.block >= 0:
            return self._in_block(arc.block)
        entry = function.flow.blocks.start
        if function.coming[entry] == 1:
            return self._in_block(entry)
        return self._at(int(self._code.blocks.start[entry]), "prepend", 1.0)

    def _edge(self, function: _Function, edge: Edge) -> How | str:
        if edge.way is Way.VANISH:
            return "a call that may not come back decides it; leave out edges=true"
        if function.leaving[edge.source] == 1:
            return self._in_block(edge.source)
        if function.coming[edge.goal] == 1 and edge.goal != OUTSIDE:
            return self._in_block(edge.goal)
        if edge.way is Way.INDIRECT:
            return "a jump through a table goes to where others go, too; leave out edges=true"
        return self._on_edge(function.flow, edge)

    def _on_edge(self, flow: Flow, edge: Edge) -> How | str:
        """Count an edge of which neither end belongs to it alone."""
        blocks = self._code.blocks
        goal = int(blocks.start[edge.goal])
        if edge.way is Way.FALL:
            return self._at(goal, "prepend", _SPLIT)
        found = self._code.scratch.at(goal, _REGISTERS)
        if isinstance(found, str):
            return found
        jump = int(blocks.last[edge.source])
        return How("split", found, _SPLIT, jump, self._gap(flow, jump))

    def _gap(self, flow: Flow, jump: int) -> int:
        """Where a jump can be sent without going far: behind what never goes on to the next."""
        at = int(np.searchsorted(self._gaps, jump))
        end = int(self._code.blocks.last[flow.blocks[-1]])
        return min(int(self._gaps[at]), end) if at < self._gaps.size else end

    def _in_block(self, block: int) -> How | str:
        blocks = self._code.blocks
        first, last = int(blocks.start[block]), int(blocks.last[block])
        found = self._code.scratch.within(first, last, _REGISTERS)
        return found if isinstance(found, str) else How("insert", found, 1.0 + found.n_extra / 2)

    def _at(self, slot: int, verb: Verb, factor: float) -> How | str:
        found = self._code.scratch.at(slot, _REGISTERS)
        return found if isinstance(found, str) else How(verb, found, factor)

    def _impossible(self, flow: Flow, arc: Arc, why: str) -> UnsupportedError:
        block = arc.block if arc.block >= 0 else flow.blocks.start
        if arc.edge is not None and arc.edge.source != OUTSIDE:
            block = arc.edge.source
        code = self._code
        where = place_of(code.patches, code.view, int(code.blocks.start[block]))
        return UnsupportedError(f"{where}: how often this runs cannot be counted: {why}")

    def _describe(
        self, flow: Flow, n_nodes: int, arcs: list[Arc], counter: dict[int, int]
    ) -> FunctionMap:
        program = self._code.program
        row = int(self._code.view.subprog[flow.subprog])
        subprogs = program.subprogs
        base = flow.blocks.start

        def index(block: int) -> int:
            return block if block == OUTSIDE else block - base

        return FunctionMap(
            name=subprogs.names[row],
            section=program.sections[int(subprogs.section[row])],
            start=int(subprogs.start[row]),
            end=int(subprogs.ends(len(program))[row]),
            blocks=tuple(self._original_range(block) for block in flow.blocks),
            edges=tuple(
                (int(edge.way), index(edge.source), index(edge.goal)) for edge in flow.edges
            ),
            n_nodes=n_nodes,
            arcs=tuple((arc.tail, arc.head, counter.get(at, -1)) for at, arc in enumerate(arcs)),
            of_edges=self._of_edges,
        )

    def _original_range(self, block: int) -> tuple[int, int]:
        """Original slots of a block; an empty range for one that another pass put in."""
        code = self._code
        first, last = int(code.blocks.start[block]), int(code.blocks.last[block])
        nodes = code.view.node[first : last + 1]
        ours = nodes[(nodes >= 0) & (nodes < code.view.n_original)]
        if not ours.size:
            return (0, 0)
        end = int(ours[-1]) + 1
        second = code.program.second_slots
        return int(ours[0]), end + bool(end < second.size and second[end])
