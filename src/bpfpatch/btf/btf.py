"""The .BTF section: types and strings, read lazily."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bpfpatch.errors import FormatError

from . import cdecl, members, sizes
from .decode import Record, decode
from .header import BtfHeader, read_header
from .index import TypeIndex, index_types
from .types import BtfType, Void
from .wire import HEAD_WORDS, ByteOrder, Kind, info_flag, info_kind, info_vlen

if TYPE_CHECKING:
    from .builder import BtfBuilder
    from .members import BtfPlace

#: A type's name may be this long. Names overlap freely, so that without a
#: limit a hostile section makes reading all types quadratic in its size.
MAX_NAME_LEN = 0xFFFF
#: More than any type id can be.
_NO_LIMIT = 1 << 32


class Head(NamedTuple):
    """The part that all records share.

    Attributes:
        name_off: string offset of the name.
        number: the kind's number, which Kind may lack.
        has_flag: kind_flag.
        vlen: items that follow, or a function's linkage.
        size_or_type: bytes, or a type id, by kind.
    """

    name_off: int
    number: int
    has_flag: bool
    vlen: int
    size_or_type: int


class Btf:
    """A .BTF section. Immutable; edit() gives a builder for a changed copy.

    Only the places of the records are found on parsing; a record is read
    each time it is asked for, and checked then. With a base (split BTF, as of
    kernel modules), ids and string offsets continue the base's, and the base's
    types and strings are found here too.

    ``btf[3]``, ``btf.type(3)`` and ``list(btf)[3]`` are the type with id 3;
    id 0 is Void. ``len(btf)`` is the first id that does not exist.

    A string is decoded as UTF-8; bytes that are not UTF-8 come as lone
    surrogates ("surrogateescape"), so that no two strings read the same.

    Attributes:
        byteorder: of the section, "little" or "big".
        header: where its parts are.
        base: the BTF that this one continues, or None.
        unknown_kind: a kind that is not known here and that stopped the walk, or
            None. The records from there on are opaque: kept, but without ids,
            and references to higher ids are not checked.
    """

    __slots__ = (
        "_data",
        "_found",
        "_index",
        "_ptr_size",
        "_words",
        "base",
        "byteorder",
        "header",
        "unknown_kind",
    )

    def __init__(self, data: bytes, header: BtfHeader, index: TypeIndex, base: Btf | None) -> None:
        order = "<" if header.byteorder == "little" else ">"
        self._data = data
        self._index = index
        self._ptr_size: int | None = None
        self._found: dict[tuple[str, Kind | None], tuple[int, ...]] = {}
        self._words: NDArray[np.uint32] = np.frombuffer(
            data, dtype=f"{order}u4", count=header.types.length // 4, offset=header.types.byte_off
        )
        self.base = base
        self.byteorder: ByteOrder = header.byteorder
        self.header = header
        self.unknown_kind = index.unknown_kind

    @classmethod
    def parse(
        cls, data: bytes, byteorder: ByteOrder | None = None, *, base: Btf | None = None
    ) -> Btf:
        """Read a .BTF section.

        Args:
            data: the section; it is kept, not copied.
            byteorder: what it must be; None takes it from the magic.
            base: what a split BTF continues.

        Raises:
            FormatError: the header, the string section's ends or the chain of records
                is broken.
        """
        data = bytes(data)
        header = read_header(data, byteorder)
        if base is not None and base.byteorder != header.byteorder:
            raise FormatError(
                f".BTF is {header.byteorder}-endian, its base is {base.byteorder}-endian", 0
            )
        if base is not None and base.unknown_kind is not None:
            raise FormatError(
                f"the base .BTF has kind {base.unknown_kind}, which is not known: "
                "the ids that continue it cannot be told"
            )
        _check_strings(data, header, has_base=base is not None)
        index = index_types(data, header, b"" if base is None else base.layout_bytes)
        return cls(data, header, index, base)

    def to_bytes(self) -> bytes:
        """The section; of a parsed one exactly what was parsed."""
        return self._data

    def edit(self) -> BtfBuilder:
        """A builder for a copy with more strings and types, or other records."""
        from .builder import BtfBuilder  # noqa: PLC0415 - it builds Btf objects

        return BtfBuilder(self)

    # Strings.

    @property
    def first_str_off(self) -> int:
        """The first string offset that is in this section and not in the base."""
        return 0 if self.base is None else self.base.str_end

    @property
    def str_end(self) -> int:
        """The first string offset that does not exist."""
        return self.first_str_off + self.header.strings.length

    @property
    def string_bytes(self) -> bytes:
        """This section's own strings, each with its NUL."""
        return self._data[self.header.strings.byte_off : self.header.strings.end]

    @property
    def layout_bytes(self) -> bytes:
        """The layout section, of the base where there is none here."""
        own = self._data[self.header.layout.byte_off : self.header.layout.end]
        return own if own or self.base is None else self.base.layout_bytes

    def string(self, str_off: int) -> str:
        """The string at an offset, of any length.

        Raises:
            FormatError: there is no such offset.
        """
        # A NumPy scalar would wrap around where the base's length is taken off.
        return self._string(int(str_off), None, None)

    def _string(self, str_off: int, byte_off: int | None, limit: int | None) -> str:
        own_off = str_off - self.first_str_off
        if own_off < 0 and self.base is not None:
            return self.base._string(str_off, byte_off, limit)
        strings = self.header.strings
        if not 0 <= own_off < strings.length:
            raise FormatError(
                f"string offset {str_off:#x} is outside of the strings, which end at "
                f"{self.str_end:#x}",
                byte_off,
            )
        start = strings.byte_off + own_off
        stop = strings.end if limit is None else min(strings.end, start + limit + 1)
        end = self._data.find(b"\0", start, stop)
        if end < 0:
            raise FormatError(f"a type's name is longer than {limit} bytes", byte_off)
        return self._data[start:end].decode("utf-8", "surrogateescape")

    # Types.

    @property
    def first_id(self) -> int:
        """The first type id that is in this section and not in the base."""
        return 1 if self.base is None else len(self.base)

    def __len__(self) -> int:
        return self.first_id + len(self._index.starts) - 1

    def __iter__(self) -> Iterator[BtfType]:
        return (self.type(type_id) for type_id in range(len(self)))

    def __getitem__(self, type_id: int) -> BtfType:
        return self.type(type_id)

    def __repr__(self) -> str:
        return f"<Btf {self.byteorder}-endian, {len(self)} ids, {len(self._data)} bytes>"

    def type(self, type_id: int) -> BtfType:
        """The type with an id.

        Raises:
            FormatError: there is no such type, or its record names a string or type that
                does not exist.
        """
        if type_id == 0:
            return Void()
        home, start, end = self._locate(type_id)
        limit = _NO_LIMIT if home.unknown_kind is not None else len(home)
        return decode(
            Record(home._words[start:end].tolist(), home._byte_off(start), home._name, limit)
        )

    def head(self, type_id: int) -> Head:
        """The head of a type's record, without reading the rest; Void's is all zeros."""
        if type_id == 0:
            return Head(0, 0, False, 0, 0)
        home, start, _ = self._locate(type_id)
        name_off, info, size_or_type = home._words[start : start + HEAD_WORDS].tolist()
        return Head(name_off, info_kind(info), info_flag(info), info_vlen(info), size_or_type)

    def name_of(self, type_id: int) -> str:
        """A type's name, without reading the rest of its record; "" for a kind without names."""
        if type_id == 0:
            return Void.name
        home, start, _ = self._locate(type_id)
        return home._name(int(home._words[start]), home._byte_off(start))

    def byte_off_of(self, type_id: int) -> int | None:
        """Where a type's record is in its own section; Void has none."""
        if type_id == 0:
            return None
        home, start, _ = self._locate(type_id)
        return home._byte_off(start)

    def end_of(self, type_id: int) -> int:
        """Where the record after a type's record starts, in the same section."""
        home, _, end = self._locate(type_id)
        return home._byte_off(end)

    def _name(self, str_off: int, byte_off: int) -> str:
        return self._string(str_off, byte_off, MAX_NAME_LEN)

    def _byte_off(self, word: int) -> int:
        return self.header.types.byte_off + 4 * word

    def _locate(self, type_id: int) -> tuple[Btf, int, int]:
        """The section that has the type, and the words of its record."""
        row = int(type_id) - self.first_id  # int: a NumPy scalar would wrap around
        if row < 0 and type_id > 0 and self.base is not None:
            return self.base._locate(type_id)
        starts = self._index.starts
        if not 0 <= row < len(starts) - 1:
            why = f"the last one is {len(self) - 1}"
            if self.unknown_kind is not None:
                why = f"type {len(self)} has kind {self.unknown_kind}, which is not known"
            raise FormatError(f"there is no type id {type_id}: {why}", self.header.types.byte_off)
        return self, int(starts[row]), int(starts[row + 1])

    @property
    def kinds(self) -> NDArray[np.uint8]:
        """(len,) the kind's number of each type id, the base's included; a fresh array."""
        own = self._own_column(1) >> np.uint32(24) & np.uint32(0x7F)
        first = np.zeros(1, dtype=np.uint8) if self.base is None else self.base.kinds
        return np.concatenate((first, own.astype(np.uint8)))

    def _own_column(self, word: int) -> NDArray[np.uint32]:
        """One word of each record's head, of this section alone."""
        return self._words[self._index.starts[:-1].astype(np.int64) + word].astype(np.uint32)

    def find(self, name: str, kind: Kind | None = None) -> tuple[int, ...]:
        """The ids of all types with a name, ascending.

        Args:
            name: without ``struct`` and the like.
            kind: only this kind.
        """
        key = (name, kind)
        if key not in self._found:
            self._found[key] = self._find(name, kind)
        return self._found[key]

    def _find(self, name: str, kind: Kind | None) -> tuple[int, ...]:
        """The same, by looking through all of them."""
        before = () if self.base is None else self.base.find(name, kind)
        try:
            wanted = name.encode("utf-8", "surrogateescape") + b"\0"
        except UnicodeEncodeError:
            return before
        if "\0" in name:
            return before
        is_hit = self._holds(self._own_column(0).astype(np.int64), wanted)
        if kind is not None:
            is_hit &= (self._own_column(1) >> np.uint32(24) & np.uint32(0x7F)) == kind
        return before + tuple((np.flatnonzero(is_hit) + self.first_id).tolist())

    def _holds(self, str_offs: NDArray[np.int64], wanted: bytes) -> NDArray[np.bool_]:
        """Which string offsets hold a text: all compared together, one byte of it at a time."""
        own = str_offs - self.first_str_off
        strings = np.frombuffer(self.string_bytes, dtype=np.uint8)
        rows = np.flatnonzero(own >= 0)
        for at, char in enumerate(wanted):
            rows = rows[own[rows] + at < len(strings)]
            rows = rows[strings[own[rows] + at] == char]
        out = np.zeros(len(own), dtype=np.bool_)
        out[rows] = True
        if self.base is not None:
            out[own < 0] = self.base._holds(str_offs[own < 0], wanted)
        return out

    def find_one(self, name: str, kind: Kind | None = None) -> int | None:
        """The first id with a name, or None."""
        found = self.find(name, kind)
        return found[0] if found else None

    # What types mean.

    def resolve(self, type_id: int) -> int:
        """The id that is left without typedef, const, volatile, restrict and type tags."""
        return sizes.resolve(self, type_id)

    def size_of(self, type_id: int) -> int:
        """Bytes of a type, variable or data section.

        Raises:
            FormatError: it has no size, refers to itself, or is larger than 4 GiB.
        """
        return sizes.size_of(self, type_id)

    @property
    def ptr_size(self) -> int:
        """Bytes of a pointer: what ``long`` has, or 8 as in every BPF program."""
        if self._ptr_size is None:
            self._ptr_size = sizes.guess_ptr_size(self)
        return self._ptr_size

    def member_path(self, root: int | str, path: str) -> BtfPlace:
        """Where a member is; see members.member_path()."""
        return members.member_path(self, root, path)

    def access_path(self, type_id: int, access: str) -> BtfPlace:
        """What a CO-RE field access means; see members.access_path()."""
        return members.access_path(self, type_id, access)

    def offset_of(self, root: int | str, path: str) -> int:
        """A member's bytes from the start: ``offset_of("struct sk_buff", "len")``.

        Raises:
            OptionError: no such type or member, or it is a bitfield off a byte's start.
        """
        return members.member_path(self, root, path).byte_off

    def type_name(self, type_id: int) -> str:
        """The type as C writes it: ``const char *``, ``int (*)(struct xdp_md *)``."""
        return cdecl.type_name(self, type_id)

    def c_decl(self, type_id: int) -> str:
        """The declaration on one line, close to C; safe to print whatever the names hold."""
        return cdecl.c_decl(self, type_id)


def _check_strings(data: bytes, header: BtfHeader, *, has_base: bool) -> None:
    """The strings start with an empty one and end with a NUL.

    Source: linux v6.1, kernel/bpf/btf.c, btf_parse_str_sec().
    """
    strings = header.strings
    if strings.length == 0:
        if has_base:
            return
        raise FormatError("the string section is empty, it starts with one NUL", 20)
    if not has_base and data[strings.byte_off] != 0:
        raise FormatError("the string section does not start with a NUL", strings.byte_off)
    if data[strings.end - 1] != 0:
        raise FormatError("the string section does not end with a NUL", strings.end - 1)
