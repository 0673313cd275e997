"""Pipelines: their text, what they check, and what they say they did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from bpfpatch import isa
from bpfpatch.asm import assemble
from bpfpatch.elf import ElfObject
from bpfpatch.errors import OptionError, ReachError, ValidationError
from bpfpatch.passes import Dce, Nops, Pass, Pipeline, Sprinkle, Target, registered
from bpfpatch.patch import Body, PatchList
from bpfpatch.program import (
    FUNC_INFO,
    LINE,
    LINE_INFO,
    Anchor,
    AnchoredTable,
    Column,
    Program,
    Subprogs,
)
from support.inputs.bpfobjects import fixture_path


@dataclass(frozen=True)
class Edit(Pass):
    """Any edit, for a test."""

    name = "edit"
    needs = ("colour",)
    how: Any = None

    def run(self, patches: PatchList) -> None:
        """Do it."""
        self.how(patches)


@dataclass(frozen=True)
class Free(Edit):
    """The same, with no needs."""

    needs = ()


def test_text_gives_passes_in_order() -> None:
    """A pipeline's text names passes and options; spaces do not count."""
    pipeline = Pipeline.parse(" dce , sprinkle{ every = 2 , seed=7 } ,nops ")
    assert pipeline.passes == (Dce(), Sprinkle(every=2, seed=7), Nops())
    assert str(pipeline) == "dce,sprinkle{every=2,seed=7},nops"


@pytest.mark.parametrize("text", ["", "  ", "\n"])
def test_empty_text_does_nothing(text: str) -> None:
    """The empty pipeline gives back what it got."""
    program = assemble("goto +0; exit")
    result = Pipeline.parse(text).run(program)
    assert result.program.to_bytes() == program.to_bytes()
    assert result.remap.is_identity
    assert result.report.passes == ()


@pytest.mark.parametrize("text", ["dce", "dce{}", "dce{ }", "dce{branches=true}"])
def test_several_texts_mean_the_same(text: str) -> None:
    """Empty options and defaults may be written."""
    assert Pipeline.parse(text) == Pipeline((Dce(),))


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (",", "column 1 of pipeline ',': expected the name of a pass"),
        ("dce,", "column 5 of pipeline 'dce,': expected the name of a pass"),
        ("dce,,nops", "column 5 of pipeline 'dce,,nops': expected the name of a pass"),
        ("dce nops", "column 5 of pipeline 'dce nops': expected `,` or the end"),
        ("dce{", "column 4 of pipeline 'dce{': expected `,` or the end"),
        ("dce}", "column 4 of pipeline 'dce}': expected `,` or the end"),
        (
            "dce{branches=true}}",
            "column 19 of pipeline 'dce{branches=true}}': expected `,` or the end",
        ),
        ("dce{a{b}}", "column 4 of pipeline 'dce{a{b}}': expected `,` or the end"),
        ("nothing", f"there is no pass 'nothing'; there are: {', '.join(registered())}"),
        ("dce{branches}", "options of pass dce are key=value, not 'branches'"),
        ("dce{branches=}", "options of pass dce are key=value, not 'branches='"),
        ("dce{=1}", "options of pass dce are key=value, not '=1'"),
        ("sprinkle{every=2,}", "options of pass sprinkle are key=value, not ''"),
        ("sprinkle{every=2,every=3}", "pass sprinkle is given 'every' twice"),
    ],
)
def test_bad_text_says_what_was_expected(text: str, what: str) -> None:
    """The error names the column, or the pass and the option."""
    with pytest.raises(OptionError) as caught:
        Pipeline.parse(text)
    assert str(caught.value) == what


def test_passes_share_one_list() -> None:
    """A pass sees what the one before it inserted, by the very same nodes."""
    seen = []

    def insert(patches: PatchList) -> None:
        seen.append(patches.insert_before(0, Body.asm("r6 = 6")))

    def look(patches: PatchList) -> None:
        seen.append(patches.nodes().tolist()[0])
        patches.delete(seen[0])

    program = assemble("r0 = 0; exit")
    result = Pipeline((Free(insert), Free(look))).run(program)
    assert seen == [2, 2]
    assert result.program.to_bytes() == program.to_bytes()


