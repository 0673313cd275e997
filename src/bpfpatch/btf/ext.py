"""The .BTF.ext section: which function, source line and CO-RE record an instruction has.

Instructions are named by their bytes from the start of their ELF section.

Source: linux v6.1, tools/lib/bpf/libbpf_internal.h (struct btf_ext_header,
struct btf_ext_info_sec, struct bpf_core_relo) and tools/lib/bpf/btf.c,
btf_ext_setup_info().
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bpfpatch.errors import FormatError, OptionError, UnsupportedError

from .btf import Btf
from .wire import ByteOrder, pack_words, read_preamble, read_words

FUNC_INFO = np.dtype([("insn_off", "<u4"), ("type_id", "<u4")])
LINE_INFO = np.dtype(
    [("insn_off", "<u4"), ("file_name_off", "<u4"), ("line_off", "<u4"), ("line_col", "<u4")]
)
CORE_RELO = np.dtype(
    [("insn_off", "<u4"), ("type_id", "<u4"), ("access_str_off", "<u4"), ("kind", "<u4")]
)

_CORE_RELO_OLD = 12
"""Bytes of a CO-RE record without a kind: clang 9 had one kind. libbpf ignores all of .BTF.ext
then, so a loader adapts nothing; the records move with their instructions all the same.

Source: llvm 9, BPF back end, BTFDebug.h, BTFOffsetReloc; libbpf 1.1, src/btf.c,
btf_ext_setup_core_relos()."""

#: hdr_len without and with the CO-RE part.
_HEADER_LEN = 24
_HEADER_LEN_CORE = 32
_PARTS = (("func_info", FUNC_INFO), ("line_info", LINE_INFO), ("core_relo", CORE_RELO))
_STR_FIELDS = ("file_name_off", "line_off", "access_str_off")
#: A section each would be more than an ELF file usually has.
_MAX_BLOCKS = 0x10000


@dataclass(frozen=True, slots=True, eq=False)
class ExtSection:
    """The records of one ELF section.

    Attributes:
        name: the ELF section's name.
        name_off: its offset in the strings of .BTF.
        records: (n,) FUNC_INFO, LINE_INFO or CORE_RELO, whatever the file's byte order;
            longer records end in a field ``extra`` of raw bytes, and CO-RE records of 12 bytes
            lack their ``kind``. Read-only.
    """

    name: str
    name_off: int
    records: NDArray[np.void]

    def __post_init__(self) -> None:
        if self.records.flags.writeable:
            frozen = self.records.copy()
            frozen.flags.writeable = False
            object.__setattr__(self, "records", frozen)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ExtSection):
            return NotImplemented
        return (
            (self.name, self.name_off, self.records.dtype)
            == (other.name, other.name_off, other.records.dtype)
        ) and self.records.tobytes() == other.records.tobytes()

    def __hash__(self) -> int:
        return hash((self.name, self.name_off, len(self.records)))


@dataclass(frozen=True, slots=True)
class BtfExt:
    """A .BTF.ext section.

    Attributes:
        func_info: which Func starts where.
        line_info: which source line starts where.
        core_relo: what a loader has to adapt to the running kernel.
        byteorder: of the section.
        header: the header's bytes, with parts that are not known here.
        raw: the bytes that were parsed; None once something has changed.
    """

    func_info: tuple[ExtSection, ...]
    line_info: tuple[ExtSection, ...]
    core_relo: tuple[ExtSection, ...]
    byteorder: ByteOrder
    header: bytes = field(repr=False)
    raw: bytes | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, data: bytes, strings: Btf) -> BtfExt:
        """Read a .BTF.ext section.

        Args:
            data: the section.
            strings: the object's .BTF, for section names; the records' string offsets
                and type ids are checked against it.

        Raises:
            FormatError: the section is broken.
        """
        data = bytes(data)
        order, hdr_len = read_preamble(data, strings.byteorder, ".BTF.ext")
        if hdr_len < _HEADER_LEN:
            raise FormatError(f"the .BTF.ext header claims {hdr_len} bytes, at least 24", 4)
        count = 3 if hdr_len >= _HEADER_LEN_CORE else 2
        fields = read_words(data, 8, 2 * count, order)
        parts = [
            _Part(data, hdr_len, fields[2 * row], fields[2 * row + 1], row, strings).sections()
            for row in range(count)
        ]
        parts += [()] * (3 - count)
        return cls(parts[0], parts[1], parts[2], order, data[:hdr_len], data)

    @classmethod
    def empty(cls, byteorder: ByteOrder) -> BtfExt:
        """A section without records, to put some into."""
        magic = b"\x9f\xeb" if byteorder == "little" else b"\xeb\x9f"
        header = magic + b"\1\0" + pack_words((_HEADER_LEN_CORE, *(0,) * 6), byteorder)
        return cls((), (), (), byteorder, header, None)

    def with_sections(
        self,
        func_info: Sequence[ExtSection] | None = None,
        line_info: Sequence[ExtSection] | None = None,
        core_relo: Sequence[ExtSection] | None = None,
    ) -> BtfExt:
        """A copy with other records; None keeps what there is.

        Raises:
            OptionError: records of one part differ in their fields, or are not in the
                order of their instructions, which a loader relies on.
            UnsupportedError: the header has parts that are not known here and not zero.
        """
        given = {"func_info": func_info, "line_info": line_info, "core_relo": core_relo}
        new = {name: tuple(secs) for name, secs in given.items() if secs is not None}
        new = {name: secs for name, secs in new.items() if secs != getattr(self, name)}
        if not new:
            return self
        known = _HEADER_LEN_CORE if len(self.header) >= _HEADER_LEN_CORE else _HEADER_LEN
        if any(self.header[known:]) and not _names_nothing(self.header[known:]):
            raise UnsupportedError(
                f"the .BTF.ext header has {len(self.header)} bytes, of which those from {known} "
                "on are not known here and not zero: they may name records that an edit would "
                "make wrong"
            )
        for name, dtype in _PARTS:
            _check_part(name, dtype, new.get(name, ()))
        return replace(self, raw=None, **new)  # type: ignore[arg-type]

    def to_bytes(self) -> bytes:
        """The section; of an unchanged one exactly what was parsed.

        ELF sections without records are left out: libbpf refuses them.
        """
        if self.raw is not None:
            return self.raw
        bodies = [self._pack(getattr(self, name)) for name, _ in _PARTS]
        fields: list[int] = []
        at = 0
        for body in bodies:
            fields += [at, len(body)]
            at += len(body)
        header = self.header
        if len(header) < _HEADER_LEN_CORE and not bodies[2]:
            fields = fields[:4]
        elif len(header) < _HEADER_LEN_CORE:
            header = header[:4] + pack_words((_HEADER_LEN_CORE,), self.byteorder) + bytes(24)
        known = 8 + 4 * len(fields)
        start = header[:8] + pack_words(fields, self.byteorder) + header[known:]
        return start + b"".join(bodies)

    def _pack(self, sections: tuple[ExtSection, ...]) -> bytes:
        filled = [section for section in sections if len(section.records)]
        if not filled:
            return b""
        pieces = [pack_words((filled[0].records.dtype.itemsize,), self.byteorder)]
        for section in filled:
            records = section.records
            pieces.append(pack_words((section.name_off, len(records)), self.byteorder))
            pieces.append(records.astype(_in_order(records.dtype, self.byteorder)).tobytes())
        return b"".join(pieces)


def _in_order(dtype: np.dtype[Any], byteorder: ByteOrder) -> np.dtype[Any]:
    return dtype.newbyteorder("<" if byteorder == "little" else ">")


def _with_extra(dtype: np.dtype[Any], size: int) -> np.dtype[Any]:
    """The record type for records of ``size`` bytes."""
    if size == dtype.itemsize:
        return dtype
    if size < dtype.itemsize:
        return np.dtype(dtype.descr[: size // 4])
    return np.dtype([*dtype.descr, ("extra", f"V{size - dtype.itemsize}")])


def _least(name: str, dtype: np.dtype[Any]) -> int:
    """Bytes of a part's shortest records."""
    return _CORE_RELO_OLD if name == "core_relo" else dtype.itemsize


