"""Real objects, rewritten: the kernel takes them and does with them what it did before."""

from __future__ import annotations

import functools
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from bpfpatch import kernel
from bpfpatch.elf import ElfObject
from bpfpatch.passes import Pipeline
from support.inputs.bpfobjects import debian_objects, fixture_objects
from support.machine.bpfloads import Answer, Listing, answers, listing, loaded_bytes, source_lines
from support.machine.tools import BpftoolError, need_bpf

pytestmark = pytest.mark.kernel

HERE = 1 if sys.byteorder == "little" else 2  # EI_DATA of objects that this machine can load
OBJECTS = {name: data for name, data in [*fixture_objects(), *debian_objects()] if data[5] == HERE}
FIXTURES = [name for name, _ in fixture_objects() if name in OBJECTS]
# Its answer depends on the order in which the kernel walks a hash, with a seed of its own.
WALKS_A_HASH = {"loops"}

LEAST_CLEANED = 5

Listings = dict[str, Listing]


@dataclass(frozen=True)
class Original:
    """What the kernel makes of an object as it is: why it does not load, or its listings."""

    refusal: str
    listings: Listings


@functools.cache
def original(name: str) -> Original:
    """An original, loaded once for all tests."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return Original("", listings(OBJECTS[name], Path(folder)))
        except BpftoolError as error:
            last = str(error).strip().splitlines()[-1]
            return Original(last.replace(folder, "").replace("libbpf: ", ""), {})


def listings(data: bytes, folder: Path) -> Listings:
    """What the kernel makes of each program of an object, whoever blinds constants meanwhile."""
    with kernel.unblinded(), loaded_bytes(data, folder) as what:
        return {prog: listing(pin) for prog, pin in what.pins.items()}


def ran(data: bytes, folder: Path) -> dict[str, dict[str, Answer]]:
    """What each program of an object answers to each packet, starting from fresh maps."""
    with loaded_bytes(data, folder) as what:
        pins = {prog: pin for prog, pin in what.pins.items() if prog not in WALKS_A_HASH}
        return {prog: answers(pin) for prog, pin in pins.items()}


def rewritten(name: str, pipeline: str) -> bytes:
    """An object with its code rewritten, as a file holds it."""
    obj = ElfObject.parse(OBJECTS[name])
    return obj.with_code(Pipeline.parse(pipeline).run(obj.code)).to_bytes()


@functools.cache
def finds_something(name: str) -> bool:
    """Whether dce and nops change an object."""
    code = ElfObject.parse(OBJECTS[name]).code
    if not Pipeline.parse("dce,nops").run(code).remap.is_identity:
        return True
    assert rewritten(name, "dce,nops") == OBJECTS[name]
    return False


def need_loading(name: str) -> None:
    """Skip the test unless the original loads."""
    need_bpf()
    if original(name).refusal:
        pytest.skip(f"the original does not load here: {original(name).refusal}")


@pytest.mark.parametrize("name", OBJECTS)
def test_sprinkled_object_is_the_same_to_the_kernel(name: str, tmp_path: Path) -> None:
    """It loads; after the verifier took the nops out, code and source lines are the original's."""
    need_loading(name)
    wanted = original(name).listings
    got = listings(rewritten(name, "sprinkle"), tmp_path)
    assert got.keys() == wanted.keys()
    for prog, one in wanted.items():
        assert source_lines(got[prog]) == source_lines(one)
        assert got[prog] == one


@pytest.mark.parametrize("name", OBJECTS)
def test_cleaned_object_loads(name: str, tmp_path: Path) -> None:
    """What dce and nops make of an object loads, and names no source line that was not there.

    Compilers leave them little to do: where they find nothing, the file is the same.
    """
    if not finds_something(name):
        pytest.skip("no such case: dce and nops find nothing in it, and the file stays the same")
    need_loading(name)
    wanted = original(name).listings
    got = listings(rewritten(name, "dce,nops"), tmp_path)
    assert got.keys() == wanted.keys()
    for prog, one in wanted.items():
        left = iter(source_lines(one))
        assert all(line in left for line in source_lines(got[prog]))


def test_some_objects_have_something_to_clean() -> None:
    """The test above is about something: the fixtures have dead code and needless jumps."""
    assert sum(map(finds_something, FIXTURES)) >= LEAST_CLEANED


@pytest.mark.parametrize("name", FIXTURES)
def test_rewritten_object_answers_as_before(name: str, tmp_path: Path) -> None:
    """Every program of a fixture gives the same verdict and packet, whatever was done to it."""
    need_loading(name)
    wanted = ran(OBJECTS[name], tmp_path)
    for pipeline in ("sprinkle", *(["dce,nops"] if finds_something(name) else [])):
        assert ran(rewritten(name, pipeline), tmp_path) == wanted, pipeline
