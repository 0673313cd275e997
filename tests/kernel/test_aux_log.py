"""Aux data from the log of real loads: what the verifier saw, and where the kernel put it."""

from __future__ import annotations

import numpy as np
import pytest

from bpfpatch import asm, isa, kernel
from bpfpatch.elf import ElfObject
from bpfpatch.errors import BpfPatchError
from bpfpatch.facts.columns import (
    CALL_KEY,
    CALL_MAP,
    CALLBACK,
    MANY,
    MEM_ID,
    MEM_TYPE,
    NONE,
    SEEN,
    STACK_DEPTH,
    ZEXT_DST,
    MemType,
)
from bpfpatch.program import DELETED, Program
from support.inputs.bpfobjects import debian_objects, fixture_objects, fixture_path
from support.machine.tools import need_bpf

pytestmark = pytest.mark.kernel


@pytest.fixture(autouse=True)
def _bpf() -> None:
    need_bpf()


def load(text: str, *maps: kernel.Map, **options: object) -> kernel.AuxLoad:
    """Load text in which MAP0, MAP1 ... stand for the maps' descriptors."""
    for index, made in enumerate(maps):
        text = text.replace(f"MAP{index}", str(made.fd))
    options.setdefault("prog_type", "sched_cls")
    return kernel.load_with_aux(asm.assemble(text), maps=maps, **options)


def values(aux: kernel.AuxLoad, name: str) -> list[int]:
    """A column."""
    out: list[int] = aux.program.columns[name].values.tolist()
    return out


LOOKUP = """
    *(u32 *)(r10 - 4) = 0
    r2 = r10
    r2 += -4
    call bpf_map_lookup_elem
    if r0 == 0 goto out
    r1 = *(u64 *)(r0 + 0)
out:
    r0 = 0
    exit
"""


def test_maps_that_look_the_same_are_told_apart_by_their_address() -> None:
    """Of two maps without names and of one size the log does not tell which one it is."""
    text = "ld_pseudo r6, 1, MAP0; ld_pseudo r1, 1, MAP1; r6 = r6; *(u64 *)(r10 - 16) = r1"
    text += "; r1 = 0; r1 = *(u64 *)(r10 - 16)" + LOOKUP
    with kernel.Map.create("array", 4, 8, 2) as one, kernel.Map.create("array", 4, 8, 2) as two:
        aux = load(text, one, two)
    call = int(np.flatnonzero(isa.is_helper_call(aux.program.insns))[0])
    assert values(aux, CALL_MAP)[call] == 1
    assert values(aux, MEM_ID)[call + 2] == 1


def test_a_call_that_two_maps_reach_has_many() -> None:
    """What is inlined for one map would be wrong for the other."""
    text = "r2 = *(u32 *)(r1 + 0); ld_pseudo r1, 1, MAP0; if r2 == 7 goto go"
    text += "; ld_pseudo r1, 1, MAP1; go:" + LOOKUP
    with kernel.Map.create("array", 4, 8, 2) as one, kernel.Map.create("array", 4, 8, 2) as two:
        aux = load(text, one, two)
    call = int(np.flatnonzero(isa.is_helper_call(aux.program.insns))[0])
    assert values(aux, CALL_MAP)[call] == MANY


def test_an_inner_map_stands_behind_the_others() -> None:
    """A lookup in a map that was looked up refers to the inner map's facts."""
    inner_lookup = LOOKUP.replace("call", "r1 = r0; call")
    text = (
        "*(u32 *)(r10 - 4) = 0; r2 = r10; r2 += -4; ld_pseudo r1, 1, MAP0;"
        "call bpf_map_lookup_elem; if r0 == 0 goto out" + inner_lookup
    )
    with (
        kernel.Map.create("array", 4, 8, 2) as inner,
        kernel.Map.create("array_of_maps", 4, 4, 2, inner=inner) as outer,
    ):
        aux = load(text, outer)
    maps = aux.submitted.subject.maps
    calls = np.flatnonzero(isa.is_helper_call(aux.program.insns)).tolist()
    assert [values(aux, CALL_MAP)[call] for call in calls] == [0, 1]
    assert maps[1] is maps[0].inner
    assert aux.submitted.map_ids[1] == NONE


