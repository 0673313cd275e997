"""What the cover pass counts, and what it refuses."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Mapping

import numpy as np
import pytest

from bpfpatch import isa
from bpfpatch.coverage import Coverage, FunctionCoverage, cover_map
from bpfpatch.coverage.collect import entry_keys, from_value, from_values
from bpfpatch.elf import ElfObject
from bpfpatch.errors import FormatError, OptionError, UnsupportedError
from bpfpatch.interp import Machine, Skb
from bpfpatch.passes import Cover, Pipeline
from bpfpatch.passes.cover import SECTION, CoverMap, Way
from bpfpatch.program import Program
from support.inputs.bpfobjects import fixture_path
from support.models.covering import Trace, disagreements, object_of

LOOP_HEAD = (
    ".subprog f0\nr1 = 1\ncall g\nexit\n.subprog g\nL:\nr1 += 1\nif r1 s< 5 goto L\nr0 = r1\nexit"
)


def counting(obj: ElfObject, **options: object) -> ElfObject:
    """The object, instrumented."""
    return Pipeline((Cover(**options),)).run_object(obj)[0]


def ran(text: str, packet: bytes = bytes(64), **options: object) -> Coverage:
    """What the counters say after one run, which a trace of the original must confirm."""
    obj = object_of(text)
    made = counting(obj, **options)
    machine = Machine.of_object(made, "f0")
    machine.run(Skb(packet))
    cover = cover_map(made)
    (value,) = machine.maps[cover.home].contents().values()
    got = from_value(cover, value)
    trace = Trace(obj)
    trace.machine("f0").run(Skb(packet))
    assert not disagreements(cover, got.hits, trace)
    return got


def by_name(got: Coverage) -> Mapping[str, FunctionCoverage]:
    """The functions."""
    return {one.name: one for one in got.functions}


def ways(got: Coverage) -> list[tuple[Way, int, int, int | None]]:
    """The first function's edges."""
    return [(one.way, one.source, one.goal, one.times) for one in got.functions[0].edges]


@pytest.mark.parametrize("edges", [False, True])
def test_calls_of_a_function_that_starts_with_a_loop(edges: bool) -> None:
    """A back edge to a function's first instruction is no call of it."""
    one = by_name(ran(LOOP_HEAD, edges=edges))["g"]
    assert one.calls == 1
    assert one.blocks[0].times == 4


def test_a_condition_that_leads_to_the_next_instruction() -> None:
    """Both sides of a branch to the next instruction are told apart."""
    got = ran(".subprog f0\nr1 = 5\nif r1 == 5 goto next\nnext:\nr0 = 0\nexit", edges=True)
    assert (Way.JUMP, 0, 1, 1) in ways(got)
    assert (Way.FALL, 0, 1, 0) in ways(got)


@pytest.mark.parametrize("edges", [False, True])
@pytest.mark.parametrize("n_bytes", [14, 64])
def test_a_packet_load_may_end_a_function(edges: bool, n_bytes: int) -> None:
    """What comes behind a load of a byte that is not there is not counted."""
    text = ".subprog f0\nr6 = r1\nr0 = *(u8 *)skb[40]\nr0 = 1\nexit"
    got = ran(text, bytes(n_bytes), edges=edges)
    is_there = int(n_bytes > 40)
    assert [block.times for block in got.functions[0].blocks] == [1, is_there]
    assert Way.VANISH in {one.way for one in got.functions[0].edges}


@pytest.mark.parametrize("name", ["tail_calls.clang-19.v3.el.g.o"])
def test_a_tail_call_ends_a_function(name: str) -> None:
    """What comes behind a tail call that succeeds is not counted."""
    obj = ElfObject.read(fixture_path(name))
    cover = cover_map(counting(obj, edges=True))
    calls = isa.is_helper_call(cover.insns) & (cover.insns["imm"] == isa.HELPER_IDS["tail_call"])
    ends = {end for one in cover.functions for _, end in one.blocks}
    assert set((np.flatnonzero(calls) + 1).tolist()) <= ends


def test_callbacks_are_counted() -> None:
    """A function that only a helper calls has its calls counted."""
    obj = ElfObject.read(fixture_path("callbacks.clang-19.v3.el.g.o"))
    cover = cover_map(counting(obj, edges=True))
    made = counting(obj, edges=True)
    machine = Machine.of_object(made, "loops_tc")
    machine.run(Skb(bytes(64), is_l2=True))
    (value,) = machine.maps[cover.home].contents().values()
    assert by_name(from_value(cover, value))["add_round"].calls == 64


