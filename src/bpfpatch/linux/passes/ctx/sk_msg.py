"""sk_msg_md.

Source: linux v6.18, net/core/filter.c, sk_msg_convert_ctx_access().
"""

from __future__ import annotations

from typing import Final

from bpfpatch.facts import ProgType
from bpfpatch.facts.contexts import SK_MSG_AT

from .registry import register_context
from .table import ContextField, ContextTable, addresses

_SOCK: Final = "sk_msg.sk -> sock_common."

SK_MSG: Final = register_context(
    ContextTable(
        "sk_msg_md",
        (
            ContextField("data", *SK_MSG_AT["data"], "sk_msg.data"),
            ContextField("data_end", *SK_MSG_AT["data_end"], "sk_msg.data_end"),
            ContextField("family", *SK_MSG_AT["family"], f"{_SOCK}skc_family"),
            *addresses(SK_MSG_AT, _SOCK),
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
