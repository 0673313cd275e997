"""The public bpf_conformance vectors: each gives its R0, before and after passes."""

from __future__ import annotations

from pathlib import Path

import pytest

from bpfpatch.errors import BpfPatchError
from bpfpatch.interp import Machine, MachineOptions
from bpfpatch.passes import Pipeline
from bpfpatch.program import Program
from support.inputs.conformance import absent, folder
from support.inputs.ubpfasm import Case, read_case

PATHS = sorted(folder().glob("*.data"))
PIPELINES = ("", "sprinkle", "sprinkle{every=1,seed=5}", "dce,nops", "peephole{safe=false}")


def check(case: Case, pipeline: str, engine: str) -> None:
    """A case has its result, or fails where it must."""
    program = Program.from_bytes(case.code)
    if pipeline:
        program = Pipeline.parse(pipeline).run(program).program
    machine = Machine(program, options=MachineOptions(engine=engine))  # type: ignore[arg-type]
    if case.result is None:
        with pytest.raises(BpfPatchError):
            machine.run(mem=case.mem)
        return
    assert machine.run(mem=case.mem).r0 == case.result, case.name


def test_the_vectors_are_there() -> None:
    """Whether the suite's vectors were found is said once, not hidden."""
    if not PATHS:
        pytest.skip(absent())
    assert len(PATHS) >= 184


@pytest.mark.parametrize("engine", ["compiled", "reference"])
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_vector(path: Path, engine: str) -> None:
    """The machine computes what the suite says, also of the rewritten program."""
    case = read_case(path)
    for pipeline in PIPELINES:
        check(case, pipeline, engine)


@pytest.mark.parametrize(
    "path", [path for path in PATHS if "-- raw" in path.read_text()], ids=lambda path: path.stem
)
def test_dialect_is_read_byte_by_byte(path: Path) -> None:
    """Where the suite gives the bytes beside the text, ours are the same."""
    text = path.read_text()
    raw = text.split("-- raw")[1].split("--")[0].split()
    wanted = b"".join(int(word, 16).to_bytes(8, "little") for word in raw)
    if wanted != read_case(path).code:
        # The suite's own lddw vector has its upper bytes elsewhere: compare what is written.
        pytest.fail(f"{read_case(path).code.hex()} is not {wanted.hex()}")
