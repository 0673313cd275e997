"""The trace pass: what it puts in, and what it refuses."""

from __future__ import annotations

import textwrap
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bpfpatch import isa
from bpfpatch.asm import assemble, format_program
from bpfpatch.elf import ElfObject
from bpfpatch.errors import OptionError, UnsupportedError
from bpfpatch.interp import Machine, Xdp
from bpfpatch.passes import Pipeline, Trace
from bpfpatch.passes.kfuncs import called_names
from bpfpatch.passes.trace import trace_map
from bpfpatch.passes.trace.emit import Saves
from bpfpatch.passes.trace.places import TraceSpot
from bpfpatch.passes.trace.plan import TracePlan, TracePlanner
from bpfpatch.passes.trace.state import TraceState
from bpfpatch.patch import Body, PatchList
from bpfpatch.program import Program
from support.inputs.bpfobjects import fixture_path

LOOP = "asm_back_edge.clang-19.v4.el.o"
BALANCER = "xdp_balancer.clang-19.v3.el.g.o"


def an_object(name: str) -> ElfObject:
    """A committed object."""
    return ElfObject.parse(fixture_path(name).read_bytes())


def traced(name: str, pipeline: str) -> ElfObject:
    """What a pipeline makes of it."""
    return Pipeline.parse(pipeline).run_object(an_object(name))[0]


def function(obj: ElfObject, name: str) -> str:
    """The listing of one function."""
    text = format_program(obj.code).split(f"{name}:\n", 1)[1].split("\n\n", 1)[0]
    lines = (line.partition(": ")[2] or line for line in text.splitlines())
    return "\n".join(lines)


def text(lines: str) -> str:
    """Lines without their indentation."""
    return textwrap.dedent(lines).strip("\n")


def with_license(text: str) -> ElfObject:
    """The balancer under another licence, of three letters at most."""
    data = fixture_path(BALANCER).read_bytes()
    assert data.count(b"GPL\0") == 1
    return ElfObject.parse(data.replace(b"GPL\0", text.encode().ljust(4, b"\0")))


def plan(code: str, slot: int, *registers: int, has_record: bool = False, **spot: Any) -> TracePlan:
    """How to trace at a slot of a program in assembly."""
    patches = PatchList(assemble(code))
    planner = TracePlanner(patches, TraceState(patches))
    return planner.plan(TraceSpot(slot, **spot), registers, has_record=has_record)


def refusal(code: str, slot: int, *registers: int, has_record: bool = False) -> str:
    """Why a place of a program cannot be traced."""
    with pytest.raises((UnsupportedError, OptionError)) as caught:
        plan(code, slot, *registers, has_record=has_record)
    return str(caught.value)


# ---- what is put in ------------------------------------------------------------------------------


def test_a_call_of_a_function_is_told_once() -> None:
    """at=FUNCTION comes before the first instruction, and a jump back to that skips it."""
    out = traced(LOOP, "trace{at=drain,regs=r1}")
    assert function(out, "drain") == text("""
        r6 = r1
        r7 = r2
        r1 = 0x0 ll
        r2 = 0x12
        r3 = r6
        call bpf_trace_printk
        r1 = r6
        r2 = r7
        L9:
        r1 += -0x1
        r2 += 0x3
        r2 &= 0xffff
        if r1 s> 0x0 goto L9
        r0 = r2
        exit
        """)


def test_an_instruction_is_told_each_time() -> None:
    """at=FUNCTION+0 is reached by a jump back to the first instruction, too."""
    out = traced(LOOP, "trace{at=drain+0,message=round}")
    assert "if r1 s> 0x0 goto drain" in function(out, "drain")


