"""Make a .BTF section, from nothing or from one that was read."""

from __future__ import annotations

from bpfpatch.errors import FormatError, OptionError, UnsupportedError

from .btf import Btf
from .encode import encode
from .header import HEADER_LEN, HEADER_LEN_LAYOUT
from .types import BtfType
from .wire import MAGIC, MAX_STR_OFF, MAX_TYPE_ID, VERSION, ByteOrder, WireSpan, pack_words

#: Rows of the sections that a header names.
_STRINGS, _LAYOUT = 1, 2


class BtfBuilder:
    """Adds strings and types, and replaces type records. It deletes nothing.

    All string offsets and type ids of the source stay what they are, since
    .BTF.ext and relocations hold them. The parts that are not touched are
    copied as bytes, so that a builder without edits gives the source back.

    An example::

        types = BtfBuilder()
        int_id = types.add(Int("int", 4, 32, IntEncoding.SIGNED))
        proto = types.add(FuncProto(int_id, (Param("ctx", types.add(Ptr(0))),)))
        types.add(Func("prog", proto, FuncLinkage.GLOBAL))
        btf = types.build()

    Args:
        source: the section to start from; None starts with an empty one.
        byteorder: of a new section; a source has its own.
        base: what a new section continues; a source has its own.
    """

    def __init__(
        self,
        source: Btf | None = None,
        *,
        byteorder: ByteOrder = "little",
        base: Btf | None = None,
    ) -> None:
        self._source = source if source is not None else _empty(byteorder, base)
        self._offs: dict[str, int] | None = None
        self._new_strings = bytearray()
        self._added: list[list[int]] = []
        self._replaced: dict[int, list[int]] = {}

    @property
    def next_id(self) -> int:
        """The id that the next type added will have; types may refer to it before."""
        return len(self._source) + len(self._added)

    def string(self, text: str) -> int:
        """The offset of a string, which is added if it is not there.

        Raises:
            OptionError: it has a NUL, cannot be encoded, or the strings exceed the kernel's limit.
        """
        if not text:
            return 0
        if self._offs is None:
            self._offs = _string_offs(self._source)
        known = self._offs.get(text)
        if known is not None:
            return known
        if "\0" in text:
            raise OptionError(f"{text!r} holds a NUL, which ends a BTF string")
        str_off = self._source.str_end + len(self._new_strings)
        if str_off > MAX_STR_OFF:
            raise OptionError(
                f"a string at {str_off:#x} exceeds the kernel's limit of {MAX_STR_OFF:#x}"
            )
        try:
            self._new_strings += text.encode("utf-8", "surrogateescape") + b"\0"
        except UnicodeEncodeError as error:
            raise OptionError(f"{text!r} cannot be written as UTF-8") from error
        self._offs[text] = str_off
        return str_off

    def add(self, new: BtfType) -> int:
        """Add a type.

        Returns:
            Its id.

        Raises:
            OptionError: a number does not fit its field, or there are too many types.
            UnsupportedError: the source has records of a kind that is not known.
        """
        if self._source.unknown_kind is not None:
            raise UnsupportedError(
                f"a type cannot be added: from id {len(self._source)} on the records are opaque, "
                f"since kind {self._source.unknown_kind} is not known"
            )
        type_id = self.next_id
        if type_id > MAX_TYPE_ID:
            raise OptionError(f"type id {type_id} exceeds the kernel's limit of {MAX_TYPE_ID}")
        self._added.append(encode(new, self.string))
        return type_id

    def replace(self, type_id: int, new: BtfType) -> None:
        """Give a type id another record.

        Args:
            type_id: of the source's own types or of an added one.
            new: usually ``dataclasses.replace(btf.type(type_id), ...)``.

        Raises:
            OptionError: no such id, or a number does not fit its field.
        """
        first, end = self._source.first_id, len(self._source)
        if not first <= type_id < self.next_id:
            raise OptionError(
                f"type id {type_id} cannot be replaced: the ids here are {first} to "
                f"{self.next_id - 1}"
            )
        words = encode(new, self.string)
        if type_id >= end:
            self._added[type_id - end] = words
        else:
            self._replaced[type_id] = words

    def build(self) -> Btf:
        """The new section; the builder can go on from there.

        Raises:
            OptionError: a type that was added or replaced refers to an id that does not exist.
            UnsupportedError: the header has fields that are not known, and parts would move.
        """
        source = self._source
        if not (self._added or self._replaced or self._new_strings):
            return source
        header = source.header
        sections = [
            (header.types, self._type_bytes()),
            (header.strings, source.string_bytes + bytes(self._new_strings)),
            (header.layout, source.to_bytes()[header.layout.byte_off : header.layout.end]),
        ]
        out = Btf.parse(assemble_section(source, sections), source.byteorder, base=source.base)
        for type_id in (*self._replaced, *range(len(source), self.next_id)):
            try:
                out.type(type_id)
            except FormatError as error:
                raise OptionError(f"type {type_id}, which was edited: {error.what}") from error
        return out

    def _type_bytes(self) -> bytes:
        """The type section: copied runs between the records that were edited."""
        source = self._source
        data = source.to_bytes()
        pieces = []
        at = source.header.types.byte_off
        for type_id, words in sorted(self._replaced.items()):
            start = source.byte_off_of(type_id)
            assert start is not None
            pieces += [data[at:start], pack_words(words, source.byteorder)]
            at = source.end_of(type_id)
        pieces.append(data[at : source.header.types.end])
        pieces += [pack_words(words, source.byteorder) for words in self._added]
        return b"".join(pieces)


