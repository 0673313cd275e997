"""What goes into a run, and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias, get_args

from bpfpatch.errors import BpfPatchError, OptionError
from bpfpatch.facts.kinds import ProgType
from bpfpatch.interp import HelperCall

Mode: TypeAlias = Literal["interp", "jit", "jit+harden"]

MODES: Final[tuple[Mode, ...]] = get_args(Mode)
"""Interpreter, the kernel's JIT, the kernel's JIT with all constants blinded."""

Maps: TypeAlias = Mapping[str, Mapping[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Input:
    """What one run gets: a packet, a context, or plain memory.

    Attributes:
        packet: for programs that run on packets, from the Ethernet header on; an XDP program's
            metadata comes before it, as much of it as ``data`` of its context says.
        ctx: the context's bytes: a raw tracepoint's arguments, a syscall program's memory;
            beside a packet struct __sk_buff, whose addresses and ``len`` are ignored, or struct
            xdp_md, in which ``data`` is how many bytes of metadata the packet begins with.
        mem: plain memory: R1 holds its address and R2 its length, or both 0.
    """

    packet: bytes | None = None
    ctx: bytes | None = None
    mem: bytes | None = None

    def __post_init__(self) -> None:
        """Check what goes together.

        Raises:
            OptionError: memory beside a packet or a context.
        """
        if self.mem is not None and (self.packet is not None or self.ctx is not None):
            raise OptionError("plain memory takes the place of a packet or context: give one")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run gave; where ``error`` is set, it is all that there is.

    Attributes:
        r0: R0 at the exit, unsigned.
        r0_bits: how many of its bits count: the kernel gives 32 of a packet program's.
        packet: the packet afterwards, or None: the kernel gives none back of a netfilter
            program.
        meta: an XDP packet's metadata afterwards, or None.
        ctx: the context afterwards, or None. Of programs on socket buffers it is a struct
            __sk_buff of zeros, but for what a program may leave in it: mark, priority, cb and
            tstamp.
        mem: plain memory afterwards, or None.
        maps: contents afterwards by map and key, of all maps with keys and of the data
            sections that the program uses. Of arrays elements that are zeros are left out; of
            a per-CPU value it is the part of the CPU that the program ran on.
        helpers: the helpers that were called, or None where the mode does not tell.
        printed: what trace_printk printed; the interpreter only.
        n_insns: instructions that ran, or None.
        error: why there is no result: a trap, the budget, or what the kernel said.
    """

    r0: int = 0
    r0_bits: int = 64
    packet: bytes | None = None
    meta: bytes | None = None
    ctx: bytes | None = None
    mem: bytes | None = None
    maps: Maps = field(default_factory=dict)
    helpers: tuple[HelperCall, ...] | None = None
    printed: tuple[str, ...] = ()
    n_insns: int | None = None
    error: BpfPatchError | None = None

    def r0_as(self, bits: int) -> int:
        """The low bits of R0, to compare it with one of which no more is known."""
        return self.r0 & ((1 << bits) - 1)


# What a program's result stands for.
#
# Source: linux v6.18, include/uapi/linux/bpf.h, enum xdp_action and enum tcx_action_base;
# include/uapi/linux/pkt_cls.h, TC_ACT_*; include/uapi/linux/bpf.h, enum bpf_ret_code;
# include/uapi/linux/netfilter.h, NF_*.

_XDP: Final = ("XDP_ABORTED", "XDP_DROP", "XDP_PASS", "XDP_TX", "XDP_REDIRECT")
_TC: Final = (
    "TC_ACT_OK",
    "TC_ACT_RECLASSIFY",
    "TC_ACT_SHOT",
    "TC_ACT_PIPE",
    "TC_ACT_STOLEN",
    "TC_ACT_QUEUED",
    "TC_ACT_REPEAT",
    "TC_ACT_REDIRECT",
    "TC_ACT_TRAP",
)
_LWT: Final = {0: "BPF_OK", 2: "BPF_DROP", 7: "BPF_REDIRECT", 128: "BPF_LWT_REROUTE"}
_FLOW: Final = {0: "BPF_OK", 2: "BPF_DROP", 129: "BPF_FLOW_DISSECTOR_CONTINUE"}
_CGROUP: Final = {0: "drop", 1: "allow"}

_NAMES: Final[dict[ProgType, dict[int, str]]] = {
    ProgType.XDP: dict(enumerate(_XDP)),
    ProgType.SCHED_CLS: {0xFFFF_FFFF: "TC_ACT_UNSPEC", **dict(enumerate(_TC))},
    ProgType.SCHED_ACT: {0xFFFF_FFFF: "TC_ACT_UNSPEC", **dict(enumerate(_TC))},
    ProgType.LWT_IN: _LWT,
    ProgType.LWT_OUT: _LWT,
    ProgType.LWT_XMIT: _LWT,
    ProgType.FLOW_DISSECTOR: _FLOW,
    ProgType.CGROUP_SKB: _CGROUP,
    ProgType.NETFILTER: {0: "NF_DROP", 1: "NF_ACCEPT"},
}


def action_name(prog_type: ProgType | None, r0: int) -> str:
    """What a result means to who called the program, such as ``XDP_PASS``; or ""."""
    names = {} if prog_type is None else _NAMES.get(prog_type, {})
    return names.get(r0 & 0xFFFF_FFFF, "")