def test_a_record_saves_what_it_holds() -> None:
    """A live register that is sent comes back out of the record; others wait elsewhere."""
    out = traced(LOOP, "trace{at=drain+1,regs=r2,to=ring}")
    lines = function(out, "drain").splitlines()
    number = lines.pop(5)
    assert number.startswith("r1 = 0x")
    assert number.endswith(" ll")
    assert (
        lines[:17]
        == text("""
        r1 += -0x1
        r6 = r1
        *(u64 *)(r10 - 0x8) = r2
        call bpf_ktime_get_ns
        *(u64 *)(r10 - 0x10) = r0
        *(u64 *)(r10 - 0x18) = r1
        r1 = 0x0 ll
        r2 = r10
        r2 += -0x18
        r3 = 0x18
        r4 = 0x0
        call bpf_ringbuf_output
        r1 = r6
        r2 = *(u64 *)(r10 - 0x8)
        r2 += 0x3
        r2 &= 0xffff
        if r1 s> 0x0 goto drain
        """).splitlines()
    )


def test_more_than_three_values_take_more_calls() -> None:
    """One call prints three values; the place stands in front of each."""
    out = traced(BALANCER, "trace{at=parse_ip4+8,regs=r0+r1+r2+r3+r4,message=50% done}")
    assert texts(out) == (
        b"50%% done xdp_balancer.c:143 r0=0x%llx r1=0x%llx r2=0x%llx\0"
        b"50%% done xdp_balancer.c:143 r3=0x%llx r4=0x%llx\0"
    )


def texts(obj: ElfObject) -> bytes:
    """The formats that are printed."""
    return next(bytes(one.data) for one in obj.sections if one.name == ".rodata.trace")


def test_several_passes_share_a_ring() -> None:
    """Each pass has its own section and places; the map is one."""
    one = "trace{at=drain,regs=r1,to=ring}"
    out = traced(LOOP, f"{one},trace{{at=drain_wide,to=ring}},trace{{at=drain+1}}")
    names = [section.name for section in out.sections if section.name.startswith(".bpfpatch")]
    assert names == [".bpfpatch.trace", ".bpfpatch.trace.1", ".bpfpatch.trace.2"]
    places = trace_map(out).places.values()
    assert [(place.function, place.to) for place in places] == [
        ("drain", "ring"),
        ("drain_wide", "ring"),
        ("drain", "pipe"),
    ]
    assert [info.name for info in out.maps] == ["bpfpatch_trace"]


def test_a_traced_object_can_be_traced_again() -> None:
    """A second run adds to what the first one did."""
    once = traced(LOOP, "trace{at=drain,to=ring}")
    twice, _ = Pipeline.parse("trace{at=drain_wide,to=ring},trace{at=drain}").run_object(once)
    assert len(trace_map(twice).places) == 3


def test_what_runs_tells_what_is_there() -> None:
    """Each round of a loop tells its count, and the program's result stays what it was."""
    packet = bytes(range(64))
    before = Machine.of_object(an_object(LOOP)).run(Xdp(packet))
    out = traced(LOOP, "trace{at=drain+1,regs=r1,message=left}")
    after = Machine.of_object(out).run(Xdp(packet))
    assert after.r0 == before.r0
    assert after.printed == ("left drain#1 r1=0xffffffffffffffff",)
    out = traced(LOOP, "trace{at=drain+1,regs=r1+r2,to=ring}")
    machine = Machine.of_object(out)
    machine.run(Xdp(bytes(range(64)) + bytes(5)))
    records = [trace_map(out).record(data) for data in machine.maps["bpfpatch_trace"].records]
    assert [record.values[0] for record in records] == [4, 3, 2, 1, 0]


def test_big_endian_records() -> None:
    """An object's records are in its own byte order."""
    out = traced("asm_back_edge.clang-19.v4.eb.o", "trace{at=back_edge+5,regs=r6,to=ring}")
    machine = Machine.of_object(out)
    machine.run(Xdp(bytes(64 + 5)))
    (data,) = machine.maps["bpfpatch_trace"].records
    assert trace_map(out).record(data, "big").values == (5,)


# ---- where values wait ---------------------------------------------------------------------------

