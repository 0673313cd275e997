"""bpf_sock and bpf_tcp_sock, through pointers to sockets as well as as a context.

Source: linux v6.18, net/core/filter.c, bpf_sock_convert_ctx_access() and
bpf_tcp_sock_convert_ctx_access().
"""

from __future__ import annotations

from typing import Final

from bpfpatch.facts import ProgType
from bpfpatch.facts.contexts import SOCK_AT, TCP_SOCK_AT

from .registry import register_context
from .table import ContextField, ContextTable

NO_QUEUE: Final = 0xFFFF


def _word(name: str, member: str) -> ContextField:
    return ContextField(name, *SOCK_AT[name], member, member)


def _narrow(name: str, member: str) -> ContextField:
    return ContextField(name, *SOCK_AT[name], member, is_narrow=True)


def _ip6(name: str, member: str) -> ContextField:
    form = f"sock_common.{member}.in6_u.u6_addr32[0]"
    return ContextField(name, *SOCK_AT[name], form, unit=4, is_narrow=True, load_absent="dst32 = 0")


SOCK: Final = register_context(
    ContextTable(
        "bpf_sock",
        (
            _word("bound_dev_if", "sock_common.skc_bound_dev_if"),
            _narrow("family", "sock_common.skc_family"),
            _narrow("type", "sock.sk_type"),
            _narrow("protocol", "sock.sk_protocol"),
            _word("mark", "sock.sk_mark"),
            _word("priority", "sock.sk_priority"),
            _narrow("src_ip4", "sock_common.skc_rcv_saddr"),
            _ip6("src_ip6", "skc_v6_rcv_saddr"),
            _narrow("src_port", "sock_common.skc_num"),
            # Older programs load it as a word.
            ContextField(
                "dst_port", *SOCK_AT["dst_port"], "sock_common.skc_dport", is_narrow=True, wide=4
            ),
            _narrow("dst_ip4", "sock_common.skc_daddr"),
            _ip6("dst_ip6", "skc_v6_daddr"),
            _narrow("state", "sock_common.skc_state"),
            ContextField(
                "rx_queue_mapping",
                *SOCK_AT["rx_queue_mapping"],
                f"sock_common.skc_rx_queue_mapping; if dst != {NO_QUEUE} goto end; dst = -1",
                is_narrow=True,
                result=2,
                load_absent="dst = -1",
            ),
        ),
        uapi="struct bpf_sock",
        is_internal=True,
    ),
    [ProgType.CGROUP_SOCK],
)

_NOT_BY_NAME: Final = {
    "rtt_min": "tcp_sock.rtt_min.s[0].v",
    "icsk_retransmits": "inet_connection_sock.icsk_retransmits",
}
"""Fields that tcp_sock has under another name, or elsewhere."""

TCP_SOCK: Final = register_context(
    ContextTable(
        "bpf_tcp_sock",
        tuple(
            ContextField(name, *place, _NOT_BY_NAME.get(name, f"tcp_sock.{name}"))
            for name, place in TCP_SOCK_AT.items()
        ),
        uapi="struct bpf_tcp_sock",
        is_internal=True,
    )
)
