"""Which fields of a context are pointers, for each kind of program.

Source: linux v6.18, include/uapi/linux/bpf.h for the layouts; net/core/filter.c,
kernel/bpf/cgroup.c and net/netfilter/nf_bpf_link.c, the is_valid_access of each
kind, for the types.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from bpfpatch.facts.columns import MemType
from bpfpatch.facts.contexts import (
    NF_CTX_AT,
    SK_LOOKUP_AT,
    SK_MSG_AT,
    SK_REUSEPORT_AT,
    SKB_AT,
    SOCK_ADDR_AT,
    SOCK_OPS_AT,
    SOCKOPT_AT,
    XDP_AT,
    Places,
)
from bpfpatch.facts.kinds import ProgType

from .values import LEGACY, PACKET_END, TRUSTED


class ContextPointer(NamedTuple):
    """A pointer in a context."""

    kind: int
    is_maybe_null: bool = False
    struct: str = ""
    trust: int = LEGACY


_DATA, _END = ContextPointer(MemType.PACKET), ContextPointer(PACKET_END)
_META = ContextPointer(MemType.PACKET_META)
_SOCKET = ContextPointer(MemType.SOCKET)
_SOCKET_OR_NULL = ContextPointer(MemType.SOCKET, is_maybe_null=True)
_COMMON_OR_NULL = ContextPointer(MemType.SOCK_COMMON, is_maybe_null=True)


def _at(places: Places, **pointers: ContextPointer) -> dict[int, ContextPointer]:
    """By byte offset the fields of a context that are pointers."""
    return {places[name][0]: pointer for name, pointer in pointers.items()}


_P = ProgType
_SKB_SK: Final = _at(SKB_AT, sk=_COMMON_OR_NULL)
_SKB: Final = {**_SKB_SK, **_at(SKB_AT, data=_DATA, data_end=_END)}
_SKB_META: Final = {**_SKB, **_at(SKB_AT, data_meta=_META)}
_BY_TYPE: Final[dict[ProgType, dict[int, ContextPointer]]] = {
    _P.SOCKET_FILTER: _SKB_SK,
    _P.SCHED_CLS: _SKB_META,
    _P.SCHED_ACT: _SKB_META,
    _P.XDP: _at(XDP_AT, data=_DATA, data_end=_END, data_meta=_META),
    _P.CGROUP_SKB: _SKB,
    _P.LWT_IN: _SKB,
    _P.LWT_OUT: _SKB,
    _P.LWT_XMIT: _SKB,
    _P.LWT_SEG6LOCAL: _SKB,
    _P.SK_SKB: _SKB,
    _P.FLOW_DISSECTOR: _at(
        SKB_AT, data=_DATA, data_end=_END, flow_keys=ContextPointer(MemType.FLOW_KEYS)
    ),
    _P.SOCK_OPS: _at(SOCK_OPS_AT, sk=_SOCKET_OR_NULL, skb_data=_DATA, skb_data_end=_END),
    _P.SK_MSG: _at(SK_MSG_AT, data=_DATA, data_end=_END, sk=_SOCKET),
    _P.SK_REUSEPORT: _at(
        SK_REUSEPORT_AT, data=_DATA, data_end=_END, sk=_SOCKET, migrating_sk=_COMMON_OR_NULL
    ),
    _P.CGROUP_SOCK_ADDR: _at(SOCK_ADDR_AT, sk=_SOCKET),
    _P.CGROUP_SOCKOPT: _at(SOCKOPT_AT, sk=_SOCKET, optval=_DATA, optval_end=_END),
    _P.SK_LOOKUP: _at(SK_LOOKUP_AT, sk=_SOCKET_OR_NULL),
    _P.NETFILTER: _at(
        NF_CTX_AT,
        state=ContextPointer(MemType.BTF_ID, struct="nf_hook_state", trust=TRUSTED),
        skb=ContextPointer(MemType.BTF_ID, struct="sk_buff", trust=TRUSTED),
    ),
}


def fields(prog_type: ProgType) -> dict[int, ContextPointer]:
    """The pointers in a context, by byte_off; none for kinds whose context is numbers only."""
    return _BY_TYPE.get(prog_type, {})


BY_PROTOTYPE: Final = frozenset({_P.TRACING, _P.LSM, _P.STRUCT_OPS, _P.EXT})
"""Kinds whose context is the arguments of a function of the kernel."""

STRUCTS: Final[dict[ProgType, tuple[str, ...]]] = {
    _P.SOCKET_FILTER: ("__sk_buff",),
    _P.SCHED_CLS: ("__sk_buff",),
    _P.SCHED_ACT: ("__sk_buff",),
    _P.CGROUP_SKB: ("__sk_buff",),
    _P.LWT_IN: ("__sk_buff",),
    _P.LWT_OUT: ("__sk_buff",),
    _P.LWT_XMIT: ("__sk_buff",),
    _P.LWT_SEG6LOCAL: ("__sk_buff",),
    _P.SK_SKB: ("__sk_buff",),
    _P.FLOW_DISSECTOR: ("__sk_buff",),
    _P.XDP: ("xdp_md",),
    _P.CGROUP_SOCK: ("bpf_sock",),
    _P.CGROUP_SOCK_ADDR: ("bpf_sock_addr",),
    _P.SOCK_OPS: ("bpf_sock_ops",),
    _P.SK_MSG: ("sk_msg_md",),
    _P.SK_REUSEPORT: ("sk_reuseport_md",),
    _P.SK_LOOKUP: ("bpf_sk_lookup",),
    _P.CGROUP_DEVICE: ("bpf_cgroup_dev_ctx",),
    _P.CGROUP_SYSCTL: ("bpf_sysctl",),
    _P.CGROUP_SOCKOPT: ("bpf_sockopt",),
    _P.KPROBE: ("pt_regs", "bpf_user_pt_regs_t", "user_pt_regs"),
    _P.PERF_EVENT: ("bpf_perf_event_data", "pt_regs", "bpf_user_pt_regs_t"),
    _P.RAW_TRACEPOINT: ("bpf_raw_tracepoint_args",),
    _P.RAW_TRACEPOINT_WRITABLE: ("bpf_raw_tracepoint_args",),
    _P.NETFILTER: ("bpf_nf_ctx",),
}
"""Names of a context's struct, by which a global function shows that it takes one."""
