"""Changes of fields in place, of one site and of many."""

from __future__ import annotations

import numpy as np
import pytest

from bpfpatch import isa
from bpfpatch.errors import EditError, OptionError
from bpfpatch.patch import PatchList
from bpfpatch.program import Program


def _list(n_insns: int = 4) -> PatchList:
    moves = [isa.mov(isa.R1, index) for index in range(n_insns)]
    return PatchList(Program(np.concatenate([*moves, isa.exit_()])))


def test_fields_take_an_array_of_one_value_a_site() -> None:
    """Each site gets its own values, in all fields."""
    patches = _list()
    patches.modify(
        np.arange(4),
        code=np.array([0x71, 0x69, 0x61, 0x79], np.uint8),
        dst=np.array([0, 2, 4, 9], np.int64),
        src=np.array([10, 1, 7, 6], np.uint8),
        off=np.array([-8, 0, -32768, 32767], np.int16),
        imm=np.zeros(4, np.int64),
    )
    expected = [
        isa.load("u8", isa.R0, isa.R10, -8),
        isa.load("u16", isa.R2, isa.R1, 0),
        isa.load("u32", isa.R4, isa.R7, -32768),
        isa.load("u64", isa.R9, isa.R6, 32767),
        isa.exit_(),
    ]
    assert patches.linearize().program.to_bytes() == np.concatenate(expected).tobytes()


def test_one_number_goes_to_all_sites() -> None:
    """Negative ones as well; other fields stay as they are."""
    patches = _list()
    patches.modify([1, 3], imm=-1, dst=5)
    insns = patches.linearize().program.insns
    assert insns["imm"].tolist() == [0, -1, 2, -1, 0]
    assert isa.dst(insns).tolist() == [1, 5, 1, 5, 0]


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"dst": np.array([1, 16])}, "dst holds 0 to 15"),
        ({"src": np.array([-1, 1])}, "src holds 0 to 15"),
        ({"off": np.array([0, 32768])}, "off holds -32768 to 32767"),
        ({"imm": np.array([0, 1 << 31])}, "imm holds"),
        ({"imm": np.array([0, 1, 2])}, "imm takes one whole number, or one a site: 2 of them"),
        ({"imm": np.array([0.0, 1.0])}, "imm takes one whole number, or one a site: 2 of them"),
    ],
)
def test_arrays_are_checked(fields: dict[str, np.ndarray], what: str) -> None:
    """A value that does not fit its field is an error, and nothing has changed."""
    patches = _list()
    before = patches.linearize().program.to_bytes()
    with pytest.raises(OptionError, match=what):
        patches.modify([0, 1], **fields)
    assert patches.linearize().program.to_bytes() == before


def test_a_bad_one_among_very_many_changes_none() -> None:
    """What is wrong far behind the first portion leaves all as it was."""
    n_insns = 100_000
    insns = np.tile(isa.mov(isa.R1, 7), n_insns)
    insns[-2] = isa.ja(0)[0]
    insns[-1] = isa.exit_()[0]
    patches = PatchList(Program(insns))
    with pytest.raises(EditError, match="cannot make, unmake or renumber") as caught:
        patches.modify(np.arange(n_insns), code=isa.mov(isa.R1, isa.Reg(isa.R2))["code"][0], imm=0)
    assert caught.value.slot == n_insns - 2
    assert patches.linearize().program.to_bytes() == insns.tobytes()


def test_an_opcode_that_the_table_lacks_is_refused() -> None:
    """It might hide a reference."""
    with pytest.raises(OptionError, match="that the table lacks"):
        _list().modify(0, code=0xFF)
    with pytest.raises(OptionError, match="that the table lacks"):
        _list().modify(0, code=0xBF, off=3)
