"""Which places of a traced object tell what: a section that travels with it."""

from __future__ import annotations

import hashlib
import json
import zlib
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from bpfpatch.elf import ElfObject
from bpfpatch.errors import FormatError, OptionError
from bpfpatch.isa import ByteOrder

SECTION: Final = ".bpfpatch.trace"
"""A second pass's is called so with ``.1`` behind it, and so on."""
MAP_NAME: Final = "bpfpatch_trace"
VERSION: Final = 1
WORD: Final = 8
HEAD: Final = 2 * WORD
"""Bytes of a record in front of its values: the place, and the time."""
_MOST: Final = 1 << 24


@dataclass(frozen=True, slots=True)
class TracePlace:
    """One place that prints or sends records.

    Slots are those of the object's code before the pass.

    Attributes:
        function: that it is in.
        section: the code section.
        slot: the values are those in front of this slot.
        put: the slot in front of which they are taken; another one of the same block if there
            was no room at ``slot``.
        to: "pipe" or "ring".
        file: of the source, or "".
        line: of the source, or 0.
        text: the source line, or the instruction where there is none.
        registers: whose values are told, in this order.
        message: of whoever asked.
    """

    function: str
    section: str
    slot: int
    put: int
    to: str
    file: str
    line: int
    text: str
    registers: tuple[int, ...]
    message: str

    def __str__(self) -> str:
        """The place in the source, or else in the code."""
        if self.line:
            return f"{self.file.rpartition('/')[2]}:{self.line}"
        return f"{self.function}#{self.slot}" if self.function else f"#{self.slot}"


@dataclass(frozen=True, slots=True)
class TraceRecord:
    """One record.

    Attributes:
        place: where it comes from.
        time_ns: since the machine booted.
        values: of the place's registers.
    """

    place: TracePlace
    time_ns: int
    values: tuple[int, ...]

    def __str__(self) -> str:
        """One line, as the trace pipe shows it, with the time in front."""
        words = [self.place.message] if self.place.message else []
        words.append(str(self.place))
        pairs = zip(self.place.registers, self.values, strict=True)
        words += [f"r{register}={value:#x}" for register, value in pairs]
        return f"{self.time_ns / 1e9:.6f}: {' '.join(words)}"


@dataclass(frozen=True, slots=True)
class TraceMap:
    """The places of an object.

    Attributes:
        places: by number, which a record starts with.
    """

    places: dict[int, TracePlace]

    @classmethod
    def of(cls, places: list[TracePlace], code: bytes) -> Self:
        """Number places, so that those of another object have other numbers.

        Args:
            places: all of one pass.
            code: the object's instructions.
        """
        text = json.dumps([asdict(place) for place in places])
        digest = hashlib.sha256(code + text.encode()).digest()
        high = int.from_bytes(digest[:4], "little") << 32
        return cls({high | index: place for index, place in enumerate(places)})

    def to_bytes(self) -> bytes:
        """The section's content."""
        rows = [[f"{number:016x}", asdict(place)] for number, place in self.places.items()]
        text = json.dumps({"version": VERSION, "places": rows}, separators=(",", ":"))
        return zlib.compress(text.encode(), 9)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a section's content.

        Raises:
            FormatError: it is none, or of another version.
        """
        worker = zlib.decompressobj()
        try:
            text = worker.decompress(data, _MOST)
            if not worker.eof:
                raise FormatError(f"section {SECTION} is cut off, or expands to too much")
            body = json.loads(text)
            if body["version"] != VERSION:
                raise FormatError(
                    f"section {SECTION} has version {body['version']}, this reads {VERSION}"
                )
            return cls({int(number, 16): _place(row) for number, row in body["places"]})
        except (KeyError, TypeError, ValueError, zlib.error) as error:
            raise FormatError(f"section {SECTION} is broken: {error}") from error

    def record(self, data: bytes, byteorder: ByteOrder = "little") -> TraceRecord:
        """Read one record.

        Raises:
            FormatError: it is none of this object's.
        """
        number = int.from_bytes(data[:WORD], byteorder)
        place = self.places.get(number)
        if len(data) < HEAD or place is None:
            raise FormatError(
                f"a record of {len(data)} bytes that starts with {number:#x} is none of this "
                "object's; give the very object that is loaded"
            )
        if len(data) != HEAD + WORD * len(place.registers):
            raise FormatError(
                f"a record of {place} has {HEAD + WORD * len(place.registers)} bytes, "
                f"not {len(data)}"
            )
        words = [
            int.from_bytes(data[at : at + WORD], byteorder) for at in range(WORD, len(data), WORD)
        ]
        return TraceRecord(place, words[0], tuple(words[1:]))


def trace_map(obj: ElfObject) -> TraceMap:
    """All places of an object, of all passes.

    Raises:
        OptionError: it has none.
        FormatError: a section is broken.
    """
    places: dict[int, TracePlace] = {}
    for section in obj.sections:
        if is_section(section.name):
            places |= TraceMap.parse(bytes(section.data)).places
    if not places:
        raise OptionError(f"the object has no section {SECTION}: nothing in it is traced")
    return TraceMap(places)


def is_section(name: str) -> bool:
    """Whether a section's name is one of ours."""
    return name == SECTION or name.startswith(f"{SECTION}.")


def _place(row: dict[str, Any]) -> TracePlace:
    return TracePlace(
        function=str(row["function"]),
        section=str(row["section"]),
        slot=int(row["slot"]),
        put=int(row["put"]),
        to=str(row["to"]),
        file=str(row["file"]),
        line=int(row["line"]),
        text=str(row["text"]),
        registers=tuple(int(register) for register in row["registers"]),
        message=str(row["message"]),
    )
