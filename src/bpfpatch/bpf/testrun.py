"""BPF_PROG_TEST_RUN: run a loaded program once, on data or on a context."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from bpfpatch.facts.kinds import ProgType

from .errors import KernelError
from .syscall import Cmd, bpf, refused

ROOM: Final = 1 << 16
"""Bytes that a packet may grow by."""

_MIN_DATA: Final = 14

DATA: Final = frozenset(
    {
        ProgType.SOCKET_FILTER,
        ProgType.SCHED_CLS,
        ProgType.SCHED_ACT,
        ProgType.XDP,
        ProgType.CGROUP_SKB,
        ProgType.LWT_IN,
        ProgType.LWT_OUT,
        ProgType.LWT_XMIT,
        ProgType.FLOW_DISSECTOR,
        ProgType.NETFILTER,
    }
)
"""Types that run on a packet. Source: linux v6.18, the ``test_run`` of each
bpf_prog_ops in net/core/filter.c, net/bpf/test_run.c and net/netfilter."""

CONTEXT: Final = frozenset(
    {
        ProgType.RAW_TRACEPOINT,
        ProgType.SYSCALL,
        ProgType.SK_LOOKUP,
    }
)
"""Types that run on a context alone. Source: linux v6.18, net/bpf/test_run.c,
bpf_prog_test_run_raw_tp(), bpf_prog_test_run_syscall(), bpf_prog_test_run_sk_lookup()."""

Input = Literal["data", "ctx", "none", ""]


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run gave.

    Attributes:
        retval: R0, its low 32 bits, unsigned.
        data: the packet afterwards.
        ctx: the context afterwards.
        duration_ns: mean time of one run; 0 for types that do not tell.
    """

    retval: int
    data: bytes
    ctx: bytes
    duration_ns: int


def run_input(prog_type: ProgType) -> Input:
    """What BPF_PROG_TEST_RUN wants for a type; "" where it has no such run."""
    if prog_type in DATA:
        return "data"
    if prog_type in CONTEXT:
        return "ctx"
    # Of these the kernel calls functions made for the purpose; not all kernels allow it.
    return "none" if prog_type is ProgType.TRACING else ""


def test_run(
    fd: int,
    prog_type: ProgType,
    data: bytes,
    ctx: bytes,
    *,
    repeat: int,
    flags: int,
    cpu: int,
    room: int,
) -> RunResult:
    """Run a program; see `LoadedProgram.test_run`."""
    wants = run_input(prog_type)
    if not wants:
        raise KernelError(
            errno.EOPNOTSUPP, f"a {prog_type.text} program cannot be run by BPF_PROG_TEST_RUN"
        )
    if wants == "data" and len(data) < _MIN_DATA:
        raise KernelError(
            0,
            f"a {prog_type.text} program runs on a packet of at least {_MIN_DATA} bytes, "
            f"{len(data)} were given",
        )
    if wants != "data" and data:
        raise KernelError(0, f"a {prog_type.text} program takes no packet, only a context")
    try:
        if wants == "data":
            return _on_data(fd, data, ctx, repeat, flags, cpu, room)
        return _on_context(fd, prog_type, ctx, repeat, flags, cpu)
    except OSError as error:
        raise refused(error, f"running a {prog_type.text} program", _hint(error)) from error


def _hint(error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return "what it gives back is larger than the room for it; give more with room="
    if error.errno == errno.EINVAL:
        return "the packet or context does not suit the type"
    return ""


def _on_data(
    fd: int, data: bytes, ctx: bytes, repeat: int, flags: int, cpu: int, room: int
) -> RunResult:
    packet, after = np.zeros(len(data) + room, "u1"), np.zeros(len(ctx), "u1")
    _, attr = bpf(
        Cmd.PROG_TEST_RUN,
        prog_fd=fd,
        data_size_in=len(data),
        data_size_out=packet.size,
        data_in=data,
        data_out=packet,
        repeat=repeat,
        ctx_size_in=len(ctx),
        ctx_size_out=len(ctx),
        ctx_in=ctx,
        ctx_out=after,
        flags=flags,
        cpu=cpu,
    )
    return RunResult(
        int(attr["retval"]),
        packet[: int(attr["data_size_out"])].tobytes(),
        after[: int(attr["ctx_size_out"])].tobytes(),
        int(attr["duration"]),
    )


def _on_context(
    fd: int, prog_type: ProgType, ctx: bytes, repeat: int, flags: int, cpu: int
) -> RunResult:
    # A syscall program's context is changed in place; a repeat other than 0 is refused.
    is_repeatable = prog_type is ProgType.SK_LOOKUP
    if repeat > 1 and not is_repeatable:
        raise KernelError(0, f"a {prog_type.text} program runs once a call, not {repeat} times")
    buffer = np.frombuffer(bytearray(ctx), "u1")
    _, attr = bpf(
        Cmd.PROG_TEST_RUN,
        prog_fd=fd,
        ctx_size_in=len(ctx),
        ctx_in=buffer,
        repeat=repeat if is_repeatable else 0,
        flags=flags,
        cpu=cpu,
    )
    return RunResult(int(attr["retval"]), b"", buffer.tobytes(), int(attr["duration"]))
