"""Random masks are taken out, and nothing else."""

from __future__ import annotations

import pytest

from bpfpatch import isa
from bpfpatch.asm import assemble
from bpfpatch.linux.parity.masks import unmask


def code(text: str) -> isa.Insns:
    """Instructions of assembly."""
    return assemble(f"{text}\nexit").insns


@pytest.mark.parametrize("width", ["r", "w"])
def test_a_pair_decodes_to_its_constant(width: str) -> None:
    """Whatever the mask, the same constant gives the same instructions."""
    pairs = [
        code(f"{width}11 = {constant ^ mask}\n{width}11 ^= {mask}\n{width}2 += {width}11")
        for constant, mask in ((77, 0x1234567), (77, -5), (77, 0))
    ]
    assert len({unmask(pair).tobytes() for pair in pairs}) == 1
    assert unmask(pairs[0])["imm"].tolist()[:2] == [77, 0]


def test_another_constant_is_another() -> None:
    """Two pairs of the same mask and other constants stay different."""
    one, other = (code(f"r11 = {n}\nr11 ^= 99\nr2 += r11") for n in (5, 6))
    assert unmask(one).tobytes() != unmask(other).tobytes()


def test_a_random_upper_half_goes() -> None:
    """The number that is shifted up by 32 and put over a register does not count."""
    one, other = (code(f"r11 = {n}\nr11 <<= 32\nr2 |= r11") for n in (5, 6))
    assert unmask(one).tobytes() == unmask(other).tobytes()


@pytest.mark.parametrize(
    "text",
    [
        "r1 = 5\nr1 ^= 9",
        "r11 = 5\nr1 ^= 9",
        "r11 = 5\nw11 ^= 9",
        "r11 = 5\nr11 <<= 31\nr2 |= r11",
        "r11 = 5\nr11 <<= 32\nr2 += r11",
        "r11 = 5\nr11 <<= 32\nr2 |= r3",
        "w11 = 5\nr11 <<= 32\nr2 |= r11",
        "r11 = 5",
    ],
)
def test_nothing_else_changes(text: str) -> None:
    """What looks nearly like a mask stays as it is."""
    insns = code(text)
    assert unmask(insns).tobytes() == insns.tobytes()