def _names_nothing(rest: bytes) -> bool:
    """Whether a header ends in the place and size of a further part, of which the size is 0.

    Clang 9 has one for externs, which was never used: its header has 40 bytes.
    """
    return len(rest) == 8 and not any(rest[4:])


def _check_part(name: str, dtype: np.dtype[Any], sections: tuple[ExtSection, ...]) -> None:
    for section in sections:
        records = section.records
        size = max(records.dtype.itemsize, _least(name, dtype))
        if records.dtype != _with_extra(dtype, size):
            raise OptionError(
                f"{name} of {section.name!r} has records of {records.dtype}, "
                f"they have to start with {dtype}"
            )
        if records.dtype != sections[0].records.dtype:
            raise OptionError(
                f"{name} has records of {sections[0].records.dtype.itemsize} bytes in "
                f"{sections[0].name!r} and of {records.dtype.itemsize} in {section.name!r}; "
                "one part has one record size"
            )
        if not 0 <= section.name_off < 1 << 32:
            raise OptionError(f"{name} of {section.name!r} has name_off {section.name_off}")
        places = records["insn_off"].astype(np.int64)
        falls = np.flatnonzero(np.diff(places) < 0)
        if falls.size:
            row = int(falls[0]) + 1
            raise OptionError(
                f"{name} of {section.name!r}: record {row} is for byte {int(places[row])}, after "
                f"one for byte {int(places[row - 1])}; sort the records by insn_off"
            )


