"""Objects to count in, and what a trace of the original says that counters should say."""

from __future__ import annotations

import functools
import struct
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from bpfpatch import isa
from bpfpatch.asm import assemble
from bpfpatch.elf import ElfObject
from bpfpatch.interp import Machine, MachineOptions
from bpfpatch.interp.maps import ProgMap
from bpfpatch.interp.objects import defined_maps
from bpfpatch.isa import ByteOrder
from bpfpatch.passes.cover import CoverMap
from support.generators.programs import random_code

_R0_TO_R9 = range(10)
_EXEC = 6  # SHF_ALLOC | SHF_EXECINSTR


def object_of(
    text: str,
    byteorder: ByteOrder = "little",
    section: str = "socket",
    exported: Collection[str] = (),
) -> ElfObject:
    """An object of one program, whose functions are those of the text.

    Args:
        text: assembly; functions begin with ``.subprog``, the first is the program.
        byteorder: of the object.
        section: the code's section, which says what kind of program it is.
        exported: functions that are global beside the program itself.
    """
    program = assemble(text)
    order = "<" if byteorder == "little" else ">"
    names = [name or f"f{row}" for row, name in enumerate(program.subprogs.names)]
    starts = [*program.subprogs.start.tolist(), len(program)]
    # Local symbols come first.
    is_global = [row == 0 or name in exported for row, name in enumerate(names)]
    rows = sorted(range(len(names)), key=lambda row: (is_global[row], row == 0))
    strings = b"\0" + b"".join(f"{one}\0".encode() for one in (*names, section, ".strtab"))
    strings += b".symtab\0"

    def at(name: str) -> int:
        return strings.index(b"\0" + name.encode() + b"\0") + 1

    symbols = struct.pack(f"{order}IBBHQQ", 0, 0, 0, 0, 0, 0)
    for row in rows:
        value, size = 8 * starts[row], 8 * (starts[row + 1] - starts[row])
        kind = 0x12 if is_global[row] else 0x02
        symbols += struct.pack(f"{order}IBBHQQ", at(names[row]), kind, 0, 1, value, size)
    parts = [
        (at(section), 1, _EXEC, program.to_bytes(byteorder), 0, 0, 8, 0),
        (at(".symtab"), 2, 0, symbols, 3, len(rows) - sum(is_global) + 1, 8, 24),
        (at(".strtab"), 3, 0, strings, 0, 0, 1, 0),
    ]
    body, headers = bytearray(64), [bytes(64)]
    for name, kind, flags, data, link, info, align, entry in parts:
        body += bytes(-len(body) % 8)
        place = (kind, flags, 0, len(body), len(data), link, info, align, entry)
        headers.append(struct.pack(f"{order}IIQQQQIIQQ", name, *place))
        body += data
    body += bytes(-len(body) % 8)
    ident = b"\x7fELF\2" + (b"\1" if byteorder == "little" else b"\2") + b"\1" + bytes(9)
    shape = (1, 247, 1, 0, 0, len(body), 0, 64, 0, 0, 64, len(headers), 3)
    body[:64] = ident + struct.pack(f"{order}HHIQQQIHHHHHH", *shape)
    return ElfObject.parse(bytes(body) + b"".join(headers))


def defined_code(seed: int) -> str:
    """Random code that reads only registers that are set: what a call clobbers is set anew."""
    lines = []
    for line in random_code(seed).splitlines():
        lines.append(line)
        if line.startswith(".subprog"):
            lines += [f"  r{register} = {seed % 97 + register}" for register in _R0_TO_R9]
        elif line.startswith("call "):
            lines += [f"  r{register} = {register}" for register in range(1, 6)]
    return "\n".join(lines)


