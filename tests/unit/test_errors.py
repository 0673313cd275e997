"""Errors keep what they know when they go from one process to another."""

from __future__ import annotations

import pickle

import pytest

from bpfpatch.errors import (
    AsmError,
    BpfPatchError,
    FormatError,
    LostRowError,
    OptionError,
    ReachError,
    SlotError,
    ValidationError,
    Where,
)

HERE = Where(3, "main", "a.c:7", "r0 = 0")
ERRORS = [
    OptionError("no such thing"),
    FormatError("broken", 12),
    AsmError("what is this", 3, 4),
    SlotError(HERE, "is wrong"),
    SlotError(HERE, "is wrong").with_others([SlotError(HERE, "too")], 1),
    ReachError(HERE, Where(9), 40000, 32767, "relax it"),
    LostRowError(HERE, "reloc", 2, "is gone"),
    ValidationError([SlotError(HERE, "is wrong")]),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_error_survives_pickling(error: BpfPatchError) -> None:
    """Text, class and attributes come back."""
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again).keys() == vars(error).keys()
    for name, value in vars(error).items():
        assert str(getattr(again, name)) == str(value)
