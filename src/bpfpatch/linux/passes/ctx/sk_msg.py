"""sk_msg_md.

Source: linux v6.18, net/core/filter.c, sk_msg_convert_ctx_access().
"""

from __future__ import annotations

from typing import Final

from bpfpatch.facts import ProgType
from bpfpatch.facts.contexts import SK_MSG_AT

from .registry import register_context
from .table import ContextField, ContextTable

_SOCK: Final = "sk_msg.sk -> sock_common."
_NO_IP6: Final = "dst32 = 0"

SK_MSG: Final = register_context(
    ContextTable(
        "sk_msg_md",
        (
            ContextField("data", *SK_MSG_AT["data"], "sk_msg.data"),
            ContextField("data_end", *SK_MSG_AT["data_end"], "sk_msg.data_end"),
            ContextField("family", *SK_MSG_AT["family"], f"{_SOCK}skc_family"),
            ContextField("remote_ip4", *SK_MSG_AT["remote_ip4"], f"{_SOCK}skc_daddr"),
            ContextField("local_ip4", *SK_MSG_AT["local_ip4"], f"{_SOCK}skc_rcv_saddr"),
            ContextField(
                "remote_ip6",
                *SK_MSG_AT["remote_ip6"],
                f"{_SOCK}skc_v6_daddr.in6_u.u6_addr32[0]",
                unit=4,
                load_absent=_NO_IP6,
            ),
            ContextField(
                "local_ip6",
                *SK_MSG_AT["local_ip6"],
                f"{_SOCK}skc_v6_rcv_saddr.in6_u.u6_addr32[0]",
                unit=4,
                load_absent=_NO_IP6,
            ),
            ContextField(
                "remote_port", *SK_MSG_AT["remote_port"], f"{_SOCK}skc_dport; little? dst32 <<= 16"
            ),
            ContextField("local_port", *SK_MSG_AT["local_port"], f"{_SOCK}skc_num"),
            ContextField("size", *SK_MSG_AT["size"], "sk_msg.sg.size"),
            ContextField("sk", *SK_MSG_AT["sk"], "sk_msg.sk"),
        ),
        uapi="struct sk_msg_md",
        is_internal=True,
    ),
    [ProgType.SK_MSG],
)
