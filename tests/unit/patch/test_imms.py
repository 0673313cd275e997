"""Bulk edits whose copies of one body have immediates of their own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bpfpatch import isa
from bpfpatch.asm import assemble, format_program
from bpfpatch.errors import OptionError
from bpfpatch.patch import Body, PatchList

PAIR = Body.asm("r1 = 0; r1 ^= 0")


def patches() -> PatchList:
    """Three moves and an exit."""
    return PatchList(assemble("r0 = 1; r0 = 2; r0 = 3; exit"))


def test_each_copy_has_its_own_immediates() -> None:
    """One body at many sites, and constants that differ."""
    edited = patches()
    edited.insert_before(np.array([0, 2]), PAIR, {0: np.array([7, 8]), 1: np.array([-1, 9])})
    edited.replace(np.array([1]), Body(isa.ld_imm64(4, 0)), {0: np.array([5]), 1: np.array([6])})
    expected = """
        r1 = 7; r1 ^= -1; r0 = 1
        r4 = 0x600000005 ll
        r1 = 8; r1 ^= 9; r0 = 3
        exit
    """
    assert format_program(edited.linearize().program) == format_program(assemble(expected))


@pytest.mark.parametrize("verb", ["insert_before", "prepend", "insert_after", "replace"])
def test_all_verbs_take_immediates(verb: str) -> None:
    """The nodes that come back hold them."""
    edited = patches()
    first = getattr(edited, verb)(np.array([0, 1]), PAIR, {1: np.array([40, 50])})
    assert [edited[int(node) + 1].imm for node in first] == [40, 50]
    assert [edited[int(node)].imm for node in first] == [0, 0]


def test_no_sites_take_no_immediates() -> None:
    """Nothing at no sites is no edit."""
    edited = patches()
    edited.insert_before(np.zeros(0, np.int32), PAIR, {0: np.zeros(0, np.int64)})
    assert edited.linearize().program.to_bytes() == edited.program.to_bytes()


@pytest.mark.parametrize(
    ("site", "body", "imms", "what"),
    [
        (np.array([0]), PAIR, {2: np.array([1])}, "slot 2 of the body holds no constant"),
        (np.array([0]), PAIR, {-1: np.array([1])}, "slot -1 of the body holds no constant"),
        (np.array([0]), PAIR, {0: np.array([1, 2])}, "one whole number a site: 1"),
        (np.array([0]), PAIR, {0: np.array([1.5])}, "one whole number a site: 1"),
        (np.array([0]), PAIR, {0: np.array([1 << 31])}, "holds -2147483648 to 2147483647"),
        (0, PAIR, {0: np.array([1])}, "with its immediates in it"),
        (np.array([0]), [PAIR], {0: np.array([1])}, "has its immediates in it"),
    ],
)
def test_what_cannot_be_is_refused(site: Any, body: Any, imms: Any, what: str) -> None:
    """A slot that is none, too many values, a value too large, or one site are refused."""
    edited = patches()
    with pytest.raises(OptionError, match=what):
        edited.insert_before(site, body, imms)
    assert edited.linearize().program.to_bytes() == edited.program.to_bytes()


def test_a_reference_is_no_constant() -> None:
    """A distance cannot be given as an immediate."""
    edited = PatchList(assemble("call f; exit; f: exit"))
    body = Body.asm("call @target; r0 = 1")
    with pytest.raises(OptionError, match="slot 0 of the body holds no constant"):
        edited.replace(np.array([0]), body, {0: np.array([1])})
