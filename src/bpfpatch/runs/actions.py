"""What a program's result stands for.

Source: linux v6.18, include/uapi/linux/bpf.h, enum xdp_action and enum tcx_action_base;
include/uapi/linux/pkt_cls.h, TC_ACT_*; include/uapi/linux/bpf.h, enum bpf_ret_code;
include/uapi/linux/netfilter.h, NF_*.
"""

from __future__ import annotations

from typing import Final

from bpfpatch.facts.kinds import ProgType

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
