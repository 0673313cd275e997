"""Choose what to count in each function, and how."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal, Self

import numpy as np

from bpfpatch.dataflow.blocks import Blocks
from bpfpatch.errors import Where
from bpfpatch.patch import CodeView, PatchList
from bpfpatch.program import Program

from ..scratch import Scratch, ScratchPlace
from ..sites import place_of
from .arcs import Arc, all_arcs, block_arcs, edge_arcs
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
    place: ScratchPlace
    factor: float
    jump: int = -1
    behind: int = -1


@dataclass(frozen=True, slots=True)
class CounterWork:
    """A counter to put in."""

    how: How
    counter: int


@dataclass(frozen=True, slots=True, eq=False)
class CoveredCode:
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


@dataclass(frozen=True, slots=True, eq=False)
class _Choice:
    """What is counted of a function: by arc how; and why something is not."""

    form: Callable[[Flow], tuple[int, list[Arc]]]
    n_nodes: int
    arcs: list[Arc]
    hows: dict[int, How]
    why: str


class CoverPlanner:
    """Plans functions one after the other, and numbers their counters.

    Args:
        code: the code.
        of_edges: whether edges are to be counted; else blocks.
        has_tree: whether to leave out counters that follow from others.
        n_in_entry: counters in one entry of a map, all those of a function in one; 0 for any.
        refused: subprogs in which nothing can be counted, and why.
        begins: by first slot of a block the slot before which it has no counters to count with.

    Attributes:
        n_counters: how many there are so far.
    """

    def __init__(
        self,
        code: CoveredCode,
        *,
        of_edges: bool,
        has_tree: bool,
        n_in_entry: int = 0,
        refused: Mapping[int, str] | None = None,
        begins: Mapping[int, int] | None = None,
    ) -> None:
        self._code = code
        self._n_in_entry = n_in_entry
        self._refused = refused or {}
        self._begins = begins or {}
        self._of_edges = of_edges
        self._has_tree = has_tree
        self._gaps = code.blocks.last[~code.blocks.falls]
        self._node = code.view.node.data  # one at a time, that is faster
        self.n_counters = 0

    def plan(self, flow: Flow) -> tuple[FunctionMap, list[CounterWork]]:
        """What one function's counters will mean, and how to put them in.

        Where something has to be counted and has no place for it, blocks and edges are counted
        together, so that more follows from them. What still does not is left out.
        """
        found = self._choose(flow, edge_arcs if self._of_edges else block_arcs)
        if found.why:
            found = self._choose(flow, all_arcs)
        counter: dict[int, int] = {}
        works = []
        if self._n_in_entry and self.n_counters % self._n_in_entry + len(found.hows) > (
            self._n_in_entry
        ):
            self.n_counters += -self.n_counters % self._n_in_entry
        for at, how in found.hows.items():
            counter[at] = self.n_counters
            works.append(CounterWork(how, self.n_counters))
            self.n_counters += 1
        return self._describe(flow, found, counter), works

    def _choose(self, flow: Flow, form: Callable[[Flow], tuple[int, list[Arc]]]) -> _Choice:
        """Which arcs to count, and how."""
        n_nodes, arcs = form(flow)
        function = _Function.of(flow)
        refused = self._refused.get(flow.subprog)
        hows = [self._how(function, arc) if refused is None else refused for arc in arcs]
        cost = [
            _NEVER if isinstance(how, str) else arc.weight * how.factor
            for arc, how in zip(arcs, hows, strict=True)
        ]
        chosen = counted_arcs(n_nodes, [(arc.tail, arc.head) for arc in arcs], cost)
        if not self._has_tree:
            chosen = sorted({*chosen, *(at for at, one in enumerate(cost) if one != _NEVER)})
        counted: dict[int, How] = {}
        why = ""
        for at in chosen:
            how = hows[at]
            if isinstance(how, str):
                why = why or f"{self._place(flow, arcs[at])}: cannot place a counter here: {how}"
            else:
                counted[at] = how
        if self._n_in_entry and len(counted) > self._n_in_entry:
            most = f"one entry of a per-cpu map holds {self._n_in_entry}"
            return _Choice(form, n_nodes, arcs, {}, f"{len(counted)} counters are too many: {most}")
        return _Choice(form, n_nodes, arcs, counted, why)

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
        first = self._begins.get(first, first)
        found = self._code.scratch.within(first, last, _REGISTERS)
        return found if isinstance(found, str) else How("insert", found, 1.0 + found.n_extra / 2)

    def _at(self, slot: int, verb: Verb, factor: float) -> How | str:
        found = self._code.scratch.at(slot, _REGISTERS)
        return found if isinstance(found, str) else How(verb, found, factor)

    def _place(self, flow: Flow, arc: Arc) -> Where:
        block = arc.block if arc.block >= 0 else flow.blocks.start
        if arc.edge is not None and arc.edge.source != OUTSIDE:
            block = arc.edge.source
        code = self._code
        return place_of(code.patches, code.view, int(code.blocks.start[block]))

    def _describe(self, flow: Flow, choice: _Choice, counter: dict[int, int]) -> FunctionMap:
        program = self._code.program
        row = int(self._code.view.subprog[flow.subprog])
        subprogs = program.subprogs
        base = flow.blocks.start

        def index(block: int) -> int:
            return block if block == OUTSIDE else block - base

        out = FunctionMap(
            name=subprogs.names[row],
            section=program.sections[int(subprogs.section[row])],
            start=int(subprogs.start[row]),
            end=int(subprogs.ends(len(program))[row]),
            blocks=tuple(self._original_range(block) for block in flow.blocks),
            edges=tuple(
                (int(edge.way), index(edge.source), index(edge.goal)) for edge in flow.edges
            ),
            n_nodes=choice.n_nodes,
            arcs=tuple(
                (arc.tail, arc.head, counter.get(at, -1)) for at, arc in enumerate(choice.arcs)
            ),
            of_edges=choice.form is edge_arcs,
            of_both=choice.form is all_arcs,
            why=choice.why,
        )
        # Edges that are not known do not matter where blocks are asked for.
        is_whole = not self._of_edges and choice.why and not out.left_out()
        return replace(out, why="") if is_whole else out

    def _original_range(self, block: int) -> tuple[int, int]:
        """Original slots of a block; an empty range for one that another pass put in."""
        code = self._code
        first, last = int(code.blocks.start[block]), int(code.blocks.last[block])
        node, n_original = self._node, code.view.n_original
        while first <= last and not 0 <= node[first] < n_original:
            first += 1
        while first <= last and not 0 <= node[last] < n_original:
            last -= 1
        if first > last:
            return (0, 0)
        end = node[last] + 1
        second = code.program.second_slots
        return node[first], end + bool(end < second.size and second[end])
