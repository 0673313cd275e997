"""Shrinking keeps what programs do."""

from __future__ import annotations

import pytest

from bpfpatch.elf import ElfObject
from bpfpatch.passes import Pipeline
from bpfpatch.program import validate
from support.inputs.bpfobjects import fixture_objects
from support.models.shrinking import check_shrinking

OBJECTS = {
    name: data
    for name, data in fixture_objects()[::2]
    if not name.startswith("asm_malformed") and "strip-all" not in name
}
"""Every other one, but what is wrong on purpose, and where nothing can be moved."""


def test_random_programs_do_the_same() -> None:
    """R0, memory and maps are the same after any shrinking pass, and there is less code."""
    n_before = n_after = 0
    for seed in range(24):
        before, after, wrong = check_shrinking(seed)
        assert not wrong, seed
        n_before, n_after = n_before + before, n_after + after
    assert n_after < 0.9 * n_before


@pytest.mark.parametrize("name", OBJECTS)
def test_object_is_never_longer(name: str) -> None:
    """A shrunk object is well-formed and no longer, and shrinking it again gives no more code."""
    before = ElfObject.parse(OBJECTS[name])
    once, _ = Pipeline.parse("shrink{safe=false}").run_object(before)
    twice, _ = Pipeline.parse("shrink{safe=false}").run_object(ElfObject.parse(once.to_bytes()))
    validate(once.code)
    assert len(twice.code) <= len(once.code) <= len(before.code)
