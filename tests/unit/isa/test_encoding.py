"""Bytes in and out."""

from __future__ import annotations

import numpy as np
import pytest

from bpfpatch import isa
from bpfpatch.errors import FormatError

# RFC 9669 section 3.1, in both byte orders: opcode 07, dst 1, src 2, off -2, imm 0x11223344.
LITTLE = bytes.fromhex("0721feff44332211")
BIG = bytes.fromhex("0712fffe11223344")


def test_little_endian_fields() -> None:
    """A little-endian object has dst in the low nibble and fields in little-endian order."""
    insns = isa.from_bytes(LITTLE)
    assert insns.tolist() == [(0x07, 0x21, -2, 0x11223344)]
    assert (isa.dst(insns)[0], isa.src(insns)[0]) == (1, 2)


def test_big_endian_swaps_fields_and_nibbles() -> None:
    """A big-endian object has the nibbles and the fields' bytes the other way round."""
    assert isa.from_bytes(BIG, "big").tolist() == isa.from_bytes(LITTLE).tolist()


@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_bytes_survive(byteorder: isa.ByteOrder) -> None:
    """Reading and writing any bytes gives the same bytes."""
    data = np.random.default_rng(7).bytes(8 * 500)
    assert isa.to_bytes(isa.from_bytes(data, byteorder), byteorder) == data


@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_nothing_is_a_program(byteorder: isa.ByteOrder) -> None:
    """No bytes are no instructions."""
    assert len(isa.from_bytes(b"", byteorder)) == 0


@pytest.mark.parametrize("size", [1, 7, 9, 23])
def test_cut_off(size: int) -> None:
    """A length that is no multiple of 8 is refused at the byte where whole slots end."""
    with pytest.raises(FormatError, match="multiple of 8") as caught:
        isa.from_bytes(bytes(size))
    assert caught.value.byte_off == size // 8 * 8


@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_result_is_read_only_and_detached(byteorder: isa.ByteOrder) -> None:
    """What is read cannot be written, and does not follow a buffer that changes."""
    buffer = bytearray(LITTLE)
    insns = isa.from_bytes(buffer, byteorder)
    before = insns.tolist()
    buffer[0] = 0x95
    assert insns.tolist() == before
    assert not insns.flags.writeable


def test_words_are_the_bytes() -> None:
    """A word has the code in its lowest byte and imm in its upper half."""
    assert isa.words(isa.from_bytes(LITTLE)).tolist() == [0x11223344_FFFE_21_07]


def test_strided_input() -> None:
    """Every second instruction of an array is as good as an array of its own."""
    insns = isa.from_bytes((LITTLE + bytes(8)) * 5)[::2]
    assert isa.words(insns).tolist() == [0x11223344_FFFE_21_07] * 5
    assert isa.is_alu(insns).all()
    assert isa.to_bytes(insns) == LITTLE * 5
