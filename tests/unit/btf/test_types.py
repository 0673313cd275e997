"""Each kind of record, from words put together by hand."""

import numpy as np
import pytest

from bpfpatch.btf import (
    Array,
    Btf,
    Const,
    DataSec,
    DeclTag,
    Enum,
    Enum64,
    Enumerator,
    Float,
    Func,
    FuncProto,
    Fwd,
    Int,
    IntEncoding,
    Kind,
    Member,
    Param,
    Ptr,
    Restrict,
    SecVar,
    Struct,
    Typedef,
    TypeTag,
    Union,
    Unknown,
    Var,
    Void,
    Volatile,
)
from bpfpatch.errors import FormatError

STRINGS = b"\0name\0a\0b\0"
NAME, A, B = 1, 6, 8
FLAG = 1 << 31

RECORDS = [
    ([NAME, 1 << 24, 4, 1 << 24 | 32], Int("name", 4, 32, IntEncoding.SIGNED)),
    ([NAME, 1 << 24, 1, 6 << 24 | 2 << 16 | 4], Int("name", 1, 4, IntEncoding(6), 2)),
    ([0, 2 << 24, 1], Ptr(1)),
    ([0, 3 << 24, 0, 1, 1, 7], Array(1, 1, 7)),
    (
        [NAME, 4 << 24 | 2, 8, A, 1, 0, 0, 1, 32],
        Struct("name", 8, (Member("a", 1, 0), Member("", 1, 32))),
    ),
    (
        [NAME, FLAG | 4 << 24 | 1, 4, A, 1, 3 << 24 | 5],
        Struct("name", 4, (Member("a", 1, 5, 3),), True),
    ),
    ([0, 5 << 24 | 1, 4, B, 1, 0], Union("", 4, (Member("b", 1, 0),))),
    (
        [NAME, 6 << 24 | 2, 4, A, 1, B, 0xFFFFFFFF],
        Enum("name", 4, (Enumerator("a", 1), Enumerator("b", 0xFFFFFFFF))),
    ),
    ([NAME, FLAG | 6 << 24 | 1, 4, A, 0xFFFFFFFF], Enum("name", 4, (Enumerator("a", -1),), True)),
    ([NAME, 7 << 24, 0], Fwd("name")),
    ([NAME, FLAG | 7 << 24, 0], Fwd("name", True)),
    ([NAME, 8 << 24, 1], Typedef("name", 1)),
    ([0, 9 << 24, 1], Volatile(1)),
    ([0, 10 << 24, 1], Const(1)),
    ([0, 11 << 24, 1], Restrict(1)),
    ([NAME, 12 << 24 | 2, 1], Func("name", 1, 2)),
    ([0, 13 << 24 | 2, 0, A, 1, 0, 0], FuncProto(0, (Param("a", 1), Param("", 0)))),
    ([NAME, 14 << 24, 1, 2], Var("name", 1, 2)),
    ([NAME, 15 << 24 | 1, 16, 1, 8, 4], DataSec("name", 16, (SecVar(1, 8, 4),))),
    ([NAME, 16 << 24, 8], Float("name", 8)),
    ([NAME, 17 << 24, 1, 0xFFFFFFFF], DeclTag("name", 1)),
    ([NAME, FLAG | 17 << 24, 1, 3], DeclTag("name", 1, 3, True)),
    ([NAME, 18 << 24, 1], TypeTag("name", 1)),
    ([NAME, FLAG | 18 << 24, 1], TypeTag("name", 1, True)),
    (
        [NAME, 19 << 24 | 1, 8, A, 0xFFFFFFFF, 0xFFFFFFFF],
        Enum64("name", 8, (Enumerator("a", 2**64 - 1),)),
    ),
    (
        [NAME, FLAG | 19 << 24 | 1, 8, A, 0xFFFFFFFE, 0xFFFFFFFF],
        Enum64("name", 8, (Enumerator("a", -2),), True),
    ),
]


