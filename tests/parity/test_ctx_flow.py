"""Accesses to contexts as jump targets, at subprograms' ends, in loops; prologues; probing."""

from __future__ import annotations

import numpy as np
import pytest

from bpfpatch import isa, kernel
from bpfpatch.asm import assemble
from bpfpatch.btf import Kind
from bpfpatch.facts import MEM_TYPE, AttachType, MapType, MemType, ProgType, column
from bpfpatch.kernel import Map, unblinded
from bpfpatch.program import Program
from support.inputs import ctxgrid as grid
from support.inputs.ctxgrid import Code, World
from support.machine.tools import need_bpf

pytestmark = pytest.mark.kernel

TC = World(ProgType.SCHED_CLS, 0, "__sk_buff:tc", 192)
SK_SKB = World(ProgType.SK_SKB, int(AttachType.SK_SKB_STREAM_VERDICT), "__sk_buff:sk_skb", 192)
XMIT = World(ProgType.LWT_XMIT, 0, "__sk_buff:lwt_xmit", 192)
XDP = World(ProgType.XDP, 0, "xdp_md", 24)


@pytest.fixture(autouse=True)
def _bpf() -> None:
    need_bpf()


def written(text: str) -> Program:
    """A program whose accesses say in a comment what they go through: ``# ctx``, ``# packet``."""
    program = assemble(text)
    mem = np.zeros(len(program), np.uint8)
    slot = 0
    for line in text.splitlines():
        code, _, note = line.partition("#")
        if not code.strip() or code.strip().endswith(":"):
            continue
        assert ";" not in code
        if note.strip():
            mem[slot] = MemType[note.strip().upper()]
        slot += 2 if code.strip().endswith(" ll") else 1
    return program.with_columns(mem_type=column(MEM_TYPE, mem))


def without_calls(insns: isa.Insns) -> isa.Insns:
    """A subprogram's call has its distance in ``off`` in the kernel's form, and an index in imm."""
    out = grid.masked(insns)
    calls = np.flatnonzero((out["code"] == isa.CALL) & (isa.src(out) == 1))
    out["off"][calls] = 0
    return out


def assert_parity(world: World, program: Program) -> isa.Insns:
    """Ours is theirs."""
    other = grid.theirs(world, program)
    assert other is not None, "the kernel refuses it"
    mine = grid.ours(world, program)
    assert without_calls(mine).tolist() == without_calls(other).tolist()
    return mine


def test_jump_to_a_widened_access() -> None:
    """A jump to an access, from before and from behind, reaches its first instruction."""
    assert_parity(
        TC,
        written("""
        r6 = r1
        r7 = 0
        r2 = *(u32 *)(r6 + 0)      # ctx
        if r2 > 100 goto far
        again:
        r3 = *(u32 *)(r6 + 40)     # ctx
        r7 += 1
        if r7 > 3 goto done
        far:
        r4 = *(u8 *)(r6 + 17)      # ctx
        r7 += 1
        if r7 < 3 goto again
        done:
        r0 = *(u32 *)(r6 + 84)     # ctx
        exit
        """),
    )


def test_access_between_jumps() -> None:
    """A jump over accesses, and one that is right behind one, keep their targets."""
    assert_parity(
        TC,
        written("""
        r6 = r1
        r7 = 1
        r2 = *(u16 *)(r6 + 12)     # ctx
        if r2 == 5 goto out
        *(u32 *)(r6 + 12) = r7     # ctx
        if r2 == 6 goto out
        *(u64 *)(r6 + 152) = r7    # ctx
        if r2 == 7 goto out
        r7 = 2
        out:
        r0 = *(u64 *)(r6 + 184)    # ctx
        r0 = 0
        exit
        """),
    )


def test_first_and_last_instruction_of_a_subprog() -> None:
    """An access opens one subprog and closes another, whose calls and ends stay right."""
    assert_parity(
        TC,
        written("""
        main:
        r7 = *(u32 *)(r1 + 40)     # ctx
        r6 = r1
        call first
        r1 = r6
        call last
        r1 = r6
        call first
        exit
        first:
        r1 = *(u32 *)(r1 + 16)     # ctx
        r0 = r1
        exit
        last:
        r2 = r1
        r0 = 0
        goto work
        leave:
        exit
        work:
        r3 = *(u32 *)(r2 + 164)    # ctx
        r3 = *(u8 *)(r2 + 34)      # ctx
        goto leave
        """),
    )


