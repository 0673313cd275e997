"""What the counters of an instrumented object mean: a section that travels with it."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from dataclasses import dataclass, field, fields
from typing import Any, Final, Self

import numpy as np

from bpfpatch import isa
from bpfpatch.errors import FormatError

from .flow import OUTSIDE, Way
from .tree import derive

SECTION: Final = ".bpfpatch.cover"
DATA_SECTION: Final = ".data.cover"
"""Where counters are, behind the identity, unless each processor has its own."""
VERSION: Final = 2
"""Version 1 has no arcs of blocks and edges together, and nothing that is left out."""
PERCPU_MOST: Final = 4096
"""Counters in one value of a per-cpu array: 32 KiB, which is also how far a load can reach."""


@dataclass(frozen=True, slots=True)
class FunctionMap:
    """One function's blocks and counters.

    Slots are those of the object's code before it was instrumented.

    Attributes:
        name: of the function.
        section: the code section that it is in.
        start: its first slot.
        end: the slot behind its last.
        blocks: (first slot, slot behind the last) of each block, ascending.
        edges: (way, source, goal) with blocks by index, -1 for outside; see `Way`.
        n_nodes: nodes of the graph whose arcs were counted.
        arcs: (tail, head, counter or -1) of each arc.
        of_edges: whether arcs are the edges; else they are the blocks, and after them the
            function's calls.
        of_both: whether arcs are the blocks, the calls, and then the edges.
        why: why some cannot be counted, "" where all can.
    """

    name: str
    section: str
    start: int
    end: int
    blocks: tuple[tuple[int, int], ...]
    edges: tuple[tuple[int, int, int], ...]
    n_nodes: int
    arcs: tuple[tuple[int, int, int], ...]
    of_edges: bool
    of_both: bool = False
    why: str = ""

    def counts(self, hits: list[int]) -> tuple[list[int | None], list[int | None], int | None]:
        """From counters to what they stand for.

        Args:
            hits: all counters of the object.

        Returns:
            How often each block ran, how often each edge was taken, and how often the function
            was called; None where that does not follow.
        """
        known = {arc: hits[at] for arc, (_, _, at) in enumerate(self.arcs) if at >= 0}
        found = derive(self.n_nodes, [(tail, head) for tail, head, _ in self.arcs], known)
        n_blocks = len(self.blocks)
        if self.of_both:
            return found[:n_blocks], found[n_blocks + 1 :], found[n_blocks]
        if not self.of_edges:
            blocks, calls = found[:-1], found[-1]
            return blocks, self._edges(blocks, calls), calls
        into: list[list[int | None]] = [[] for _ in range(n_blocks + 1)]
        for (_, source, goal), count in zip(self.edges, found, strict=True):
            if goal >= 0:
                into[goal].append(count)
            if source < 0:
                into[-1].append(count)
        *blocks, calls = map(_total, into)
        return blocks, found, calls

    def left_out(self) -> list[int]:
        """Indices of the blocks, original ones, whose counts are not known whatever runs."""
        if not self.why:
            return []
        zeros = [0] * (1 + max((at for _, _, at in self.arcs), default=0))
        counts = self.counts(zeros)[0]
        return [
            at
            for at, ((start, end), count) in enumerate(zip(self.blocks, counts, strict=True))
            if count is None and end > start
        ]

    def _edges(self, blocks: list[int | None], calls: int | None) -> list[int | None]:
        """The edges that follow from the blocks' counts.

        Blocks are arcs from where they start to where they end, and so is the outside, which
        comes last: index -1 is right for it.
        """
        n_points = len(self.blocks) + 1
        known = {at: count for at, count in enumerate([*blocks, calls]) if count is not None}
        arcs = [(2 * block, 2 * block + 1) for block in range(n_points)]
        arcs += [
            (2 * (source % n_points) + 1, 2 * (goal % n_points)) for _, source, goal in self.edges
        ]
        return derive(2 * n_points, arcs, known)[n_points:]


def _total(counts: list[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


@dataclass(frozen=True, slots=True)
class LineRow:
    """One line record of the original: a slot, and the line that starts there."""

    slot: int
    file: str
    line: int
    column: int
    text: str


@dataclass(frozen=True, slots=True)
class CoverMap:
    """What an instrumented object's counters mean.

    Attributes:
        counting: "plain", "atomic" or "percpu".
        byteorder: of the object, and so of its counters.
        n_counters: how many there are.
        functions: of the object, in order of their slots.
        lines: line records, by slot; none without line info.
        code: the original instructions, little-endian.
        names: what calls and loads refer to, by slot: helpers aside, what only relocations say.
    """

    counting: str
    byteorder: isa.ByteOrder
    n_counters: int
    functions: tuple[FunctionMap, ...]
    lines: tuple[LineRow, ...]
    code: bytes
    names: dict[int, str] = field(default_factory=dict)

    @property
    def identity(self) -> int:
        """A number of 64 bits that tells one instrumented object from another."""
        functions = [_plain(one) for one in self.functions]
        text = json.dumps([self.counting, self.byteorder, self.n_counters, functions])
        digest = hashlib.sha256(self.code + text.encode()).digest()
        return int.from_bytes(digest[:8], "little")

    @property
    def is_percpu(self) -> bool:
        """Whether each processor counts for itself."""
        return self.counting == "percpu"

    @property
    def home(self) -> str:
        """What holds the counters: a section of data, or a map, whose name has the identity in it.

        A per-cpu map starts with zeros, so there is no other place for that.
        """
        return f"cover_{self.identity >> 28:09x}" if self.is_percpu else DATA_SECTION

    @property
    def n_entries(self) -> int:
        """How many entries the map with the counters has, each with `n_in_entry` of them."""
        return -(-max(self.n_counters, 1) // self.n_in_entry)

    @property
    def n_in_entry(self) -> int:
        """Counters in one entry: as many as fit, or as there are."""
        most = max(self.n_counters, 1)
        return min(most, PERCPU_MOST) if self.is_percpu else most

    @property
    def insns(self) -> isa.Insns:
        """(n,) the original instructions."""
        return np.frombuffer(self.code, isa.INSN)

    def to_bytes(self) -> bytes:
        """The section's content."""
        body: dict[str, Any] = {
            "version": VERSION if self._is_new else 1,
            "identity": f"{self.identity:016x}",
            "counting": self.counting,
            "byteorder": self.byteorder,
            "n_counters": self.n_counters,
            "functions": [_plain(one) for one in self.functions],
            "lines": [[r.slot, r.file, r.line, r.column, r.text] for r in self.lines],
            "code": base64.b64encode(zlib.compress(self.code)).decode(),
            "names": {str(slot): name for slot, name in self.names.items()},
        }
        return zlib.compress(json.dumps(body, separators=(",", ":")).encode())

    @property
    def _is_new(self) -> bool:
        return self.n_entries > 1 or any(one.of_both or one.why for one in self.functions)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a section's content.

        Raises:
            FormatError: it is none, or of another version.
        """
        try:
            body = json.loads(_expand(data))
            version = body["version"]
            if version not in (1, VERSION):
                raise FormatError(f"section {SECTION} has version {version}, this reads {VERSION}")
            out = cls(
                counting=str(body["counting"]),
                byteorder="big" if body["byteorder"] == "big" else "little",
                n_counters=int(body["n_counters"]),
                functions=tuple(_function(one) for one in body["functions"]),
                lines=tuple(_line(row) for row in body["lines"]),
                code=_expand(base64.b64decode(body["code"])),
                names={int(slot): str(name) for slot, name in body["names"].items()},
            )
        except (
            AttributeError,
            KeyError,
            OverflowError,
            RecursionError,
            TypeError,
            ValueError,
            zlib.error,
        ) as error:
            raise FormatError(f"section {SECTION} is broken: {error}") from error
        out._check()
        if f"{out.identity:016x}" != body.get("identity"):
            raise FormatError(f"section {SECTION} does not fit its own identity")
        return out

    def _check(self) -> None:
        """Numbers must name what is there.

        Raises:
            FormatError: some do not.
        """
        n_slots, rest = divmod(len(self.code), isa.INSN.itemsize)
        lines = [row.slot for row in self.lines]
        is_fine = (
            rest == 0
            and 0 <= self.n_counters <= _MOST
            and lines == sorted(lines)
            and all(_is_sound(one, self.n_counters, n_slots) for one in self.functions)
        )
        if not is_fine:
            raise FormatError(f"section {SECTION} is broken: numbers in it name what is not there")


_MOST: Final = 1 << 28
"""Bytes that a section may expand to."""


def _expand(data: bytes) -> bytes:
    worker = zlib.decompressobj()
    out = worker.decompress(data, _MOST)
    if not worker.eof:
        raise FormatError(f"section {SECTION} is cut off, or expands to more than {_MOST} bytes")
    return out


def _plain(one: FunctionMap) -> dict[str, Any]:
    """A function as JSON has it; `dataclasses.asdict` copies each number."""
    plain = {name: getattr(one, name) for name in _FIELDS}
    return {name: value for name, value in plain.items() if name not in _NEW or value}


_FIELDS: Final = tuple(one.name for one in fields(FunctionMap))
_NEW: Final = ("of_both", "why")
"""What objects of version 1 do not have: their identity is made without."""


def _function(body: dict[str, Any]) -> FunctionMap:
    return FunctionMap(
        name=body["name"],
        section=body["section"],
        start=int(body["start"]),
        end=int(body["end"]),
        blocks=tuple((int(a), int(b)) for a, b in body["blocks"]),
        edges=tuple((int(a), int(b), int(c)) for a, b, c in body["edges"]),
        n_nodes=int(body["n_nodes"]),
        arcs=tuple((int(a), int(b), int(c)) for a, b, c in body["arcs"]),
        of_edges=bool(body["of_edges"]),
        of_both=bool(body.get("of_both", False)),
        why=str(body.get("why", "")),
    )


def _is_sound(one: FunctionMap, n_counters: int, n_slots: int) -> bool:
    """Whether a function's numbers name what is there."""
    n_blocks, ways = len(one.blocks), {int(way) for way in Way}
    n_arcs = len(one.edges) if one.of_edges else n_blocks + 1
    if one.of_both:
        n_arcs = n_blocks + 1 + len(one.edges)
    nodes, blocks = range(max(one.n_nodes, 0)), range(OUTSIDE, n_blocks)
    return (
        len(one.arcs) == n_arcs
        and one.n_nodes <= 2 * (n_blocks + 1)
        and 0 <= one.start <= one.end <= n_slots
        and all(0 <= start <= end <= n_slots for start, end in one.blocks)
        and all(way in ways and a in blocks and b in blocks for way, a, b in one.edges)
        and all(a in nodes and b in nodes and -1 <= at < n_counters for a, b, at in one.arcs)
    )


def _line(row: list[Any]) -> LineRow:
    slot, file, line, column, text = row
    return LineRow(int(slot), str(file), int(line), int(column), str(text))
