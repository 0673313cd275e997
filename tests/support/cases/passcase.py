"""Before and after of a pipeline, as assembly."""

from __future__ import annotations

from bpfpatch.asm import assemble, format_program
from bpfpatch.passes import Pipeline, Result
from bpfpatch.program import Program


def run(pipeline: str, before: str | Program) -> Result:
    """Run a pipeline on assembly or a program."""
    program = assemble(before) if isinstance(before, str) else before
    return Pipeline.parse(pipeline).run(program)


def listing(program: Program) -> str:
    """A program's code as text, without records."""
    return format_program(Program(program.insns, subprogs=program.subprogs))


def assert_rewrite(before: str | Program, pipeline: str, after: str) -> Result:
    """A pipeline makes ``after`` of ``before``: the same instructions, the same functions."""
    result = run(pipeline, before)
    got, wanted = result.program, assemble(after)
    assert listing(got) == listing(wanted)
    assert got.to_bytes() == wanted.to_bytes()
    assert got.subprogs.start.tolist() == wanted.subprogs.start.tolist()
    return result


def assert_unchanged(before: str | Program, pipeline: str) -> None:
    """A pipeline leaves a program as it is."""
    program = assemble(before) if isinstance(before, str) else before
    result = run(pipeline, program)
    assert listing(result.program) == listing(program)
    assert result.program.to_bytes() == program.to_bytes()
    assert result.remap.is_identity