def test_jumps_through_a_table() -> None:
    """Blocks that a gotox leads to are counted."""
    obj = ElfObject.read(fixture_path("asm_jump_table.clang-19.v4.el.o"))
    for info in obj.programs:
        made = counting(obj)
        machine = Machine.of_object(made, info.name)
        trace = Trace(obj)
        original = trace.machine(info.name)
        for size in (14, 15, 16, 17, 64):
            machine.run(Skb(bytes(range(size))))
            trace.start()
            original.run(Skb(bytes(range(size))))
        (value,) = machine.maps[".data.cover"].contents().values()
        got = from_value(cover_map(made), value)
        assert not disagreements(got.cover, got.hits, trace)


@pytest.mark.parametrize("edges", [False, True])
def test_may_goto_and_unreachable_code(edges: bool) -> None:
    """A may_goto is a branch; code that nothing leads to ran 0 times."""
    got = ran(
        ".subprog f0\nr0 = 0\nL:\nmay_goto out\nr0 += 1\nif r0 s< 3 goto L\ngoto out\n"
        "r0 = 7\nr0 += 1\nout:\nexit",
        edges=edges,
    )
    assert [block.times for block in got.functions[0].blocks] == [1, 3, 3, 1, 0, 1]


def test_many_branches_to_one_place() -> None:
    """Several split jumps into one block are told apart."""
    lines = [f"if r1 == {value} goto out" for value in range(6)]
    got = ran(
        "\n".join([".subprog f0", "r1 = 4", *lines, "r0 = 1", "out:", "r0 = 2", "exit"]), edges=True
    )
    assert [one.taken for one in got.functions[0].branches] == [0, 0, 0, 0, 1, 0]


def test_a_split_jump_stays_near() -> None:
    """The code that counts a branch goes to the next place that nothing falls into.

    At the function's end, which is further away than a jump can reach, it would be of no use.
    """
    near = "if r1 == 1 goto L\nr1 += 1\nif r1 s< 9 goto L\ngoto M\nL:\nr1 += 1\nM:\n"
    text = f".subprog f0\nr1 = 1\n{near}" + "r0 = 1\n" * 33_000 + "exit"
    got = ran(text, edges=True)
    assert [(one.taken, one.not_taken) for one in got.functions[0].branches] == [(1, 0), (0, 0)]


def test_sequences_that_the_kernel_takes_out_stay_whole() -> None:
    """Nothing is put between a call and the registers that are saved and restored around it."""
    text = (
        ".subprog f0\nr1 = 1\nif r0 == r1 goto L\nL:\n*(u64 *)(r10 - 8) = r1\ncall 8\n"
        "r1 = *(u64 *)(r10 - 8)\nr0 = r1\nexit"
    )
    code = counting(object_of(text), tree=False).code.insns
    (call,) = np.flatnonzero(isa.is_helper_call(code)).tolist()
    assert code["code"][call - 1] == 0x7B
    assert code["code"][call + 1] == 0x79


def test_unknown_counting_is_refused() -> None:
    """The ways to count are named."""
    with pytest.raises(OptionError, match=r"plain, atomic, percpu, not 'exact'"):
        Cover(count="exact")


def test_code_without_an_object_is_refused() -> None:
    """There must be an object to put counters into."""
    with pytest.raises(OptionError, match="adds a map to an object, and this code is of none"):
        Pipeline((Cover(),)).run(Program.from_bytes(isa.to_bytes(isa.exit_(), "little")))


def test_twice_is_refused() -> None:
    """An object that counts already is refused, in another pipeline and in the same one."""
    obj = object_of(".subprog f0\nr0 = 0\nexit")
    with pytest.raises(OptionError, match=r"instrumented already: it has a section \.bpfpatch"):
        counting(counting(obj))
    with pytest.raises(OptionError, match="instrumented already"):
        Pipeline.parse("cover,cover").run_object(obj)


def test_an_object_without_symbols_is_refused() -> None:
    """A loader could not find the counters."""
    obj = ElfObject.read(fixture_path("xdp_parse.clang-19.v3.el.g.strip-all.o"))
    with pytest.raises(UnsupportedError, match="no symbol table"):
        counting(obj)


