"""The header and the section's parts: what is refused, and where."""

import struct

import pytest

from bpfpatch.btf import Btf
from bpfpatch.errors import FormatError

PTR = [0, 2 << 24, 0]


@pytest.mark.parametrize(
    ("fields", "byte_off"),
    [
        ({"magic": 0xEB9E}, 0),
        ({"version": 2}, 2),
        ({"flags": 1}, 3),
        ({"hdr_len": 0xFFFFFFFF}, 4),
        ({"type_len": 0xFFFFFFFF}, 8),
        ({"type_off": 0xFFFFFFFC}, 8),
        ({"str_len": 0xFFFFFFFF}, 16),
        ({"str_off": 0xFFFFFFFF}, 16),
        ({"type_off": 1, "type_len": 8}, 25),
        ({"str_len": 0}, 20),
        ({"str_off": 8}, 32),
    ],
)
def test_bad_header_field(raw_btf, fields, byte_off):
    """A header field that cannot be right is refused with its place."""
    data = bytearray(raw_btf([PTR]))
    names = ["magic", "version", "flags", "hdr_len", "type_off", "type_len", "str_off", "str_len"]
    values = list(struct.unpack_from("<HBBIIIII", data))
    for name, value in fields.items():
        values[names.index(name)] = value
    struct.pack_into("<HBBIIIII", data, 0, *values)
    with pytest.raises(FormatError) as caught:
        Btf.parse(bytes(data))
    assert caught.value.byte_off == byte_off


def test_header_below_24_bytes(raw_btf):
    """A header without the fields that every reader needs is refused."""
    data = bytearray(raw_btf([PTR]))
    struct.pack_into("<I", data, 4, 20)
    with pytest.raises(FormatError, match="20 bytes") as caught:
        Btf.parse(bytes(data))
    assert caught.value.byte_off == 4


@pytest.mark.parametrize("length", range(24))
def test_truncated_header(raw_btf, length):
    """A section that ends within its header is refused."""
    with pytest.raises(FormatError):
        Btf.parse(raw_btf([PTR])[:length])


def test_string_section_starts_with_nul(raw_btf):
    """The first string has to be empty."""
    with pytest.raises(FormatError, match="start with a NUL") as caught:
        Btf.parse(raw_btf([], b"a\0"))
    assert caught.value.byte_off == 24


def test_string_section_ends_with_nul(raw_btf):
    """The last string has to end."""
    with pytest.raises(FormatError, match="end with a NUL") as caught:
        Btf.parse(raw_btf([], b"\0ab"))
    assert caught.value.byte_off == 26


def test_byteorder_from_magic(raw_btf):
    """Without a byte order asked for, the magic tells it."""
    assert Btf.parse(raw_btf([PTR], byteorder="big")).byteorder == "big"
    assert Btf.parse(raw_btf([PTR], byteorder="little")).byteorder == "little"


def test_other_byteorder_than_asked(raw_btf):
    """A byte order other than the one asked for is refused."""
    with pytest.raises(FormatError, match="little-endian"):
        Btf.parse(raw_btf([PTR]), "big")


def test_unchanged_is_identical(raw_btf):
    """Longer headers, gaps and trailing bytes come back as they were."""
    data = raw_btf([PTR, PTR], b"\0a\0", hdr_len=40, gap=12, tail=b"\1\2\3")
    btf = Btf.parse(data)
    assert len(btf) == 3
    assert btf.to_bytes() == data


def test_strings_before_types(raw_btf):
    """The sections may come in any order, as the kernel allows."""
    body = b"\0ab\0" + struct.pack("<3I", 1, 8 << 24, 0)
    header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 4, 12, 0, 4)
    assert Btf.parse(header + body).type(1).name == "ab"


def test_input_may_be_any_buffer(raw_btf):
    """A bytearray is read, and later changes to it do not matter."""
    data = bytearray(raw_btf([PTR]))
    btf = Btf.parse(data)
    data[24:] = bytes(len(data) - 24)
    assert btf.kinds.tolist() == [0, 2]