@pytest.mark.parametrize("byteorder", ["little", "big"])
@pytest.mark.parametrize(("words", "expected"), RECORDS)
def test_record(make_btf, words, expected, byteorder):
    """A record's words mean what the format's documentation says, in both byte orders."""
    assert make_btf([words], STRINGS, byteorder).type(1) == expected


@pytest.mark.parametrize("byteorder", ["little", "big"])
@pytest.mark.parametrize(("words", "expected"), RECORDS)
def test_written_record(raw_btf, make_btf, words, expected, byteorder):
    """A type that is written gives the same words."""
    edit = make_btf([[0, 7 << 24, 0]], STRINGS, byteorder).edit()
    edit.replace(1, expected)
    assert edit.build().to_bytes() == raw_btf([words], STRINGS, byteorder)


def test_every_kind_has_a_record_test():
    """No kind is missing above."""
    assert {expected.kind for _, expected in RECORDS} == set(Kind) - {Kind.VOID}


def test_void(make_btf):
    """Type id 0 is void and has no record."""
    btf = make_btf([])
    assert btf.type(0) == Void()
    assert len(btf) == 1


def test_vlen_of_24_bits(make_btf):
    """A struct may have more than 65535 members, as since linux v7.1."""
    count = 0x10001
    btf = make_btf([[0, 4 << 24 | count, 4] + [0, 1, 0] * count])
    assert len(btf.type(1).members) == count


def test_ids_are_positions(make_btf):
    """Iterating, indexing and type() agree."""
    btf = make_btf([words for words, _ in RECORDS], STRINGS)
    assert [btf[type_id] for type_id in range(len(btf))] == list(btf)
    assert list(btf)[1:] == [expected for _, expected in RECORDS]


def test_kinds(make_btf):
    """Kinds has every id's kind."""
    btf = make_btf([words for words, _ in RECORDS], STRINGS)
    assert btf.kinds.tolist() == [found.kind for found in btf]


def test_head_and_name(make_btf):
    """A head and a name can be read without the rest."""
    btf = make_btf([[NAME, FLAG | 4 << 24 | 1, 4, A, 99, 0]], STRINGS)
    assert btf.head(1) == (NAME, 4, True, 1, 4)
    assert btf.name_of(1) == "name"
    assert (btf.name_of(0), btf.head(0)) == ("void", (0, 0, False, 0, 0))


@pytest.mark.parametrize(
    "words",
    [
        [NAME, 1 << 24, 4],
        [NAME, 4 << 24 | 2, 8, A, 1, 0],
        [NAME, 4 << 24 | 0xFFFF, 8, A, 1, 0],
        [NAME, 2 << 24],
        [NAME],
    ],
)
def test_truncated_record(raw_btf, words):
    """A record that does not fit the type section is refused with its place."""
    with pytest.raises(FormatError) as caught:
        Btf.parse(raw_btf([[0, 2 << 24, 0], words], STRINGS))
    assert caught.value.byte_off == 24 + 12


def test_kind_0_has_no_record(raw_btf):
    """Zeros are no types."""
    with pytest.raises(FormatError, match="kind 0") as caught:
        Btf.parse(raw_btf([[0, 0, 0]]))
    assert caught.value.byte_off == 24


def test_odd_type_section(raw_btf):
    """A type section of a length that is no multiple of 4 is refused."""
    data = raw_btf([[0, 2 << 24, 0]], b"\0\0\0", type_len=13, str_off=13, str_len=2)
    with pytest.raises(FormatError, match="13 bytes"):
        Btf.parse(data)


def test_name_out_of_range(make_btf):
    """A name outside of the strings is an error when its record is read."""
    btf = make_btf([[99, 8 << 24, 0]], STRINGS)
    with pytest.raises(FormatError, match="0x63") as caught:
        btf.type(1)
    assert caught.value.byte_off == 24