def test_percpu_keeps_arguments() -> None:
    """A function of five arguments gets them all, though a map is looked up before."""
    reads = "\n".join(f"r0 *= 7\nr0 += r{register}" for register in range(1, 6))
    sets = "\n".join(f"r{register} = {register + 1}" for register in range(1, 6))
    text = f".subprog f0\n{sets}\ncall g\nexit\n.subprog g\nr0 = 0\n{reads}\nexit"
    obj = object_of(text)
    made = counting(obj, count="percpu")
    results = {Machine.of_object(one, "f0").run(Skb(bytes(64))).r0 for one in (obj, made)}
    assert len(results) == 1
    assert by_name(ran(text, count="percpu"))["g"].calls == 1


def test_percpu_looks_up_nothing_under_a_lock() -> None:
    """A function that is called with a lock held cannot look up its counters.

    It alone is left out.
    """
    text = (
        ".subprog f0\nr1 = 0\ncall 93\ncall g\nr1 = 0\ncall 94\nr0 = 0\nexit\n"
        ".subprog g\nr0 = 0\nexit"
    )
    with pytest.raises(UnsupportedError, match="it may be called with a lock held"):
        counting(object_of(text), count="percpu", strict=True)
    found = cover_map(counting(object_of(text), count="percpu"))
    assert [one.left_out() for one in found.functions] == [[], [0]]


def test_percpu_looks_up_beside_a_lock() -> None:
    """What is called before a lock is taken, or by a helper, runs without one."""
    text = (
        ".subprog f0\ncall g\nr1 = 0\ncall 93\nr1 = 0\ncall 94\n"
        "r1 = 5\nr2 = func h ll\nr3 = 0\nr4 = 0\ncall bpf_loop\nr0 = 0\nexit\n"
        ".subprog g\nr0 = 0\nexit\n.subprog h\nr0 = 0\nexit"
    )
    found = cover_map(counting(object_of(text), count="percpu", strict=True))
    assert [one.left_out() for one in found.functions] == [[], [], []]


def test_percpu_needs_stack() -> None:
    """A frame that is full, or not understood, has no place for a pointer."""
    full = ".subprog f0\n*(u64 *)(r10 - 512) = 0\nr0 = 0\nexit"
    with pytest.raises(UnsupportedError, match="its stack frame has no 16 bytes left"):
        counting(object_of(full), count="percpu", strict=True)
    unclear = (
        ".subprog f0\nr1 = r10\nr1 += -8\n*(u64 *)(r10 - 8) = 0\nr2 = *(u64 *)(r10 - 8)\n"
        "r1 += r2\n*(u8 *)(r1 + 0) = 0\nr0 = 0\nexit"
    )
    with pytest.raises(UnsupportedError, match="which bytes of its stack frame are free"):
        counting(object_of(unclear), count="percpu", strict=True)
    (one,) = cover_map(counting(object_of(unclear), count="percpu")).functions
    assert one.left_out() == [0]


def test_more_counters_than_a_percpu_value_holds() -> None:
    """A per-cpu value has 32 KiB: more counters take several, those of a function one."""
    skips = "\n".join(f"if r1 == {at} goto M{at}\nr0 += 1\nM{at}:" for at in range(2100))
    text = ".subprog f0\nr1 = 3\ncall g\nr1 = 9\ncall h\nexit\n" + "".join(
        f".subprog {name}\nr0 = 0\n{skips.replace('M', name)}\nexit\n" for name in ("g", "h")
    )
    obj = object_of(text)
    made = counting(obj, count="percpu")
    cover = cover_map(made)
    assert cover.n_entries == 2
    machine = Machine.of_object(made, "f0")
    machine.run(Skb(bytes(64)))
    elements = machine.maps[cover.home].contents()
    got = from_values(cover, [elements[key] for key in entry_keys(cover)])
    trace = Trace(obj)
    trace.machine("f0").run(Skb(bytes(64)))
    assert not disagreements(cover, got.hits, trace)
    assert CoverMap.parse(section_of_object(made)).n_counters == cover.n_counters


def test_a_function_of_too_many_counters() -> None:
    """A function that does not fit one per-cpu value is left out."""
    branches = "\n".join(f"if r1 == {at} goto L{at}\nr0 += 1\nL{at}:" for at in range(4200))
    text = f".subprog f0\nr0 = 0\nr1 = 0\n{branches}\nexit"
    with pytest.raises(UnsupportedError, match=r"\d+ counters are too many"):
        counting(object_of(text), count="percpu", strict=True)


