"""The section that says what records mean."""

from __future__ import annotations

import json
import zlib

import pytest

from bpfpatch.errors import FormatError
from bpfpatch.passes.trace import TraceMap, TracePlace

PLACE = TracePlace(
    function="parse",
    section="xdp",
    slot=7,
    put=8,
    to="ring",
    file="src/lb.c",
    line=214,
    text="x += 1;",
    registers=(1, 6),
    message="hello",
)


def a_map(code: bytes = b"code") -> TraceMap:
    """A map of one place."""
    return TraceMap.of([PLACE], code)


def words(*values: int) -> bytes:
    """A record of numbers."""
    return b"".join(value.to_bytes(8, "little") for value in values)


def test_reads_what_it_writes() -> None:
    """A section reads back as the same places."""
    assert TraceMap.parse(a_map().to_bytes()) == a_map()


def test_numbers_differ_between_objects() -> None:
    """The same place of other code has another number."""
    assert set(a_map().places).isdisjoint(a_map(b"other").places)


def test_a_record_in_words() -> None:
    """A record shows message, place and registers, as the trace pipe does."""
    (number,) = a_map().places
    record = a_map().record(words(number, 1_500_000_000, 42, 2**64 - 1))
    assert record.values == (42, 2**64 - 1)
    assert str(record) == "1.500000: hello lb.c:214 r1=0x2a r6=0xffffffffffffffff"


@pytest.mark.parametrize("data", [b"", bytes(8), words(1, 2, 3, 4)])
def test_records_of_others(data: bytes) -> None:
    """A record that starts with no known number is refused."""
    with pytest.raises(FormatError, match="is none of this object's"):
        a_map().record(data)


def test_a_record_of_another_size() -> None:
    """A record has as many words as its place has registers."""
    (number,) = a_map().places
    with pytest.raises(FormatError, match=r"a record of lb\.c:214 has 32 bytes, not 24"):
        a_map().record(words(number, 0, 1))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not zlib",
        a_map().to_bytes()[:-4],
        zlib.compress(b"[]"),
        zlib.compress(b"\xff"),
        zlib.compress(b'{"version": 1, "places": [["zz", {}]]}'),
        zlib.compress(b'{"version": 1, "places": [["0", {}]]}'),
        zlib.compress(json.dumps({"version": 2, "places": []}).encode()),
        zlib.compress(bytes(1 << 25)),
    ],
)
def test_broken_sections(data: bytes) -> None:
    """Anything else is a format error."""
    with pytest.raises(FormatError, match=r"section \.bpfpatch\.trace"):
        TraceMap.parse(data)
