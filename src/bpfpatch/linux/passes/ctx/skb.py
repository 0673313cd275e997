"""__sk_buff, as each kind of program sees it.

Source: linux v6.18, net/core/filter.c, bpf_convert_ctx_access(),
tc_cls_act_convert_ctx_access(), sk_skb_convert_ctx_access(),
flow_dissector_convert_ctx_access(), bpf_unclone_prologue().
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from bpfpatch.facts import ProgType
from bpfpatch.facts.contexts import SKB_AT

from .registry import register_context
from .table import ContextField, ContextTable, addresses

UAPI: Final = "struct __sk_buff"

NO_QUEUE: Final = 0xFFFF
"""The kernel's NO_QUEUE_MAPPING: an skb's queue is one more than what is stored, or none."""


def shared_info(base: str) -> str:
    """Load the skb's shared info; its end is a pointer or counts from the skb's head."""
    return f"""
        integer(sk_buff.end)? ax = {base}->sk_buff.end
        integer(sk_buff.end)? dst = {base}->sk_buff.head
        integer(sk_buff.end)? dst += ax
        pointer(sk_buff.end)? dst = {base}->sk_buff.end
    """


def unclone(verdict: int) -> str:
    """Before a program that writes to the packet: make it the only one that has it, or give up."""
    return f"""
        r6 = r1->sk_buff.cloned
        w6 &= {{sk_buff.cloned}}
        if r6 == 0 goto end
        r6 = r1
        r2 ^= r2
        call bpf_skb_pull_data
        if r0 == 0 goto restore
        w0 = {verdict}
        exit
        restore:
        r1 = r6
    """


def narrow(name: str, load: str, store: str = "", result: int = 0) -> ContextField:
    """A word of which parts can be loaded, too."""
    return ContextField(name, *SKB_AT[name], load, store, is_narrow=True, result=result)


_SOCK: Final = "sk_buff.sk -> sock_common."

# A program that never asks for the type takes a timestamp at ingress for one of receiving: it
# must not see a delivery time, and what it stores is not a delivery time any more.
_TSTAMP: Final = ContextField(
    "tstamp",
    *SKB_AT["tstamp"],
    """
    ax = src->sk_buff.tc_at_ingress
    if ax32 & {sk_buff.tc_at_ingress} goto ingress
    goto load
    ingress:
    if ax32 & {sk_buff.tstamp_type} goto delivery
    goto load
    delivery:
    dst = 0
    goto end
    load:
    sk_buff.tstamp
    """,
    """
    ax = dst->sk_buff.tc_at_ingress
    if ax32 & {sk_buff.tc_at_ingress} goto clear
    goto store
    clear:
    ax32 &= {~sk_buff.tstamp_type}
    dst->sk_buff.tc_at_ingress = ax
    store:
    sk_buff.tstamp
    """,
    load_absent="sk_buff.tstamp",
    store_absent="sk_buff.tstamp",
)

_FIELDS: Final = (
    narrow("len", "sk_buff.len"),
    narrow(
        "pkt_type",
        """
        dst = src->sk_buff.pkt_type
        dst32 &= {sk_buff.pkt_type}
        big? dst32 >>= {>>sk_buff.pkt_type}
        """,
        result=1,
    ),
    narrow("mark", "sk_buff.mark", "sk_buff.mark"),
    ContextField(
        "queue_mapping",
        *SKB_AT["queue_mapping"],
        "sk_buff.queue_mapping",
        f"""
        register? if val >= {NO_QUEUE} goto end
        sk_buff.queue_mapping
        """,
        is_narrow=True,
        store_below=NO_QUEUE,
    ),
    narrow("protocol", "sk_buff.protocol"),
    narrow("vlan_present", "sk_buff.vlan_all; if dst == 0 goto end; dst32 = 1"),
    narrow("vlan_tci", "sk_buff.vlan_tci"),
    narrow("vlan_proto", "sk_buff.vlan_proto"),
    narrow("priority", "sk_buff.priority", "sk_buff.priority"),
    narrow("ingress_ifindex", "sk_buff.skb_iif"),
    narrow("ifindex", "sk_buff.dev ?-> net_device.ifindex"),
    ContextField(
        "tc_index",
        *SKB_AT["tc_index"],
        "sk_buff.tc_index",
        "sk_buff.tc_index",
        is_narrow=True,
        load_absent="dst = 0",
        store_absent="dst = dst",
    ),
    ContextField(
        "cb",
        *SKB_AT["cb"],
        "sk_buff.cb+qdisc_skb_cb.data",
        "sk_buff.cb+qdisc_skb_cb.data",
        unit=1,
        wide=8,
        is_sized=True,
    ),
    narrow("hash", "sk_buff.hash"),
    narrow(
        "tc_classid",
        "sk_buff.cb+qdisc_skb_cb.tc_classid",
        "sk_buff.cb+qdisc_skb_cb.tc_classid",
    ),
    ContextField("data", *SKB_AT["data"], "sk_buff.data"),
    ContextField("data_end", *SKB_AT["data_end"], "sk_buff.cb+bpf_skb_data_end.data_end"),
    ContextField(
        "napi_id",
        *SKB_AT["napi_id"],
        "sk_buff.napi_id; if dst >= {min_napi_id} goto end; dst = 0",
        is_narrow=True,
        load_absent="dst = 0",
    ),
    narrow("family", f"{_SOCK}skc_family"),
    *addresses(SKB_AT, _SOCK),
    narrow("remote_port", f"{_SOCK}skc_dport; little? dst32 <<= 16"),
    narrow("local_port", f"{_SOCK}skc_num"),
    ContextField("data_meta", *SKB_AT["data_meta"], "sk_buff.cb+bpf_skb_data_end.data_meta"),
    _TSTAMP,
    narrow("wire_len", "sk_buff.cb+qdisc_skb_cb.pkt_len"),
    narrow("gso_segs", shared_info("src") + "dst = dst->skb_shared_info.gso_segs"),
    ContextField("sk", *SKB_AT["sk"], "sk_buff.sk"),
    narrow("gso_size", shared_info("src") + "dst = dst->skb_shared_info.gso_size"),
    ContextField(
        "hwtstamp", *SKB_AT["hwtstamp"], shared_info("src") + "dst = dst->skb_shared_info.hwtstamps"
    ),
)

SKB: Final = register_context(
    ContextTable("__sk_buff", _FIELDS, uapi=UAPI, is_internal=True),
    [
        ProgType.SOCKET_FILTER,
        ProgType.CGROUP_SKB,
        ProgType.LWT_IN,
        ProgType.LWT_OUT,
        ProgType.LWT_SEG6LOCAL,
    ],
)

TC_ACT_SHOT: Final = 2
SK_DROP: Final = 0

LWT_XMIT_SKB: Final = register_context(
    SKB.but("__sk_buff:lwt_xmit", prologue=unclone(TC_ACT_SHOT)), [ProgType.LWT_XMIT]
)

# The device of an skb in traffic control is always there.
_TC: Final = SKB.but(
    "__sk_buff:tc",
    narrow("ifindex", "sk_buff.dev -> net_device.ifindex"),
    ContextField(
        "tstamp_type",
        *SKB_AT["tstamp_type"],
        """
        dst = src->sk_buff.tstamp_type
        dst32 &= {sk_buff.tstamp_type}
        big? dst32 >>= {>>sk_buff.tstamp_type}
        """,
    ),
    prologue=unclone(TC_ACT_SHOT),
)

TC_SKB: Final = register_context(
    replace(
        _TC,
        aware_field="tstamp_type",
        aware=_TC.but(
            "__sk_buff:tc:aware",
            ContextField("tstamp", *SKB_AT["tstamp"], "sk_buff.tstamp", "sk_buff.tstamp"),
            prologue=unclone(TC_ACT_SHOT),
        ),
    ),
    [ProgType.SCHED_CLS, ProgType.SCHED_ACT],
)

_HEAD_LENGTH: Final = """
    {reg} = src->sk_buff.data
    ax = src->sk_buff.len
    {reg} += ax
    ax = src->sk_buff.data_len
    {reg} -= ax