LOADS = "\n".join(f"r{reg} = *(u32 *)(r1 + {4 * reg})" for reg in (*range(2, 10), 0, 1))
SUM = "\n".join(f"r0 += r{reg}" for reg in range(1, 10))
CROWDED = f""".subprog f0
*(u64 *)(r10 - 512) = 1
{LOADS}
if r0 == r1 goto two
r3 += r2
goto on
two: r4 += r5
on: {SUM}
r6 = r0
r1 = 0
r2 = r10
r2 += -512
r4 = 0
r3 = 512
r5 = 0
call bpf_csum_diff
r0 = r6
exit"""
"""All registers hold what is read later, and all of the frame is read at the end."""


@pytest.mark.parametrize("edges", [False, True])
def test_what_cannot_be_counted_is_left_out(edges: bool) -> None:
    """Two blocks beside each other without a place have no counts; what is around them has."""
    obj = object_of(CROWDED)
    made = counting(obj, edges=edges)
    cover = cover_map(made)
    (one,) = cover.functions
    left = one.left_out()
    assert len(left) == 2
    assert "no register is free" in one.why
    machine = Machine.of_object(made, "f0")
    machine.run(Skb(bytes(64)))
    (value,) = machine.maps[cover.home].contents().values()
    got = from_value(cover, value)
    (function,) = got.functions
    counts = [block.times for block in function.blocks]
    assert [at for at, count in enumerate(counts) if count is None] == left
    assert {count for count in counts if count is not None} == {1}
    assert function.calls == 1
    assert got.notices == (
        "some blocks have no place for a counter, and their counts are not known: f0 (2 of 4)",
    )
    with pytest.raises(UnsupportedError, match="2 blocks of 1 functions cannot be counted in all"):
        counting(obj, edges=edges, strict=True)


def test_edges_and_blocks_are_counted_together() -> None:
    """Where two blocks have no place, what leads to one of them may have."""
    text = CROWDED.replace("if r0 == r1", "if r0 == r1 goto one\nr2 = 0\nr3 = 0\nif r4 == r5")
    text = text.replace("r3 += r2\n", "one: r3 += r2\n")
    assert by_name(ran(text))["f0"].calls == 1
    assert not cover_map(counting(object_of(text))).functions[0].why


def section_of(text: str = LOOP_HEAD) -> bytes:
    """What an instrumented object says of its counters."""
    return section_of_object(counting(object_of(text), edges=True))


def section_of_object(made: ElfObject) -> bytes:
    """The same of one that is instrumented already."""
    return next(bytes(one.data) for one in made.sections if one.name == SECTION)


def test_the_section_reads_back() -> None:
    """What is written is what is read."""
    data = section_of()
    assert CoverMap.parse(data).to_bytes() == data


def test_broken_sections_are_told() -> None:
    """Whatever is in the section, reading it is a FormatError or gives what was written."""
    rng = random.Random(1)
    data = section_of()
    good = CoverMap.parse(data)
    for _ in range(300):
        broken = bytearray(data)
        for _ in range(rng.randint(1, 3)):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        with contextlib.suppress(FormatError):
            assert CoverMap.parse(bytes(broken[: rng.choice([None, len(broken) - 1])])) == good


def test_the_identity_depends_on_code_and_counting() -> None:
    """Objects of other code, or that count otherwise, have other identities."""
    texts = (LOOP_HEAD, LOOP_HEAD.replace("s< 5", "s< 6"))
    found = {
        cover_map(counting(object_of(text), edges=edges, count=count)).identity
        for text in texts
        for edges in (False, True)
        for count in ("plain", "atomic", "percpu")
    }
    assert len(found) == 12


def test_instrumenting_is_deterministic() -> None:
    """The same object and options give the same bytes."""
    obj = ElfObject.read(fixture_path("xdp_balancer.clang-19.v3.el.g.o"))
    assert counting(obj, edges=True).to_bytes() == counting(obj, edges=True).to_bytes()


@pytest.mark.parametrize("name", ["fixture_init", "fixture_cong_avoid"])
def test_a_trace_counts_the_program_that_ran(name: str) -> None:
    """Of two programs with equal code the trace counts the one that was asked for."""
    obj = ElfObject.parse(fixture_path("struct_ops.clang-19.v3.el.g.o").read_bytes())
    trace = Trace(obj)
    machine = trace.machine(name)
    trace.start()
    machine.run(mem=bytes(64))
    (info,) = (one for one in obj.programs if one.name == name)
    assert trace.ran[info.start] == 1
    assert sum(trace.ran.values()) == machine.run(mem=bytes(64)).n_insns
