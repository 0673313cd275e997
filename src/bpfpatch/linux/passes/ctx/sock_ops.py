"""bpf_sock_ops.

Source: linux v6.18, net/core/filter.c, sock_ops_convert_ctx_access().
"""

from __future__ import annotations

from typing import Final

from bpfpatch.facts import ProgType

from .registry import register_context
from .skb import shared_info
from .table import ContextField, ContextTable

KERN: Final = "bpf_sock_ops_kern"
_SOCK: Final = f"{KERN}.sk -> sock_common."
_NO_IP6: Final = "dst32 = 0"


def _guarded(flag: str, load: str) -> tuple[str, str]:
    """Forms that load through the socket if a flag of the context is set, else 0.

    The flag is looked at in the register that is to be loaded. Where that one
    holds the context, another is borrowed, whose value the context keeps.
    """
    apart = f"""
        dst = src->{KERN}.{flag}
        if dst == 0 goto end
        {load}
    """
    in_place = f"""
        src->{KERN}.temp = tmp
        tmp = src->{KERN}.{flag}
        if tmp == 0 goto unset
        tmp = src->{KERN}.temp
        {load}
        goto end
        unset:
        tmp = src->{KERN}.temp
        dst = 0
    """
    return apart, in_place


def _tcp(
    name: str, byte_off: int, size: int = 4, member: str = "", store: str = ""
) -> ContextField:
    member = member or f"tcp_sock.{name}"
    load = f"dst = src->{KERN}.sk; dst = dst->{member}"
    apart, in_place = _guarded("is_locked_tcp_sock", load)
    return ContextField(name, byte_off, size, apart, store, load_in_place=in_place)


def _stored(member: str) -> str:
    """A form that stores through the socket if it is locked, with a borrowed register."""
    return f"""
        dst->{KERN}.temp = tmp
        tmp = dst->{KERN}.is_locked_tcp_sock
        if tmp == 0 goto unset
        tmp = dst->{KERN}.sk
        tmp->{member} = val
        unset:
        tmp = dst->{KERN}.temp
    """


_SK: Final = _guarded("is_fullsock", f"dst = src->{KERN}.sk")

SOCK_OPS: Final = register_context(
    ContextTable(
        "bpf_sock_ops",
        (
            ContextField("op", 0, 4, f"{KERN}.op"),
            ContextField(
                "replylong", 4, 16, f"{KERN}.replylong[0]", f"{KERN}.replylong[0]", unit=4
            ),
            ContextField("family", 20, 4, f"{_SOCK}skc_family"),
            ContextField("remote_ip4", 24, 4, f"{_SOCK}skc_daddr"),
            ContextField("local_ip4", 28, 4, f"{_SOCK}skc_rcv_saddr"),
            ContextField(
                "remote_ip6",
                32,
                16,
                f"{_SOCK}skc_v6_daddr.in6_u.u6_addr32[0]",
                unit=4,
                load_absent=_NO_IP6,
            ),
            ContextField(
                "local_ip6",
                48,
                16,
                f"{_SOCK}skc_v6_rcv_saddr.in6_u.u6_addr32[0]",
                unit=4,
                load_absent=_NO_IP6,
            ),
            ContextField("remote_port", 64, 4, f"{_SOCK}skc_dport; little? dst32 <<= 16"),
            ContextField("local_port", 68, 4, f"{_SOCK}skc_num"),
            ContextField("is_fullsock", 72, 4, f"{KERN}.is_fullsock"),
            _tcp("snd_cwnd", 76),
            _tcp("srtt_us", 80),
            _tcp("bpf_sock_ops_cb_flags", 84),
            ContextField("state", 88, 4, f"{_SOCK}skc_state"),
            ContextField("rtt_min", 92, 4, f"{KERN}.sk -> tcp_sock.rtt_min.s[0].v"),
            _tcp("snd_ssthresh", 96),
            _tcp("rcv_nxt", 100),
            _tcp("snd_nxt", 104),
            _tcp("snd_una", 108),
            _tcp("mss_cache", 112),
            _tcp("ecn_flags", 116),
            _tcp("rate_delivered", 120),
            _tcp("rate_interval_us", 124),
            _tcp("packets_out", 128),
            _tcp("retrans_out", 132),
            _tcp("total_retrans", 136),
            _tcp("segs_in", 140),
            _tcp("data_segs_in", 144),
            _tcp("segs_out", 148),
            _tcp("data_segs_out", 152),
            _tcp("lost_out", 156),
            _tcp("sacked_out", 160),
            _tcp("sk_txhash", 164, member="sock.sk_txhash", store=_stored("sock.sk_txhash")),
            _tcp("bytes_received", 168, 8),
            _tcp("bytes_acked", 176, 8),
            ContextField("sk", 184, 8, _SK[0], load_in_place=_SK[1]),
            ContextField("skb_data", 192, 8, f"{KERN}.skb ?-> sk_buff.data"),
            ContextField("skb_data_end", 200, 8, f"{KERN}.skb_data_end"),
            ContextField("skb_len", 208, 4, f"{KERN}.skb ?-> sk_buff.len"),
            ContextField(
                "skb_tcp_flags",
                212,
                4,
                f"{KERN}.skb ?-> sk_buff.cb+tcp_skb_cb.tcp_flags",
                is_narrow=True,
            ),
            ContextField(
                "skb_hwtstamp",
                216,
                8,
                f"""
                dst = src->{KERN}.skb
                if dst == 0 goto end
                {shared_info("dst")}
                dst = dst->skb_shared_info.hwtstamps
                """,
            ),
        ),
        uapi="struct bpf_sock_ops",
        is_internal=True,
    ),
    [ProgType.SOCK_OPS],
)
