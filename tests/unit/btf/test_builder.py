"""Building sections and changing them."""

import dataclasses
import struct

import pytest

from bpfpatch.btf import (
    Array,
    Btf,
    BtfBuilder,
    DataSec,
    DeclTag,
    Enum,
    Enum64,
    Enumerator,
    Func,
    FuncProto,
    Fwd,
    Int,
    Member,
    Param,
    Ptr,
    SecVar,
    Struct,
    Typedef,
    Unknown,
    Var,
    Void,
)
from bpfpatch.errors import OptionError, UnsupportedError

STRINGS = b"\0name\0a\0"


@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_from_nothing(raw_btf, byteorder):
    """A new section is header, types and strings, as the documentation lays them out."""
    out = BtfBuilder(byteorder=byteorder)
    assert out.add(Int("int", 4, 32)) == 1
    assert out.add(Ptr(1)) == 2
    expected = raw_btf([[1, 1 << 24, 4, 32], [0, 2 << 24, 1]], b"\0int\0", byteorder)
    assert out.build().to_bytes() == expected


def test_no_edit_is_identity(make_btf):
    """A builder without edits gives the source back."""
    btf = make_btf([[1, 7 << 24, 0]], STRINGS)
    edit = btf.edit()
    assert edit.string("a") == 6
    assert edit.build() is btf


def test_strings_are_shared():
    """A string is there once, however often it is asked for, and the empty one is at 0."""
    out = BtfBuilder()
    assert out.string("") == 0
    assert out.string("ab") == out.string("ab") == 1
    assert out.string("c") == 4
    assert out.build().string_bytes == b"\0ab\0c\0"


def test_old_offsets_and_ids_stay(make_btf):
    """What was there keeps its string offsets and ids."""
    btf = make_btf([[1, 7 << 24, 0], [6, 8 << 24, 1]], STRINGS)
    edit = btf.edit()
    assert edit.add(Typedef("new", 2)) == edit.next_id - 1 == 3
    out = edit.build()
    assert list(out) == [*btf, Typedef("new", 2)]
    assert out.string_bytes == STRINGS + b"new\0"
    assert btf.string_bytes == STRINGS


def test_replace_same_length(make_btf):
    """A data section's size and places are filled in without moving a byte."""
    btf = make_btf([[1, 14 << 24, 0, 1], [6, 15 << 24 | 1, 0, 1, 0, 4]], STRINGS, gap=4, tail=b"!")
    edit = btf.edit()
    filled = dataclasses.replace(btf.type(2), size=16, variables=(SecVar(1, 8, 4),))
    edit.replace(2, filled)
    out = edit.build()
    assert out.type(2) == DataSec("a", 16, (SecVar(1, 8, 4),))
    same = [at for at, byte in enumerate(btf.to_bytes()) if out.to_bytes()[at] == byte]
    assert set(range(len(btf.to_bytes()))) - set(same) == {24 + 16 + 8, 24 + 16 + 16}


def test_replace_other_length(make_btf):
    """A longer or shorter record moves what follows, and the ids stay."""
    btf = make_btf([[1, 7 << 24, 0], [6, 7 << 24, 0], [1, 8 << 24, 2]], STRINGS)
    edit = btf.edit()
    edit.replace(2, Struct("a", 4, (Member("name", 3, 0),)))
    edit.replace(1, Int("name", 4, 32))
    out = edit.build()
    assert list(out)[1:] == [
        Int("name", 4, 32),
        Struct("a", 4, (Member("name", 3, 0),)),
        Typedef("name", 2),
    ]
    assert out.string_bytes == STRINGS


def test_replace_an_added_type():
    """A type that was just added can be replaced, as for structs that name each other."""
    out = BtfBuilder()
    first = out.add(Fwd("s"))
    pointer = out.add(Ptr(first))
    out.replace(first, Struct("s", 8, (Member("next", pointer, 0),)))
    assert out.build().type(first).members == (Member("next", pointer, 0),)


def test_forward_reference():
    """A type may name one that is added later."""
    out = BtfBuilder()
    out.add(Ptr(out.next_id + 1))
    out.add(Fwd("s"))
    assert out.build().type_name(1) == "struct s *"


def test_dangling_reference():
    """A reference to a type that never came is an error at the end."""
    out = BtfBuilder()
    out.add(Ptr(7))
    with pytest.raises(OptionError, match="type id 7"):
        out.build()


def test_building_twice():
    """A builder goes on after build()."""
    out = BtfBuilder()
    out.add(Fwd("a"))
    first = out.build()
    out.add(Fwd("b"))
    assert (len(first), len(out.build())) == (2, 3)


def test_split(make_btf):
    """A section that continues a base uses the base's strings and ids."""
    base = make_btf([[1, 7 << 24, 0]], STRINGS)
    out = BtfBuilder(base=base)
    assert out.string("name") == 1
    assert out.add(Typedef("own", 1)) == 2
    split = out.build()
    assert split.string_bytes == b"own\0"
    assert Btf.parse(split.to_bytes(), base=base).find("own") == (2,)


