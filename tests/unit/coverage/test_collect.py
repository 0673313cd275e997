"""Counters from bytes and files. What the kernel gives is in tests/kernel."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest

from bpfpatch.coverage import Coverage, collect, cover_map
from bpfpatch.errors import FormatError, OptionError
from bpfpatch.isa import ByteOrder
from bpfpatch.passes import Pipeline
from bpfpatch.passes.cover import CoverMap
from support.models.covering import object_of

TEXT = ".subprog f0\nr0 = 0\nif r1 == 1 goto L\nr0 = 1\nL:\nr0 += 1\nexit"
OTHER = TEXT.replace("r1 == 1", "r1 == 2")


def cover_of(text: str = TEXT, count: str = "atomic", byteorder: ByteOrder = "little") -> CoverMap:
    """The meaning of a small object's counters, of which there are two."""
    pipeline = Pipeline.parse(f"cover{{count={count},edges=true}}")
    return cover_map(pipeline.run_object(object_of(text, byteorder))[0])


def value_of(cover: CoverMap, hits: list[int]) -> bytes:
    """What the map would hold."""
    order = "<" if cover.byteorder == "little" else ">"
    head = [] if cover.is_percpu else [cover.identity]
    return struct.pack(f"{order}{len(head) + len(hits)}Q", *head, *hits)


def bpftool_dump(*values: bytes, percpu: bool = False) -> bytes:
    """What ``bpftool map dump -j`` prints."""
    digits = [[f"0x{byte:02x}" for byte in value] for value in values]
    element: dict[str, Any] = {"key": ["0x00"] * 4}
    if percpu:
        element["values"] = [{"cpu": cpu, "value": one} for cpu, one in enumerate(digits)]
    else:
        element["value"] = digits[0]
    return json.dumps([element]).encode()


@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_a_value_is_identity_and_counters(byteorder: ByteOrder) -> None:
    """Both are in the object's byte order."""
    cover = cover_of(byteorder=byteorder)
    assert collect.from_value(cover, value_of(cover, [7, 1 << 40])).hits == (7, 1 << 40)


def test_counters_of_another_object() -> None:
    """Both identities are named."""
    cover, other = cover_of(), cover_of(OTHER)
    with pytest.raises(OptionError, match=f"object {other.identity:016x}, and this one is "):
        collect.from_value(cover, value_of(other, [1, 2]))


def test_a_value_of_the_wrong_size() -> None:
    """Both sizes are named."""
    cover = cover_of()
    with pytest.raises(OptionError, match="has 40 bytes, and this object's 2 counters take 24"):
        collect.from_value(cover, value_of(cover, [1, 2, 3, 4]))


def test_saved_counters_read_back() -> None:
    """What is saved says itself what it means, and keeps its notices."""
    cover = cover_of()
    saved = Coverage.of(cover, [3, 4], ["it rained"])
    for given in (None, cover):
        assert collect.load(collect.save(saved), given) == saved


def test_saved_counters_of_another_object() -> None:
    """A file that is of another object than the one at hand is refused."""
    data = collect.save(Coverage.of(cover_of(OTHER), [3, 4]))
    with pytest.raises(OptionError, match="the file has counters of object"):
        collect.load(data, cover_of())


def test_a_dump_by_bpftool() -> None:
    """The bytes of the one element are the value."""
    cover = cover_of()
    assert collect.load(bpftool_dump(value_of(cover, [5, 6])), cover).hits == (5, 6)


def test_a_percpu_dump_is_summed() -> None:
    """Each processor has counted for itself."""
    cover = cover_of(count="percpu")
    values = [value_of(cover, hits) for hits in ([1, 2], [10, 20], [0, 0])]
    assert collect.load(bpftool_dump(*values, percpu=True), cover).hits == (11, 22)


def test_a_dump_needs_the_object() -> None:
    """A dump says nothing of what it means."""
    with pytest.raises(OptionError, match="give the instrumented object"):
        collect.load(bpftool_dump(bytes(24)))


def test_a_dump_of_the_other_kind() -> None:
    """A value for each processor cannot be one for all."""
    cover = cover_of()
    with pytest.raises(OptionError, match=r"a value for each processor.* one value"):
        collect.load(bpftool_dump(bytes(16), percpu=True), cover)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x7fELF",
        b"[]",
        b"[1]",
        b"[{}, {}]",
        b'{"a": 1}',
        b'[{"value": ["0x100"]}]',
        b'[{"value": "abc"}]',
        b'{"error": "Error: get map by id (3): No such file or directory"}',
        b'{"format": "bpfpatch coverage"}',
        b'{"format": "bpfpatch coverage", "version": 2}',
        b'{"format": "bpfpatch coverage", "version": 1}',
        b'{"format": "bpfpatch coverage", "version": 1, "map": "?", "hits": [], "notices": []}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_dump(data: bytes) -> None:
    """Anything else is a FormatError."""
    with pytest.raises(FormatError):
        collect.load(data, cover_of())


def test_a_saved_counter_has_64_bits() -> None:
    """Numbers that no counter can have are refused."""
    good = json.loads(collect.save(Coverage.of(cover_of(), [3, 4])))
    for wrong in (-1, 1 << 64):
        with pytest.raises(FormatError, match="64 bits"):
            collect.load(json.dumps({**good, "hits": [wrong, 0]}).encode())