def test_a_map_argument_is_followed_into_a_subprog() -> None:
    """A subprog that gets a map of several that look the same."""
    text = "ld_pseudo r1, 1, MAP1; call sub; ld_pseudo r1, 1, MAP1; call sub; exit; sub:" + LOOKUP
    with kernel.Map.create("hash", 4, 8, 2) as one, kernel.Map.create("hash", 4, 8, 2) as two:
        aux = load(text, one, two)
    call = int(np.flatnonzero(isa.is_helper_call(aux.program.insns))[0])
    assert values(aux, CALL_MAP)[call] == 1


@pytest.mark.parametrize(("index", "key"), [("3", 3), ("9", NONE)])
def test_a_constant_tail_call_has_its_index(index: str, key: int) -> None:
    """It counts only within the array."""
    text = f"ld_pseudo r2, 1, MAP0; r3 = {index}; call bpf_tail_call; r0 = 0; exit"
    with kernel.Map.create("prog_array", 4, 4, 4) as programs:
        aux = load(text, programs)
    assert values(aux, CALL_KEY)[3] == key
    assert values(aux, CALL_MAP)[3] == 0


def test_an_index_of_two_paths_is_none() -> None:
    """Only one constant on all visits is a constant."""
    text = "r2 = *(u32 *)(r1 + 0); r3 = 1; if r2 == 7 goto go; r3 = 2; go:"
    text += "ld_pseudo r2, 1, MAP0; call bpf_tail_call; r0 = 0; exit"
    with kernel.Map.create("prog_array", 4, 4, 4) as programs:
        aux = load(text, programs)
    assert values(aux, CALL_KEY)[6] == NONE


def test_memory_is_told_by_what_is_behind_it() -> None:
    """Context, packet, stack: also where the base is what the load defines."""
    text = """
        r2 = *(u32 *)(r1 + 80)
        r1 = *(u32 *)(r1 + 76)
        r3 = r1
        r3 += 8
        if r3 > r2 goto out
        *(u64 *)(r10 - 8) = 1
        r1 = *(u8 *)(r1 + 3)
        r2 = r10
        r2 = *(u64 *)(r2 - 8)
    out:
        r0 = 0
        exit
    """
    aux = load(text)
    want = {0: "CTX", 1: "CTX", 5: "STACK", 6: "PACKET", 8: "STACK"}
    got = {slot: MemType(kind).name for slot, kind in enumerate(values(aux, MEM_TYPE)) if kind}
    assert got == want


def test_bpf_loop_and_its_callback_have_one_number() -> None:
    """Where its flags are 0 and its callback one."""
    with kernel.open_object(fixture_path("callbacks.clang-19.v3.el.g.o").as_posix(), []) as opened:
        aux = kernel.load_object_with_aux(opened, "loops")
        found = kernel.origins(aux.loaded)
    program = aux.program
    numbers = program.columns[CALLBACK].values
    calls = np.flatnonzero(isa.is_helper_call(program.insns) & (numbers >= 0))
    functions = np.flatnonzero(isa.is_ld_imm64(program.insns) & (numbers >= 0))
    assert calls.size == 3
    assert set(numbers[calls].tolist()) == set(numbers[functions].tolist())
    # An inlined loop saves three registers at the end of the stack.
    xlated = found.xlated.program.insns
    of = program.subprogs.of(calls.astype(np.int32))
    for call, subprog in zip(calls.tolist(), of.tolist(), strict=True):
        inlined = xlated[found.site == call]
        saves = inlined[isa.is_store(inlined) & (isa.dst(inlined) == 10)]
        depth = int(program.tables[STACK_DEPTH].rows[subprog])
        assert -int(saves["off"].min()) == (depth + 7) // 8 * 8 + 24


def test_an_instruction_that_went_is_deleted() -> None:
    """Dead code and nops go, what is left says where it comes from."""
    text = "r0 = 1; if r0 == 1 goto on; r0 = 2; on: goto next; next: w0 /= 3; exit"
    with kernel.load(asm.assemble(text), prog_type="sched_cls") as loaded:
        found = kernel.origins(loaded)
    assert found.start.tolist() == [0, DELETED, DELETED, DELETED, 1, len(found.site) - 1]
    assert set(found.site.tolist()) == {0, 4, 5}


