"""The ELF container: header, section headers, contents, and every byte in between.

`RawElf` accounts for each byte of a file exactly once, as header, section
header, content of a section, or gap. So what is written without an edit is
what was read, without any code that says so.

Source: System V ABI, Object Files (ELF-64); linux v6.1,
include/uapi/linux/elf.h.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.errors import FormatError

from .strings import StringTable

ByteOrder = isa.ByteOrder
Buffer = bytes | memoryview

EM_NONE: Final = 0
EM_BPF: Final = 247
ET_REL: Final = 1
SHN_UNDEF: Final = 0
SHN_LORESERVE: Final = 0xFF00
SHT_NULL: Final = 0
SHT_PROGBITS: Final = 1
SHT_SYMTAB: Final = 2
SHT_STRTAB: Final = 3
SHT_RELA: Final = 4
SHT_NOBITS: Final = 8
SHT_REL: Final = 9
SHT_GROUP: Final = 17
SHT_SYMTAB_SHNDX: Final = 18
SHT_LLVM_ADDRSIG: Final = 0x6FFF4C03
SHF_EXECINSTR: Final = 4
SHF_INFO_LINK: Final = 0x40
MAX_ALIGN: Final = 1 << 16

_EHDR = [
    ("ident", "u1", 16),
    ("type", "u2"),
    ("machine", "u2"),
    ("version", "u4"),
    ("entry", "u8"),
    ("phoff", "u8"),
    ("shoff", "u8"),
    ("flags", "u4"),
    ("ehsize", "u2"),
    ("phentsize", "u2"),
    ("phnum", "u2"),
    ("shentsize", "u2"),
    ("shnum", "u2"),
    ("shstrndx", "u2"),
]
_SHDR = [
    ("name_off", "u4"),
    ("type", "u4"),
    ("flags", "u8"),
    ("addr", "u8"),
    ("byte_off", "u8"),
    ("size", "u8"),
    ("link", "u4"),
    ("info", "u4"),
    ("addralign", "u8"),
    ("entsize", "u8"),
]
_SYM = [
    ("name_off", "u4"),
    ("info", "u1"),
    ("other", "u1"),
    ("shndx", "u2"),
    ("value", "u8"),
    ("size", "u8"),
]
# The two words of r_info, which is (symbol << 32 | type): their order follows the byte order.
_REL = {
    "little": [("byte_off", "u8"), ("type", "u4"), ("sym", "u4")],
    "big": [("byte_off", "u8"), ("sym", "u4"), ("type", "u4")],
}


def _both_orders(fields: list[Any]) -> dict[str, np.dtype[Any]]:
    dtype = np.dtype(fields)
    return {"little": dtype.newbyteorder("<"), "big": dtype.newbyteorder(">")}


EHDR: Final = _both_orders(_EHDR)
SHDR: Final = _both_orders(_SHDR)
SYM: Final = _both_orders(_SYM)
REL: Final = {
    "little": np.dtype(_REL["little"]).newbyteorder("<"),
    "big": np.dtype(_REL["big"]).newbyteorder(">"),
}
EHDR_SIZE: Final = EHDR["little"].itemsize
SHDR_SIZE: Final = SHDR["little"].itemsize


def decode(data: Buffer, dtypes: dict[str, np.dtype[Any]], byteorder: ByteOrder) -> NDArray[Any]:
    """Rows of a table in the file's byte order, as a read-only little-endian array."""
    rows = np.frombuffer(data, dtypes[byteorder])
    if byteorder == "little":
        return rows
    out = np.empty(len(rows), dtypes["little"])
    for name in dtypes["little"].names or ():
        out[name] = rows[name]
    return out


def encode(rows: NDArray[Any], dtypes: dict[str, np.dtype[Any]], byteorder: ByteOrder) -> bytes:
    """The inverse of `decode`."""
    if byteorder == "little":
        return rows.tobytes()
    out = np.empty(len(rows), dtypes["big"])
    for name in dtypes["big"].names or ():
        out[name] = rows[name]
    return out.tobytes()


@dataclass(frozen=True, slots=True)
class FilePiece:
    """A run of bytes in the file that belongs to one owner.

    Attributes:
        owner: section index, or `EHDR_PIECE` or `SHDRS_PIECE`.
        byte_off: where it starts.
        n_bytes: its length; 0 for an empty section that has a place all the same.
        align: what its place must stay congruent to when things in front of it grow.
    """

    owner: int
    byte_off: int
    n_bytes: int
    align: int

    @property
    def end(self) -> int:
        """The byte after its last."""
        return self.byte_off + self.n_bytes


EHDR_PIECE: Final = -1
SHDRS_PIECE: Final = -2


