"""Guards of divisions, beside those of the running kernel."""

from __future__ import annotations

import itertools

import pytest

from bpfpatch.linux.passes.fixup_calls import FixupCalls
from support.cases.fixupparity import Case, assert_same
from support.machine.tools import need_bpf

pytestmark = pytest.mark.kernel


@pytest.fixture(autouse=True)
def _bpf() -> None:
    need_bpf()


OPS = ("/=", "%=", "s/=", "s%=")
WIDTHS = ("r", "w")
REGS = (0, 1, 6, 9)
SET_ALL = "".join(f"r{reg} = {reg + 3};" for reg in range(10))
END = "; r0 = 0; exit"


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("op", OPS)
def test_register_divisors(op: str, width: str) -> None:
    """A division by a register is guarded as the kernel does, for all pairs, equal ones too."""
    pairs = itertools.product(range(10), range(10))
    text = "; ".join(f"{width}{dst} {op} {width}{src}" for dst, src in pairs)
    assert_same(Case(SET_ALL + text + END), FixupCalls())


@pytest.mark.parametrize("op", OPS)
def test_constant_divisors(op: str) -> None:
    """A division by a constant stays, but for a signed one by minus one."""
    text = "; ".join(
        f"{width}{reg} {op} {value}"
        for width in WIDTHS
        for reg in REGS
        for value in (1, -1, 2, 7, -2, 0x7FFFFFFF, -0x80000000)
    )
    assert_same(Case(SET_ALL + text + END), FixupCalls())


PLACES = {
    "first": "{op}; exit",
    "last": "call sub; exit; sub: r0 = 1; r1 = 2; {op}; exit",
    "target": "if r0 > 3 goto at; r1 = 3; at: {op}; exit",
    "loop": "r2 = 4; head: {op}; r2 -= 1; if r2 != 0 goto head; exit",
    "own target": "r2 = 4; r2 += -1; again: {op}; r2 -= 1; if r2 > 0 goto again; exit",
    "two": "{op}; {op}; exit",
    "subprog": "call sub; exit; sub: r1 = 2; r0 = 5; {op}; {op}; exit",
    "behind ld_imm64": "r2 = 0x123456789 ll; {op}; r3 = 0x123456789 ll; exit",
    "around a jump": "if r1 == 5 goto over; {op}; over: {op}; exit",
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("op", [f"{w}0 {op} {w}1" for w in WIDTHS for op in OPS])
def test_places(op: str, place: str) -> None:
    """Wherever the division is, jumps and calls around it go where the kernel's go."""
    start = "call 7; r6 = r0; call 7; r1 = r6; "
    assert_same(Case(start + PLACES[place].format(op=op)), FixupCalls())