@dataclass(frozen=True, slots=True)
class _Part:
    """Reads func_info, line_info or core_relo; all places are bytes of the input."""

    data: bytes
    hdr_len: int
    start: int
    length: int
    row: int
    strings: Btf

    @property
    def name(self) -> str:
        return _PARTS[self.row][0]

    def sections(self) -> tuple[ExtSection, ...]:
        if self.length == 0:
            return ()
        at, end, size = self._bounds()
        dtype: np.dtype[Any] | None = None
        names: dict[int, str] = {}
        out: list[ExtSection] = []
        while at < end:
            if len(out) == _MAX_BLOCKS:
                raise FormatError(f"{self.name} has more than {_MAX_BLOCKS} ELF sections", at)
            name_off, count = self._block(at, end, size)
            if name_off not in names:
                names[name_off] = self._text(name_off, at)
            if dtype is None:
                dtype = _with_extra(_PARTS[self.row][1], size)
            records = self._records(dtype, count, at + 8)
            out.append(ExtSection(names[name_off], name_off, records))
            at += 8 + count * size
        return tuple(out)

    def _bounds(self) -> tuple[int, int, int]:
        """(first block, end, record size)."""
        field_off = 8 + 8 * self.row
        if self.start % 4:
            raise FormatError(f"{self.name} starts at {self.start:#x}, no multiple of 4", field_off)
        at = self.hdr_len + self.start
        end = at + self.length
        if end > len(self.data):
            raise FormatError(
                f"{self.name} claims {self.length} bytes from {self.start:#x}, "
                f"{len(self.data) - self.hdr_len} follow the header",
                field_off,
            )
        if self.length < 4:
            raise FormatError(f"{self.name} has {self.length} bytes, its record size needs 4", at)
        (size,) = read_words(self.data, at, 1, self.strings.byteorder)
        least = _least(*_PARTS[self.row])
        if size < least or size % 4 or (size > self.length and self.length > 4):
            raise FormatError(
                f"{self.name} has records of {size} bytes in a part of {self.length}; "
                f"they have at least {least}, and a multiple of 4",
                at,
            )
        return at + 4, end, size

    def _block(self, at: int, end: int, size: int) -> tuple[int, int]:
        """(name_off, number of records) of the block at a place."""
        if end - at < 8:
            raise FormatError(f"{self.name} ends within a block's head", at)
        name_off, count = read_words(self.data, at, 2, self.strings.byteorder)
        if count * size > end - at - 8:
            raise FormatError(
                f"{self.name} has a block of {count} records of {size} bytes, "
                f"{end - at - 8} bytes are left",
                at + 4,
            )
        return name_off, count

    def _text(self, str_off: int, byte_off: int) -> str:
        try:
            return self.strings.string(str_off)
        except FormatError as error:
            raise FormatError(f"{self.name}: {error.what}", byte_off) from error

    def _records(self, dtype: np.dtype[Any], count: int, byte_off: int) -> NDArray[np.void]:
        raw = np.frombuffer(
            self.data, _in_order(dtype, self.strings.byteorder), count=count, offset=byte_off
        )
        records = raw.astype(dtype)
        records.flags.writeable = False
        for name in _STR_FIELDS:
            if name in (dtype.names or ()):
                self._check(records, name, self.strings.str_end, byte_off)
        if "type_id" in (dtype.names or ()) and self.strings.unknown_kind is None:
            self._check(records, "type_id", len(self.strings), byte_off)
        return records

    def _check(self, records: NDArray[np.void], name: str, limit: int, byte_off: int) -> None:
        bad = np.flatnonzero(records[name] >= limit)
        if bad.size == 0:
            return
        row = int(bad[0])
        raise FormatError(
            f"{self.name} record {row} has {name} {int(records[name][row])}, .BTF ends at {limit}",
            byte_off + row * records.dtype.itemsize,
        )
