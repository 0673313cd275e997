"""Verifying as a whole: verdicts, what cannot be checked, objects, modes."""

from __future__ import annotations

import json

import pytest

from bpfpatch import kernel
from bpfpatch.asm import assemble
from bpfpatch.elf import ElfObject
from bpfpatch.errors import OptionError
from bpfpatch.passes import Pipeline
from bpfpatch.patch import Body, PatchList
from bpfpatch.verify import Bounds, Case, Verdict, verify, verify_objects
from support.inputs.bpfobjects import fixture_path

SAME = assemble("r0 = *(u8 *)(r1 + 0); exit")
needs_bpf = pytest.mark.skipif(
    kernel.available() is not None, reason=f"no bpf(2): {kernel.available()}"
)


def test_same() -> None:
    """A program and itself are the same."""
    verdict = verify(SAME, SAME, kind="xdp", bounds=Bounds(runs=200))
    assert verdict.is_same
    assert str(verdict).startswith("program: same (200 inputs in interp; 0 of 0 branch edges")


def test_different_on_memory() -> None:
    """Flat programs are run on plain memory; the smallest input is shown."""
    before = assemble("r0 = 0; if r2 < 4 goto out; r0 = *(u32 *)(r1 + 0); out: exit")
    after = assemble("r0 = 0; if r2 < 4 goto out; r0 = *(u16 *)(r1 + 0); out: exit")
    verdict = verify(before, after)
    assert verdict.differs
    assert not verdict.is_same
    found = verdict.counterexample
    assert found is not None
    assert found.case.ctx is not None
    assert (len(found.case.ctx), found.mode) == (4, "interp")
    assert found.case.ctx.count(0) == 3
    assert any(row.is_parting for row in found.trace)


def test_given_inputs_come_first() -> None:
    """An input that is given is run, be it bytes or a case, before any other."""
    before = assemble("r0 = 0; if r2 != 3 goto out; r0 = 1; out: exit")
    after = assemble("r0 = 0; if r2 != 3 goto out; r0 = 2; out: exit")
    for given in (b"abc", Case(ctx=b"abc")):
        assert verify(before, after, inputs=[given], bounds=Bounds(runs=1)).differs
    assert not verify(before, after, inputs=[b"abcd"], bounds=Bounds(runs=1)).differs


def test_endless_loops_are_told() -> None:
    """An original that never ends makes a verdict that says that nothing was checked."""
    endless = assemble("again: r0 = 1; goto again")
    verdict = verify(endless, endless, bounds=Bounds(runs=3, budget=100))
    assert not verdict.is_checked
    assert not verdict.is_same
    assert verdict.not_checked == ("the original took more than 100 instructions on every input",)


def test_new_endless_loop_is_a_difference() -> None:
    """A rewritten program that does not end where the original did differs."""
    verdict = verify(assemble("r0 = 1; exit"), assemble("again: r0 = 1; goto again"))
    assert verdict.differs


def test_errors_on_every_input_are_told() -> None:
    """Where both always end in the same error nothing was checked, and the error is named."""
    broken = assemble("r0 = *(u8 *)(r9 + 0); exit")
    verdict = verify(broken, broken, bounds=Bounds(runs=20))
    assert not verdict.is_checked
    assert "every run ends in an error" in verdict.not_checked[0]
    assert "stray read" in verdict.not_checked[0]


def test_missing_helpers_are_told() -> None:
    """A helper that the interpreter lacks gives 0, and the verdict says so."""
    program = assemble("call bpf_tcp_gen_syncookie; exit")
    verdict = verify(program, program, bounds=Bounds(runs=10))
    assert verdict.is_same
    assert "helper tcp_gen_syncookie" in verdict.notes[0]


def test_json_can_be_dumped() -> None:
    """A verdict is JSON, with the input and where they part."""
    verdict = verify(assemble("r0 = 1; exit"), assemble("r0 = 2; exit"))
    value = json.loads(json.dumps(verdict.to_json()))
    assert value["verdict"] == "different"
    assert value["counterexample"]["differences"] == [
        {"what": "r0", "where": "", "before": "0x1", "after": "0x2"}
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modes": ["jit2"]}, "no mode 'jit2'"),
        ({"modes": []}, "no mode to run in"),
        ({"ignore": ["stack"]}, "'stack' is not compared"),
    ],
)
def test_bad_options(options: dict[str, list[str]], message: str) -> None:
    """What cannot be read is refused, with what would."""
    with pytest.raises(OptionError, match=message):
        verify(SAME, SAME, **options)  # type: ignore[arg-type]


def test_linked_program_needs_its_object() -> None:
    """A linked program without its object, or beside a flat one, is refused."""
    linked = ElfObject.read(fixture_path("asm_only_exit.clang-19.v4.el.o")).link("only_exit")
    with pytest.raises(OptionError, match="give obj="):
        verify(linked, linked)
    with pytest.raises(OptionError, match="two linked or two flat programs"):
        verify(linked, SAME)


def test_objects() -> None:
    """All programs of two objects are verified; provenance may be that of the objects."""
    obj = ElfObject.read(fixture_path("xdp_parse.clang-19.v3.el.g.o"))
    done = Pipeline.parse("sprinkle").run(obj.code)
    verdicts = list(
        verify_objects(obj, obj.with_code(done), bounds=Bounds(runs=60), provenance=done)
    )
    assert [one.name for one in verdicts] == [info.name for info in obj.programs]
    assert all(one.is_same for one in verdicts)
    (one,) = verify_objects(obj, obj.with_code(done), ["parse_tc"], bounds=Bounds(runs=60))
    assert one.name == "parse_tc"


