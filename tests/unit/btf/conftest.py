"""Sections put together by hand, from the numbers in the format's documentation."""

import struct

import pytest

from bpfpatch.btf import Btf


def _raw(records, strings=b"\0", byteorder="little", *, hdr_len=24, gap=0, tail=b"", **fields):
    """Bytes of a .BTF section; ``records`` are lists of u32 words."""
    order = "<" if byteorder == "little" else ">"
    types = b"".join(struct.pack(f"{order}{len(words)}I", *words) for words in records)
    header = {
        "magic": 0xEB9F,
        "version": 1,
        "flags": 0,
        "hdr_len": hdr_len,
        "type_off": 0,
        "type_len": len(types),
        "str_off": len(types) + gap,
        "str_len": len(strings),
    } | fields
    start = struct.pack(f"{order}HBBIIIII", *header.values())
    return start + bytes(hdr_len - 24) + types + bytes(gap) + strings + tail


@pytest.fixture(scope="session")
def raw_btf():
    """A function that makes the bytes of a .BTF section."""
    return _raw


@pytest.fixture(scope="session")
def make_btf():
    """A function that makes a Btf."""
    return lambda *args, **kwargs: Btf.parse(_raw(*args, **kwargs))


@pytest.fixture(scope="session")
def info():
    """A function that makes a record's info word."""
    return lambda kind, vlen=0, flag=0: flag << 31 | kind << 24 | vlen