FULL = """
    r6 = *(u32 *)(r1 + 0)
    r7 = *(u32 *)(r1 + 4)
    r8 = 8
    r9 = 9
    r0 = 0
    r0 += r6
    r0 += r7
    r0 += r8
    r0 += r9
    exit
    """


def test_dead_registers_come_first() -> None:
    """What calls destroy waits in R6 to R9 that nobody reads, and needs no stack."""
    saves = plan("r2 = 2; r0 = r1; r0 += r2; exit", 2, 2).saves
    assert saves == Saves(moved={0: 6, 2: 7}, spilled={}, record=0, live=0b101)


def test_the_stack_comes_second() -> None:
    """Where R6 to R9 are in use, values wait below all that the function uses of its frame."""
    code = FULL.replace("r8 = 8", "*(u64 *)(r10 - 12) = 8; r8 = 8")
    found = plan(code, 6, 0)  # r0 += r6
    assert found.saves.moved == {}
    assert found.saves.spilled == {0: 24}


def test_all_waits_in_frames_of_may_goto_with_room_for_the_kernel() -> None:
    """A function with a may_goto leaves the kernel its 16 bytes."""
    code = "main: r1 = 0; may_goto main; *(u64 *)(r10 - {}) = r1; r0 = 0; exit"
    assert plan(code.format(472), 4, 0, has_record=True).saves.record == 496
    assert "the function may have 16 more" in refusal(code.format(480), 4, 0, has_record=True)


def test_another_place_of_the_block() -> None:
    """Inside of a fastcall sequence nothing is put in, but in front of it or behind it."""
    code = """
        r1 = 1
        r2 = 2
        *(u64 *)(r10 - 8) = r1
        call bpf_get_smp_processor_id
        r1 = *(u64 *)(r10 - 8)
        r0 += r1
        exit
        """
    assert plan(code, 3).node == 2
    assert plan(code, 4, 0).node == 5


def test_the_place_moves_only_while_values_stay() -> None:
    """A register that is asked for is told with the value that it has at the place."""
    code = """
        r1 = r10
        r1 += -8
        r3 = 3
        *(u64 *)(r10 - 8) = 0
        call bpf_spin_lock
        r6 = 6
        r6 += 1
        r1 = r10
        r1 += -8
        call bpf_spin_unlock
        r0 = r6
        exit
        """
    assert plan(code, 6).node == 4
    assert plan(code, 7, 6).node == 10
    assert "a lock may be held" in refusal(code, 6, 6)


def test_a_lock_may_be_held_in_what_is_called() -> None:
    """A function that is called with a lock held cannot be traced."""
    code = """
        main:
          r1 = 0
          call bpf_spin_lock
          call inner
          r1 = 0
          call bpf_spin_unlock
          call other
          exit
        inner:
          r0 = 1
          exit
        other:
          r0 = 2
          exit
        """
    assert "a lock may be held" in refusal(code, 8)
    assert plan(code, 9).node == 9


def test_the_callback_of_a_helper_holds_no_lock() -> None:
    """A helper that calls back cannot be called with a lock held."""
    code = """
        main:
          r1 = 0
          call bpf_spin_lock
          r1 = 0
          call bpf_spin_unlock
          r1 = 5
          r2 = func round ll
          r3 = 0
          r4 = 0
          call bpf_loop
          exit
        round:
          r0 = 0
          exit
        """
    assert plan(code, 11).node == 11


def test_what_orders_a_tree_holds_its_lock() -> None:
    """The callback of bpf_rbtree_add() runs under the lock of the tree."""
    code = """
        main:
          r1 = 0
          call bpf_spin_lock
          r3 = func less ll
          call kfunc 7
          r1 = 0
          call bpf_spin_unlock
          exit
        less:
          r0 = 0
          exit
        """
    patches = PatchList(assemble(code))
    assert not TraceState(patches).obstacle(8)
    assert "a lock may be held" in TraceState(patches, {4: "bpf_rbtree_add_impl"}).obstacle(8)