def test_gaps_and_known_header_stay(raw_btf):
    """An edit keeps gaps, zero header bytes and what follows the strings."""
    data = raw_btf([[1, 7 << 24, 0]], STRINGS, hdr_len=36, gap=8, tail=b"tail")
    edit = Btf.parse(data).edit()
    edit.add(Fwd("a"))
    expected = raw_btf([[1, 7 << 24, 0], [6, 7 << 24, 0]], STRINGS, hdr_len=36, gap=8, tail=b"tail")
    assert edit.build().to_bytes() == expected


def test_layout_section_moves(raw_btf):
    """A layout section between types and strings keeps its bytes and gets its new place."""
    layout = bytes(8)
    data = bytearray(raw_btf([[1, 7 << 24, 0]], layout + STRINGS, hdr_len=32))
    struct.pack_into("<6I", data, 8, 0, 12, 20, len(STRINGS), 12, 8)
    edit = Btf.parse(bytes(data)).edit()
    edit.add(Fwd("new"))
    out = edit.build()
    assert struct.unpack_from("<6I", out.to_bytes(), 8) == (0, 24, 32, len(STRINGS) + 4, 24, 8)
    assert out.layout_bytes == layout
    assert out.type(2) == Fwd("new")


def test_strings_before_types():
    """Types behind the strings still start at a multiple of 4 after an edit."""
    body = b"\0ab\0" + struct.pack("<3I", 1, 8 << 24, 0)
    header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 4, 12, 0, 4)
    edit = Btf.parse(header + body).edit()
    edit.string("x")
    out = edit.build()
    assert (out.header.types.byte_off - 24) % 4 == 0
    assert (out.type(1).name, out.string(4)) == ("ab", "x")


def test_unknown_header_fields(raw_btf):
    """Header fields that may be offsets forbid edits that move, and only those."""
    data = bytearray(raw_btf([[1, 7 << 24, 0]], STRINGS, hdr_len=40))
    data[36] = 1
    btf = Btf.parse(bytes(data))
    edit = btf.edit()
    edit.replace(1, Fwd("a"))
    assert edit.build().type(1) == Fwd("a")
    edit.string("new")
    with pytest.raises(UnsupportedError, match="not known"):
        edit.build()


def test_opaque_records(make_btf):
    """Behind a kind that is not known no type can be added, but strings and records change."""
    btf = make_btf([[1, 7 << 24, 0], [0, 99 << 24, 1, 2, 3]], STRINGS)
    edit = btf.edit()
    with pytest.raises(UnsupportedError, match="kind 99"):
        edit.add(Fwd("x"))
    edit.string("new")
    edit.replace(1, Int("a", 4, 32))
    out = edit.build()
    assert (out.type(1), out.unknown_kind) == (Int("a", 4, 32), 99)
    assert out.to_bytes()[24 + 16 : 24 + 36] == btf.to_bytes()[24 + 12 : 24 + 32]


@pytest.mark.parametrize("type_id", [0, -1, 2])
def test_replace_what_is_not_there(make_btf, type_id):
    """Only an id that exists here can be replaced."""
    with pytest.raises(OptionError, match="ids here are 1 to 1"):
        make_btf([[1, 7 << 24, 0]], STRINGS).edit().replace(type_id, Fwd("x"))


def test_replace_in_the_base(make_btf):
    """A base's types cannot be replaced through the section that continues it."""
    base = make_btf([[1, 7 << 24, 0]], STRINGS)
    out = BtfBuilder(base=base)
    out.add(Fwd("x"))
    with pytest.raises(OptionError, match="cannot be replaced"):
        out.build().edit().replace(1, Fwd("x"))


@pytest.mark.parametrize(
    "found",
    [
        Void(),
        Unknown("x", 30, ()),
        Int("x", -1, 32),
        Int("x", 4, 256),
        Int("x", 4, 32, 16),
        Ptr(1 << 32),
        Array(1, 1, -1),
        Struct("x", 4, (Member("m", 1, -8),)),
        Struct("x", 4, (Member("m", 1, 1 << 24, 3),)),
        Struct("x", 4, (Member("m", 1, 0, 256),)),
        Enum("x", 4, (Enumerator("a", -1),)),
        Enum("x", 4, (Enumerator("a", 1 << 31),), True),
        Enum64("x", 8, (Enumerator("a", 1 << 64),)),
        Func("x", 1, 1 << 16),
        FuncProto(0, (Param("x", -1),)),
        Var("x", 1, -1),
        DataSec("x", 1 << 32),
        DataSec("x", 0, (SecVar(1, -1, 0),)),
        DeclTag("x", 1, 1 << 31),
        Fwd("a\0b"),
        Fwd("\ud800"),
    ],
)
def test_what_does_not_fit(found):
    """A number that its field cannot hold, or a text that no string can, is refused."""
    with pytest.raises(OptionError):
        BtfBuilder().add(found)


def test_strings_past_the_kernel_s_limit(make_btf):
    """A string whose offset the kernel would refuse is refused here."""
    edit = make_btf([], b"\0" + b"x" * 0xFFFFFE + b"\0").edit()
    with pytest.raises(OptionError, match="exceeds the kernel's limit"):
        edit.string("new")


def test_types_past_the_kernel_s_limit(make_btf):
    """A type whose id the kernel would refuse is refused here."""
    edit = make_btf([[0, 2 << 24, 0]] * 0xFFFFF).edit()
    with pytest.raises(OptionError, match="exceeds the kernel's limit"):
        edit.add(Ptr(0))
