"""What counts as a difference, and how it is named."""

from __future__ import annotations

import numpy as np
import pytest

from bpfpatch import kernel
from bpfpatch.asm import assemble
from bpfpatch.kernel import Submitted, submitted
from bpfpatch.linux.parity import compare
from bpfpatch.linux.parity.compare import Part, first_difference
from bpfpatch.linux.parity.sweep import with_columns
from bpfpatch.passes import Pipeline, Target
from support.cases.lined import with_lines
from support.machine.tools import need_bpf

DIVISION = "r0 = 7\nr2 = *(u32 *)(r1 + 0)\nr0 /= r2\nexit"


@pytest.fixture
def loaded() -> kernel.LoadedProgram:
    """A program with a division and a context load, in the kernel."""
    need_bpf()
    program, btf = with_lines(assemble(DIVISION))
    return kernel.load(program, btf=btf)


def given(loaded: kernel.LoadedProgram) -> Submitted:
    """What was submitted, with columns."""
    return with_columns(loaded, submitted(loaded), "offline")


def test_a_jump_over_a_difference_is_not_the_first() -> None:
    """What a jump leads over is named, not the jump."""
    one = assemble("if r1 == 0 goto a\nr0 = 1\na:\nexit")
    other = assemble("if r1 == 0 goto a\nr0 = 1\nr0 = 2\na:\nexit")
    assert first_difference(one, other) == 2
    assert first_difference(one, one) == -1


def test_a_jump_alone_is_one() -> None:
    """Where only a jump leads elsewhere, that is the difference."""
    one = assemble("r0 = 1\nif r1 == 0 goto a\nr0 = 1\na:\nexit")
    other = assemble("r0 = 1\nif r1 == 0 goto a\na:\nr0 = 1\nexit")
    assert first_difference(one, other) == 1


@pytest.mark.kernel
def test_the_whole_pipeline_is_equal(loaded: kernel.LoadedProgram) -> None:
    """Of a division and a context load nothing differs."""
    found = compare(loaded, given(loaded), Pipeline.kernel("6.18"))
    assert found.is_equal, found.differences
    assert found.cause == ""
    assert found.diff().is_equal


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("left_out", "cause"),
    [
        ("ctx-access", "off of load32 of socket_filter + 0"),
        ("fixup-calls", "not rewritten: /="),
    ],
)
def test_a_pass_that_is_missing_is_seen(
    loaded: kernel.LoadedProgram, left_out: str, cause: str
) -> None:
    """Without a pass the code differs, and where the length does, the line records do."""
    whole = Pipeline.kernel("6.18")
    passes = tuple(one for one in whole.passes if one.name != left_out)
    found = compare(loaded, given(loaded), Pipeline(passes, whole.target))
    assert found.cause == cause
    parts = {one.part for one in found.differences}
    assert parts == ({Part.CODE} if left_out == "ctx-access" else {Part.CODE, Part.LINE_INFO})
    assert not found.diff().is_equal


@pytest.mark.kernel
def test_lost_line_records_are_seen(loaded: kernel.LoadedProgram) -> None:
    """Equal code with another line record is no parity."""
    what = given(loaded)
    table = what.program.tables["line_info"]
    rows = table.rows.copy()
    rows["line_col"][1] += 1 << 10
    program = what.program.with_tables(line_info=table.with_rows(table.insn, rows))
    changed = Submitted(program, what.subject, what.map_ids, what.map_names)
    found = compare(loaded, changed, Pipeline.kernel("6.18"))
    assert [one.part for one in found.differences] == [Part.LINE_INFO]
    assert np.array_equal(found.ours.program.insns, found.theirs.program.insns)


@pytest.mark.kernel
def test_two_maps_are_told_apart() -> None:
    """A look-up in another map of the same kind is a difference."""
    need_bpf()
    text = "r1 = 0\nld_pseudo r1, 1, {}\nr0 = 0\nexit"
    one, other = kernel.Map.create("array", max_entries=4), kernel.Map.create("array")
    with one, other, kernel.load(assemble(text.format(one.fd))) as loaded:
        right = with_columns(loaded, submitted(loaded, [one, other]), "offline")
        wrong = with_columns(loaded, submitted(loaded, [other, one]), "offline")
        swapped = Submitted(right.program, wrong.subject, wrong.map_ids, wrong.map_names)
        pipeline = Pipeline((), Target.internal("6.18"))
        assert compare(loaded, right, pipeline).is_equal
        assert not compare(loaded, swapped, pipeline).is_equal