def test_unknown_program() -> None:
    """A program that the original lacks is refused, with those that it has."""
    obj = ElfObject.read(fixture_path("xdp_parse.clang-19.v3.el.g.o"))
    with pytest.raises(
        OptionError, match="in the original there is no program 'nope'; there are: parse_xdp"
    ):
        list(verify_objects(obj, obj, ["nope"]))


TABLES = "asm_jump_table.clang-19.v4.el.o"


@pytest.mark.parametrize(
    ("name", "slot"),
    [("jump_table", 9), ("jump_table", 11), ("jump_table", 13), ("second_table", 8)],
)
def test_every_target_of_a_jump_table_is_tried(name: str, slot: int) -> None:
    """A fault behind any entry of a jump table is found."""
    obj = ElfObject.read(fixture_path(TABLES))
    linked = obj.link(name)
    patches = PatchList(linked.program)
    patches.insert_after(slot, Body.asm("r0 += 64"))
    other = linked.with_code(patches.linearize())
    assert verify(linked, other, obj=obj, bounds=Bounds(seconds=20)).differs


def test_edges_of_a_jump_table_count() -> None:
    """Coverage has an edge for each target of a table, and says which were not taken."""
    obj = ElfObject.read(fixture_path(TABLES))
    linked = obj.link("jump_table")
    verdict = verify(linked, linked, obj=obj)
    assert verdict.coverage is not None
    assert str(verdict.coverage[0]) == "6 of 6 branch edges"
    few = verify(linked, linked, obj=obj, bounds=Bounds(runs=1)).coverage
    assert few is not None
    assert few[0].taken < few[0].edges == 6


@pytest.mark.parametrize("first", [0, 100, 60_000])
def test_a_table_of_a_number_that_is_moved(first: int) -> None:
    """Entries are reached wherever the cases begin."""
    obj = ElfObject.read(fixture_path(TABLES))
    linked = obj.link("jump_table")
    patches = PatchList(linked.program)
    patches.replace(0, Body.asm(f"r2 = *(u32 *)(r1 + 16); r2 += -{first}"))
    moved = linked.with_code(patches.linearize())
    patches = PatchList(moved.program)
    slot = int(patches.find(lambda insns: (insns["code"] == 0xB4) | (insns["code"] == 0xB7))[-1])
    patches.insert_after(slot, Body.asm("r0 += 64"))
    other = moved.with_code(patches.linearize())
    assert verify(moved, other, obj=obj, bounds=Bounds(seconds=20)).differs


def test_object_without_types() -> None:
    """Maps that nobody describes make a verdict that says that nothing was checked."""
    obj = ElfObject.read(fixture_path("xdp_count.clang-14.v1.el.o"))
    (verdict,) = verify_objects(obj, obj)
    assert not verdict.is_checked
    assert "no .BTF" in verdict.not_checked[0]


@pytest.mark.kernel
@needs_bpf
def test_kernel_modes_agree() -> None:
    """A correct rewriting is the same in the kernel, on the inputs that the search made."""
    obj = ElfObject.read(fixture_path("tc_rewrite.clang-19.v3.el.g.o"))
    linked = obj.link("rewrite")
    done = Pipeline.parse("sprinkle").run(linked.program)
    modes = ("interp", "jit", "jit+harden")
    verdict = verify(
        linked, linked.with_code(done), obj=obj, modes=modes, bounds=Bounds(runs=600, seconds=20)
    )
    assert verdict.is_same, verdict
    assert set(verdict.runs) == set(modes)
    assert min(verdict.runs.values()) > 10


@pytest.mark.kernel
@needs_bpf
def test_kernel_finds_a_difference_by_itself() -> None:
    """Without the interpreter among the modes, the kernel shows the difference."""
    before = assemble("r0 = *(u32 *)(r1 + 0); if r0 != 0x35 goto out; r0 = 7; out: exit")
    after = assemble("r0 = *(u32 *)(r1 + 0); if r0 != 0x35 goto out; r0 = 8; out: exit")
    verdict = verify(
        before, after, kind="socket_filter", modes=["jit"], bounds=Bounds(runs=1500, seconds=20)
    )
    assert verdict.counterexample is not None, verdict
    assert verdict.counterexample.mode == "jit"
    assert verdict.counterexample.case.packet is not None
    assert len(verdict.counterexample.case.packet) == 14 + 0x35


@pytest.mark.kernel
@needs_bpf
def test_kernel_refusal_is_told() -> None:
    """What the kernel does not load was not checked there; the verdict says which it is."""
    before = assemble("r0 = 0; exit")
    after = assemble("r0 = 0; goto +1; r1 = r1; exit")
    verdict = verify(before, after, kind="xdp", modes=["interp", "jit"], bounds=Bounds(runs=100))
    assert verdict.is_same
    assert "the rewritten program is refused" in verdict.not_checked[0]


def test_modes_without_a_run_are_named() -> None:
    """The first line names the modes in which nothing was compared."""
    verdict = Verdict("p", None, {"interp": 5, "jit": 0, "jit+harden": 0})
    assert "same (5 inputs in interp; not checked in jit, jit+harden;" in next(verdict.lines())


@pytest.mark.kernel
@needs_bpf
def test_chance_is_no_difference() -> None:
    """A program whose result is chance does not differ from itself in the kernel."""
    program = assemble("call bpf_get_prandom_u32; w0 &= 0xffff; exit")
    verdict = verify(program, program, kind="xdp", modes=["jit"], bounds=Bounds(runs=100))
    assert not verdict.differs
    assert "does not always do the same" in verdict.not_checked[0]
