"""bpf_sock_ops.

Source: linux v6.18, net/core/filter.c, sock_ops_convert_ctx_access().
"""

from __future__ import annotations

from typing import Final

from bpfpatch.facts import ProgType
from bpfpatch.facts.contexts import SOCK_OPS_AT

from .registry import register_context
from .skb import shared_info
from .table import ContextField, ContextTable, addresses

KERN: Final = "bpf_sock_ops_kern"
_SOCK: Final = f"{KERN}.sk -> sock_common."


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


def _tcp(name: str, member: str = "", store: str = "") -> ContextField:
    member = member or f"tcp_sock.{name}"
    load = f"dst = src->{KERN}.sk; dst = dst->{member}"
    apart, in_place = _guarded("is_locked_tcp_sock", load)
    return ContextField(name, *SOCK_OPS_AT[name], apart, store, load_in_place=in_place)


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
            ContextField("op", *SOCK_OPS_AT["op"], f"{KERN}.op"),
            ContextField(
                "replylong",
                *SOCK_OPS_AT["replylong"],
                f"{KERN}.replylong[0]",
                f"{KERN}.replylong[0]",
                unit=4,
            ),
            ContextField("family", *SOCK_OPS_AT["family"], f"{_SOCK}skc_family"),
            *addresses(SOCK_OPS_AT, _SOCK),
            ContextField(
                "remote_port",
                *SOCK_OPS_AT["remote_port"],
                f"{_SOCK}skc_dport; little? dst32 <<= 16",
            ),
            ContextField("local_port", *SOCK_OPS_AT["local_port"], f"{_SOCK}skc_num"),
            ContextField("is_fullsock", *SOCK_OPS_AT["is_fullsock"], f"{KERN}.is_fullsock"),
            _tcp("snd_cwnd"),
            _tcp("srtt_us"),
            _tcp("bpf_sock_ops_cb_flags"),
            ContextField("state", *SOCK_OPS_AT["state"], f"{_SOCK}skc_state"),
            ContextField(
                "rtt_min", *SOCK_OPS_AT["rtt_min"], f"{KERN}.sk -> tcp_sock.rtt_min.s[0].v"
            ),
            _tcp("snd_ssthresh"),
            _tcp("rcv_nxt"),
            _tcp("snd_nxt"),
            _tcp("snd_una"),
            _tcp("mss_cache"),
            _tcp("ecn_flags"),
            _tcp("rate_delivered"),
            _tcp("rate_interval_us"),
            _tcp("packets_out"),
            _tcp("retrans_out"),
            _tcp("total_retrans"),
            _tcp("segs_in"),
            _tcp("data_segs_in"),
            _tcp("segs_out"),
            _tcp("data_segs_out"),
            _tcp("lost_out"),
            _tcp("sacked_out"),
            _tcp("sk_txhash", member="sock.sk_txhash", store=_stored("sock.sk_txhash")),
            _tcp("bytes_received"),
            _tcp("bytes_acked"),
            ContextField("sk", *SOCK_OPS_AT["sk"], _SK[0], load_in_place=_SK[1]),
            ContextField("skb_data", *SOCK_OPS_AT["skb_data"], f"{KERN}.skb ?-> sk_buff.data"),
            ContextField("skb_data_end", *SOCK_OPS_AT["skb_data_end"], f"{KERN}.skb_data_end"),
            ContextField("skb_len", *SOCK_OPS_AT["skb_len"], f"{KERN}.skb ?-> sk_buff.len"),
            ContextField(
                "skb_tcp_flags",
                *SOCK_OPS_AT["skb_tcp_flags"],
                f"{KERN}.skb ?-> sk_buff.cb+tcp_skb_cb.tcp_flags",
                is_narrow=True,
            ),
            ContextField(
                "skb_hwtstamp",
                *SOCK_OPS_AT["skb_hwtstamp"],
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