@dataclass(frozen=True, slots=True, eq=False)
class RawElf:
    """One ELF file, each byte in one place.

    Attributes:
        byteorder: of the file.
        header: (1,) `EHDR`, little-endian here whatever the file is.
        shdrs: (n,) `SHDR`, likewise.
        contents: n buffers; empty for a section without bytes in the file.
        names: n section names.
        gaps: (byte_off, bytes) of what belongs to nothing, in order: padding,
            and whatever follows the last piece.
    """

    byteorder: ByteOrder
    header: NDArray[Any]
    shdrs: NDArray[Any]
    contents: tuple[Buffer, ...]
    names: tuple[str, ...]
    gaps: tuple[tuple[int, Buffer], ...]

    def to_bytes(self) -> bytes:
        """The file: every piece and gap written to its place."""
        end = max(
            [piece.end for piece in pieces(self)] + [off + len(gap) for off, gap in self.gaps]
        )
        out = bytearray(end)
        for byte_off, gap in self.gaps:
            out[byte_off : byte_off + len(gap)] = gap
        out[:EHDR_SIZE] = encode(self.header, EHDR, self.byteorder)
        shoff = int(self.header["shoff"][0])
        out[shoff : shoff + len(self.shdrs) * SHDR_SIZE] = encode(self.shdrs, SHDR, self.byteorder)
        offs = self.shdrs["byte_off"].tolist()
        for byte_off, content in zip(offs, self.contents, strict=True):
            if content:
                out[byte_off : byte_off + len(content)] = content
        return bytes(out)

    def find(self, name: str) -> int | None:
        """Index of the first section with this name."""
        try:
            return self.names.index(name)
        except ValueError:
            return None

    def byte_off(self, section: int, byte_off: int = 0) -> int:
        """Where a byte of a section is in the file."""
        return int(self.shdrs["byte_off"][section]) + byte_off


def parse_raw(data: bytes) -> RawElf:
    """Read the container.

    Raises:
        FormatError: it is not an ELF64 relocatable BPF object, is cut off, or has
            sections that overlap or lie outside of the file.
    """
    byteorder = _check_ident(data)
    header = decode(data[:EHDR_SIZE], EHDR, byteorder)
    _check_header(header, len(data))
    shoff, n_sections = int(header["shoff"][0]), int(header["shnum"][0])
    view = memoryview(data)
    shdrs = decode(view[shoff : shoff + n_sections * SHDR_SIZE], SHDR, byteorder)
    _check_sections(shdrs, shoff, len(data))
    contents = tuple(_contents(view, shdrs))
    names = _names(shdrs, contents, int(header["shstrndx"][0]), shoff)
    raw = RawElf(byteorder, header, shdrs, contents, names, ())
    gaps = tuple(_gaps(pieces(raw), view))
    return RawElf(byteorder, header, shdrs, contents, names, gaps)


def _check_ident(data: bytes) -> ByteOrder:
    if len(data) < EHDR_SIZE:
        raise FormatError(f"{len(data)} bytes are too few for an ELF header of {EHDR_SIZE}", 0)
    if data[:4] != b"\x7fELF":
        raise FormatError("this is not an ELF file: it does not start with \\x7fELF", 0)
    if data[4] != 2:
        raise FormatError(f"ELF class {data[4]} is not 2: a BPF object is a 64-bit ELF file", 4)
    if data[5] not in (1, 2):
        raise FormatError(f"ELF data encoding {data[5]} is neither 1 (little) nor 2 (big)", 5)
    if data[6] != 1:
        raise FormatError(f"ELF version {data[6]} is not 1", 6)
    return "little" if data[5] == 1 else "big"


def _check_header(header: NDArray[Any], n_bytes: int) -> None:
    head = {name: int(header[name][0]) for name in (header.dtype.names or ())[1:]}
    # Compilers of before EM_BPF was assigned left it empty, and loaders take that.
    # Source: libbpf v1.5, src/libbpf.c, bpf_object__elf_init().
    if head["machine"] not in (EM_BPF, EM_NONE):
        raise FormatError(f"e_machine is {head['machine']}, not {EM_BPF}, which is BPF", 18)
    if head["type"] != ET_REL:
        raise FormatError(
            f"e_type is {head['type']}, not {ET_REL}: only relocatable objects hold BPF", 16
        )
    if head["phnum"]:
        raise FormatError(f"a relocatable object has no program headers, this {head['phnum']}", 56)
    if head["shentsize"] != SHDR_SIZE:
        raise FormatError(f"e_shentsize is {head['shentsize']}, not {SHDR_SIZE}", 58)
    if not 0 < head["shnum"] < SHN_LORESERVE:
        raise FormatError(
            f"e_shnum is {head['shnum']}; 1 to {SHN_LORESERVE - 1} sections are supported", 60
        )
    end = head["shoff"] + head["shnum"] * SHDR_SIZE
    if head["shoff"] < EHDR_SIZE or end > n_bytes:
        raise FormatError(
            f"{head['shnum']} section headers at {head['shoff']:#x} do not fit in "
            f"{n_bytes:#x} bytes",
            40,
        )
    if head["shstrndx"] >= head["shnum"]:
        raise FormatError(f"e_shstrndx {head['shstrndx']} is not a section", 62)


