"""A BPF program: instructions, and tables that sit on them. Immutable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.errors import Where

from .anchors import AnchoredTable
from .columns import Column
from .refs import References, read_references
from .types import Insns, Mask, Slots, frozen

LINE = np.dtype([("file_name_off", "<u4"), ("line_off", "<u4"), ("line_col", "<u4")])
"""One row of the ``line_info`` table: bpf_line_info without its insn_off."""

LINE_INFO = "line_info"
FUNC_INFO = "func_info"
JUMP_TABLE = "jump_table"
LANDING_PAD = "landing_pad"


@dataclass(frozen=True, slots=True, eq=False)
class Subprogs:
    """The functions of a program; each reaches to the start of the next.

    Attributes:
        start: (m,) int32 slots, strictly ascending; the first is 0.
        names: m names, "" where unknown.
        section: (m,) int32, non-decreasing index into ``Program.sections``.
        is_root: (m,) whether something outside of the code enters here: the kernel,
            or data that holds the function's address. By default the first only.
    """

    start: Slots
    names: tuple[str, ...]
    section: Slots
    is_root: Mask = None  # type: ignore[assignment]  # derived below, never None outside

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", frozen(self.start, np.int32))
        object.__setattr__(self, "section", frozen(self.section, np.int32))
        start = self.start
        if self.is_root is None:
            object.__setattr__(self, "is_root", np.arange(start.size) == 0)
        object.__setattr__(self, "is_root", frozen(self.is_root, bool))
        if not start.size == len(self.names) == self.section.size == self.is_root.size:
            raise ValueError(
                f"{start.size} starts, {len(self.names)} names, {self.section.size} sections "
                f"and {self.is_root.size} root marks"
            )
        if start.size and (start[0] != 0 or (np.diff(start) <= 0).any()):
            raise ValueError(f"subprog starts must ascend from 0: {start.tolist()[:8]}")
        if (np.diff(self.section) < 0).any():
            raise ValueError("subprogs must come in the order of their sections")

    @classmethod
    def from_starts(cls, starts: Mapping[int, str]) -> Subprogs:
        """Subprogs of one section, from slot to name; slot 0 is added where absent."""
        named = {0: "", **starts}
        slots = sorted(named)
        return cls(
            np.array(slots, np.int32),
            tuple(named[slot] for slot in slots),
            np.zeros(len(slots), np.int32),
        )

    def __len__(self) -> int:
        return len(self.names)

    def of(self, slots: Slots) -> Slots:
        """(n,) index of the subprog that each slot is in."""
        return np.searchsorted(self.start, slots, side="right").astype(np.int32) - 1

    def ends(self, n_slots: int) -> Slots:
        """(m,) slot after each subprog's last."""
        return np.append(self.start, n_slots)[1:].astype(np.int32)


_NAME_MOST: Final = 255
"""Characters of a file's name; of a path `_PATH_MOST`. Source: limits.h, NAME_MAX and PATH_MAX."""
_PATH_MOST: Final = 4096
_TEXT_MOST: Final = 1024
"""Characters of a line of source that are looked at."""


@dataclass(frozen=True, slots=True)
class SourceLine:
    """What a line record says: file name, 1-based line and column, and the line's text.

    Names and texts end where no file's would go on: thousands of records can share a long one.
    """

    file: str
    line: int
    column: int
    text: str

    def __str__(self) -> str:
        return f"{self.file.rpartition('/')[2][:_NAME_MOST]}:{self.line}"