def test_a_dead_subprog_goes_whole() -> None:
    """And what was rewritten is wider than it was."""
    text = "r0 = *(u32 *)(r1 + 48); r2 = 1; if r2 == 1 goto +1; call sub; exit; sub: w0 += 1; exit"
    with kernel.load(asm.assemble(text), prog_type="sched_cls") as loaded:
        found = kernel.origins(loaded)
        bare = loaded.xlated()
    assert found.start[2:].tolist() == [DELETED, DELETED, len(bare) - 1, DELETED, DELETED]
    assert (found.xlated.raw == bare).all()
    assert found.xlated.program.subprogs.start.tolist() == [0]


def test_blinding_does_not_come_between() -> None:
    """Whoever else wants constants blinded meanwhile, the code read back has its own."""
    program = asm.assemble("r0 = 0x1234567; call sub; exit; sub: r0 = 0x7654321; exit")
    with kernel.load(program, prog_type="sched_cls") as loaded, kernel.harden(2):
        found = kernel.origins(loaded)
    assert found.start.tolist() == list(range(5))
    assert found.xlated.raw["imm"][[0, 3]].tolist() == [0x1234567, 0x7654321]


ZEXT = {
    "w0 = 1; r0 >>= 1; exit": {0: True},
    "w1 = 1; w0 = w1; exit": {0: False, 1: True},
    "*(u64 *)(r10 - 8) = 5; r1 = *(u32 *)(r10 - 8); r0 = r1; r0 >>= 32; exit": {1: True},
    "*(u64 *)(r10 - 8) = 5; r1 = *(u32 *)(r10 - 8); w0 = w1; r0 = 0; exit": {1: False, 2: False},
    # What the kernel rewrote before counts as read.
    "w0 = 7; w1 = 3; w0 /= w1; w2 = w0; r0 = 0; exit": {0: False, 1: False, 2: True, 3: False},
}


@pytest.mark.parametrize("text", list(ZEXT))
def test_upper_halves_that_are_read_are_known(text: str) -> None:
    """zext_dst holds of 32-bit definitions that are read as 64 bits; an exit reads all of R0."""
    with kernel.load(asm.assemble(text), prog_type="sched_cls") as loaded:
        program = kernel.kernel_zext(loaded)
    got = program.columns[ZEXT_DST].values
    assert {slot: bool(got[slot]) for slot in ZEXT[text]} == ZEXT[text]


def test_what_was_seen_is_what_is_left_in_every_program() -> None:
    """In fixtures and the system's programs the log agrees with what the kernel kept."""
    checked = 0
    for name, data in [*fixture_objects()[::2], *debian_objects()[::4]]:
        if ".eb." in name:
            continue
        try:
            opened = kernel.open_object(ElfObject.parse(data), [], name=name.partition(".")[0])
        except BpfPatchError:
            continue
        with opened:
            for info in opened.obj.programs:
                try:
                    aux = kernel.load_object_with_aux(opened, info.name)
                except BpfPatchError:
                    continue
                check(aux)
                aux.loaded.close()
                checked += 1
    assert checked > 20


def check(aux: kernel.AuxLoad) -> None:
    """Compare with what became of each instruction."""
    found = kernel.origins(aux.loaded)
    program: Program = aux.program
    insns, is_insn = program.insns, ~program.second_slots
    seen = program.columns[SEEN].values
    gone = found.start == DELETED
    assert not (is_insn & ~gone & ~seen).any(), aux.loaded.name
    # Only jumps that decide nothing go although they were seen.
    assert isa.is_jump(insns[is_insn & gone & seen]).all(), aux.loaded.name
    access = isa.is_load(insns) | isa.is_store(insns) | isa.is_atomic(insns)
    kind = program.columns[MEM_TYPE].values
    assert (kind[access & seen] != MemType.UNKNOWN).all(), aux.loaded.name
    plain = access & ~gone & ~np.isin(kind, [MemType.CTX, MemType.SOCKET, MemType.XDP_SOCK])
    plain &= kind != MemType.SOCK_COMMON
    plain &= kind != MemType.TCP_SOCK
    kept = found.xlated.raw[found.start[plain]]
    assert (kept == insns[plain]).all(), aux.loaded.name
