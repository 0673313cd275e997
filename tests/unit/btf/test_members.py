"""Where members are, by paths as in C and by CO-RE access strings."""

import pytest

from bpfpatch.btf import (
    Array,
    BtfBuilder,
    BtfPlace,
    Int,
    Member,
    Struct,
    Typedef,
    Union,
)
from bpfpatch.errors import FormatError, OptionError


@pytest.fixture(scope="module")
def btf():
    """A struct s of bitfields and a union in an anonymous struct, and an array of struct t."""
    out = BtfBuilder()
    integer = out.add(Int("int", 4, 32))
    short = out.add(Int("short", 2, 16))
    shorts = out.add(Array(short, integer, 4))
    union = out.add(Union("", 8, (Member("d", integer, 0), Member("e", shorts, 0))))
    bits = (Member("b", integer, 0, 3), Member("c", integer, 8, 5), Member("", union, 32))
    inner = out.add(Struct("", 12, bits))
    flexible = out.add(Array(integer, integer, 0))
    t_struct = out.add(Struct("t", 8, (Member("x", integer, 0), Member("flex", flexible, 32))))
    ts = out.add(Array(t_struct, integer, 2))
    members = (Member("a", integer, 0), Member("", inner, 32), Member("t", ts, 128))
    s_struct = out.add(Struct("s", 32, members))
    out.add(Typedef("s_t", s_struct))
    return out.build()


@pytest.mark.parametrize(
    ("path", "byte_off"),
    [("a", 0), ("b", 4), ("c", 5), ("d", 8), ("e[3]", 14), ("t", 16), ("t[1].x", 24)],
)
@pytest.mark.parametrize("root", ["struct s", "s", "typedef s_t", "s_t"])
def test_offset_of(btf, root, path, byte_off):
    """Members are found through anonymous ones, arrays and typedefs."""
    assert btf.offset_of(root, path) == byte_off


def test_place(btf):
    """A place has the member's type, bits and path."""
    place = btf.member_path("struct s", "c")
    assert place == BtfPlace(btf.find_one("int"), 40, 5, "c")


def test_flexible_array(btf):
    """An array of count 0 has any element."""
    assert btf.offset_of("struct s", "t[0].flex[5]") == 16 + 4 + 20


@pytest.mark.parametrize(
    ("root", "path", "message"),
    [
        ("struct nope", "a", "there is no type"),
        ("union s", "a", "there is no type"),
        ("class s", "a", "names no type"),
        ("struct s", "nope", "has no member 'nope'"),
        ("struct s", "a.b", "not a struct or union"),
        ("struct s", "a[0]", "not an array"),
        ("struct s", "t[2]", "has 2 elements"),
        ("struct s", "a b", "cannot be read from character 1"),
        ("struct s", "t[-1]", "cannot be read"),
    ],
)
def test_bad_path(btf, root, path, message):
    """A path that leads nowhere is an option error that says why."""
    with pytest.raises(OptionError, match=message):
        btf.member_path(root, path)


def test_bitfield_within_a_byte(make_btf):
    """A bitfield that does not start at a byte has no byte_off."""
    flag = 1 << 31
    members = [3, 1, 0, 3, 1, 3 << 24 | 5]
    btf = make_btf([[0, 1 << 24, 4, 32], [1, flag | 4 << 24 | 2, 4, *members]], b"\0s\0x\0")
    assert btf.member_path("s", "x").bit_off == 0
    place = BtfPlace(1, 5, 3, "x")
    with pytest.raises(OptionError, match="within a byte"):
        _ = place.byte_off


def test_rings_of_anonymous_structs_end(make_btf):
    """A search in structs that contain each other ends."""
    ring = [[0, 4 << 24 | 2, 8, 0, 2, 0, 0, 2, 32], [0, 4 << 24 | 2, 8, 0, 1, 0, 0, 1, 32]]
    with pytest.raises(OptionError, match="has no member"):
        make_btf(ring).member_path(1, "x")


@pytest.mark.parametrize(
    ("access", "bit_off", "path"),
    [
        ("0", 0, ""),
        ("0:0", 0, "a"),
        ("0:1:1", 40, "c"),
        ("0:1:2:1:2", 64 + 32, "e[2]"),
        ("0:2:1:0", 192, "t[1].x"),
        ("2:0", 512, "[2].a"),
    ],
)
def test_access_path(btf, access, bit_off, path):
    """A CO-RE access string walks by index."""
    place = btf.access_path(btf.find_one("s_t"), access)
    assert (place.bit_off, place.path) == (bit_off, path)


@pytest.mark.parametrize(
    "access", ["", "x", "0:", ":0", "0:-1", "0:9", "0:0:0", "0:" + "0:" * 64 + "0", "٣"]
)
def test_bad_access_path(btf, access):
    """An access string that does not fit the types is a format error."""
    with pytest.raises(FormatError):
        btf.access_path(btf.find_one("s"), access)
