"""What the counters of an instrumented object mean: a section that travels with it."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final, Self

import numpy as np

from bpfpatch import isa
from bpfpatch.errors import FormatError

from .flow import OUTSIDE, Way
from .packing import most, number, pack, unpack, words
from .tree import derive

SECTION: Final = ".bpfpatch.cover"
DATA_SECTION: Final = ".data.cover"
"""Where counters are, behind the identity, unless each processor has its own."""
VERSION: Final = 3
"""Version 1 has no arcs of blocks and edges together, and nothing that is left out. Up to version 2
the identity does not cover lines and names."""
COUNTING: Final = ("plain", "atomic", "percpu")
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

    def counts(
        self, hits: Sequence[int] | Mapping[int, int]
    ) -> tuple[list[int | None], list[int | None], int | None]:
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
        zeros = {at: 0 for _, _, at in self.arcs}
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
        version: of the section's form, which decides what the identity covers.
        identity: a number of 64 bits that tells one instrumented object from another, by all that
            a report says of it.
    """

    counting: str
    byteorder: isa.ByteOrder
    n_counters: int
    functions: tuple[FunctionMap, ...]
    lines: tuple[LineRow, ...]
    code: bytes
    names: dict[int, str] = field(default_factory=dict)
    version: int = VERSION
    identity: int = field(init=False, compare=False)
    _whole: dict[str, Any] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Work the identity out, once."""
        object.__setattr__(self, "_whole", self._body())
        if self.version >= VERSION:
            covered: Any = self._whole
        else:
            functions = [_plain(one) for one in self.functions]
            covered = [self.counting, self.byteorder, self.n_counters, functions]
        digest = hashlib.sha256(self.code + json.dumps(covered).encode()).digest()
        object.__setattr__(self, "identity", int.from_bytes(digest[:8], "little"))

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
        n_all = max(self.n_counters, 1)
        return min(n_all, PERCPU_MOST) if self.is_percpu else n_all

    @property
    def insns(self) -> isa.Insns:
        """(n,) the original instructions."""
        return np.frombuffer(self.code, isa.INSN)

    def to_bytes(self) -> bytes:
        """The section's content, in the form of this version whatever it was read from.

        Raises:
            FormatError: `parse` would not take it, or not for the same.
        """
        body = {"identity": f"{self.identity:016x}"} | self._whole
        if self.version >= VERSION:
            body["code"] = base64.b64encode(self.code).decode()
        else:
            body["code"] = base64.b64encode(zlib.compress(self.code)).decode()
        data = pack(json.dumps(body, separators=(",", ":")).encode())
        if type(self).parse(data) != self:
            raise FormatError(f"section {SECTION} does not come back as it was written")
        return data

    def _body(self) -> dict[str, Any]:
        """All but the code, and the identity, which covers it; each text once."""
        body: dict[str, Any] = {
            "version": self.version,
            "counting": self.counting,
            "byteorder": self.byteorder,
            "n_counters": self.n_counters,
            "functions": [_plain(one) for one in self.functions],
            "names": {str(slot): name for slot, name in self.names.items()},
        }
        if self.version < VERSION:
            plain = [[row.slot, row.file, row.line, row.column, row.text] for row in self.lines]
            return body | {"lines": plain}
        at: dict[str, int] = {}

        def number_of(text: str) -> int:
            return at.setdefault(text, len(at))

        rows = [
            [r.slot, number_of(r.file), r.line, r.column, number_of(r.text)] for r in self.lines
        ]
        return body | {"texts": list(at), "lines": rows}

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a section's content.

        Raises:
            FormatError: it is none, or of another version.
        """
        try:
            body = json.loads(unpack(data, most(len(data)), f"section {SECTION}"))
            version = body["version"]
            if type(version) is not int or not 1 <= version <= VERSION:
                raise FormatError(
                    f"section {SECTION} has version {str(version)[:40]}, this reads {VERSION}"
                )
            code = base64.b64decode(body["code"], validate=True)
            if version < VERSION:
                code = unpack(code, most(len(data)), f"the code in section {SECTION}")
            texts = [words(text) for text in body["texts"]] if version >= VERSION else None
            out = cls(
                counting=words(body["counting"]),
                byteorder="big" if body["byteorder"] == "big" else "little",
                n_counters=number(body["n_counters"]),
                functions=tuple(_function(one) for one in body["functions"]),
                lines=tuple(_line(row, texts) for row in body["lines"]),
                code=code,
                names={int(slot): words(name) for slot, name in body["names"].items()},
                version=version,
            )
        except (
            AttributeError,
            IndexError,
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
        # Those of a function are in one entry, so that some of the one before may stay unused.
        n_most = 2 * sum(len(one.arcs) for one in self.functions) + PERCPU_MOST
        is_fine = (
            rest == 0
            and self.counting in COUNTING
            and 0 <= self.n_counters <= n_most
            and lines == sorted(lines)
            and all(_is_sound(one, self.n_counters, n_slots) for one in self.functions)
            # Blocks do not overlap, or lines of code would be looked at once for each.
            and sum(end - start for one in self.functions for start, end in one.blocks) <= n_slots
        )
        if not is_fine:
            raise FormatError(f"section {SECTION} is broken: numbers in it name what is not there")


def _plain(one: FunctionMap) -> dict[str, Any]:
    """A function as JSON has it; `dataclasses.asdict` copies each number."""
    plain = {name: getattr(one, name) for name in _FIELDS}
    return {name: value for name, value in plain.items() if name not in _NEW or value}


_FIELDS: Final = tuple(one.name for one in fields(FunctionMap))
_NEW: Final = ("of_both", "why")
"""What objects of version 1 do not have: their identity is made without."""


def _function(body: dict[str, Any]) -> FunctionMap:
    return FunctionMap(
        name=words(body["name"]),
        section=words(body["section"]),
        start=number(body["start"]),
        end=number(body["end"]),
        blocks=tuple((number(a), number(b)) for a, b in body["blocks"]),
        edges=tuple((number(a), number(b), number(c)) for a, b, c in body["edges"]),
        n_nodes=number(body["n_nodes"]),
        arcs=tuple((number(a), number(b), number(c)) for a, b, c in body["arcs"]),
        of_edges=bool(body["of_edges"]),
        of_both=bool(body.get("of_both", False)),
        why=words(body.get("why", "")),
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


def _line(row: list[Any], texts: list[str] | None) -> LineRow:
    slot, file, line, column, text = row
    if texts is not None:
        file, text = texts[number(file)], texts[number(text)]
    return LineRow(number(slot), words(file), number(line), number(column), words(text))