def test_a_lock_that_a_called_function_takes_is_held_behind_the_call() -> None:
    """Also where the last reference in front of the call is a callback's address."""
    code = """
        main:
          r6 = func other ll
          call taker
          r7 = 1
          r7 += 1
          r1 = 0
          call bpf_spin_unlock
          r0 = 0
          exit
        taker:
          r1 = 0
          call bpf_spin_lock
          exit
        other:
          r0 = 2
          exit
        """
    assert "a lock may be held" in refusal(code, 4, 7)
    assert plan(code, 7, 7).node == 7


def test_no_room() -> None:
    """A function with a full frame says how much there is."""
    code = FULL.replace("r8 = 8", "*(u64 *)(r10 - 512) = 8; r8 = 8")
    assert refusal(code, 6, 0).endswith(
        "where r0 is the same: 8 bytes of stack are needed, and the function may have 0 more; "
        "trace fewer registers"
    )


CALLER = """
    main:
      r6 = r1
      r1 = r10
      r1 += -16
      *(u64 *)(r10 - 16) = 0
      *(u64 *)(r10 - 8) = 0
      call callee
      r0 = r6
      exit
    callee:
    """


def test_a_frame_that_others_write_to() -> None:
    """An address may go to a function that goes upwards from it: what is below is free."""
    code = CALLER + "*(u64 *)(r1 + 8) = 1; r0 = 0; exit"
    assert plan(code, 6, 6, has_record=True).saves.record == 16 + 24


@pytest.mark.parametrize(
    ("body", "below"),
    [
        ("*(u64 *)(r1 - 8) = 1; r0 = 0; exit", 8),
        ("r1 += -8; *(u64 *)(r1 + 0) = 1; r0 = 0; exit", 8),
        ("r2 = *(u8 *)(r1 + 0); r1 += r2; *(u64 *)(r1 + 0) = 1; r0 = 0; exit", 0),
        ("call inner; r0 = 0; exit; inner: r1 -= 8; *(u64 *)(r1 + 0) = 1; exit", 8),
    ],
)
def test_a_frame_that_others_go_below_in(body: str, below: int) -> None:
    """How far a function goes below what it is given is in use."""
    found = plan(CALLER + body, 6, 6, has_record=True)
    assert found.saves.record == 16 + below + 24


def test_a_frame_that_others_may_write_to_anywhere() -> None:
    """Where a function may go anywhere from what it is given, no byte is free for certain."""
    body = "r2 = *(u64 *)(r1 + 0); r1 += r2; *(u64 *)(r1 + 0) = 1; r0 = 0; exit"
    assert "which of them are free is not known" in refusal(CALLER + body, 6, 6, has_record=True)


def test_a_register_without_a_value() -> None:
    """Only what certainly has a value can be told; the message names what does."""
    message = refusal("r2 = 2; r0 = 0; exit", 1, 5)
    assert message.endswith("r5 does not certainly have a value here; those that do are: r1, r2")
    code = "if r1 == 0 goto out; r2 = 2; out: r0 = 0; exit"
    assert "r2 does not certainly have a value" in refusal(code, 2, 2)


def test_the_result_of_a_function_has_a_value() -> None:
    """R0 behind a call can be told where the program reads it."""
    code = "main: call one; r0 += 1; exit; one: r0 = 1; exit"
    assert plan(code, 1, 0).saves.live == 1


def test_what_only_seems_to_be_read_is_left_alone() -> None:
    """A function that returns nothing does not read R0 at its exit."""
    code = "main: call nothing; r0 = 0; exit; nothing: exit"
    assert plan(code, 3).saves == Saves({}, {}, 0, 0)


def test_two_traces_at_neighbouring_places_share_no_saves() -> None:
    """The second trace saves nothing for the first one's call that only seems to read it."""
    code = "main: r6 = r1; call weigh; exit; weigh: r0 = 1; r0 += 1; exit"
    patches = PatchList(assemble(code))
    first = Body.asm("r1 = 0; r2 = 8; call bpf_trace_printk")
    patches.insert_before(4, first)
    found = TracePlanner(patches, TraceState(patches)).plan(
        TraceSpot(3, is_call=True), (), has_record=False
    )
    assert found.saves.live & 0b111000 == 0