"""

SK_SKB: Final = register_context(
    SKB.but(
        "__sk_buff:sk_skb",
        ContextField(
            "data_end",
            *SKB_AT["data_end"],
            _HEAD_LENGTH.format(reg="dst"),
            load_in_place=f"""
            src->sk_buff.cb+sk_skb_cb.temp_reg = tmp
            {_HEAD_LENGTH.format(reg="tmp")}
            ax = src
            dst = tmp
            tmp = ax->sk_buff.cb+sk_skb_cb.temp_reg
            """,
        ),
        ContextField(
            "cb",
            *SKB_AT["cb"],
            "sk_buff.cb+sk_skb_cb.data",
            "sk_buff.cb+sk_skb_cb.data",
            unit=1,
            wide=8,
            is_sized=True,
        ),
        prologue=unclone(SK_DROP),
    ),
    [ProgType.SK_SKB],
)

FLOW_DISSECTOR: Final = register_context(
    ContextTable(
        "__sk_buff:flow_dissector",
        (
            ContextField("data", *SKB_AT["data"], "bpf_flow_dissector.data"),
            ContextField("data_end", *SKB_AT["data_end"], "bpf_flow_dissector.data_end"),
            ContextField("flow_keys", *SKB_AT["flow_keys"], "bpf_flow_dissector.flow_keys"),
        ),
        uapi=UAPI,
        is_internal=True,
    ),
    [ProgType.FLOW_DISSECTOR],
)
