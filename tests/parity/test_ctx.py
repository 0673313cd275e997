"""Every access to every context that the kernel takes becomes what the kernel makes of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from bpfpatch import isa, kernel
from bpfpatch.facts import AttachType, MapType, MemType, ProgType
from bpfpatch.facts.layouts import Layouts
from bpfpatch.kernel import Map
from bpfpatch.linux.passes.ctx import Converter, contexts
from bpfpatch.program import Program
from support.inputs import ctxgrid as grid
from support.inputs.ctxgrid import Case, Code, World
from support.machine.tools import need_bpf

pytestmark = pytest.mark.kernel

TYPE = 180
"""Place of __sk_buff.tstamp_type, whose load changes what tstamp is."""
LEAST = {"__sk_buff": 350, "__sk_buff:tc": 400, "bpf_sock_ops": 100, "bpf_sk_lookup": 200}
"""How many accesses the kernel takes of some contexts at least, so that none gets lost."""


@pytest.fixture(autouse=True)
def _bpf() -> None:
    need_bpf()


def shown(insns: isa.Insns) -> str:
    """Instructions, for a failure's message."""
    return "; ".join(isa.describe(insns, slot) for slot in range(len(insns)))


def assert_parity(world: World, program: Program) -> None:
    """Ours is theirs."""
    other = grid.theirs(world, program)
    assert other is not None, f"{world}: the kernel refuses {shown(program.insns)}"
    mine = grid.ours(world, program)
    if not np.array_equal(grid.masked(mine), grid.masked(other)):
        pytest.fail(f"{world}\nours   {shown(mine)}\ntheirs {shown(other)}")


def assert_all(world: World, cases: Sequence[Case]) -> None:
    """All in one program; where that differs, the first access that does so alone is shown."""
    program = grid.program_of(world, list(cases))
    other = grid.theirs(world, program)
    assert other is not None
    if np.array_equal(grid.masked(grid.ours(world, program)), grid.masked(other)):
        return
    for case in cases:
        assert_parity(world, grid.program_of(world, [case]))
    pytest.fail(f"{world}: only all accesses together differ")


@pytest.mark.parametrize("world", grid.worlds(), ids=str)
def test_every_access(world: World) -> None:
    """Loads, sign-extending loads and stores of all widths at all places, in all registers."""
    taken = [case for case in grid.cases(world) if grid.probe(world, case)]
    assert len(taken) >= LEAST.get(world.context, 3)
    assert_all(world, [case for case in taken if case.byte_off != TYPE])
    for case in taken:
        if case.byte_off == TYPE:
            assert_parity(world, grid.program_of(world, [case]))


def test_no_field_that_the_kernel_lacks() -> None:
    """Each field of each table can be loaded by some program: no row is out of reach of a test."""
    layouts = Layouts(kernel.vmlinux_btf())
    missing: set[tuple[str, str]] = set()
    reached: set[tuple[str, str]] = set()
    for world in grid.worlds():
        converter = Converter(contexts()[world.context], layouts, {"min_napi_id": 1})
        for span in converter.spans:
            row = (converter.context.uapi, span.field.name)
            if row in reached:
                continue
            tries = [Case("ldx", span.byte_off, width) for width in (span.unit, 8)]
            found = any(grid.probe(world, case) for case in tries)
            (reached if found else missing).add(row)
    assert not missing - reached


@pytest.mark.parametrize("kind", [ProgType.SCHED_CLS, ProgType.SCHED_ACT])
def test_tstamp_of_a_program_that_knows_its_type(kind: ProgType) -> None:
    """Where the type is loaded anywhere, the timestamp is loaded and stored as it is."""
    world = World(kind, 0, "__sk_buff:tc", 192)
    cases = [Case("ldx", 152, 8), Case("stx", 152, 8), Case("st", 152, 8), Case("ldx", TYPE, 1)]
    assert_parity(world, grid.program_of(world, cases))
    assert_parity(world, grid.program_of(world, cases[:3]))
    assert_parity(world, grid.program_of(world, [cases[0], cases[3]]))


