"""Real objects, rewritten and read again; no kernel needed."""

from __future__ import annotations

import pytest

from bpfpatch.elf import ElfObject
from bpfpatch.errors import UnsupportedError
from bpfpatch.passes import Pipeline
from bpfpatch.program import validate, violations
from support.inputs.bpfobjects import debian_objects, fixture_objects

OBJECTS = {
    name: data
    for name, data in [*fixture_objects(), *debian_objects()]
    if not name.startswith("asm_malformed")
}
"""All but one that is wrong on purpose, which no pass edits."""
HAVE_NOPS = ("asm_may_goto", "asm_no_symbols", "asm_two_labels")


def rewritten(obj: ElfObject, pipeline: str) -> ElfObject:
    """An object with its code rewritten, written and read again."""
    try:
        after = obj.with_code(Pipeline.parse(pipeline).run(obj.code))
    except UnsupportedError as error:
        pytest.skip(f"no such case: {error}")
    return ElfObject.parse(after.to_bytes())


def code_sections(obj: ElfObject) -> dict[str, bytes]:
    """The contents of the executable sections."""
    return {s.name: bytes(s.data) for s in obj.sections if s.flags & 4 and s.type == 1}


@pytest.mark.parametrize("name", OBJECTS)
def test_sprinkled_object_is_whole_and_twice_as_long(name: str) -> None:
    """With a nop in front of everything, nothing is wrong that was not wrong before."""
    before = ElfObject.parse(OBJECTS[name])
    after = rewritten(before, "sprinkle")
    n_insns = int((~before.code.second_slots).sum())
    assert len(after.code) == len(before.code) + n_insns
    if violations(before.code):
        pytest.skip("no such case: the original is not whole itself")
    validate(after.code)


@pytest.mark.parametrize("name", OBJECTS)
def test_nops_gives_the_code_back(name: str) -> None:
    """The code sections are the original's byte for byte; without DWARF the whole file is."""
    before = ElfObject.parse(OBJECTS[name])
    after = rewritten(rewritten(before, "sprinkle"), "nops")
    if name.startswith(HAVE_NOPS):
        before = rewritten(before, "nops")
    assert code_sections(after) == code_sections(before)
    if not any(".debug" in s.name or ".eh_frame" in s.name for s in before.sections):
        assert after.to_bytes() == before.to_bytes()


@pytest.mark.parametrize("name", OBJECTS)
def test_cleaned_object_is_clean(name: str) -> None:
    """A second dce and nops find nothing in what the first left, through a file and back."""
    once = rewritten(ElfObject.parse(OBJECTS[name]), "dce,nops")
    result = Pipeline.parse("dce,nops").run(once.code)
    assert result.remap.is_identity