def _has_bytes(shdrs: NDArray[Any]) -> NDArray[np.bool_]:
    return np.asarray((shdrs["type"] != SHT_NOBITS) & (shdrs["type"] != SHT_NULL), np.bool_)


def _check_sections(shdrs: NDArray[Any], shoff: int, n_bytes: int) -> None:
    start, size = shdrs["byte_off"], shdrs["size"]
    limit = np.uint64(n_bytes)
    is_out = _has_bytes(shdrs) & ((size > limit) | (start > limit - np.minimum(size, limit)))
    is_out &= size > 0
    if is_out.any():
        index = int(np.argmax(is_out))
        raise FormatError(
            f"section {index} of {int(size[index]):#x} bytes at {int(start[index]):#x} does not "
            f"fit in {n_bytes:#x} bytes",
            shoff + index * SHDR_SIZE + 24,
        )
    align = shdrs["addralign"]
    is_odd = (align & (align - np.minimum(align, 1))) != 0
    is_odd |= _has_bytes(shdrs) & (align > MAX_ALIGN)
    if is_odd.any():
        index = int(np.argmax(is_odd))
        raise FormatError(
            f"section {index} is aligned to {int(align[index]):#x}, not to a power of two up to "
            f"{MAX_ALIGN:#x}",
            shoff + index * SHDR_SIZE + 48,
        )


def _contents(view: memoryview, shdrs: NDArray[Any]) -> Iterator[Buffer]:
    spans = zip(
        _has_bytes(shdrs).tolist(),
        shdrs["byte_off"].tolist(),
        shdrs["size"].tolist(),
        strict=True,
    )
    for has_bytes, start, size in spans:
        yield view[start : start + size] if has_bytes and size else b""


def _names(
    shdrs: NDArray[Any], contents: tuple[Buffer, ...], shstrndx: int, shoff: int
) -> tuple[str, ...]:
    table = StringTable(contents[shstrndx], int(shdrs["byte_off"][shstrndx]))
    out = []
    for index, name_off in enumerate(shdrs["name_off"].tolist()):
        try:
            out.append(table.get(name_off))
        except FormatError as error:
            raise FormatError(
                f"section {index}: {error.what}", shoff + index * SHDR_SIZE
            ) from error
    return tuple(out)


def pieces(raw: RawElf) -> list[FilePiece]:
    """All pieces of the file, in order of place.

    An empty section counts where it stands at the edge of the others, so that
    it can grow there; inside of another piece it is none.

    Raises:
        FormatError: two pieces overlap.
    """
    shoff = int(raw.header["shoff"][0])
    table = FilePiece(SHDRS_PIECE, shoff, len(raw.shdrs) * SHDR_SIZE, 8)
    full = [FilePiece(EHDR_PIECE, 0, EHDR_SIZE, 1), table]
    empty: list[FilePiece] = []
    aligns = raw.shdrs["addralign"].tolist()
    offs = raw.shdrs["byte_off"].tolist()
    for index in np.flatnonzero(_has_bytes(raw.shdrs)).tolist():
        piece = FilePiece(index, offs[index], len(raw.contents[index]), max(aligns[index], 1))
        (full if piece.n_bytes else empty).append(piece)
    full.sort(key=lambda piece: piece.byte_off)
    for before, after in pairwise(full):
        if before.end > after.byte_off:
            raise FormatError(f"{_owner(before)} and {_owner(after)} overlap", after.byte_off)
    return _with_empty(full, empty)


def _with_empty(full: list[FilePiece], empty: list[FilePiece]) -> list[FilePiece]:
    starts = np.array([piece.byte_off for piece in full], np.uint64)
    ends = np.array([piece.end for piece in full], np.uint64)
    places = np.array([piece.byte_off for piece in empty], np.uint64)
    # The last piece that starts in front of the place must end there or before it.
    before = np.searchsorted(starts, places, side="left") - 1
    fits = (before >= 0) & (ends[before] <= places) & (places <= ends[-1])
    kept = [piece for piece, is_fit in zip(empty, fits.tolist(), strict=True) if is_fit]
    return sorted(full + kept, key=lambda piece: (piece.byte_off, piece.n_bytes > 0))


def _owner(piece: FilePiece) -> str:
    named = {EHDR_PIECE: "the ELF header", SHDRS_PIECE: "the section headers"}
    return named.get(piece.owner, f"section {piece.owner}")


def _gaps(ordered: list[FilePiece], view: memoryview) -> Iterator[tuple[int, Buffer]]:
    end = 0
    for piece in ordered:
        if piece.byte_off > end:
            yield end, view[end : piece.byte_off]
        end = piece.end
    if end < len(view):
        yield end, view[end:]
