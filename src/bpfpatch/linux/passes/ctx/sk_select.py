"""sk_reuseport_md and bpf_sk_lookup: the contexts of programs that choose a socket.

Source: linux v6.18, net/core/filter.c, sk_reuseport_convert_ctx_access() and
sk_lookup_convert_ctx_access().
"""

from __future__ import annotations

from typing import Final

from bpfpatch.facts import ProgType
from bpfpatch.facts.contexts import SK_LOOKUP_AT, SK_REUSEPORT_AT, Places

from .registry import register_context
from .table import ContextField, ContextTable

_REUSEPORT: Final = "sk_reuseport_kern"
_LOOKUP: Final = "bpf_sk_lookup_kern"


def _narrow(places: Places, name: str, load: str) -> ContextField:
    return ContextField(name, *places[name], load, is_narrow=True)


def _ip6(name: str, pointer: str) -> ContextField:
    return ContextField(
        name,
        *SK_LOOKUP_AT[name],
        f"{_LOOKUP}.v6.{pointer} ?-> in6_addr.in6_u.u6_addr32[0]",
        unit=4,
        is_narrow=True,
    )


SK_REUSEPORT: Final = register_context(
    ContextTable(
        "sk_reuseport_md",
        (
            ContextField("data", *SK_REUSEPORT_AT["data"], f"{_REUSEPORT}.skb -> sk_buff.data"),
            ContextField("data_end", *SK_REUSEPORT_AT["data_end"], f"{_REUSEPORT}.data_end"),
            _narrow(SK_REUSEPORT_AT, "len", f"{_REUSEPORT}.skb -> sk_buff.len"),
            _narrow(SK_REUSEPORT_AT, "eth_protocol", f"{_REUSEPORT}.skb -> sk_buff.protocol"),
            _narrow(SK_REUSEPORT_AT, "ip_protocol", f"{_REUSEPORT}.sk -> sock.sk_protocol"),
            _narrow(SK_REUSEPORT_AT, "bind_inany", f"{_REUSEPORT}.bind_inany"),
            ContextField("hash", *SK_REUSEPORT_AT["hash"], f"{_REUSEPORT}.hash"),
            ContextField("sk", *SK_REUSEPORT_AT["sk"], f"{_REUSEPORT}.sk"),
            ContextField(
                "migrating_sk", *SK_REUSEPORT_AT["migrating_sk"], f"{_REUSEPORT}.migrating_sk"
            ),
        ),
        uapi="struct sk_reuseport_md",
        is_internal=True,
    ),
    [ProgType.SK_REUSEPORT],
)

SK_LOOKUP: Final = register_context(
    ContextTable(
        "bpf_sk_lookup",
        (
            ContextField("sk", *SK_LOOKUP_AT["sk"], f"{_LOOKUP}.selected_sk"),
            _narrow(SK_LOOKUP_AT, "family", f"{_LOOKUP}.family"),
            _narrow(SK_LOOKUP_AT, "protocol", f"{_LOOKUP}.protocol"),
            _narrow(SK_LOOKUP_AT, "remote_ip4", f"{_LOOKUP}.v4.saddr"),
            _ip6("remote_ip6", "saddr"),
            # Older programs load it as a word.
            ContextField(
                "remote_port",
                *SK_LOOKUP_AT["remote_port"],
                f"{_LOOKUP}.sport",
                is_narrow=True,
                wide=4,
            ),
            ContextField("padding", 38, 2, "dst32 = 0", is_narrow=True),
            _narrow(SK_LOOKUP_AT, "local_ip4", f"{_LOOKUP}.v4.daddr"),
            _ip6("local_ip6", "daddr"),
            _narrow(SK_LOOKUP_AT, "local_port", f"{_LOOKUP}.dport"),
            _narrow(SK_LOOKUP_AT, "ingress_ifindex", f"{_LOOKUP}.ingress_ifindex"),
        ),
        uapi="struct bpf_sk_lookup",
        is_internal=True,
    ),
    [ProgType.SK_LOOKUP],
)
