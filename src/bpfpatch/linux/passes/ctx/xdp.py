"""xdp_md, and the socket that an AF_XDP map holds.

Source: linux v6.18, net/core/filter.c, xdp_convert_ctx_access() and
bpf_xdp_sock_convert_ctx_access().
"""

from __future__ import annotations

from typing import Final

from bpfpatch.facts import ProgType
from bpfpatch.facts.contexts import XDP_AT

from .registry import register_context
from .table import ContextField, ContextTable

XDP_MD: Final = register_context(
    ContextTable(
        "xdp_md",
        (
            ContextField("data", *XDP_AT["data"], "xdp_buff.data"),
            ContextField("data_end", *XDP_AT["data_end"], "xdp_buff.data_end"),
            ContextField("data_meta", *XDP_AT["data_meta"], "xdp_buff.data_meta"),
            ContextField(
                "ingress_ifindex",
                *XDP_AT["ingress_ifindex"],
                "xdp_buff.rxq -> xdp_rxq_info.dev -> net_device.ifindex",
            ),
            ContextField(
                "rx_queue_index",
                *XDP_AT["rx_queue_index"],
                "xdp_buff.rxq -> xdp_rxq_info.queue_index",
            ),
            ContextField(
                "egress_ifindex",
                *XDP_AT["egress_ifindex"],
                "xdp_buff.txq -> xdp_txq_info.dev -> net_device.ifindex",
            ),
        ),
        uapi="struct xdp_md",
        is_internal=True,
    ),
    [ProgType.XDP],
)

XDP_SOCK: Final = register_context(
    ContextTable(
        "bpf_xdp_sock",
        (ContextField("queue_id", 0, 4, "xdp_sock.queue_id"),),
        uapi="struct bpf_xdp_sock",
        is_internal=True,
    )
)
