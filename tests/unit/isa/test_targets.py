"""Targets."""

from __future__ import annotations

import pytest

from bpfpatch import isa
from bpfpatch.errors import OptionError
from bpfpatch.isa import R1, Cpu

PROGRAM = isa.concat(
    [
        isa.ld_imm64(R1, 1),
        isa.jump("jlt", R1, 5, 1),
        isa.mov32(R1, 5),
        isa.gotol(0),
        isa.may_goto(0),
        isa.make(0xC2),
        isa.make(0xFF),
    ]
)


@pytest.mark.parametrize(
    ("name", "slots"),
    [
        ("v1", [2, 3, 4, 5, 6, 7]),
        ("v2", [3, 4, 5, 6, 7]),
        ("v3", [4, 5, 6, 7]),
        ("v4", [5, 6, 7]),
        ("newest", [6, 7]),
    ],
)
def test_refused(name: str, slots: list[int]) -> None:
    """A target refuses what came after it; every one what is the kernel's own or unknown."""
    assert Cpu.parse(name).refused(PROGRAM).tolist() == slots


def test_unknown() -> None:
    """A name that is no target is an error that lists them."""
    with pytest.raises(OptionError, match="v1, v2, v3, v4, newest"):
        Cpu.parse("v9")
