"""Accesses to contexts, as small programs, and what the running kernel makes of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from bpfpatch import isa, kernel
from bpfpatch.facts import MEM_TYPE, AttachType, MemType, ProgType, Subject, column
from bpfpatch.kernel import KernelError, unblinded
from bpfpatch.linux.passes.ctx_access import CtxAccess
from bpfpatch.passes import Pipeline, Target
from bpfpatch.program import Program

STORED = 7
"""What stores store."""
HOME = -8
"""Where on the stack the context waits."""


@dataclass(frozen=True)
class World:
    """Somewhere that a context can be accessed from.

    Attributes:
        prog_type: of the program.
        attach_type: where it attaches.
        context: name of the table.
        size: bytes of the context.
        pointer: what the accesses go through.
        setup: instructions that make R1, the context, such a pointer.
        setup_ctx: slots in ``setup`` that access the program's context.
        returns: a value that the program may return.
    """

    prog_type: ProgType
    attach_type: int
    context: str
    size: int
    pointer: MemType = MemType.CTX
    setup: tuple[isa.Insns, ...] = field(default=(), compare=False)
    setup_ctx: tuple[int, ...] = ()
    returns: int = 1

    def __str__(self) -> str:
        return f"{self.prog_type.text}-{self.attach_type}-{self.pointer.name.lower()}"


@dataclass(frozen=True)
class Case:
    """An access.

    Attributes:
        kind: "ldx", "ldsx", "stx" or "st".
        byte_off: from the context's start.
        width: bytes.
    """

    kind: str
    byte_off: int
    width: int


def registers(case: Case) -> list[tuple[int, int]]:
    """(dst, src) of the accesses to make; other ones for other cases."""
    pick = case.byte_off + 3 * case.width
    if case.kind == "st":
        return [(1 + pick % 9, 0), (9, 0), (8, 0)]
    apart = [(pick % 10, (pick + 1 + pick % 7) % 10), (9, 8), (7, 9), (2, 1)]
    apart = [(dst, src) for dst, src in apart if dst != src]
    if case.kind == "stx":
        return apart
    return [*apart, (pick % 10, pick % 10), (9, 9), (8, 8)]


def access(case: Case, dst: int, src: int, imm: int = STORED) -> isa.Insns:
    """The instruction."""
    size = {1: 0x10, 2: 0x08, 4: 0x00, 8: 0x18}[case.width]
    mode = {"ldx": 0x61, "ldsx": 0x81, "stx": 0x63, "st": 0x62}[case.kind]
    return isa.make(mode | size, dst, src, case.byte_off, imm if case.kind == "st" else 0)


@dataclass
class Code:
    """A program that is being written, and what its accesses go through."""

    parts: list[isa.Insns] = field(default_factory=list)
    mem: list[int] = field(default_factory=list)

    def add(self, *insns: isa.Insns, mem: int = MemType.UNKNOWN) -> None:
        """Append instructions."""
        for insn in insns:
            self.parts.append(insn)
            self.mem += [mem] * len(insn)

    def program(self) -> Program:
        """The program, with its column."""
        return Program(isa.concat(self.parts)).with_columns(
            mem_type=column(MEM_TYPE, np.array(self.mem, np.uint8))
        )


def start(world: World) -> Code:
    """The setup: afterwards the pointer is on the stack."""
    code = Code()
    for slot, insn in enumerate(world.setup):
        code.add(insn, mem=MemType.CTX if slot in world.setup_ctx else MemType.UNKNOWN)
    code.add(isa.store("u64", 10, HOME, isa.R1))
    return code


def add_accesses(code: Code, world: World, case: Case) -> None:
    """All accesses of a case, each with registers of its own."""
    for dst, src in registers(case):
        base, value = (src, dst) if case.kind.startswith("ld") else (dst, src)
        if case.kind == "stx":
            code.add(isa.mov(value, STORED))
        code.add(isa.load("u64", base, 10, HOME))
        code.add(access(case, dst, src), mem=world.pointer)


def finish(code: Code, world: World) -> Program:
    """The end of the program."""
    code.add(isa.mov(0, world.returns), isa.exit_())
    return code.program()


def program_of(world: World, cases: list[Case]) -> Program:
    """One program of all the cases."""
    code = start(world)
    for case in cases:
        add_accesses(code, world, case)
    return finish(code, world)


def loads(world: World, program: Program) -> bool:
    """Whether the kernel takes a program."""
    try:
        kernel.load(
            program, prog_type=world.prog_type, attach_type=world.attach_type, log_level=0
        ).close()
    except KernelError:
        return False
    return True


def theirs(world: World, program: Program) -> isa.Insns | None:
    """What the kernel makes of a program, or None if it refuses it."""
    try:
        with (
            unblinded(),
            kernel.load(
                program, prog_type=world.prog_type, attach_type=world.attach_type, log_level=0
            ) as loaded,
        ):
            return loaded.xlated()
    except KernelError:
        return None


@cache
def target() -> Target:
    """The running kernel."""
    return Target.internal(btf=kernel.vmlinux_btf())


def ours(world: World, program: Program) -> isa.Insns:
    """What the pass makes of it."""
    subject = Subject(world.prog_type, world.attach_type)
    return Pipeline((CtxAccess(),)).run(program, target(), subject).program.insns


def masked(insns: isa.Insns) -> isa.Insns:
    """Without the addresses of helpers and maps."""
    out = insns.copy()
    wide = np.flatnonzero((out["code"] == isa.LD_IMM64) & (isa.src(out) > 0))
    out["imm"][wide] = 0
    out["regs"][wide] &= 0xF
    out["imm"][out["code"] == isa.CALL] = 0
    return out


def probe(world: World, case: Case) -> bool:
    """Whether the kernel takes an access."""
    code = start(world)
    code.add(isa.load("u64", 2, 10, HOME))
    if case.kind == "stx":
        code.add(isa.mov(3, STORED))
    pair = {"ldx": (3, 2), "ldsx": (3, 2), "stx": (2, 3), "st": (2, 0)}[case.kind]
    code.add(access(case, *pair), mem=world.pointer)
    return loads(world, finish(code, world))


def cases(world: World, kinds: tuple[str, ...] = ("ldx", "ldsx", "stx", "st")) -> Iterator[Case]:
    """Every access that there may be."""
    for byte_off in range(world.size):
        for width in (1, 2, 4, 8):
            if byte_off % width:
                continue
            for kind in kinds:
                if kind == "ldsx" and width == 8:
                    continue
                yield Case(kind, byte_off, width)


_SK = 168
_LEAVE = (isa.jump("!=", 0, 0, 2), isa.mov(0, 1), isa.exit_(), isa.mov(1, isa.R0))


def _through(helper: int | None) -> tuple[isa.Insns, ...]:
    """R1 = skb->sk, or what a helper makes of it."""
    setup = (
        isa.load("u64", 1, 1, _SK),
        isa.jump("!=", 1, 0, 2),
        isa.mov(0, 1),
        isa.exit_(),
    )
    return setup if helper is None else (*setup, isa.call_helper(helper), *_LEAVE)


def worlds() -> list[World]:
    """Everywhere that tables are for, but for maps of sockets."""
    types, at = ProgType, AttachType
    plain = [
        (types.XDP, at.XDP_DEVMAP, "xdp_md", 24),
        (types.SOCKET_FILTER, 0, "__sk_buff", 192),
        (types.CGROUP_SKB, at.CGROUP_INET_INGRESS, "__sk_buff", 192),
        (types.SCHED_CLS, 0, "__sk_buff:tc", 192),
        (types.SCHED_ACT, 0, "__sk_buff:tc", 192),
        (types.LWT_IN, 0, "__sk_buff", 192),
        (types.LWT_OUT, 0, "__sk_buff", 192),
        (types.LWT_XMIT, 0, "__sk_buff:lwt_xmit", 192),
        (types.LWT_SEG6LOCAL, 0, "__sk_buff", 192),
        (types.SK_SKB, at.SK_SKB_STREAM_VERDICT, "__sk_buff:sk_skb", 192),
        (types.FLOW_DISSECTOR, at.FLOW_DISSECTOR, "__sk_buff:flow_dissector", 192),
        (types.CGROUP_SOCK, at.CGROUP_INET_SOCK_CREATE, "bpf_sock", 80),
        (types.CGROUP_SOCK, at.CGROUP_INET4_POST_BIND, "bpf_sock", 80),
        (types.CGROUP_SOCK, at.CGROUP_INET6_POST_BIND, "bpf_sock", 80),
        (types.CGROUP_SOCK_ADDR, at.CGROUP_INET4_BIND, "bpf_sock_addr", 72),
        (types.CGROUP_SOCK_ADDR, at.CGROUP_INET6_CONNECT, "bpf_sock_addr", 72),
        (types.CGROUP_SOCK_ADDR, at.CGROUP_UDP4_SENDMSG, "bpf_sock_addr", 72),
        (types.CGROUP_SOCK_ADDR, at.CGROUP_UDP6_SENDMSG, "bpf_sock_addr", 72),
        (types.SOCK_OPS, at.CGROUP_SOCK_OPS, "bpf_sock_ops", 224),
        (types.SK_MSG, at.SK_MSG_VERDICT, "sk_msg_md", 80),
        (types.SK_REUSEPORT, at.SK_REUSEPORT_SELECT_OR_MIGRATE, "sk_reuseport_md", 56),
        (types.SK_LOOKUP, at.SK_LOOKUP, "bpf_sk_lookup", 72),
        (types.PERF_EVENT, 0, "bpf_perf_event_data", 184),
        (types.CGROUP_SYSCTL, at.CGROUP_SYSCTL, "bpf_sysctl", 8),
        (types.CGROUP_SOCKOPT, at.CGROUP_GETSOCKOPT, "bpf_sockopt", 40),
        (types.CGROUP_SOCKOPT, at.CGROUP_SETSOCKOPT, "bpf_sockopt", 40),
    ]
    found = [World(kind, int(attach), name, size) for kind, attach, name, size in plain]
    pointers = [
        (MemType.SOCK_COMMON, "bpf_sock", 80, None),
        (MemType.SOCKET, "bpf_sock", 80, 95),
        (MemType.TCP_SOCK, "bpf_tcp_sock", 112, 96),
    ]
    for pointer, name, size, helper in pointers:
        setup = _through(helper)
        found.append(World(types.SCHED_CLS, 0, name, size, pointer, setup, (0,)))
    return found
