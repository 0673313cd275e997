"""What a bad text is told."""

from __future__ import annotations

import pytest

from bpfpatch.asm import assemble, parse
from bpfpatch.errors import AsmError

BAD = [
    ("r1 = r13", 1, 6, "no register r13; the last is r10"),
    ("r1 = 1\n  w99 += 1", 2, 3, "no register w99; the last is w10"),
    ("frobnicate r1", 1, 1, "no instruction starts with 'frobnicate'"),
    ("r1 == 5", 1, 4, "unexpected '=='; expected"),
    ("r1 = 5 5", 1, 8, "unexpected '5'; expected the end of the instruction, `ll`"),
    ("goto", 1, 5, "stops after 'goto'; expected a number, `pc`, a label"),
    ("if r1 > 5", 1, 10, "expected `goto`"),
    ("w1 = (s32)w2", 1, 7, "expected `s8`, `s16`"),
    ("r1 = 0x1ffffffff", 1, 6, "does not fit: its field holds 32 bits"),
    ("r1 = -2147483649", 1, 6, "does not fit"),
    ("*(u8 *)(r1 + 32768) = 1", 1, 12, "16 bits"),
    ("goto +32768", 1, 6, "use gotol"),
    ("gotol 0x80000000", 1, 7, "32 bits, signed"),
    ("r1 = 0x10000000000000000 ll", 1, 6, "64 bits"),
    ("ld_pseudo r1, 7, 0", 1, 15, "1 (map fd) to 6"),
    ("r1 = addr_space_cast(r2, 65536, 0)", 1, 26, "16 bits, unsigned"),
    ("r1 = be16 r2", 1, 11, "must be the same register"),
    ("r3 = xchg_64(r1 + 0, r2)", 1, 22, "must be the same register"),
    ("exit\n/* never", 2, 1, "no end; close it"),
    ('"text"', 1, 1, "no instruction starts with"),
    ("r1 = 5ll", 1, 6, "has a space before its ll"),
    ("r1 = 0x", 1, 6, "is not a number"),
    ("r1 = 089", 1, 6, "octal"),
    ("r1 = \u00e9", 1, 6, "cannot be in assembly"),
    ("exit\x00", 1, 5, "cannot be in assembly"),
    ("a: exit\n\na: exit", 3, 1, "already defined in line 1"),
    ("r1: exit", 1, 1, "cannot be a label"),
    ("@orig: exit", 1, 1, "cannot be a label"),
    ("-5: exit", 1, 1, "cannot be a label"),
    ("@orig; @orig", 1, 8, "only once"),
    ("@orig r1", 1, 7, "takes a line of its own"),
    ("goto 1b", 1, 6, "no label 1: before"),
    ("1: goto 2f", 1, 9, "no label 2: after"),
    (".section xdp", 1, 1, ".section is not known"),
    (".8byte", 1, 1, "a number must follow"),
    (".8byte 1,", 1, 9, "a number must follow ','"),
    (".8byte 1 2", 1, 10, "a number must follow"),
    (".8byte 1 2 3", 1, 12, "expected a number"),
    (".8byte r1", 1, 8, "expected a number, not 'r1'"),
    (".8byte 0x10000000000000000", 1, 8, "64 bits"),
    (".subprog", 1, 1, "takes one name"),
    (".subprog a b", 1, 12, "takes one name"),
    ("\n\n /* a\n b */ r1 =", 4, 11, "stops after '='"),
]


@pytest.mark.parametrize(("text", "line", "column", "what"), BAD)
def test_parse(text: str, line: int, column: int, what: str) -> None:
    """An error says where it is and what was expected."""
    with pytest.raises(AsmError) as caught:
        parse(text)
    assert what in str(caught.value)
    assert (caught.value.line, caught.value.column) == (line, column)


INCOMPLETE = [
    ("goto nowhere", 1, 6, "no label 'nowhere'"),
    ("exit\n call bpf_no_such_helper", 2, 7, "no helper 'bpf_no_such_helper'"),
    ("goto @target", 1, 6, "@target is for edits"),
    ("exit\n@orig", 2, 1, "@orig is for edits"),
    ("goto far\n" + "exit\n" * 40000 + "far: exit", 1, 6, "40000 slots away"),
]


@pytest.mark.parametrize(("text", "line", "column", "what"), INCOMPLETE)
def test_assemble(text: str, line: int, column: int, what: str) -> None:
    """A program needs every name, and distances that fit."""
    with pytest.raises(AsmError) as caught:
        assemble(text)
    assert what in str(caught.value)
    assert (caught.value.line, caught.value.column) == (line, column)


def test_far_numeric_label() -> None:
    """A numeric label that is too far for its jump is an error, too."""
    with pytest.raises(AsmError, match="40000 slots away"):
        parse("goto 1f\n" + "exit\n" * 40000 + "1: exit")


MEGABYTE = 1_000_000
HOSTILE = [
    "(" * MEGABYTE,
    "r1 = " + "9" * MEGABYTE,
    "r1 = 0x" + "f" * MEGABYTE,
    "r" + "1" * MEGABYTE,
    "/*" * (MEGABYTE // 2),
    "if " + "r99 " * (MEGABYTE // 4),
    "goto 1f;" * (MEGABYTE // 8),
    "<a" * (MEGABYTE // 2),
    "r1 = -" + "-" * MEGABYTE,
    "s" + " " * MEGABYTE,
    '"' * MEGABYTE,
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: repr(text[:10]))
def test_hostile(text: str) -> None:
    """A megabyte of garbage is an error with a short message, and soon."""
    with pytest.raises(AsmError) as caught:
        parse(text)
    assert len(str(caught.value)) < 500
