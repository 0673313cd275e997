"""Arguments from the sixth on: given by R11, used up by any call."""

from __future__ import annotations

import pytest

from bpfpatch.asm import assemble
from bpfpatch.interp import Machine, MachineOptions, TrapError

ENGINES = pytest.mark.parametrize("engine", ["compiled", "reference"])
SEVEN = """
.subprog seven
r6 = *(u64 *)(r11 + 8)
r7 = *(u64 *)(r11 + 16)
r0 = r5
r0 *= 10
r0 += r6
r0 *= 10
r0 += r7
exit
"""
CALL = "r1 = 1; r2 = 2; r3 = 3; r4 = 4; r5 = 5\ncall seven\n"


def _run(text, engine, **given):
    return Machine(assemble(text), MachineOptions(engine=engine), **given).run(mem=b"").r0


@ENGINES
def test_a_callee_gets_what_was_stored(engine):
    """Stores of registers and constants, in any order, each arrive at their place."""
    text = f"r6 = 6\n*(u64 *)(r11 - 16) = 7\n*(u64 *)(r11 - 8) = r6\n{CALL}exit\n{SEVEN}"
    assert _run(text, engine) == 567


@ENGINES
def test_a_constant_is_extended_by_its_sign(engine):
    """A stored -1 is all ones."""
    text = "*(u64 *)(r11 - 8) = -1\ncall f\nexit\n.subprog f\nr0 = *(u64 *)(r11 + 8)\nexit"
    assert _run(text, engine) == (1 << 64) - 1


@ENGINES
def test_each_call_has_its_own(engine):
    """A callee's own calls leave what the caller stores next alone."""
    text = """
    *(u64 *)(r11 - 8) = 3
    call f
    r6 = r0
    *(u64 *)(r11 - 8) = 4
    call f
    r0 += r6
    exit
    .subprog f
    r6 = *(u64 *)(r11 + 8)
    *(u64 *)(r11 - 8) = 100
    call g
    r0 += r6
    exit
    .subprog g
    r0 = *(u64 *)(r11 + 8)
    exit
    """
    assert _run(text, engine) == 207


BAD = [
    ("*(u64 *)(r11 - 8) = 1\n" + CALL, "argument 7 is not stored since the last call"),
    (
        "*(u64 *)(r11 - 8) = 6\n*(u64 *)(r11 - 16) = 7\n" + CALL + CALL,
        "argument 6 is not stored since the last call",
    ),
    (
        "*(u64 *)(r11 - 8) = 6\n*(u64 *)(r11 - 16) = 7\ncall 7\n" + CALL,
        "argument 6 is not stored since the last call",
    ),
    ("r0 = *(u64 *)(r11 + 8)\n", "argument 6 is not stored since the last call"),
    ("call 7\nr0 = *(u64 *)(r11 + 8)\n", "argument 6 is loaded after a call"),
    (
        "*(u64 *)(r11 - 8) = 6\nr0 = *(u64 *)(r11 + 8)\n",
        "argument 6 is loaded after a call, or after a store",
    ),
]


@ENGINES
@pytest.mark.parametrize(("text", "what"), BAD)
def test_what_the_verifier_refuses(engine, text, what):
    """A call uses up all that is stored; loads come before stores and calls."""
    with pytest.raises(TrapError, match=what):
        _run(f"{text}exit\n{SEVEN}", engine)


@ENGINES
def test_a_kernel_function_gets_more_than_five(engine):
    """A kfunc that takes seven gets two of them by R11."""
    program = "r1 = 1; r2 = 2; r3 = 3; r4 = 4; r5 = 5\n{}call kfunc 9\nexit"
    stores = "*(u64 *)(r11 - 8) = 6\n*(u64 *)(r11 - 16) = 7\n"

    def seven(_machine, a, b, c, d, e, f, g):
        return int(f"{a}{b}{c}{d}{e}{f}{g}")

    assert _run(program.format(stores), engine, kfuncs={9: seven}) == 1234567
    for some in ("", stores.splitlines()[0] + "\n"):
        with pytest.raises(TrapError, match="is not stored"):
            _run(program.format(some), engine, kfuncs={9: seven})


@ENGINES
def test_r11_that_is_written_is_the_kernels(engine):
    """In the form of Linux 6.18 R11 is a register like others."""
    assert _run("r11 = 5\n*(u64 *)(r10 - 8) = r11\nr0 = *(u64 *)(r10 - 8)\nexit", engine) == 5
    text = "r11 = r10\nr11 += -16\n*(u64 *)(r10 - 8) = 9\nr0 = *(u64 *)(r11 + 8)\nexit"
    assert _run(text, engine) == 9
