"""What counts as a difference."""

from __future__ import annotations

import pytest

from bpfpatch.asm import assemble
from bpfpatch.errors import Where
from bpfpatch.facts import MapDefinition, MapType
from bpfpatch.interp import BudgetError, TrapError
from bpfpatch.verify import Bounds, Case, verify
from bpfpatch.verify.calls import Call
from bpfpatch.verify.compare import differences, is_inconclusive
from bpfpatch.verify.kinds import Shape
from bpfpatch.verify.side import Observation, RunSubject, Side

TRAP = TrapError(Where(3), "stray read", 0x10, 4, "read")
MAPS = {1: MapDefinition("m", MapType.HASH, 4, 8, 4)}


def shown(before: Observation, after: Observation, *ignore: str) -> list[str]:
    """The differences as text."""
    return [str(one) for one in differences(before, after, ignore)]


def observed(text: str, mem: bytes = b"", shape: Shape = Shape.MEM) -> Observation:
    """What a program does on plain memory."""
    return Side(RunSubject(assemble(text), maps=MAPS), shape, budget=1000).run(Case(ctx=mem))


@pytest.mark.parametrize("kind", ["xdp", "sched_cls"])
def test_context_of_a_tail_call(kind: str) -> None:
    """A tail call whose first argument is no longer the context differs."""
    text = "r6 = r1; r1 = {}; r2 = map[id:1]; r3 = 1; call bpf_tail_call; r0 = 2; exit"
    before, after = assemble(text.format("r6")), assemble(text.format("r10"))
    maps = {1: MapDefinition("p", MapType.PROG_ARRAY, 4, 4, 4)}
    verdict = verify(before, after, kind=kind, maps=maps, bounds=Bounds(runs=20))
    assert verdict.counterexample is not None
    (found,) = verdict.counterexample.differences
    assert "tail_call(ctx (struct" in found.before
    assert "tail_call(stack, p, 0x1)" in found.after
    assert any(row.is_parting for row in verdict.counterexample.trace)


@pytest.mark.parametrize("byte_off", [8, 32, 44, 48, 60, 64])
def test_lost_store_of_zero_into_the_context_is_found(byte_off: int) -> None:
    """A field of the context that is only written does not start as 0 on every input."""
    text = "{} r0 = 0; exit"
    before = assemble(text.format(f"*(u32 *)(r1 + {byte_off}) = 0;"))
    verdict = verify(before, assemble(text.format("")), kind="sched_cls", bounds=Bounds(runs=400))
    assert verdict.differs, verdict


def test_r0() -> None:
    """Both values of R0 are shown."""
    assert shown(Observation(r0=1), Observation(r0=2)) == ["R0: 0x1 before, 0x2 after"]


def test_packet_bytes() -> None:
    """Each run of unequal bytes is named by where it starts."""
    found = shown(Observation(packet=b"abcdef"), Observation(packet=b"aXXdeY"))
    assert found == ["packet byte 1: 6263 before, 5858 after", "packet byte 5: 66 before, 59 after"]


def test_packet_length() -> None:
    """A packet of another length differs in that, too."""
    assert shown(Observation(packet=b"ab"), Observation(packet=b"abc")) == [
        "packet length: 2 before, 3 after"
    ]


def test_map_entries() -> None:
    """An entry that is missing, or has another value, is named by map and key."""
    before, after = {"m": {b"k": b"\1", b"q": b"\2"}}, {"m": {b"k": b"\3"}}
    assert shown(Observation(maps=before), Observation(maps=after)) == [
        "map m[6b]: 01 before, 03 after",
        "map m[71]: 02 before, none after",
    ]


def test_maps_of_one_program_only() -> None:
    """A map that only one program has does not count: a rewriting may bring its own."""
    assert not shown(Observation(maps={}), Observation(maps={"mine": {b"k": b"v"}}))


def test_records() -> None:
    """Of records that were sent the first one that differs is shown."""
    before, after = {"ring": [b"a", b"b"]}, {"ring": [b"a", b"c"]}
    assert shown(Observation(maps=before), Observation(maps=after)) == [
        "map ring record 1: 62 before, 63 after"
    ]


def test_helper_calls() -> None:
    """The first call that differs is shown, with its arguments."""
    before = (Call("redirect", (1, 0)), Call("redirect", (2, 0)))
    assert shown(Observation(calls=before), Observation(calls=before[:1])) == [
        "helper call 1: redirect(0x2, 0x0) before, none after"
    ]


