"""A program's flow graph as text for graphviz: what can follow what, and nothing of what did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.dataflow.blocks import Blocks
from bpfpatch.passes.cover.flow import OUTSIDE, Edge, Flow, Way, flows
from bpfpatch.patch import PatchList
from bpfpatch.program import Program
from bpfpatch.program.types import Slots

from . import dottext
from .insntext import InsnTexts
from .keys import function_name

_MOST_SHOWN: Final = 24
"""Instructions of a block; of a longer one the first and the last."""
_THROW: Final = "bpf_throw"
_YES, _NO = "#2e7d32", "#c62828"


def cfg_dot(program: Program, names: Mapping[int, str], functions: Sequence[int] = ()) -> str:
    """The flow graph of functions, each in a frame of its own.

    A branch's two edges are green (it jumps) and red (it does not). An indirect jump has an
    edge to each place that a jump table names, dashed; a call that may not come back, as a
    tail call, one out of the function, dotted.

    Args:
        program: the code.
        names: by slot, what a relocation there refers to.
        functions: indices of subprogs; all by default.

    Raises:
        SlotError: a jump leaves its function.
    """
    patches = PatchList(program)
    throws = np.array([slot for slot, name in names.items() if name == _THROW], np.int32)
    blocks, found = flows(patches.view(), patches, np.sort(throws))
    texts = InsnTexts(program, names)
    title = "program" if len(functions) != 1 else function_name(program, functions[0])
    lines = [f"digraph {dottext.quoted(title)} {{", f"  {dottext.NODE}", f"  {dottext.EDGE}"]
    for flow in found:
        if not functions or flow.subprog in functions:
            lines += _function(program, blocks, flow, texts)
    return "\n".join([*lines, "}", ""])


def _function(program: Program, blocks: Blocks, flow: Flow, texts: InsnTexts) -> Iterator[str]:
    name = function_name(program, flow.subprog)
    yield f"  subgraph cluster_{flow.subprog} {{"
    yield f"    label={dottext.quoted(name)}; labelloc=t; fontname=monospace;"
    yield f"    in{flow.subprog} [shape=point]; out{flow.subprog} [shape=point];"
    ends = [*blocks.start[1:].tolist(), len(program)]
    for block in flow.blocks:
        yield _node(program, block, (int(blocks.start[block]), ends[block]), texts)
    for edge in flow.edges:
        yield _edge(program, flow.subprog, blocks.last, edge)
    yield "  }"


def _node(program: Program, block: int, span: tuple[int, int], texts: InsnTexts) -> str:
    slots = [slot for slot in range(*span) if not program.second_slots[slot]]
    rows = []
    for slot in slots:
        target = int(texts.jump_targets[slot])
        rows.append(f"{slot}: {texts.text(slot, f'L{target}' if target >= 0 else '')}")
    source = program.source(span[0])
    head = [f"L{span[0]}:" if source is None else f"L{span[0]}: {source}"]
    shown = dottext.label(head, rows, _MOST_SHOWN)
    return f'    b{block} [label={shown}, fillcolor="white"];'


def _edge(program: Program, subprog: int, last: Slots, edge: Edge) -> str:
    source = f"in{subprog}" if edge.source == OUTSIDE else f"b{edge.source}"
    goal = f"out{subprog}" if edge.goal == OUTSIDE else f"b{edge.goal}"
    style = ""
    if edge.way is Way.INDIRECT:
        style = " [style=dashed]"
    elif edge.way is Way.VANISH:
        style = " [style=dotted]"
    elif edge.way in (Way.FALL, Way.JUMP) and _branches(program, int(last[edge.source])):
        style = f' [color="{_YES if edge.way is Way.JUMP else _NO}"]'
    return f"    {source} -> {goal}{style};"


def _branches(program: Program, slot: int) -> bool:
    return bool(isa.is_cond_jump(program.insns[slot : slot + 1])[0])
