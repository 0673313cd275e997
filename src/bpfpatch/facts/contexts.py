"""Where the fields of the contexts are that programs on packets see.

Source: linux v6.18, include/uapi/linux/bpf.h, struct __sk_buff and struct xdp_md; the names and
places are those of a running kernel's BTF, and compared with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

Places: TypeAlias = Mapping[str, tuple[int, int]]
"""By name of a field its byte offset and its size."""


def _read(text: str) -> Places:
    rows = (line.split() for line in text.strip().splitlines())
    return MappingProxyType({name: (int(byte_off), int(size)) for name, byte_off, size in rows})


SKB_AT: Final = _read("""
len 0 4
pkt_type 4 4
mark 8 4
queue_mapping 12 4
protocol 16 4
vlan_present 20 4
vlan_tci 24 4
vlan_proto 28 4
priority 32 4
ingress_ifindex 36 4
ifindex 40 4
tc_index 44 4
cb 48 20
hash 68 4
tc_classid 72 4
data 76 4
data_end 80 4
napi_id 84 4
family 88 4
remote_ip4 92 4
local_ip4 96 4
remote_ip6 100 16
local_ip6 116 16
remote_port 132 4
local_port 136 4
data_meta 140 4
flow_keys 144 8
tstamp 152 8
wire_len 160 4
gso_segs 164 4
sk 168 8
gso_size 176 4
tstamp_type 180 1
hwtstamp 184 8
""")
"""Of struct __sk_buff."""

XDP_AT: Final = _read("""
data 0 4
data_end 4 4
data_meta 8 4
ingress_ifindex 12 4
rx_queue_index 16 4
egress_ifindex 20 4
""")
"""Of struct xdp_md."""

SIZES: Final = {"__sk_buff": 192, "xdp_md": 24}
"""Bytes of the whole."""
