"""What a kind of program is run on."""

from __future__ import annotations

from enum import Enum
from typing import Final


class Shape(Enum):
    """What R1 is at the start.

    ``MEM`` is plain memory with its length in R2; ``CTX`` a structure whose words may be
    pointers, as tracing programs and all others without a packet get.
    """

    XDP = "xdp"
    SKB = "skb"
    SKB_NETWORK = "skb from the network header on"
    CTX = "ctx"
    MEM = "mem"


_SHAPES: Final = {
    "xdp": Shape.XDP,
    "sched_cls": Shape.SKB,
    "sched_act": Shape.SKB,
    "sk_skb": Shape.SKB,
    "socket_filter": Shape.SKB_NETWORK,
    "cgroup_skb": Shape.SKB_NETWORK,
    "lwt_in": Shape.SKB_NETWORK,
    "lwt_out": Shape.SKB_NETWORK,
    "lwt_xmit": Shape.SKB_NETWORK,
    "lwt_seg6local": Shape.SKB_NETWORK,
    "flow_dissector": Shape.SKB,
    "": Shape.CTX,
    "mem": Shape.MEM,
}
"""Source: linux v6.18, net/bpf/test_run.c, bpf_prog_test_run_skb() (``is_l2``)."""

PACKET_SHAPES: Final = frozenset({Shape.XDP, Shape.SKB, Shape.SKB_NETWORK})

_NARROW: Final = frozenset({Shape.XDP, Shape.SKB, Shape.SKB_NETWORK})
"""The kernel takes what these return as an int."""


def shape_of(prog_type: str) -> Shape:
    """What programs of a type (as bpftool names it, or ``mem``) are run on."""
    return _SHAPES.get(prog_type, Shape.CTX)


def r0_bits(shape: Shape) -> int:
    """How many bits of R0 count."""
    return 32 if shape in _NARROW else 64
