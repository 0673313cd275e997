"""Places of members, from types made by hand."""

from __future__ import annotations

import pytest

from bpfpatch.btf import Array, Btf, Int, IntEncoding, Member, Ptr, Struct, Typedef, Union
from bpfpatch.btf.builder import BtfBuilder
from bpfpatch.errors import OptionError, UnsupportedError
from bpfpatch.facts.layouts import Layouts


def types(byteorder: str = "little") -> Btf:
    """A few structs.

    ::

        struct packet { u32 len; union { u64 stamp; u8 raw[8]; }; u8 kind:3, rest:5; void *dev; };
        struct overlay { u32 skipped; u16 queue; };
    """
    builder = BtfBuilder(byteorder=byteorder)  # type: ignore[arg-type]
    u8 = builder.add(Int("u8", 1, IntEncoding(0), 0, 8))
    u16 = builder.add(Int("u16", 2, IntEncoding(0), 0, 16))
    u32 = builder.add(Int("u32", 4, IntEncoding(0), 0, 32))
    u64 = builder.add(Int("u64", 8, IntEncoding(0), 0, 64))
    raw = builder.add(Array(u8, u32, 8))
    either = builder.add(Union("", 8, (Member("stamp", u64, 0), Member("raw", raw, 0))))
    pointer = builder.add(Typedef("handle", builder.add(Ptr(0))))
    packet = (
        Member("len", u32, 0),
        Member("", either, 64),
        Member("kind", u8, 128, 3),
        Member("rest", u8, 131, 5),
        Member("dev", pointer, 192),
        Member("far", u32, 262, 7),
    )
    builder.add(Struct("packet", 40, packet))
    builder.add(Struct("overlay", 8, (Member("skipped", u32, 0), Member("queue", u16, 32))))
    return builder.build()


def test_plain_member() -> None:
    """A member's place is its bytes from the start, and its size."""
    place = Layouts(types()).place("packet.len")
    assert (place.byte_off, place.size, place.mask, place.is_pointer) == (0, 4, 0, False)


def test_member_of_an_anonymous_union() -> None:
    """What has no name is looked through, and elements of arrays have places."""
    layouts = Layouts(types())
    assert layouts.place("packet.stamp").byte_off == 8
    assert layouts.place("packet.raw[3]").byte_off == 11
    assert layouts.place("packet.raw[3]").size == 1


@pytest.mark.parametrize("bits", [32, 64])
def test_pointer_is_as_wide_as_the_processor_has_it(bits: int) -> None:
    """A pointer's size comes from the processor, also behind a typedef."""
    place = Layouts(types(), bits).place("packet.dev")
    assert (place.byte_off, place.size, place.is_pointer) == (24, bits // 8, True)


@pytest.mark.parametrize(
    ("byteorder", "kind", "rest"),
    [("little", (0x07, 0), (0xF8, 3)), ("big", (0xE0, 5), (0x1F, 0))],
)
def test_bitfield(byteorder: str, kind: tuple[int, int], rest: tuple[int, int]) -> None:
    """A bitfield is a mask in its byte, from the low end or from the high one.

    As C lays out `u8 kind:3, rest:5` on machines of either byte order.
    """
    layouts = Layouts(types(byteorder), 64, byteorder)
    for path, wanted in (("packet.kind", kind), ("packet.rest", rest)):
        place = layouts.place(path)
        assert (place.byte_off, place.size, place.mask, place.shift) == (16, 1, *wanted)


def test_bitfield_over_two_bytes() -> None:
    """One that no byte holds is refused."""
    with pytest.raises(UnsupportedError, match=r"packet\.far is a bitfield over several bytes"):
        Layouts(types()).place("packet.far")


def test_overlay() -> None:
    """A struct that lies over a member starts where that one does."""
    place = Layouts(types()).place("packet.raw+overlay.queue")
    assert (place.byte_off, place.size) == (12, 2)


@pytest.mark.parametrize("path", ["packet.gone", "nothing.len", "packet.raw+overlay.gone"])
def test_no_such_member(path: str) -> None:
    """A member that is not there is said so, and can be asked for."""
    layouts = Layouts(types())
    assert not layouts.has(path)
    with pytest.raises(UnsupportedError, match=r"no .* its place is unknown"):
        layouts.place(path)


def test_no_types() -> None:
    """Without types the message says how to give some."""
    with pytest.raises(UnsupportedError, match=r"Target\.internal\(btf=.*vmlinux_btf\(\)"):
        Layouts(None).place("sk_buff.len")


def test_types_of_another_machine() -> None:
    """Types of the other byte order are refused at once."""
    with pytest.raises(UnsupportedError, match="big-endian, the processor is little-endian"):
        Layouts(types("big"), 64, "little")


def test_path_that_makes_no_sense() -> None:
    """A path that starts with no name is the caller's mistake."""
    with pytest.raises(OptionError, match=r"write it as struct\.member"):
        Layouts(types()).place("->len")
