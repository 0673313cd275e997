"""The same insertions with a list of objects: the design that libraries for bytecode use.

One object for each instruction; a jump refers to the object that it goes to, so
that nothing needs to be adjusted when instructions come in, and distances are
computed at the end. Instructions come in one at a time with ``list.insert``, or
all at once into a new list.
"""

from __future__ import annotations

import struct
import time
from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.patch import PatchList
from bpfpatch.program import Program

from . import child
from .growth import expected, exponent, middle
from .limit import body
from .programs import branchy
from .report import Line, Outcome, Plot, Table

SIZES: Final = (1_000, 10_000, 100_000, 1_000_000)
FIT_FROM: Final = 10_000
SECONDS: Final = 20.0
ONCE_FROM: Final = 1_000_000
"""Lengths from which on one run of the objects must do."""
_INSN: Final = struct.Struct("<BBhi")
_JMP, _JMP32, _CALL, _EXIT = 5, 6, 0x85, 0x95


class Node:
    """One instruction; ``target`` is the object that it jumps to."""

    __slots__ = ("code", "imm", "off", "regs", "slot", "target")

    def __init__(self, code: int, regs: int, off: int, imm: int) -> None:
        self.code, self.regs, self.off, self.imm = code, regs, off, imm
        self.target: Node | None = None
        self.slot = 0


def decode(data: bytes) -> list[Node]:
    """Objects of a program without ld_imm64 and without calls of its own functions."""
    nodes = [Node(*fields) for fields in _INSN.iter_unpack(data)]
    for slot, node in enumerate(nodes):
        if node.code & 7 in (_JMP, _JMP32) and node.code not in (_CALL, _EXIT):
            node.target = nodes[slot + 1 + node.off]
    return nodes


def encode(nodes: list[Node]) -> bytes:
    """The program, its distances computed anew."""
    for slot, node in enumerate(nodes):
        node.slot = slot
    for node in nodes:
        if node.target is not None:
            node.off = node.target.slot - node.slot - 1
    return b"".join([_INSN.pack(node.code, node.regs, node.off, node.imm) for node in nodes])


def _fresh(bodies: isa.Insns) -> list[Node]:
    return [Node(*fields) for fields in bodies.tolist()]


def one_by_one(program: Program, put_in: isa.Insns) -> bytes:
    """In front of each instruction that nothing jumps to; ``list.insert``."""
    nodes = decode(isa.to_bytes(program.insns))
    at = 0
    for site in list(nodes):
        assert nodes[at] is site
        for new in _fresh(put_in):
            nodes.insert(at, new)
            at += 1
        at += 1
    return encode(nodes)


def at_once(program: Program, put_in: isa.Insns) -> bytes:
    """The same into a new list."""
    out: list[Node] = []
    for site in decode(isa.to_bytes(program.insns)):
        out += _fresh(put_in)
        out.append(site)
    return encode(out)


def patch_list(program: Program, put_in: isa.Insns) -> bytes:
    """The same with the patch list; as there, a jump reaches the instruction and not the body."""
    patches = PatchList(program)
    patches.prepend(patches.nodes(), body(len(put_in)))
    return isa.to_bytes(patches.linearize().program.insns)


WAYS: Final = {
    "bpfpatch": patch_list,
    "objects, into a new list": at_once,
    "objects, list.insert": one_by_one,
}


def once(way: str, n_insns: int) -> float:
    """Seconds to put two instructions in front of each."""
    function, put_in = WAYS[way], body(2).insns
    function(branchy(100), put_in)
    program = branchy(n_insns)
    began = time.perf_counter()
    function(program, put_in)
    return time.perf_counter() - began


def measure(runs: int) -> Outcome:
    """All ways, to where the next length would take too long."""
    out = Outcome()
    lines, rows = [], []
    own: dict[int, float] = {}
    for way in WAYS:
        found: dict[int, list[float]] = {}
        for n_insns in SIZES:
            if expected(middle(found), n_insns, least=1.0) > SECONDS:
                break
            many = min(runs, 3) if n_insns < ONCE_FROM or not own else 1
            found[n_insns] = child.runs(many, "peers.once", way, n_insns)
        out.figures[way] = found
        own = own or middle(found)
        slope = exponent(middle(found), FIT_FROM)
        most = max(found)
        cells = [[1000 * value for value in found.get(n, [])] for n in SIZES]
        ratio = middle(found)[most] / own[most]
        rows.append((way, *cells, None if slope is None else f"{slope:.2f}", ratio))
        lines.append(Line(way, middle(found).items()))
    header = (
        "ms",
        *(f"{n:,}" for n in SIZES),
        f"exponent from {FIT_FROM:,}",
        "of bpfpatch's, at the most",
    )
    out.tables.append(
        Table("Two instructions in front of each, of a branchy program", header, rows)
    )
    out.plots.append(
        Plot("peers", "Two instructions in front of each", "instructions", "seconds", tuple(lines))
    )
    return out


def agree(n_insns: int) -> bool:
    """Whether all ways give the same program."""
    put_in = body(2).insns
    found = [function(branchy(n_insns), put_in) for function in WAYS.values()]
    return bool(np.all([one == found[0] for one in found]))