def test_insns_know_the_pass_that_they_come_from() -> None:
    """Each inserted instruction's origin is its pass, by its place in the pipeline."""
    program = assemble("r0 = 0; exit")
    remap = Pipeline((Sprinkle(), Dce(), Sprinkle())).run(program).remap
    assert remap.passes == ("", "sprinkle", "dce", "sprinkle")
    assert remap.origin.tolist() == [3, 1, 3, 0, 3, 1, 3, 0]
    assert remap.site.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


def test_needed_column_must_be_there() -> None:
    """A pass that needs a column does not run without it, and runs with it."""
    program = assemble("r0 = 0; exit")
    pipeline = Pipeline((Edit(lambda patches: patches.aux("colour")),))
    with pytest.raises(OptionError, match="pass edit needs the column 'colour'"):
        pipeline.run(program)
    pipeline.run(program.with_columns(colour=Column(np.zeros(2, np.int8))))


def test_aux_data_that_nobody_brought_is_found_out() -> None:
    """What the kernel makes of a program needs no more than the program, where that tells."""
    before = assemble("r0 = 7; if r0 == 7 goto +1; r0 /= r1; r2 = 3; r0 /= r2; exit")
    result = Pipeline.kernel("6.18").run(before)
    after = "r0 = 7; r2 = 3; if r2 != 0 goto +2; w0 ^= w0; goto +1; r0 /= r2; exit"
    assert result.program.to_bytes() == assemble(after).to_bytes()


def test_aux_data_of_an_object_is_refused() -> None:
    """Functions of several programs stand side by side in an object: link one first."""
    obj = ElfObject.read(fixture_path("xdp_count.clang-19.v3.el.g.o"))
    with pytest.raises(OptionError, match=r"is for flat programs; .* ElfObject.link"):
        Pipeline.parse("dce{aux=true}").run_object(obj)


def test_result_that_cannot_be_had_is_no_result() -> None:
    """A pass of the kernel's own form does not run for bpf(2)."""
    with pytest.raises(OptionError, match=r"Target.internal"):
        Pipeline.parse("fastcall").run(assemble("exit"))


def test_progress_is_told_before_each_pass() -> None:
    """A pipeline says which pass it comes to."""
    told = []
    pipeline = Pipeline.parse("dce,nops")
    pipeline.run(assemble("exit"), progress=told.append)
    assert told == list(pipeline.passes)


def test_pass_that_breaks_the_program_is_refused() -> None:
    """A program whose last instruction falls off the end is no result."""
    with pytest.raises(ValidationError, match="neither an exit nor an unconditional jump"):
        Pipeline((Free(lambda patches: patches.delete(1)),)).run(assemble("r0 = 0; exit"))


def test_input_that_is_wrong_where_it_is_edited_is_refused() -> None:
    """What code does that is wrong is not known, and so not what an edit would make of it."""
    broken = Program(assemble("r0 = 0; r0 = 1").insns)
    with pytest.raises(ValidationError, match="neither an exit nor an unconditional jump"):
        Pipeline.parse("sprinkle").run(broken)
    assert len(Pipeline.parse("nops").run(broken).program) == 2


def test_input_may_stay_wrong_where_nothing_is_edited() -> None:
    """A pass is not blamed for what was wrong before in another function, also if it moves."""
    subprogs = Subprogs(np.array([0, 2]), ("f", "g"), np.zeros(2))
    broken = Program(assemble("r0 = 0; exit; r0 = 1").insns, subprogs=subprogs)
    edit = Free(lambda patches: patches.insert_before(0, Body.asm("r0 = 2")))
    assert len(Pipeline((edit,)).run(broken).program) == 4
    edit = Free(lambda patches: patches.insert_before(2, Body.asm("r0 = 2")))
    with pytest.raises(ValidationError):
        Pipeline((edit,)).run(broken)