@pytest.mark.parametrize("license_text", ["MIT", ""])
def test_printing_takes_a_gpl_compatible_licence(license_text: str) -> None:
    """An object that may not call bpf_trace_printk() is refused, and told what works."""
    obj = with_license(license_text)
    with pytest.raises(UnsupportedError, match=r"licence '.*--ring"):
        Pipeline.parse("trace{at=balancer}").run_object(obj)
    assert Pipeline.parse("trace{at=balancer,to=ring}").run_object(obj)
    assert Pipeline.parse("trace{at=balancer}").run_object(with_license("GPL"))


def test_a_deleted_instruction_cannot_be_traced() -> None:
    """A pipeline that took an instruction out first says so."""
    patches = PatchList(assemble("r1 = 1; r0 = 0; exit"))
    patches.delete(0)
    with pytest.raises(OptionError, match="an earlier pass of the pipeline took it out"):
        TracePlanner(patches, TraceState(patches)).plan(TraceSpot(0), (), has_record=False)


# ---- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": "disk"}, "to is pipe or ring, not 'disk'"),
        ({"regs": "r11"}, "'r11' is no register: give r0 to r10"),
        ({"regs": "r1,r2"}, "is no register: give r0 to r10"),
        ({"size": 5000}, "size is a power of two and at least 4096, not 5000"),
        ({"message": "caf\N{LATIN SMALL LETTER E WITH ACUTE}"}, "printable ASCII characters only"),
        ({"message": "x" * 201}, "a message has 200 characters at most, not 201"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    """An option that makes no sense is refused before anything is read."""
    with pytest.raises(OptionError, match=message):
        Trace("main", **options)


def test_text_form() -> None:
    """A pass reads back from its text."""
    shown = "trace{at=lb.c:214,regs=r1+r6,message=hello,to=ring}"
    assert str(Pipeline.parse(shown)) == shown


def test_code_of_no_object() -> None:
    """Without an object there is nothing to add a text or a map to."""
    with pytest.raises(OptionError, match="adds to an object, and this code is of none"):
        Pipeline.parse("trace{at=#0}").run(assemble("r0 = 0; exit"))


def test_an_object_without_symbols() -> None:
    """An object that was stripped of its symbols has no place for relocations."""
    with pytest.raises(UnsupportedError, match="no symbol table"):
        traced("xdp_parse.clang-19.v3.el.g.strip-all.o", "trace{at=#0}")


def test_a_program_that_is_not_touched_stays() -> None:
    """The input object is what it was."""
    before = an_object(LOOP)
    data = before.to_bytes()
    Pipeline.parse("trace{at=drain,to=ring}").run_object(before)
    assert before.to_bytes() == data
    assert isinstance(before.code, Program)


def test_calls_of_kernel_functions_are_told_apart_from_loads() -> None:
    """A call is found where the relocation in front of its own is that of a load."""
    obj = an_object("kfuncs.clang-19.v3.el.g.o")
    table = obj.code.tables["reloc"]
    row = int(np.flatnonzero(np.isin(table.insn, [*called_names(obj, obj.code)]))[0])
    insns = obj.code.insns.copy()
    names = called_names(obj, obj.code)
    assert int(table.insn[row]) in names
    # What is in front becomes a load of two slots, as far as the table can tell.
    first, slot = int(table.insn[row]) - 2, int(table.insn[row])
    insns[first:slot] = isa.ld_imm64(isa.R5, 0)
    moved = table.with_rows(np.array([first, slot], np.int32), table.rows[[row, row]])
    program = replace(obj.code, insns=insns).with_tables(reloc=moved)
    assert called_names(obj, program) == {slot: names[slot]}