@dataclass(frozen=True, eq=False)
class Program:
    """Instructions and the tables that are anchored to them.

    All executable sections of an object form one program, with sections as
    ranges of it, since calls cross sections. Nothing in here changes: edits
    are made on a `bpfpatch.PatchList` and give a new program.

    Attributes:
        insns: (n,) `isa.INSN`, read-only; references hold distances in this
            very array, also where the object's file keeps them elsewhere.
        subprogs: the functions; where not given, slot 0 and all that calls
            and function addresses in the code refer to.
        sections: names of the ranges that ``subprogs.section`` counts.
        tables: anchored tables by name; ``line_info`` has `LINE` rows.
        columns: dense per-instruction data by name.
        external: (k,) ascending slots whose reference field is a relocation's
            against something outside of this code, and so none of ours.
        strings: NUL-separated strings that ``line_info`` rows index.
    """

    insns: Insns
    subprogs: Subprogs = None  # type: ignore[assignment]  # derived below, never None outside
    sections: tuple[str, ...] = ("",)
    tables: Mapping[str, AnchoredTable] = field(default_factory=dict)
    columns: Mapping[str, Column] = field(default_factory=dict)
    external: Slots = field(default_factory=lambda: np.zeros(0, np.int32))
    strings: bytes = b""

    def __repr__(self) -> str:
        names = ", ".join((*self.tables, *self.columns)) or "none"
        return f"<Program of {len(self)} slots, {len(self.subprogs)} subprogs, with {names}>"

    def __post_init__(self) -> None:
        insns = frozen(self.insns, isa.INSN)
        object.__setattr__(self, "insns", insns)
        object.__setattr__(self, "external", frozen(self.external, np.int32))
        object.__setattr__(self, "tables", MappingProxyType(dict(self.tables)))
        object.__setattr__(self, "columns", MappingProxyType(dict(self.columns)))
        if self.subprogs is None:
            object.__setattr__(self, "subprogs", _derived_subprogs(self.refs, len(insns)))
        if len(self.subprogs) and self.subprogs.start[-1] >= len(insns):
            raise ValueError(
                f"a subprog starts at slot {self.subprogs.start[-1]} of a program of {len(insns)}"
            )
        for name, column in self.columns.items():
            if len(column) != len(insns):
                raise ValueError(f"column {name!r} has {len(column)} values for {len(insns)} slots")

    @classmethod
    def from_bytes(cls, data: bytes, byteorder: isa.ByteOrder = "little") -> Program:
        """A program of raw instructions, 8 bytes each.

        Raises:
            FormatError: the length is no multiple of 8.
        """
        return cls(isa.from_bytes(data, byteorder))

    def to_bytes(self, byteorder: isa.ByteOrder = "little") -> bytes:
        """The raw instructions, 8 bytes each."""
        return isa.to_bytes(self.insns, byteorder)

    def __len__(self) -> int:
        """Length in slots."""
        return len(self.insns)

    @cached_property
    def refs(self) -> References:
        """All jumps, calls and function addresses, decoded."""
        return read_references(self.insns, self.external)

    @cached_property
    def second_slots(self) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """(n,) where a slot is the second of an ld_imm64."""
        return isa.second_slots(self.insns)

    @cached_property
    def section_bounds(self) -> Slots:
        """(s + 1,) first slot of each section, each up to the next; then the length."""
        first = np.searchsorted(self.subprogs.section, np.arange(len(self.sections) + 1))
        starts = np.append(self.subprogs.start, len(self))
        return starts[first].astype(np.int32)

    def with_tables(self, **tables: AnchoredTable) -> Program:
        """The same program with these tables added or put in place of others."""
        return replace(self, tables={**self.tables, **tables})

    def with_columns(self, **columns: Column) -> Program:
        """The same program with these columns added or put in place of others."""
        return replace(self, columns={**self.columns, **columns})

    def subprog_name(self, slot: int) -> str:
        """The name of the subprog that a slot is in, or "" where it has none."""
        if not len(self.subprogs):
            return ""
        index = int(np.searchsorted(self.subprogs.start, slot, side="right")) - 1
        return self.subprogs.names[max(index, 0)]

    def source(self, slot: int) -> SourceLine | None:
        """The source line of a slot: the last line record at or before it in its subprog."""
        rows = self.source_rows(np.array([slot]))
        return self.source_lines(rows)[0] if rows[0] >= 0 else None

    def source_rows(self, slots: Slots | NDArray[np.int64]) -> NDArray[np.int64]:
        """(k,) rows of ``line_info`` that slots have their source lines from, -1 for none."""
        table = self.tables.get(LINE_INFO)
        if table is None or not len(table):
            return np.full(slots.size, -1)
        rows = np.searchsorted(table.insn, slots, side="right") - 1
        subprog = np.searchsorted(self.subprogs.start, slots, side="right") - 1
        rows[table.insn[rows] < self.subprogs.start[subprog]] = -1
        return rows

    def source_lines(self, rows: NDArray[np.int64]) -> list[SourceLine]:
        """The source lines that rows of ``line_info`` hold."""
        if not rows.size:
            return []
        records = self.tables[LINE_INFO].rows[rows]
        fields = (records[name].tolist() for name in ("file_name_off", "line_off", "line_col"))
        return [
            SourceLine(
                self._string(file, _PATH_MOST),
                line_col >> 10,
                line_col & 0x3FF,
                self._string(text, _TEXT_MOST).strip(),
            )
            for file, text, line_col in zip(*fields, strict=True)
        ]

    def where(self, slot: int) -> Where:
        """A slot's place, for an error message."""
        if not 0 <= slot < len(self):
            return Where(slot)
        source = self.source(slot)
        return Where(
            slot,
            self.subprog_name(slot),
            "" if source is None else str(source),
            isa.describe(self.insns, slot),
        )

    @cached_property
    def _texts(self) -> dict[int, str]:
        """Strings read so far, by offset: thousands of line records have one file's name."""
        return {}

    def _string(self, str_off: int, most: int) -> str:
        found = self._texts.get(str_off)
        if found is None:
            end = self.strings.find(b"\0", str_off)
            some = self.strings[str_off : min(end, str_off + 4 * _PATH_MOST)] if end >= 0 else b""
            found = self._texts[str_off] = some.decode("utf-8", "replace")
        return found[:most]


def _derived_subprogs(refs: References, n_slots: int) -> Subprogs:
    targets = refs.target[refs.is_entry]
    inside = targets[(targets >= 0) & (targets < n_slots)]
    start = np.union1d(inside, [0]).astype(np.int32) if n_slots else np.zeros(0, np.int32)
    return Subprogs(start, ("",) * start.size, np.zeros(start.size, np.int32))