def test_reference_out_of_range(make_btf):
    """A type id that does not exist is an error when its record is read."""
    btf = make_btf([[0, 2 << 24, 2]])
    with pytest.raises(FormatError, match="type id 2, the last one is 1") as caught:
        btf.type(1)
    assert caught.value.byte_off == 24


@pytest.mark.parametrize("type_id", [-1, 2, 1 << 40])
def test_no_such_id(make_btf, type_id):
    """Asking for an id that does not exist is an error, also for negative ones."""
    btf = make_btf([[0, 2 << 24, 0]])
    with pytest.raises(FormatError, match="there is no type id"):
        btf.type(type_id)


def test_long_name(make_btf):
    """A type's name may have 65535 bytes and not more; any string may."""
    name = b"x" * 0xFFFF
    btf = make_btf([[1, 7 << 24, 0], [2, 7 << 24, 0]], b"\0y" + name + b"\0")
    assert btf.type(2).name == name.decode()
    assert btf.string(1) == "y" + name.decode()
    with pytest.raises(FormatError, match="longer than 65535"):
        btf.type(1)


class TestUnknownKinds:
    """Kinds of the future."""

    UNKNOWN = (NAME, 30 << 24 | 2, 5, 100, 200, 201, 300, 301)

    def test_without_layout_the_rest_is_opaque(self, raw_btf):
        """The walk ends at a kind of unknown size; what is before it can be read."""
        data = raw_btf([[0, 2 << 24, 9], self.UNKNOWN, [0, 2 << 24, 0]], STRINGS)
        btf = Btf.parse(data)
        assert btf.unknown_kind == 30
        assert len(btf) == 2
        assert btf.type(1) == Ptr(9)
        assert btf.string(NAME) == "name"
        assert btf.to_bytes() == data
        with pytest.raises(FormatError, match="kind 30, which is not known"):
            btf.type(2)

    def test_with_layout_it_is_stepped_over(self, make_btf):
        """A layout section tells the size, and the record is there as words."""
        layout = bytes(4 * 30) + bytes([4, 8, 0, 0])
        strings_at = 12 + 32 + 12 + len(layout)
        btf = make_btf(
            [[0, 2 << 24, 0], self.UNKNOWN, [NAME, 8 << 24, 1]],
            layout + STRINGS,
            hdr_len=32,
            str_off=strings_at,
            str_len=len(STRINGS),
        )
        assert btf.unknown_kind == 30  # the header's layout fields are still zero
        data = bytearray(btf.to_bytes())
        data[24:32] = (56).to_bytes(4, "little") + len(layout).to_bytes(4, "little")
        btf = Btf.parse(bytes(data))
        assert btf.unknown_kind is None
        assert btf.type(2) == Unknown("name", 30, self.UNKNOWN)
        assert btf.type(3) == Typedef("name", 1)
        assert btf.c_decl(2) == "kind 30 name"
        with pytest.raises(FormatError, match="has no size: type 2 is kind 30"):
            btf.size_of(2)

    def test_layout_does_not_change_known_kinds(self, raw_btf):
        """A layout that is wrong about a known kind is not believed."""
        layout = bytes(4 * 2) + bytes([40, 0, 0, 0])
        data = bytearray(raw_btf([[0, 2 << 24, 0]], layout + b"\0", hdr_len=32))
        data[16:32] = b"".join(value.to_bytes(4, "little") for value in (24, 1, 12, 12))
        assert len(Btf.parse(bytes(data))) == 2


