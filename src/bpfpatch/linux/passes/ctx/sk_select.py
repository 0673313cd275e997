"""sk_reuseport_md and bpf_sk_lookup: the contexts of programs that choose a socket.

Source: linux v6.18, net/core/filter.c, sk_reuseport_convert_ctx_access() and
sk_lookup_convert_ctx_access().
"""

from __future__ import annotations

from typing import Final

from bpfpatch.facts import ProgType

from .registry import register_context
from .table import ContextField, ContextTable

_REUSEPORT: Final = "sk_reuseport_kern"
_LOOKUP: Final = "bpf_sk_lookup_kern"


def _narrow(name: str, byte_off: int, load: str) -> ContextField:
    return ContextField(name, byte_off, 4, load, is_narrow=True)


def _ip6(name: str, byte_off: int, pointer: str) -> ContextField:
    return ContextField(
        name,
        byte_off,
        16,
        f"{_LOOKUP}.v6.{pointer} ?-> in6_addr.in6_u.u6_addr32[0]",
        unit=4,
        is_narrow=True,
    )


SK_REUSEPORT: Final = register_context(
    ContextTable(
        "sk_reuseport_md",
        (
            ContextField("data", 0, 8, f"{_REUSEPORT}.skb -> sk_buff.data"),
            ContextField("data_end", 8, 8, f"{_REUSEPORT}.data_end"),
            _narrow("len", 16, f"{_REUSEPORT}.skb -> sk_buff.len"),
            _narrow("eth_protocol", 20, f"{_REUSEPORT}.skb -> sk_buff.protocol"),
            _narrow("ip_protocol", 24, f"{_REUSEPORT}.sk -> sock.sk_protocol"),
            _narrow("bind_inany", 28, f"{_REUSEPORT}.bind_inany"),
            ContextField("hash", 32, 4, f"{_REUSEPORT}.hash"),
            ContextField("sk", 40, 8, f"{_REUSEPORT}.sk"),
            ContextField("migrating_sk", 48, 8, f"{_REUSEPORT}.migrating_sk"),
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
            ContextField("sk", 0, 8, f"{_LOOKUP}.selected_sk"),
            _narrow("family", 8, f"{_LOOKUP}.family"),
            _narrow("protocol", 12, f"{_LOOKUP}.protocol"),
            _narrow("remote_ip4", 16, f"{_LOOKUP}.v4.saddr"),
            _ip6("remote_ip6", 20, "saddr"),
            # Older programs load it as a word.
            ContextField("remote_port", 36, 2, f"{_LOOKUP}.sport", is_narrow=True, wide=4),
            ContextField("padding", 38, 2, "dst32 = 0", is_narrow=True),
            _narrow("local_ip4", 40, f"{_LOOKUP}.v4.daddr"),
            _ip6("local_ip6", 44, "daddr"),
            _narrow("local_port", 60, f"{_LOOKUP}.dport"),
            _narrow("ingress_ifindex", 64, f"{_LOOKUP}.ingress_ifindex"),
        ),
        uapi="struct bpf_sk_lookup",
        is_internal=True,
    ),
    [ProgType.SK_LOOKUP],
)