@dataclass
class Trace:
    """A hook that counts what runs, by slot of the object's code.

    Attributes:
        obj: the object, not instrumented.
        ran: how often each instruction ran.
        went: how often one came behind another in the same frame.
        calls: how often each function was entered, by its first slot.
    """

    obj: ElfObject
    ran: Counter[int] = field(default_factory=Counter)
    went: Counter[tuple[int, int]] = field(default_factory=Counter)
    calls: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        code = self.obj.code
        self._starts = set(code.subprogs.start.tolist())
        self._enters = (isa.is_call(code.insns) | isa.is_exit(code.insns)).tolist()
        self._last: dict[int, int] = {}
        self._before = -1

    def machine(self, name: str, **options: Any) -> Machine:
        """A machine for one of the programs; what runs on it is counted."""
        machine = Machine.of_linked(
            self.obj, self.obj.link(name), MachineOptions(hook=print), **options
        )
        # A hook does not say which image a slot is of. Programs may have equal code, so that only
        # the order tells them apart: the one that runs, then what program arrays start with.
        known = {info.name for info in self.obj.programs}
        names = [name]
        for defined in defined_maps(self.obj):
            if isinstance(machine.maps[defined.name], ProgMap):
                names += [one for _, one in defined.values if one in known]
        for image, one in zip(machine._images, names, strict=True):
            origin = self.obj.link(one).origin.tolist()
            # What is compiled calls the one, what is interpreted the other.
            image.names["HOOK"] = image.hook = functools.partial(self._step, origin)
        return machine

    def start(self) -> None:
        """A run begins."""
        self._last.clear()
        self._before = -1

    def _step(self, origin: list[int], slot: int, registers: tuple[int, ...]) -> None:
        at = origin[slot]
        frame = registers[10]
        is_entered = self._before < 0 or self._enters[self._before]
        self.ran[at] += 1
        if at in self._starts and is_entered:
            self.calls[at] += 1
        else:
            self.went[self._last[frame], at] += 1
        self._last[frame] = self._before = at


def disagreements(cover: CoverMap, hits: Iterable[int], trace: Trace) -> list[str]:
    """Where counters say something else than a trace; what is not known is nothing said."""
    out = []
    known = list(hits)
    for one in cover.functions:
        blocks, edges, calls = one.counts(known)
        if calls is not None and calls != trace.calls[one.start]:
            out.append(f"{one.name}: {calls} calls, not {trace.calls[one.start]}")
        for (start, end), count in zip(one.blocks, blocks, strict=True):
            if count is not None and count != trace.ran[start]:
                out.append(f"{one.name} {start}-{end}: {count} times, not {trace.ran[start]}")
        sums: dict[tuple[int, int], int | None] = {}
        for (_, source, goal), count in zip(one.edges, edges, strict=True):
            before = sums.get((source, goal), 0)
            sums[source, goal] = None if count is None or before is None else before + count
        for (source, goal), count in sums.items():
            wanted = _wanted(cover, one.blocks, trace, source, goal)
            if count is not None and wanted is not None and count != wanted:
                out.append(f"{one.name}: {source}->{goal} {count} times, not {wanted}")
    return out


def _wanted(
    cover: CoverMap, blocks: tuple[tuple[int, int], ...], trace: Trace, source: int, goal: int
) -> int | None:
    """What a trace says of the ways from a block to another one; None for those of the outside."""
    if source < 0 or goal < 0:
        return None
    last = blocks[source][1] - 1
    if last and cover.code[8 * (last - 1)] == isa.LD_IMM64:
        last -= 1
    return trace.went[last, blocks[goal][0]]


def unknown_edges(cover: CoverMap) -> int:
    """How many edges' counts do not follow from the counters."""
    zeros = [0] * cover.n_counters
    return sum(count is None for one in cover.functions for count in one.counts(zeros)[1])


def fewest_counters(cover: CoverMap, *, of_edges: bool) -> int:
    """What a spanning tree leaves: E - V + C for each function, its outside a node."""
    total = 0
    for one in cover.functions:
        n_nodes = len(one.blocks) + 1
        edges = [(source % n_nodes, goal % n_nodes) for _, source, goal in one.edges]
        if not of_edges:
            # Blocks are arcs; what their edges join is one node.
            joined = _parts(2 * n_nodes, [(2 * a + 1, 2 * b) for a, b in edges])
            arcs = [(joined[2 * at], joined[2 * at + 1]) for at in range(n_nodes)]
            n_nodes, edges = len(set(joined)), arcs
            names = {leader: at for at, leader in enumerate(sorted(set(joined)))}
            edges = [(names[a], names[b]) for a, b in edges]
        total += len(edges) - n_nodes + len(set(_parts(n_nodes, edges)))
    return total


def _parts(n_nodes: int, edges: Iterable[tuple[int, int]]) -> list[int]:
    """For each node the least node that it hangs together with."""
    out = list(range(n_nodes))
    is_changed = True
    while is_changed:
        is_changed = False
        for a, b in edges:
            low = min(out[a], out[b])
            if out[a] != low or out[b] != low:
                out[a] = out[b] = low
                is_changed = True
    return out
