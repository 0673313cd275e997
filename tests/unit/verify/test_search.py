"""How inputs are found that reach a program's branches."""

from __future__ import annotations

import pytest

from bpfpatch.asm import assemble
from bpfpatch.facts import MapDefinition, MapType
from bpfpatch.interp import Machine, MachineOptions
from bpfpatch.interp.machine import Engine
from bpfpatch.verify import Bounds, Case, verify
from bpfpatch.verify.coverage import Compare, Recorder, branches_of
from bpfpatch.verify.search import occurrences
from bpfpatch.verify.solve import Effort, more_for, solutions

XDP = "r2 = *(u32 *)(r1 + 0); r3 = *(u32 *)(r1 + 4); r4 = r2; r4 += {need}; r0 = 2;"
XDP += "if r4 > r3 goto out;"


def reaches(body: str, need: int = 14) -> bool:
    """Whether an input is found that reaches ``r0 = 1`` at the end of a packet program."""
    text = XDP.format(need=need) + body + "r0 = 1; out: exit"
    before, after = assemble(text), assemble(text.replace("r0 = 1;", "r0 = 3;"))
    return verify(before, after, kind="xdp", bounds=Bounds(seconds=20)).differs


@pytest.mark.parametrize(
    "body",
    [
        "r5 = *(u32 *)(r2 + 6); if r5 != 0x12345678 goto out;",
        "r5 = *(u32 *)(r2 + 6); r5 = be32 r5; if r5 != 0x12345678 goto out;",
        "r5 = *(u16 *)(r2 + 3); r5 += 77; if w5 != 0x4321 goto out;",
        "r5 = *(u8 *)(r2 + 9); r5 >>= 4; r5 &= 15; if r5 != 11 goto out;",
        "r5 = *(u8 *)(r2 + 9); r5 &= 15; r5 <<= 2; if r5 != 44 goto out;",
        "r5 = *(u64 *)(r2 + 0); r6 = 0x1122334455667788 ll; if r5 != r6 goto out;",
        "r5 = *(u32 *)(r2 + 4); r5 ^= 0x5a5a5a5a; if w5 s> -2147483000 goto out;",
        "r5 = *(u16 *)(r2 + 0); if r5 & 0x8000 goto +1; goto out; if r5 & 1 goto out;",
        "r5 = *(u8 *)(r2 + 0); r5 *= 7; r5 ^= 0x33; if r5 != 0x1bc goto out;",
    ],
)
def test_comparisons_are_solved(body: str) -> None:
    """What a comparison asks for is found: in either order, shifted, masked, added to."""
    assert reaches(body)


@pytest.mark.parametrize("need", [15, 300, 1499, 3001])
def test_lengths_are_solved(need: int) -> None:
    """A packet as long as a check of its end asks for is found."""
    assert reaches("", need)


@pytest.mark.parametrize(
    "body",
    [
        "r3 -= r2; if r3 != 61 goto out;",
        "r3 -= r2; r3 += -14; w3 = w3; if w3 != 333 goto out;",
        "r3 -= r2; r3 <<= 2; r5 = 1332; if r5 != r3 goto out;",
        "r3 -= r2; again: r0 += 1; r3 += -1; if r3 != 0 goto again; if r0 != 202 goto out;",
    ],
)
def test_comparisons_of_lengths_are_solved(body: str) -> None:
    """A packet is found whose length a comparison of what follows from it asks for."""
    assert reaches(body)


@pytest.mark.parametrize("kind", ["sched_cls", "socket_filter"])
def test_comparisons_of_context_lengths_are_solved(kind: str) -> None:
    """A packet as long as a comparison of the context's ``len`` asks for is found."""
    text = "r2 = *(u32 *)(r1 + 0); r0 = 0; if r2 != 333 goto out; r0 = {}; out: exit"
    before, after = assemble(text.format(1)), assemble(text.format(3))
    assert verify(before, after, kind=kind, bounds=Bounds(seconds=20)).differs


@pytest.mark.parametrize("at", [399, 1399])
def test_bytes_far_into_a_packet_are_solved(at: int) -> None:
    """A comparison of a byte behind all headers is solved, in a packet that is long enough."""
    assert reaches(f"r5 = *(u8 *)(r2 + {at}); if r5 != 0x77 goto out;", at + 1)


