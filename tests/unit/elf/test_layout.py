"""Where pieces go when others change their size."""

import dataclasses

import pytest

from bpfpatch.elf import ElfObject
from bpfpatch.elf.layout import relayout
from bpfpatch.elf.raw import parse_raw
from bpfpatch.errors import UnsupportedError
from support.inputs.bpfobjects import fixture_objects


def spread(build):
    """Code, 3 bytes of data, 8-aligned data behind padding of 0xee, .bss, one more."""
    build.code("xdp", (0xB7,), (0x95,))
    sec = build.section
    build.sections += [
        sec("a", b"abc"),
        sec("b", b"bbbbbbbb", align=8, pad=b"\xee" * 5),
        sec(".bss", type=8, align=8, mem_size=100),
        sec("c", b"c"),
    ]
    return build


def offs(raw):
    """Place of each section by name."""
    return dict(zip(raw.names, raw.shdrs["byte_off"].tolist(), strict=True))


def test_nothing_changed_nothing_moves(build):
    """Laying out again without a change gives the same bytes."""
    data = spread(build).to_bytes()
    assert relayout(parse_raw(data), {}).to_bytes() == data


@pytest.mark.parametrize("name", [name for name, _ in fixture_objects()])
def test_growing_and_shrinking_is_no_change(name):
    """A section that grows and shrinks again leaves every byte of the file where it was."""
    data = dict(fixture_objects())[name]
    raw = parse_raw(data)
    filled = [(at, content) for at, content in enumerate(raw.contents) if content]
    assert filled
    for section, content in filled:
        grown = relayout(raw, {section: bytes(content) + bytes(11)})
        assert parse_raw(grown.to_bytes()).to_bytes() == grown.to_bytes()
        back = relayout(parse_raw(grown.to_bytes()), {section: content})
        assert back.to_bytes() == data


def test_what_follows_moves_by_the_growth_and_stays_aligned(build):
    """What follows a section moves by as much as that grew, rounded to its own alignment."""
    raw = parse_raw(spread(build).to_bytes())
    before = offs(raw)
    by_8 = offs(relayout(raw, {1: bytes(raw.contents[1]) + bytes(8)}))
    assert by_8["xdp"] == before["xdp"]
    assert {name: by_8[name] - before[name] for name in ("a", "b", ".bss", "c")} == {
        "a": 8,
        "b": 8,
        ".bss": 8,
        "c": 8,
    }
    by_1 = offs(relayout(raw, {2: b"abcd"}))
    assert (by_1["a"], by_1["b"]) == (before["a"], before["b"])
    assert by_1["b"] % 8 == 0


def test_padding_keeps_its_bytes(build):
    """What stood in a gap stands there still when the gap moves."""
    raw = parse_raw(spread(build).to_bytes())
    out = relayout(raw, {1: bytes(raw.contents[1]) + bytes(8)})
    at = offs(out)["a"] + 3
    assert out.to_bytes()[at : at + 5] == b"\xee" * 5


def test_removed_sections_leave_no_hole(build):
    """A section that is left out takes its bytes along; the others keep their contents."""
    raw = parse_raw(spread(build).to_bytes())
    out = relayout(raw, {}, {3})
    assert out.names == tuple(name for name in raw.names if name != "b")
    assert len(out.to_bytes()) < len(raw.to_bytes())
    assert bytes(out.contents[out.names.index("c")]) == b"c"


def test_an_empty_section_can_grow(build):
    """An empty section has a place of its own, and gets content there."""
    spread(build).sections.insert(0, build.section(".text", flags=6, align=4))
    raw = parse_raw(build.to_bytes())
    out = parse_raw(relayout(raw, {1: b"12345678"}).to_bytes())
    assert bytes(out.contents[1]) == b"12345678"
    assert [bytes(content) for content in out.contents[2:4]] == [
        bytes(content) for content in raw.contents[2:4]
    ]


def test_an_empty_section_inside_of_another_cannot_grow(build):
    """An empty section whose place is in the middle of another one has nowhere to grow."""
    raw = parse_raw(spread(build).to_bytes())
    shdrs = raw.shdrs.copy()
    shdrs["size"][2] = 0
    shdrs["byte_off"][2] = shdrs["byte_off"][1] + 4
    contents = (*raw.contents[:2], b"", *raw.contents[3:])
    odd = parse_raw(dataclasses.replace(raw, shdrs=shdrs, contents=contents).to_bytes())
    with pytest.raises(UnsupportedError, match="no room to grow"):
        relayout(odd, {2: b"x"})
    assert ElfObject.parse(relayout(odd, {}).to_bytes()).to_bytes() == odd.to_bytes()
