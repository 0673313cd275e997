"""What single instructions compute, with values worked out from RFC 9669 by hand."""

from __future__ import annotations

import pytest

from bpfpatch.isa.semantics import U64, compute, holds, signed

ADD64, ADD32, DIV64, DIV32, MOD64, MOD32 = 0x07, 0x04, 0x37, 0x34, 0x97, 0x94
LSH64, LSH32, RSH32, ARSH64, ARSH32 = 0x67, 0x64, 0x74, 0xC7, 0xC4
MOV64, MOV32, MOVX64, MOVX32, NEG64, NEG32 = 0xB7, 0xB4, 0xBF, 0xBC, 0x87, 0x84
LE, BE, BSWAP = 0xD4, 0xDC, 0xD7
JEQ, JGT, JSET, JSGT, JSLT = 0x15, 0x25, 0x45, 0x65, 0xC5
JEQ32, JGT32, JSGT32 = 0x16, 0x26, 0x66
MIN64, MIN32 = 1 << 63, 1 << 31


def value(code: int, dst: int, operand: int = 0, slot_off: int = 0, imm: int = 0) -> int | None:
    """What an instruction computes; operands may be negative."""
    return compute(code, slot_off, dst & U64, operand & U64, imm)


def test_signed_reads_twos_complement() -> None:
    """The low bits of a value are read as a two's-complement number."""
    assert [signed(x, 8) for x in (0x7F, 0x80, 0x1FF)] == [127, -128, -1]


def test_64_bit_addition_wraps() -> None:
    """A sum that needs 65 bits loses the highest."""
    assert value(ADD64, U64, 1) == 0


def test_32_bit_results_are_zero_extended() -> None:
    """A 32-bit operation clears the upper half, whatever was in it."""
    assert value(ADD32, 0xFFFF_FFFF_FFFF_FFFF, 1) == 0
    assert value(ADD32, 0xFFFF_FFFF_7FFF_FFFF, 1) == 0x8000_0000


def test_division_by_zero_gives_zero() -> None:
    """RFC 9669, 4.1: a division by zero sets the destination to 0."""
    assert value(DIV64, 5, 0) == value(DIV32, 5, 0) == 0


def test_modulo_by_zero_keeps_the_destination() -> None:
    """RFC 9669, 4.1: a modulo by zero leaves the destination, but for ALU's upper half."""
    assert value(MOD64, MIN64 | 5, 0) == MIN64 | 5
    assert value(MOD32, MIN64 | 5, 0) == 5


def test_division_is_unsigned_unless_it_says_otherwise() -> None:
    """-1 divided by 2 is a large number, and with off 1 it is 0."""
    assert value(DIV64, -1, 2) == U64 >> 1
    assert value(DIV64, -1, 2, slot_off=1) == 0


def test_signed_division_truncates_towards_zero() -> None:
    """RFC 9669, 4.1: -13 / 3 is -4, and -13 % 3 is -1."""
    assert value(DIV64, -13, 3, slot_off=1) == -4 & U64
    assert value(MOD64, -13, 3, slot_off=1) == -1 & U64
    assert value(MOD64, 13, -3, slot_off=1) == 1


def test_least_number_divided_by_minus_one_stays() -> None:
    """Signed division overflows to its own dividend, with remainder 0."""
    assert value(DIV64, MIN64, -1, slot_off=1) == MIN64
    assert value(MOD64, MIN64, -1, slot_off=1) == 0
    assert value(DIV32, MIN32, -1, slot_off=1) == MIN32
    assert value(MOD32, MIN32, -1, slot_off=1) == 0


def test_division_with_another_off_is_unknown() -> None:
    """An ``off`` that no standard names says that the meaning is not ours to guess."""
    assert value(DIV64, 6, 2, slot_off=2) is None
    assert value(ADD64, 6, 2, slot_off=1) is None


def test_shifts_use_the_low_bits_of_the_count() -> None:
    """RFC 9669, 4.1: the count is masked to 63 or 31."""
    assert value(LSH64, 1, 64) == 1
    assert value(LSH32, 1, 33) == 2
    assert value(RSH32, MIN64 | MIN32, 31) == 1


def test_arithmetic_shift_keeps_the_sign() -> None:
    """The sign is that of the operation's width."""
    assert value(ARSH64, -4, 1) == -2 & U64
    assert value(ARSH32, 0x8000_0000, 4) == 0xF800_0000


def test_moves_sign_extend_only_when_they_say_so() -> None:
    """A plain 32-bit move zero-extends; movsx extends the sign of its 8, 16 or 32 bits."""
    assert value(MOV32, 0, -1) == 0xFFFF_FFFF
    assert value(MOV64, 0, -1) == U64
    assert value(MOVX64, 0, 0x80, slot_off=8) == -128 & U64
    assert value(MOVX64, 0, 0x8000_0000, slot_off=32) == -MIN32 & U64
    assert value(MOVX32, 0, 0x8000, slot_off=16) == 0xFFFF_8000


def test_address_space_cast_is_unknown() -> None:
    """A move with off 1 makes an address: no constant."""
    assert value(MOVX64, 0, 5, slot_off=1) is None


def test_negation_keeps_its_width() -> None:
    """The negative of 1 is all ones, in 64 or in 32 bits."""
    assert value(NEG64, 1) == U64
    assert value(NEG32, 1) == 0xFFFF_FFFF


def test_bswap_swaps_and_truncates() -> None:
    """RFC 9669, 4.2: bswap16 leaves 16 bits, swapped."""
    assert value(BSWAP, 0x1122_3344_5566_7788, imm=16) == 0x8877
    assert value(BSWAP, 0x1122_3344_5566_7788, imm=64) == 0x8877_6655_4433_2211


def test_swaps_to_a_named_order_are_unknown() -> None:
    """What le and be do depends on the machine that will run the program."""
    assert value(LE, 1, imm=16) is None
    assert value(BE, 1, imm=16) is None
    assert value(BSWAP, 1, imm=8) is None


def test_unknown_operation_is_unknown() -> None:
    """There is no operation 0xe0 or 0xf0."""
    assert value(0xE7, 1, 1) is None


@pytest.mark.parametrize(
    ("code", "left", "right", "taken"),
    [
        (JEQ, 1, 1, True),
        (JEQ, 1 << 32, 0, False),
        (JEQ32, 1 << 32, 0, True),
        (JGT, -1, 1, True),
        (JSGT, -1, 1, False),
        (JSLT, -1, 1, True),
        (JGT32, 0xFFFF_FFFF, 1, True),
        (JSGT32, 0xFFFF_FFFF, 1, False),
        (JSET, 6, 4, True),
        (JSET, 6, 9, False),
    ],
)
def test_comparisons(code: int, left: int, right: int, taken: bool) -> None:
    """RFC 9669, 4.3: unsigned, signed or bits in common, in 64 or 32 bits."""
    assert holds(code, left & U64, right & U64) is taken


@pytest.mark.parametrize("code", [0x05, 0x85, 0x95, 0xE5, 0x06, 0x0D])
def test_jumps_without_comparison_hold_nothing(code: int) -> None:
    """goto, call, exit, may_goto, gotol and gotox compare nothing."""
    assert holds(code, 0, 0) is None