@pytest.mark.parametrize(
    "load",
    [
        "r2 = 2000; r3 = r10; r3 += -8; r4 = 4; call bpf_skb_load_bytes; if r0 != 0 goto out;",
        "r6 = r1; r0 = *(u32 *)skb[2000];",
    ],
)
def test_loads_beyond_the_packet_are_solved(load: str) -> None:
    """A packet as long as a helper's or an old load's place in it asks for is found."""
    text = f"{load} r0 = {{}}; exit; out: r0 = 0; exit"
    before, after = assemble(text.format(1)), assemble(text.format(3))
    assert verify(before, after, kind="sched_cls", bounds=Bounds(seconds=20)).differs


LOOKUP = """
    *(u32 *)(r10 - 4) = 1; r2 = r10; r2 += -4; r1 = map[id:1]
    call bpf_map_lookup_elem; if r0 == 0 goto out; r5 = r0; r0 = 2
"""


@pytest.mark.parametrize(
    "body",
    [
        "r5 = *(u64 *)(r5 + 0); if r5 != 5 goto out;",
        "r5 = *(u32 *)(r5 + 4); if r5 != 77777 goto out;",
        "r5 = *(u32 *)(r5 + 4); r5 = be32 r5; if r5 != 77777 goto out;",
        "r5 = *(u16 *)(r5 + 390); if r5 != 0x1234 goto out;",
        "r6 = *(u64 *)(r5 + 8); r6 += 1; *(u64 *)(r5 + 8) = r6; if r6 != 5 goto out;",
    ],
)
def test_values_of_arrays_are_solved(body: str) -> None:
    """A comparison of what an array holds is solved by what it holds at first."""
    text = LOOKUP + body + "r0 = 1; out: exit"
    maps = {1: MapDefinition("arr", MapType.ARRAY, 4, 400, 4)}
    before, after = assemble(text), assemble(text.replace("r0 = 1;", "r0 = 3;"))
    verdict = verify(before, after, kind="xdp", maps=maps, bounds=Bounds(seconds=20))
    assert verdict.counterexample is not None, verdict
    (entry,) = verdict.counterexample.case.entries
    assert (entry.map, entry.key) == ("arr", b"\1\0\0\0")


def test_search_goes_on_while_a_branch_is_not_taken() -> None:
    """Patience does not end a search in which a branch could still go another way."""
    hard = "r5 = *(u32 *)(r2 + 0); w5 *= 0x9e3779b1; r6 = *(u32 *)(r2 + 4); w5 *= w6;"
    text = XDP.format(need=14) + hard + "if w5 != 0x1234567 goto out; r0 = 1; out: exit"
    easy = assemble(XDP.format(need=15) + "r0 = 1; out: exit")
    short = Bounds(patience=10, seconds=30.0, runs=4000)
    assert verify(easy, easy, kind="xdp", bounds=short).runs["interp"] < 2000
    program = assemble(text)
    assert verify(program, program, kind="xdp", bounds=short).runs["interp"] == 4000


def test_branch_that_no_packet_takes_is_given_up() -> None:
    """A check for fewer bytes than any packet has does not keep a search going."""
    program = assemble(XDP.format(need=14) + "r0 = 1; out: exit")
    assert verify(program, program, kind="xdp", bounds=Bounds(seconds=60)).seconds < 30


def test_helper_results_are_solved() -> None:
    """A comparison of a random number is solved by giving that number."""
    assert reaches("call bpf_get_prandom_u32; if r0 != 0xabcdef goto out;")


def test_loops_are_seen() -> None:
    """A branch that only the third round of a loop takes is reached."""
    body = """
        r7 = r2; r8 = 0
        again: r5 = *(u8 *)(r7 + 0); r7 += 1; r8 += 1; if r5 != 0x77 goto next
        if r8 == 3 goto found; next: if r8 != 5 goto again; goto out; found:
    """
    assert reaches(body)