def test_queue_stores_up_to_none() -> None:
    """A queue is stored if it is below "none"; of an immediate that is known at once."""
    world = World(ProgType.SCHED_CLS, 0, "__sk_buff:tc", 192)
    code = grid.start(world)
    for imm in (0, 1, 0xFFFE, 0xFFFF, 0x10000, 0x7FFFFFFF, -1, -(1 << 31)):
        code.add(isa.load("u64", 2, 10, grid.HOME))
        code.add(grid.access(Case("st", 12, 4), 2, 0, imm), mem=MemType.CTX)
    assert_parity(world, grid.finish(code, world))


def test_stored_immediates() -> None:
    """Sites that share a body keep their own immediates."""
    world = World(ProgType.SOCK_OPS, AttachType.CGROUP_SOCK_OPS, "bpf_sock_ops", 224)
    code = grid.start(world)
    for imm in range(-40, 40):
        code.add(isa.load("u64", 2, 10, grid.HOME))
        code.add(grid.access(Case("st", 164 if imm % 3 else 4, 4), 2, 0, imm), mem=MemType.CTX)
    assert_parity(world, grid.finish(code, world))


def test_socket_of_an_af_xdp_map() -> None:
    """The socket that a look-up in such a map finds is one of AF_XDP."""
    world = World(ProgType.XDP, 0, "bpf_xdp_sock", 4, MemType.XDP_SOCK)
    with Map.create(MapType.XSKMAP, 4, 4, 4) as sockets:
        code = Code()
        code.add(
            isa.store("u32", 10, -4, 0),
            isa.mov(2, isa.R10),
            isa.alu("+=", 2, -4),
            isa.ld_imm64(1, sockets.fd, src=1),
            isa.call_helper("map_lookup_elem"),
            isa.jump("!=", 0, 0, 2),
            isa.mov(0, 1),
            isa.exit_(),
            isa.mov(1, isa.R0),
            isa.store("u64", 10, -16, isa.R1),
        )
        n_setup = sum(map(len, code.parts))
        for dst, src in ((3, 2), (2, 2), (9, 8), (8, 8)):
            code.add(isa.load("u64", src, 10, -16))
            code.add(grid.access(Case("ldx", 0, 4), dst, src), mem=MemType.XDP_SOCK)
        program = grid.finish(code, world)
        other = grid.theirs(world, program)
    # The look-up itself is inlined by another pass.
    assert other is not None
    n_tail = len(program) - n_setup
    assert np.array_equal(grid.ours(world, program)[-n_tail:], other[-n_tail:])


@pytest.mark.parametrize(
    ("kind", "attach", "size", "returns"),
    [
        (ProgType.KPROBE, 0, 64, 0),
        (ProgType.TRACEPOINT, 0, 64, 0),
        (ProgType.RAW_TRACEPOINT, 0, 64, 0),
        (ProgType.RAW_TRACEPOINT_WRITABLE, 0, 64, 0),
        (ProgType.CGROUP_DEVICE, AttachType.CGROUP_DEVICE, 12, 1),
        (ProgType.LIRC_MODE2, AttachType.LIRC_MODE2, 4, 0),
        (ProgType.NETFILTER, AttachType.NETFILTER, 16, 1),
    ],
)
def test_raw_contexts(kind: ProgType, attach: int, size: int, returns: int) -> None:
    """What is no view of something else is left alone."""
    world = World(kind, int(attach), "", size, returns=returns)
    if not grid.loads(world, grid.program_of(world, [])):
        pytest.skip(f"not on this kernel: {kind.text}")
    taken = [case for case in grid.cases(world) if grid.probe(world, case)]
    assert taken
    program = grid.program_of(world, taken)
    assert_parity(world, program)
    assert np.array_equal(grid.ours(world, program), program.insns)
