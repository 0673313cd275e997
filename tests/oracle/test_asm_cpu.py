"""Compilers use only what the table says their -mcpu has."""

from __future__ import annotations

import re

import numpy as np
import pytest

from bpfpatch import isa
from support.inputs.bpfobjects import debian_objects, fixture_objects
from support.machine.asmtools import code_sections

COMPILED = re.compile(r"(?!asm_).*\.(?:clang-\d+|gcc)\.v(\d)\.")
# These hold instructions that their source names itself, whatever the version.
BY_HAND = ("may_goto", "arena")
TABLES = ".tables."
"""In the names of objects with jump tables: gotox is of no version yet, but of newest kernels."""


def highest(data: bytes) -> int:
    """The highest version that an object's code needs."""
    sections = code_sections(data)
    return max(int(isa.min_cpu(isa.from_bytes(code, order)).max()) for _, order, code in sections)


def test_compiled_fixtures() -> None:
    """No object compiled for vN has an instruction above vN, and some reach each N."""
    cases = [(name, data, COMPILED.match(name)) for name, data in fixture_objects()]
    found = {
        name: (highest(data), int(match[1]))
        for name, data, match in cases
        if match and not name.startswith(BY_HAND) and TABLES not in name
    }
    if not found:
        pytest.skip("no fixtures are built")
    assert {name: pair for name, pair in found.items() if pair[0] > pair[1]} == {}
    assert {needs for needs, _ in found.values()} == {1, 2, 3, 4}


def test_no_real_object_has_unknown_opcodes() -> None:
    """Every instruction of the system's objects is in the table, with reserved fields zero."""
    cases = debian_objects()
    if not cases:
        pytest.skip("Debian's objects are not installed")
    for name, data in cases:
        for _, order, code in code_sections(data):
            insns = isa.from_bytes(code, order)
            assert isa.unknown(insns).size == 0, name
            assert isa.reserved_violations(insns) == [], name
            assert np.array_equal(isa.from_bytes(isa.to_bytes(insns, order), order), insns)
