"""Columns: values by slot, and what an inserted instruction gets."""

from __future__ import annotations

import numpy as np
import pytest

from bpfpatch import isa
from bpfpatch.isa import concat, exit_, mov, mov32
from bpfpatch.program import Column

INSNS = concat([mov(1, 1), mov32(2, 2), exit_()])


def test_constant_fill():
    """A constant is every inserted instruction's value, in the column's dtype."""
    values = Column(np.zeros(2, np.int16), 7).fill_for(INSNS)
    assert values.tolist() == [7, 7, 7]
    assert values.dtype == np.int16


def test_default_fill_is_zero():
    """A column that says nothing fills with 0."""
    assert Column(np.ones(2)).fill_for(INSNS).tolist() == [0, 0, 0]


def test_computed_fill():
    """A function sees the instructions."""
    assert Column(np.zeros(2, bool), isa.defines_32).fill_for(INSNS).tolist() == [
        False,
        True,
        False,
    ]


def test_fill_of_several_values():
    """A value may be an array; a constant fills all of it."""
    assert Column(np.zeros((2, 2)), 1).fill_for(INSNS).shape == (3, 2)


def test_fill_of_another_shape():
    """A function that does not give one value an instruction is an error."""
    with pytest.raises(ValueError, match=r"fill returned shape \(1,\), not \(3,\)"):
        Column(np.zeros(2), lambda insns: np.zeros(1)).fill_for(INSNS)


def test_values_are_read_only():
    """A column's values cannot be written."""
    with pytest.raises(ValueError, match="read-only"):
        Column(np.zeros(2)).values[0] = 1
