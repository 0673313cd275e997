"""The container: what it accepts, what it refuses and where, and that no byte is lost."""

import dataclasses
import struct

import pytest

from bpfpatch.elf import ElfObject
from bpfpatch.elf.strings import StringTable
from bpfpatch.errors import FormatError
from support.inputs.bpfobjects import fixture_objects

EXIT = (0x95,)


def simple(build):
    """One program of two instructions."""
    build.code("xdp", (0xB7, 0, 0, 0, 2), EXIT)
    return build


def patched(data, byte_off, new):
    """Bytes with some of them exchanged."""
    return data[:byte_off] + new + data[byte_off + len(new) :]


@pytest.mark.parametrize("name", [name for name, _ in fixture_objects()])
def test_read_and_written_is_the_same(name):
    """An object that nobody edited is written byte for byte as it was read."""
    data = dict(fixture_objects())[name]
    assert ElfObject.parse(data).to_bytes() == data


def test_padding_and_tail_are_kept(build):
    """Bytes between and behind the sections, whatever they are, stay."""
    build.code("xdp", EXIT, pad=b"\xaa" * 5)
    build.tail = b"after the end"
    data = build.to_bytes()
    assert ElfObject.parse(data).to_bytes() == data


def test_the_file_is_made_from_its_parts(build):
    """Writing is no copy of the input: what a section holds is what the file gets."""
    data = simple(build).to_bytes()
    obj = ElfObject.parse(data)
    contents = list(obj.raw.contents)
    contents[1] = bytes(reversed(bytes(contents[1])))
    raw = dataclasses.replace(obj.raw, contents=tuple(contents))
    assert raw.to_bytes() != data
    assert ElfObject.parse(raw.to_bytes()).sections[1].data == contents[1]


def test_sections_say_what_the_headers_say(build):
    """Name, type, flags, place and content of a section are those of its header."""
    obj = ElfObject.parse(simple(build).to_bytes())
    xdp = obj.sections[1]
    assert (xdp.name, xdp.type, xdp.flags, xdp.size, xdp.align) == ("xdp", 1, 6, 16, 8)
    assert bytes(xdp.data) == obj.to_bytes()[xdp.byte_off : xdp.byte_off + 16]
    assert obj.byteorder == {"<": "little", ">": "big"}[build.order]


@pytest.mark.parametrize(
    ("byte_off", "new", "where", "what"),
    [
        (0, b"MZ", 0, "not an ELF file"),
        (4, b"\1", 4, "64-bit"),
        (5, b"\3", 5, "encoding"),
        (16, b"\2\0", 16, "relocatable"),
        (18, b"\x3e\0", 18, "not 247"),
        (40, b"\xff" * 8, 40, "do not fit"),
        (56, b"\1\0", 56, "program headers"),
        (58, b"\x28\0", 58, "e_shentsize"),
        (60, b"\0\0", 60, "e_shnum"),
        (62, b"\x50\0", 62, "e_shstrndx"),
    ],
)
def test_a_bad_header_is_refused_with_its_place(build_el, byte_off, new, where, what):
    """What is wrong in the ELF header is named, with the byte where it is."""
    data = patched(simple(build_el).to_bytes(), byte_off, new)
    with pytest.raises(FormatError, match=what) as caught:
        ElfObject.parse(data)
    assert caught.value.byte_off == where


def header_off(data, section):
    """Place of a section header."""
    (shoff,) = struct.unpack_from("<Q", data, 40)
    return shoff + 64 * section


@pytest.mark.parametrize(
    ("field", "value", "what"),
    [
        (24, 1 << 40, "does not fit"),
        (32, (1 << 64) - 8, "does not fit"),
        (24, 0, "overlap"),
        (48, 3, "power of two"),
        (48, 1 << 40, "power of two"),
    ],
)
def test_a_bad_section_header_is_refused(build_el, field, value, what):
    """A section outside of the file, over another or with an odd alignment is refused."""
    data = simple(build_el).to_bytes()
    data = patched(data, header_off(data, 1) + field, struct.pack("<Q", value))
    with pytest.raises(FormatError, match=what) as caught:
        ElfObject.parse(data)
    assert caught.value.byte_off is not None


def test_every_cut_is_refused(build_el):
    """An object that ends anywhere before its end is refused, and nothing else is raised."""
    data = simple(build_el).to_bytes()
    for end in range(len(data)):
        with pytest.raises(FormatError):
            ElfObject.parse(data[:end])


def test_names_that_expand_are_refused():
    """Names that overlap to far more text than their table holds are refused."""
    strings = StringTable(b"\0" + b"x" * 4000 + b"\0", 0)
    assert [len(strings.get(at)) for at in (1, 2, 4001)] == [4000, 3999, 0]
    with pytest.raises(FormatError, match="names overlap"):
        [strings.get(at) for at in range(1, 4000)]


@pytest.mark.parametrize("at", [-1, 3, 1 << 40])
def test_names_outside_of_their_table_are_refused(at):
    """A name that starts outside of its table is refused."""
    with pytest.raises(FormatError, match="outside"):
        StringTable(b"\0a\0", 0).get(at)


def test_an_unterminated_string_table_is_refused():
    """A string table ends in NUL, or its last name would not end."""
    with pytest.raises(FormatError, match="NUL"):
        StringTable(b"\0abc", 0)


def test_big_endian_is_told_from_the_ident():
    """An object's byte order is what its ident says, and code is read accordingly."""
    name = "asm_back_edge.clang-19.v4.{}.o"
    found = dict(fixture_objects())
    little, big = (ElfObject.parse(found[name.format(order)]) for order in ("el", "eb"))
    assert (little.byteorder, big.byteorder) == ("little", "big")
    assert (little.code.insns == big.code.insns).all()
