"""Bytes of the stack that are said to be free: the kernel loads what uses them, and runs alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bpfpatch import isa, kernel
from bpfpatch.asm import assemble
from bpfpatch.dataflow.blocks import Blocks
from bpfpatch.dataflow.stackuse import ROUND_COMPILED, stack_room
from bpfpatch.passes.scratch import Scratch
from bpfpatch.patch import PatchList
from bpfpatch.program import Program
from support.cases.lined import with_lines
from support.machine import tools
from support.models.crowding import check_crowded, results, spoiled

pytestmark = pytest.mark.kernel

PACKET = bytes(range(64))
ENDS = "call bpf_get_prandom_u32; r0 = r6; r0 &= 0xffff; exit"
LOCALS = "r6 = *(u32 *)(r1 + 0); *(u64 *)(r10 - 16) = 5; *(u64 *)(r10 - 8) = 6;"
UNSIGNED = f"{LOCALS} r3 = r10; r3 += -16;"
READS = "r0 = *(u8 *)(r3 + 0); r6 += r0;"
CAUSES = {
    "ended by other arithmetic": f"{LOCALS} r7 = r10; r7 += -16; if r6 == 9 goto on; r7 = 0; "
    f"on: if r7 == 0 goto out; r0 = *(u64 *)(r7 + 0); r6 += r0; out: r7 = 3; r7 >>= 1; {ENDS}",
    "stored": f"{UNSIGNED} *(u64 *)(r10 - 24) = r3; r4 = *(u64 *)(r10 - 24); "
    f"r5 = *(u64 *)(r10 - 8); r0 = *(u64 *)(r4 + 0); r6 += r0; r6 += r5; {ENDS}",
    "atomic": f"{LOCALS} r7 = r10; *(u64 *)(r10 - 24) = r7; r3 = 4; "
    f"r3 = atomic_fetch_add((u64 *)(r10 - 8), r3); r6 += r3; {ENDS}",
    "a number added": f"{UNSIGNED} r2 = r6; r2 &= 7; r3 += r2; {READS} {ENDS}",
    "a number counted": f"{UNSIGNED} r2 = 0; l: r3 = r10; r3 += -16; r3 += r2; {READS} "
    f"r2 += 1; if r2 != 16 goto l; {ENDS}",
    "given to a subprog": f"{LOCALS} r1 = r10; r1 += -8; call f; r6 += r0; {ENDS}; "
    "f: r0 = *(u64 *)(r1 - 8); r2 = *(u64 *)(r1 + 0); r0 += r2; exit",
    "found in what is given": f"{LOCALS} r1 = r10; r1 += -8; *(u64 *)(r10 - 24) = r1; "
    f"r1 += -16; call f; r6 += r0; {ENDS}; f: r2 = *(u64 *)(r1 + 0); r0 = *(u64 *)(r2 - 8); exit",
}


@pytest.fixture(autouse=True)
def _kernel() -> None:
    tools.need_bpf()


def result(program: Program) -> int:
    """What the kernel's run gives."""
    with kernel.load(program, prog_type="xdp") as loaded:
        return loaded.test_run(PACKET).retval


@pytest.mark.parametrize("cause", CAUSES)
def test_free_bytes_are_free(cause: str) -> None:
    """A program that writes to them everywhere loads, and gives the same."""
    text = CAUSES[cause].replace("r6 = *(u32 *)(r1 + 0);", "r6 = *(u32 *)(r1 + 12);")
    program = assemble(text)
    view = PatchList(program).view()
    stack = Scratch(view, Blocks.of(view, np.zeros(0, np.int32))).stack
    assert stack.is_known.all()
    changed, n_used = spoiled(program)
    assert n_used > 2 * len(program)
    assert result(changed) == result(program)


def test_function_that_a_caller_chooses() -> None:
    """What a callback reads is in use where its address comes from a caller, too."""
    loops = "r1 = 1; r2 = {}; r3 = r10; r3 += -16; r4 = 0; call bpf_loop;"
    program = assemble(
        f"main: r1 = deep ll; call f; exit; f: r7 = r1; *(u64 *)(r10 - 24) = 9; "
        "*(u64 *)(r10 - 16) = 7; "
        f"r1 = r10; r1 += -24; *(u64 *)(r10 - 8) = r1; {loops.format('r7')} "
        f"{loops.format('shallow ll')} r0 = *(u64 *)(r10 - 16); exit; shallow: r0 = 0; exit; "
        "deep: r1 = *(u64 *)(r2 + 8); r0 = *(u64 *)(r1 + 0); *(u64 *)(r2 + 0) = r0; r0 = 0; exit"
    )
    spoilt, _ = spoiled(program)
    assert set(results(program)) == set(results(spoilt)) == {9}


TAIL = "r1 = r6; r2 = 0 ll; r3 = 0; call bpf_tail_call; r0 = 0; exit"


@pytest.mark.parametrize("n_bytes", [240, 248])
@pytest.mark.parametrize("is_in_callee", [True, False])
def test_the_limit_of_tail_calls(n_bytes: int, is_in_callee: bool) -> None:
    """The callers of a subprog with a tail call have less than 256 bytes; all else has 512."""
    head = f"r6 = r1; *(u64 *)(r10 - {n_bytes}) = 1; call f;"
    text = f"{head} exit; f: r6 = r1; {TAIL}" if is_in_callee else f"{head} {TAIL}; f: r0 = 0; exit"
    with kernel.Map.create("prog_array", 4, 4, 1) as jumps:
        program = assemble(text)
        insns = program.insns.copy()
        at = int(np.flatnonzero(insns["code"] == isa.LD_IMM64)[0])
        insns["regs"][at] |= 1 << 4
        insns["imm"][at] = jumps.fd
        program = replace(program, insns=insns)
        view = PatchList(program).view()
        depths = Scratch(view, Blocks.of(view, np.zeros(0, np.int32))).stack.deepest.tolist()
        has_room = bool((stack_room(view, depths, ROUND_COMPILED) >= 0).all())
        assert has_room == (n_bytes == 240 or not is_in_callee)
        lined, btf = with_lines(program)
        if has_room:
            kernel.load(lined, prog_type="xdp", btf=btf).close()
        else:
            with pytest.raises(kernel.VerifierError, match="tail_calls are not allowed"):
                kernel.load(lined, prog_type="xdp", btf=btf)


@pytest.mark.parametrize("seed", range(9))
def test_programs_under_pressure(seed: int) -> None:
    """With full frames and all registers in use, all stays the same, and counts are right.

    ``tests/property/long.py crowded`` does the same at length.
    """
    assert not check_crowded(seed)