def _empty(byteorder: ByteOrder, base: Btf | None) -> Btf:
    """A section without types."""
    order = base.byteorder if base is not None else byteorder
    strings = b"\0" if base is None else b""
    start = MAGIC.to_bytes(2, order) + bytes((VERSION, 0))
    header = start + pack_words((HEADER_LEN, 0, 0, 0, len(strings)), order)
    return Btf.parse(header + strings, order, base=base)


def _string_offs(source: Btf) -> dict[str, int]:
    """Every string's first offset, the base's before the section's own."""
    offs = {} if source.base is None else _string_offs(source.base)
    at = source.first_str_off
    for raw in source.string_bytes[:-1].split(b"\0"):
        offs.setdefault(raw.decode("utf-8", "surrogateescape"), at)
        at += len(raw) + 1
    return offs


def assemble_section(source: Btf, sections: list[tuple[WireSpan, bytes]]) -> bytes:
    """The source with other sections; gaps and what else there is stay.

    Args:
        source: what to start from.
        sections: where types, strings and layout are, and their new bytes.
    """
    data, header = source.to_bytes(), source.header
    if all(len(new) == span.length for span, new in sections):
        out = bytearray(data)
        for span, new in sections:
            out[span.byte_off : span.end] = new
        return bytes(out)
    if any(header.extra):
        raise UnsupportedError(
            f"the .BTF header has {len(header.extra)} bytes that are not known here and not zero: "
            "they may hold offsets, which an edit that moves sections would make wrong"
        )
    body, places = _lay_out(data, header.hdr_len, sections)
    fields = [value for place in places for value in (place.byte_off, place.length)]
    known = fields if header.hdr_len >= HEADER_LEN_LAYOUT else fields[:4]
    return data[:8] + pack_words(known, source.byteorder) + header.extra + body


def _lay_out(
    data: bytes, hdr_len: int, sections: list[tuple[WireSpan, bytes]]
) -> tuple[bytes, list[WireSpan]]:
    """Put the sections into the order and the gaps that they had.

    Returns:
        All bytes after the header, and each section's new place, from the header's end.
    """
    out = bytearray()
    places = [WireSpan(0, 0)] * len(sections)
    at = hdr_len
    for row in sorted(range(len(sections)), key=lambda row: sections[row][0].byte_off):
        span, new = sections[row]
        if row == _LAYOUT and not new:
            continue
        out += data[at : span.byte_off]
        # Strings may start anywhere, the others at a multiple of 4.
        if row != _STRINGS:
            out += bytes(-len(out) % 4)
        places[row] = WireSpan(len(out), len(new))
        out += new
        at = max(at, span.end)
    return bytes(out) + data[at:], places