class TestSplit:
    """A section that continues another, as a module's does."""

    @pytest.fixture
    def split(self, make_btf, raw_btf):
        """Base: id 1 typedef "name". Split: ids 2 and 3, strings from offset 10 on."""
        base = make_btf([[NAME, 8 << 24, 0]], STRINGS)
        own = [[len(STRINGS) + 1, 8 << 24, 1], [NAME, 7 << 24, 0]]
        return Btf.parse(raw_btf(own, b"\0own\0"), base=base)

    def test_ids_and_strings_continue(self, split):
        """Ids and string offsets below the own ones are the base's."""
        assert list(split)[1:] == [Typedef("name", 0), Typedef("own", 1), Fwd("name")]
        assert split.first_id == 2
        assert split.string(NAME) == "name"

    def test_find_looks_in_both(self, split):
        """A name is found in the base and in the own types, also where it is a base string."""
        assert split.find("name") == (1, 3)
        assert split.find("own") == (2,)
        assert split.find("name", Kind.FWD) == (3,)

    def test_kinds_of_both(self, split):
        """Kinds covers the base's ids."""
        assert split.kinds.tolist() == [0, 8, 8, 7]

    def test_strings_may_be_empty(self, split, raw_btf):
        """A split section may have no strings of its own."""
        btf = Btf.parse(raw_btf([[NAME, 7 << 24, 0]], b""), base=split.base)
        assert btf.type(2) == Fwd("name")

    def test_other_byteorder_than_base(self, split, raw_btf):
        """A base of the other byte order is refused."""
        with pytest.raises(FormatError, match="its base is little-endian"):
            Btf.parse(raw_btf([], b"", "big"), base=split.base)

    def test_opaque_base(self, make_btf, raw_btf):
        """A base whose last id cannot be told has nothing that continues it."""
        base = make_btf([[0, 99 << 24, 0]])
        with pytest.raises(FormatError, match="kind 99"):
            Btf.parse(raw_btf([], b""), base=base)

    def test_numpy_numbers(self, split):
        """Ids and offsets may be NumPy scalars, as they come out of records."""
        assert split.type(np.uint32(1)) == Typedef("name", 0)
        assert split.string(np.uint32(NAME)) == "name"
        assert split.find(np.str_("own")) == (2,)


class TestFind:
    """Look-up by name."""

    def test_all_of_a_name(self, make_btf):
        """All ids with a name are found, ascending, of any kind or of one."""
        btf = make_btf([[A, 7 << 24, 0], [B, 7 << 24, 0], [A, 8 << 24, 0]], STRINGS)
        assert btf.find("a") == (1, 3)
        assert btf.find("a", Kind.TYPEDEF) == (3,)
        assert btf.find_one("a") == 1
        assert btf.find_one("c") is None

    def test_a_name_within_a_string(self, make_btf):
        """A name may be the tail of another string."""
        assert make_btf([[NAME + 2, 7 << 24, 0]], STRINGS).find("me") == (1,)

    def test_no_prefix_matches(self, make_btf):
        """The start of a name is not the name."""
        btf = make_btf([[NAME, 7 << 24, 0]], STRINGS)
        assert btf.find("nam") == ()
        assert btf.find("name\0a") == ()

    def test_name_offset_out_of_range(self, make_btf):
        """Records with broken names are not found, and do not hinder."""
        assert make_btf([[99, 7 << 24, 0], [A, 7 << 24, 0]], STRINGS).find("a") == (2,)

    def test_name_that_cannot_be_written(self, make_btf):
        """A name with no UTF-8 form is in no section."""
        assert make_btf([[A, 7 << 24, 0]], STRINGS).find("\ud800") == ()


def test_string_that_is_not_utf8(make_btf):
    """Bytes that are not UTF-8 survive reading and writing."""
    btf = make_btf([[1, 7 << 24, 0]], b"\0caf\xe9\0")
    name = btf.type(1).name
    assert name.encode("utf-8", "surrogateescape") == b"caf\xe9"
    assert btf.find(name) == (1,)
    assert btf.edit().string(name) == 1


@pytest.mark.parametrize("str_off", [-1, 10, 1 << 32])
def test_string_out_of_range(make_btf, str_off):
    """A string offset that does not exist is an error."""
    with pytest.raises(FormatError, match="outside of the strings"):
        make_btf([], STRINGS).string(str_off)