@pytest.mark.parametrize(("code", "imm"), [(0x8D, 7), (0x95, 1), (0x05, 3)])
def test_jump_or_call_with_a_field_that_means_nothing_is_refused(code: int, imm: int) -> None:
    """Such a field may hide a reference or a register, so that nothing around it may be edited."""
    subprogs = Subprogs(np.array([0, 2]), ("f", "g"), np.zeros(2))
    insns = assemble("r0 = 0; exit; r0 = 1; goto +0; exit").insns.copy()
    insns["code"][3], insns["imm"][3] = code, imm
    edit = Free(lambda patches: patches.insert_before(0, Body.asm("r0 = 2")))
    with pytest.raises(ValidationError):
        Pipeline((edit,)).run(Program(insns, subprogs=subprogs))


def test_more_of_the_same_mistake_is_refused() -> None:
    """Where one function fell off its end, a pass may not make a second one do so."""
    subprogs = Subprogs(np.array([0, 1]), ("f", "g"), np.zeros(2))
    broken = Program(assemble("r0 = 0; r0 = 1; exit").insns, subprogs=subprogs)
    with pytest.raises(ValidationError) as caught:
        Pipeline((Free(lambda patches: patches.delete(2)),)).run(broken)
    assert len(caught.value.violations) == 2


def test_fewer_mistakes_are_no_new_ones() -> None:
    """A pass that mends one of two mistakes is not blamed for the other."""
    subprogs = Subprogs(np.array([0, 1]), ("f", "g"), np.zeros(2))
    broken = Program(assemble("r0 = 0; r0 = 1").insns, subprogs=subprogs)
    edit = Free(lambda patches: patches.insert_after(0, Body.asm("exit")))
    assert len(Pipeline((edit,)).run(broken).program) == 3


STRETCHED = "if r1 == 0 goto out;" + "r0 = 0;" * 20_000 + "out: exit"


def test_edit_errors_come_through() -> None:
    """A jump that a pass has stretched too far is, on request, the list's own error."""
    with pytest.raises(ReachError) as caught:
        Pipeline.parse("sprinkle").run(assemble(STRETCHED), relax=None)
    assert (caught.value.distance, caught.value.limit) == (40_000, 32_767)


def test_kernels_relax_nothing() -> None:
    """Where the kernel itself would rewrite, a far jump is an error: it is one to the kernel."""
    with pytest.raises(ReachError):
        Pipeline.parse("sprinkle").run(assemble(STRETCHED), Target.internal())


@pytest.mark.parametrize(
    ("cpu", "more", "how"),
    [
        (None, "", "1 island"),
        (None, "r1 = bswap16 r1;", "gotol"),
        ("v3", "", "1 island"),
        ("v4", "", "gotol"),
    ],
)
def test_pipelines_relax(cpu: str | None, more: str, how: str) -> None:
    """Far jumps are relaxed by what the target has, and the result says so."""
    done = Pipeline.parse("sprinkle").run(assemble(more + STRETCHED), Target.loadable(cpu))
    (notice,) = done.notices
    assert notice.startswith(f"relaxed 1 jump too far for 16 bits by {how}")
    assert done.remap.passes == ("", "sprinkle", "relax")


def test_program_stays_as_it_was() -> None:
    """The input is not touched, whether the pipeline succeeds or fails."""
    program = assemble("r0 = 0; exit")
    before = program.to_bytes()
    Pipeline((Free(lambda patches: patches.modify(0, imm=9)),)).run(program)
    with pytest.raises(ValidationError):
        Pipeline((Free(lambda patches: patches.delete(1)),)).run(program)
    assert program.to_bytes() == before