WRITER = """
    r6 = r1
    r2 = *(u32 *)(r1 + 76)         # ctx
    r3 = *(u32 *)(r1 + 80)         # ctx
    r4 = r2
    r4 += 14
    if r4 > r3 goto out
    *(u8 *)(r2 + 0) = 1            # packet
    out:
    r0 = 1
    exit
"""


@pytest.mark.parametrize("world", [TC, XMIT, SK_SKB], ids=str)
def test_prologue_of_a_writer(world: World) -> None:
    """A program that writes to the packet first makes it its own."""
    mine = assert_parity(world, written(WRITER))
    assert len(mine) == len(written(WRITER)) + 10 + (8 if world is SK_SKB else 0) // 2


@pytest.mark.parametrize("world", [TC, XMIT, SK_SKB], ids=str)
def test_no_prologue_of_a_reader(world: World) -> None:
    """One that only loads from the packet does not."""
    text = WRITER.replace("*(u8 *)(r2 + 0) = 1 ", "r5 = *(u8 *)(r2 + 0) ")
    mine = assert_parity(world, written(text))
    assert mine["code"][0] == isa.mov(6, isa.R1)["code"][0]


def test_no_prologue_for_xdp() -> None:
    """A packet of XDP is nobody else's."""
    text = WRITER.replace("r1 + 76", "r1 + 0").replace("r1 + 80", "r1 + 4")
    assert_parity(XDP, written(text))


def test_prologue_before_an_access() -> None:
    """The prologue comes before the first instruction also where that one is replaced."""
    assert_parity(
        TC,
        written("""
        r7 = *(u32 *)(r1 + 40)     # ctx
        r2 = *(u32 *)(r1 + 76)     # ctx
        r3 = *(u32 *)(r1 + 80)     # ctx
        r4 = r2
        r4 += 14
        if r4 > r3 goto out
        *(u8 *)(r2 + 0) = r7       # packet
        out:
        r0 = 1
        exit
        """),
    )


@pytest.mark.parametrize("first", ["r2 = 0", "r2 = *(u32 *)(r1 + 40)     # ctx"])
def test_loop_to_the_first_instruction(first: str) -> None:
    """A jump back to the first instruction does not run the prologue again."""
    assert_parity(
        TC,
        written(f"""
        again:
        {first}
        r2 = *(u32 *)(r1 + 76)     # ctx
        r3 = *(u32 *)(r1 + 80)     # ctx
        r4 = r2
        r4 += 14
        if r4 > r3 goto out
        *(u8 *)(r2 + 0) = 9        # packet
        r5 = *(u64 *)(r10 - 8)
        if r5 == 1 goto out
        *(u64 *)(r10 - 8) = 1
        goto again
        out:
        r0 = 1
        exit
        """),
    )


def test_prologue_is_for_the_main_program() -> None:
    """A subprog that writes to the packet gives the main program a prologue, and has none."""
    assert_parity(
        TC,
        written("""
        r6 = r1
        call sub
        r1 = r6
        call sub
        exit
        sub:
        r2 = *(u32 *)(r1 + 76)     # ctx
        r3 = *(u32 *)(r1 + 80)     # ctx
        r4 = r2
        r4 += 14
        if r4 > r3 goto out
        *(u8 *)(r2 + 0) = 1        # packet
        out:
        r0 = *(u32 *)(r1 + 40)     # ctx
        exit
        """),
    )