def test_recorder_notes_edges_and_operands() -> None:
    """Edges and both sides of each comparison are noted, in order."""
    program = assemble("if r1 == 5 goto out; if w1 > w2 goto out; r0 = 0; out: exit")
    recorder = Recorder(program)
    registers = (0, 7, 1 << 40, *range(9))
    for slot in (0, 1, 3):
        recorder.hook(slot, registers)
    assert recorder.edges == {(0, 1): 1, (1, 3): 1}
    assert recorder.compares == [Compare(0, 7, 5), Compare(1, 7, 1 << 40)]


def test_branches_of_a_program() -> None:
    """Every conditional jump is listed, with its operands and its two ways."""
    found = branches_of(assemble("if w1 s< -2 goto +1; r0 = 1; if r3 & r4 goto -2; exit"))
    assert sorted(found) == [0, 2]
    first, second = found[0], found[2]
    assert (first.op, first.bits, first.imm, first.edges) == (
        "jslt",
        32,
        0xFFFF_FFFE,
        ((0, 1), (0, 2)),
    )
    assert (second.op, second.src, second.target) == ("jset", 4, 1)


def test_solutions_hold_the_wanted_value() -> None:
    """For two bytes in a row both byte orders of the wanted value are tried."""
    branch = branches_of(assemble("if r1 == 0x1234 goto +0; exit"))[0]
    case = Case(packet=bytes(20))
    compare = Compare(0, 0, 0x1234)
    places = [(0, 12), (0, 13)]
    made = solutions(case, compare, branch, places, Effort.OPEN, is_left=True)
    tried = {(one.packet or b"")[12:14] for one in made}
    assert {b"\x12\x34", b"\x34\x12"} <= tried


def test_lengths_that_tip_a_comparison() -> None:
    """Where an operand grows by 2 with each byte, half as many bytes are missing as its gap."""
    branch = branches_of(assemble("if r1 == 100 goto +0; exit"))[0]
    made = set(more_for(Compare(0, 40, 100), Compare(0, 42, 100), 1, branch))
    assert 30 in made
    assert not list(more_for(Compare(0, 40, 100), Compare(0, 40, 100), 1, branch))


def test_occurrences_are_numbered() -> None:
    """The first few times that a comparison is made are told apart."""
    compares = tuple(Compare(slot, 0, 0) for slot in (4, 4, 9, 4, 4, 4))
    numbered = [(one.compare.slot, one.occurrence) for one in occurrences(compares)]
    assert numbered == [(4, 0), (4, 1), (9, 0), (4, 2)]


def test_same_seed_same_search() -> None:
    """A search with the same seed makes the same number of runs and finds the same input."""
    text = XDP.format(need=14) + "r5 = *(u32 *)(r2 + 6); if r5 > 99 goto out; r0 = {}; out: exit"
    before, after = assemble(text.format(1)), assemble(text.format(3))
    found = [verify(before, after, kind="xdp", bounds=Bounds(seconds=20, seed=5)) for _ in range(2)]
    assert found[0].runs == found[1].runs
    assert found[0].counterexample == found[1].counterexample


def test_bounds_are_kept() -> None:
    """No more inputs are run than asked for."""
    program = assemble("r0 = *(u32 *)(r1 + 0); exit")
    assert verify(program, program, kind="xdp", bounds=Bounds(runs=40)).runs == {"interp": 40}


@pytest.mark.parametrize("engine", ["compiled", "reference"])
def test_a_machine_tells_a_recorder_of_its_branches(engine: Engine) -> None:
    """Compiled or not, a machine notes the same edges and comparisons."""
    text = "r0 = 3; again: r0 -= 1; if r0 s> 0 goto again; if w2 & 4 goto out; r0 = 9; out: exit"
    recorder = Recorder(assemble(text))
    machine = Machine(assemble(text), MachineOptions(watch=recorder, engine=engine))
    machine.run(r1=0, r2=0x1_0000_0004)
    assert recorder.edges == {(2, 1): 2, (2, 3): 1, (3, 5): 1}
    assert recorder.compares == [
        *(Compare(2, left, 0) for left in (2, 1, 0)),
        Compare(3, 0x1_0000_0004, 4),
    ]