def test_calls_about_a_map_of_its_own() -> None:
    """Reads and writes of a map that a rewriting brings do not count; what else it does there does.

    One that the original alone has is no reason to leave its calls out.
    """
    mine = Call("map_update_elem", ("map mine", b"k", b"v", 0))
    plain, more = Observation(calls=()), Observation(maps={"mine": {}}, calls=(mine,))
    assert not shown(plain, more)
    assert shown(more, plain)
    assert not shown(more, plain, "maps:mine")
    sent = Call("redirect_map", ("map mine", 0, 0))
    assert shown(plain, Observation(maps={"mine": {}}, calls=(sent,)))


def test_errors_of_the_same_kind_are_equal() -> None:
    """Two traps on the same kind of access are the same, wherever the instruction is now."""
    other = TrapError(Where(9), "stray read elsewhere", 0x20, 4, "read")
    assert not shown(Observation(error=TRAP), Observation(error=other))
    wider = TrapError(Where(9), "stray read", 0x10, 8, "read")
    assert len(shown(Observation(error=TRAP), Observation(error=wider))) == 1


def test_one_trap_is_a_difference() -> None:
    """Where only one of the programs traps, nothing else is worth telling."""
    (line,) = shown(Observation(r0=1), Observation(error=TRAP))
    assert line.startswith("error: none before, TrapError: insn 3: stray read after")


def test_ignored() -> None:
    """What is to be ignored is no difference, one map by its name."""
    before = Observation(r0=1, maps={"m": {b"k": b"1"}, "n": {b"k": b"1"}})
    after = Observation(r0=2, maps={"m": {b"k": b"2"}, "n": {b"k": b"2"}})
    assert len(shown(before, after, "r0")) == 2
    assert len(shown(before, after, "r0", "maps:m")) == 1
    assert not shown(before, after, "r0", "maps")


def test_budget_of_the_original() -> None:
    """An original that takes too long says nothing; one that nests too deep does."""
    spent = BudgetError(Where(0), "used up", 10, "instructions")
    assert is_inconclusive(Observation(error=spent))
    assert not is_inconclusive(Observation(error=BudgetError(Where(0), "deep", 8, "frames")))


def test_keys_count_and_not_their_places() -> None:
    """A key elsewhere on the stack makes the same call; another key makes another one."""
    text = "*(u32 *)(r10 - {at}) = {key}; r1 = map[id:1]; r2 = r10; r2 += -{at}; call 1; exit"
    first, moved, other = (
        observed(text.format(at=at, key=key)) for at, key in ((4, 1), (8, 1), (4, 2))
    )
    assert not shown(first, moved)
    assert shown(first, other) == [
        "helper call 0: map_lookup_elem(map m, [01000000]) before, "
        "map_lookup_elem(map m, [02000000]) after"
    ]


def test_runs_do_not_see_each_other() -> None:
    """What one run leaves in a map is gone in the next."""
    text = """
        *(u32 *)(r10 - 4) = 1; *(u64 *)(r10 - 16) = 7
        r1 = map[id:1]; r2 = r10; r2 += -4; r3 = r10; r3 += -16; r4 = 1
        call bpf_map_update_elem; exit
    """
    side = Side(RunSubject(assemble(text), maps=MAPS), Shape.MEM, budget=1000)
    first, second = side.run(Case(ctx=b"")), side.run(Case(ctx=b""))
    assert first.maps == {"m": {b"\1\0\0\0": (7).to_bytes(8, "little")}}
    assert (second.r0, second.maps) == (0, first.maps)


def test_results_of_helpers_can_be_given() -> None:
    """The nth call of a helper that tells chance or time gives what the input says."""
    text = "call bpf_get_prandom_u32; r6 = r0; call bpf_get_prandom_u32; r0 -= r6; exit"
    side = Side(RunSubject(assemble(text)), Shape.MEM, budget=1000)
    results = (("get_prandom_u32", 0, 5), ("get_prandom_u32", 1, 8))
    assert side.run(Case(ctx=b"", results=results)).r0 == 3


def test_context_pointers_lead_to_memory() -> None:
    """A tracing program can follow a pointer in its context."""
    case = Case(ctx=(0x7E57_AB1E_0000_0008).to_bytes(8, "little"), memory=b"ABCDEFGHIJKLMNOP")
    program = assemble("r1 = *(u64 *)(r1 + 0); r0 = *(u8 *)(r1 + 0); exit")
    assert Side(RunSubject(program), Shape.CTX, budget=100).run(case).r0 == ord("I")