def test_prologue_of_a_writer_to_a_slice() -> None:
    """To take a slice that may be written to is to write."""
    functions = {
        name: kernel.vmlinux_btf().find(name, Kind.FUNC)
        for name in ("bpf_dynptr_from_skb", "bpf_dynptr_slice", "bpf_dynptr_slice_rdwr")
    }
    if not all(functions.values()):
        pytest.skip("not on this kernel: dynptrs of packets")
    number = {name: found[0] for name, found in functions.items()}
    for name, has_prologue in (("bpf_dynptr_slice", False), ("bpf_dynptr_slice_rdwr", True)):
        program = written(f"""
            r2 = 0
            r3 = r10
            r3 += -16
            call kfunc {number["bpf_dynptr_from_skb"]}
            r1 = r10
            r1 += -16
            r2 = 0
            r3 = r10
            r3 += -32
            r4 = 8
            call kfunc {number[name]}
            r0 = 1
            exit
        """)
        other = grid.theirs(TC, program)
        assert other is not None
        mine = grid.ours(TC, program)
        n_prologue = 10 if has_prologue else 0
        assert len(mine) == len(program) + n_prologue
        assert np.array_equal(
            grid.masked(mine)[: n_prologue + 3], grid.masked(other)[: n_prologue + 3]
        )


def unmarked(insns: isa.Insns) -> isa.Insns:
    """As the kernel shows it: two of the modes of what may fault look like plain ones."""
    out = insns.copy()
    kind, mode = out["code"] & 7, out["code"] & 0xE0
    hidden = np.isin(kind, (1, 2, 3)) & ((mode == 0xA0) | ((mode == 0x20) & (kind == 1)))
    out["code"][hidden] = out["code"][hidden] & ~np.uint8(0xE0) | 0x60
    return out


def test_loads_of_what_may_be_gone() -> None:
    """A load through an untrusted pointer to a kernel object may fault; stores there are none."""
    place = kernel.vmlinux_btf().offset_of("struct task_struct", "last_wakee")
    field = kernel.vmlinux_btf().offset_of("struct task_struct", "pid")
    world = World(ProgType.KPROBE, 0, "", 0)
    program = written(f"""
        call bpf_get_current_task_btf
        r1 = *(u64 *)(r0 + {place})      # btf_id
        r2 = *(u32 *)(r1 + {field})      # btf_id_probe
        r3 = *(s32 *)(r1 + {field})      # btf_id_probe
        r1 = *(u64 *)(r1 + {place})      # btf_id_probe
        r0 = 0
        exit
    """)
    other = grid.theirs(world, program)
    assert other is not None
    mine = grid.ours(world, program)
    assert mine["code"][2] & 0xE0 == 0x20
    assert mine["code"][3] & 0xE0 == 0x40
    assert np.array_equal(grid.masked(unmarked(mine)), grid.masked(other))


def test_accesses_to_an_arena() -> None:
    """Loads, stores and atomics of an arena are those that add its base and may fault."""
    world = World(ProgType.SYSCALL, 0, "", 0)
    try:
        arena = Map.create(MapType.ARENA, 0, 0, 4, flags=1 << 10, extra=1 << 44)
    except kernel.KernelError:
        pytest.skip("not on this kernel: arenas")
    with arena:
        code = Code()
        code.add(
            isa.ld_imm64(1, arena.fd, src=1),
            isa.mov(2, 4096),
            isa.make(0xBF, 2, 2, 1, 1),  # addr_space_cast to the kernel's
        )
        for insn in (
            isa.load("u64", 3, 2, 0),
            isa.load("u8", 3, 2, 8),
            isa.load("s16", 3, 2, 8),
            isa.store("u32", 2, 8, 7),
            isa.store("u16", 2, 8, isa.R3),
            isa.atomic("fetch_add", "u64", 2, 8, 3),
            isa.atomic("add", "u32", 2, 8, 3),
            isa.atomic("load_acquire", "u16", 3, 8, 2),
            isa.atomic("store_release", "u8", 2, 8, 3),
        ):
            code.add(insn, mem=MemType.ARENA)
        code.add(isa.mov(0, 0), isa.exit_())
        program = code.program()
        with (
            unblinded(),
            kernel.load(program, prog_type=world.prog_type, flags=1 << 4) as loaded,
        ):
            other = loaded.xlated()
    mine = grid.ours(world, program)
    assert (mine["code"][4:13] != program.insns["code"][4:13]).all()
    at = slice(4, 13)
    assert np.array_equal(unmarked(mine)[at], unmarked(other)[at])