REPORTED = """
    r1 = 0
    if r1 == 0 goto out
    call gone
    out: call kept
    if r0 == 0 goto end
    r1 = 5 ll
    end: exit
    gone: r0 = 1
    exit
    kept: r0 = 2
    exit
"""


def reported() -> Program:
    """A program with 11 instructions in 12 slots, 4 references and 3 tables."""
    program = assemble(REPORTED)
    assert len(program) == 12
    lines = np.zeros(6, LINE)
    return program.with_tables(
        **{
            LINE_INFO: AnchoredTable(
                np.array([0, 2, 3, 8, 9, 10], np.int32), lines, Anchor.ENTRY, unique=True
            ),
            FUNC_INFO: AnchoredTable(
                np.array([0, 8, 10], np.int32), np.arange(3), Anchor.ENTRY, unique=True
            ),
            "reloc": AnchoredTable(np.array([2, 5], np.int32), np.arange(2), Anchor.OWN),
        }
    )


def test_report_counts_by_hand() -> None:
    """Counted on paper: what dce did to a program of which the middle goes.

    Slots 2, 8 and 9 go (3 instructions), slot 1 becomes a goto. Left are 8
    instructions in 9 slots. Of the jumps and calls that stay, the goto's
    distance goes from 1 to 0 and the call's from 6 to 4; the branch over the
    ld_imm64 keeps its own. Lines: those of 0 and 3 end on 0 and 2, that of 2
    gives way to that of 3, those of 8 and 9 go, that of 10 comes to 7: one
    stays, two move, three are gone. Functions: one stays, one goes, one
    moves. Relocations: one goes, one moves.
    """
    report = Pipeline.parse("dce").run(reported()).report
    assert (report.n_before, report.n_after) == (11, 8)
    assert report.jumps_moved == 2
    assert report.rows_moved == 2 + 1 + 1
    assert report.rows_gone == 3 + 1 + 1
    (one,) = report.passes
    assert (one.text, one.inserted, one.deleted, one.modified) == ("dce", 0, 3, 1)
    assert 0 < one.milliseconds < report.milliseconds


def test_report_of_an_insertion_by_hand() -> None:
    """Counted on paper: sprinkle moves all but the rows on slot 0, and every reference.

    All four references jump over at least one nop more. Rows at slot 0 with
    the entry anchor stay at slot 0, and the other nine move.
    """
    report = Pipeline.parse("sprinkle").run(reported()).report
    assert (report.n_before, report.n_after) == (11, 22)
    assert report.jumps_moved == 4
    assert (report.rows_moved, report.rows_gone) == (9, 0)


def test_report_counts_each_pass_for_itself() -> None:
    """What one pass inserts and the next deletes is told of both."""
    report = Pipeline.parse("sprinkle{every=2},nops").run(reported()).report
    assert [(one.inserted, one.deleted) for one in report.passes] == [(6, 0), (0, 6)]
    assert (report.n_after, report.jumps_moved, report.rows_moved) == (11, 0, 0)


def test_report_counts_replacements_as_both() -> None:
    """An instruction that a body replaces is deleted, and the body inserted."""
    edit = Free(lambda patches: patches.replace(0, Body.asm("r0 = 1; r0 = 2")))
    (one,) = Pipeline((edit,)).run(assemble("r0 = 0; exit")).report.passes
    assert (one.inserted, one.deleted, one.modified) == (2, 1, 0)


def test_report_in_one_line() -> None:
    """A report says all of it in a line that a person reads."""
    text = str(Pipeline.parse("dce").run(reported()).report)
    start = "11 -> 8 instructions, 2 jumps and calls adjusted, 4 records moved, 5 removed, "
    assert text.startswith(start)
    assert text.endswith(" ms")
    assert "\n" not in text


def test_target_is_loadable_by_default() -> None:
    """Without a target, the result is for bpf(2), of any cpu version."""
    assert Target() == Target.loadable()
    program = Program(np.concatenate([isa.gotol(0), isa.exit_()]))
    assert len(Pipeline(()).run(program).program) == 2
