"""What helpers return, write and end, as far as the values of a program depend on it.

Source: linux v6.18, kernel/bpf/verifier.c, check_helper_call(), do_refine_retval_range();
the bpf_*_proto of each helper; net/core/filter.c, bpf_helper_changes_pkt_data().
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bpfpatch import isa
from bpfpatch.facts.columns import MemType

from .values import LEGACY, TRUSTED


@dataclass(frozen=True, slots=True)
class Returned:
    """A pointer that a helper returns.

    Attributes:
        kind: what it points to.
        is_maybe_null: whether it has to be checked.
        is_acquired: whether it refers to an object that has to be released.
        struct: for `MemType.BTF_ID`, the name of the struct.
        trust: for the same, how far it can be relied on.
    """

    kind: MemType
    is_maybe_null: bool = True
    is_acquired: bool = False
    struct: str = ""
    trust: int = LEGACY


def _ids(text: str) -> frozenset[int]:
    return frozenset(isa.HELPER_IDS[name] for name in text.split())


_BTF = MemType.BTF_ID
_RETURNS: Final = {
    "sk_lookup_tcp": Returned(MemType.SOCKET, is_acquired=True),
    "sk_lookup_udp": Returned(MemType.SOCKET, is_acquired=True),
    "skc_lookup_tcp": Returned(MemType.SOCK_COMMON, is_acquired=True),
    "sk_fullsock": Returned(MemType.SOCKET),
    "get_listener_sock": Returned(MemType.SOCKET),
    "tcp_sock": Returned(MemType.TCP_SOCK),
    "ringbuf_reserve": Returned(MemType.MEM, is_acquired=True),
    "dynptr_data": Returned(MemType.MEM),
    "get_current_task_btf": Returned(
        _BTF, is_maybe_null=False, struct="task_struct", trust=TRUSTED
    ),
    # Not null, but the verifier does not rely on it: comparisons with null are not decided.
    "task_pt_regs": Returned(_BTF, is_maybe_null=False, struct="pt_regs"),
    "sock_from_file": Returned(_BTF, struct="socket"),
    "skc_to_tcp6_sock": Returned(_BTF, struct="tcp6_sock"),
    "skc_to_tcp_sock": Returned(_BTF, struct="tcp_sock"),
    "skc_to_tcp_timewait_sock": Returned(_BTF, struct="tcp_timewait_sock"),
    "skc_to_tcp_request_sock": Returned(_BTF, struct="tcp_request_sock"),
    "skc_to_udp6_sock": Returned(_BTF, struct="udp6_sock"),
    "skc_to_unix_sock": Returned(_BTF, struct="unix_sock"),
    "skc_to_mptcp_sock": Returned(_BTF, struct="mptcp_sock"),
}
RETURNS: Final = {isa.HELPER_IDS[name]: found for name, found in _RETURNS.items()}
"""Helpers that return a pointer, but not into a map."""

CASTS: Final = frozenset(
    helper
    for helper, name in isa.HELPERS.items()
    if name in ("sk_fullsock", "tcp_sock") or name.startswith("skc_to_")
)
"""Helpers whose result ends with what they are given.

Source: linux v6.18, kernel/bpf/verifier.c, is_ptr_cast_function().
"""

MAP_LOOKUP: Final = isa.HELPER_IDS["map_lookup_elem"]
MAP_VALUES: Final = _ids(
    "map_lookup_elem map_lookup_percpu_elem sk_storage_get inode_storage_get task_storage_get "
    "cgrp_storage_get"
)
"""Helpers that return a value of the map in R1, or null."""
LOCAL_STORAGE: Final = isa.HELPER_IDS["get_local_storage"]
PER_CPU: Final = {isa.HELPER_IDS["per_cpu_ptr"]: True, isa.HELPER_IDS["this_cpu_ptr"]: False}
"""Helpers that return what a per-CPU variable's pointer in R1 is for, and whether or null."""
KPTR_XCHG: Final = isa.HELPER_IDS["kptr_xchg"]
TAIL_CALL: Final = isa.HELPER_IDS["tail_call"]
LOOP: Final = isa.HELPER_IDS["loop"]
FOR_EACH: Final = isa.HELPER_IDS["for_each_map_elem"]
TIMER: Final = isa.HELPER_IDS["timer_set_callback"]
FIND_VMA: Final = isa.HELPER_IDS["find_vma"]
DRAIN: Final = isa.HELPER_IDS["user_ringbuf_drain"]
SYNCHRONOUS: Final = frozenset({LOOP, FOR_EACH, FIND_VMA, DRAIN})
"""Helpers that call a callback before they return, any number of times."""

SIZED: Final = {
    isa.HELPER_IDS[name]: size
    for name, size in {
        "get_stack": 3,
        "get_task_stack": 3,
        "probe_read_str": 2,
        "probe_read_kernel_str": 2,
        "probe_read_user_str": 2,
    }.items()
}
"""Helpers that return an error or at most a size: the argument that holds it."""
MAX_ERRNO: Final = 4095
CPU_NUMBER: Final = isa.HELPER_IDS["get_smp_processor_id"]

CHANGES_PACKET: Final = _ids(
    "clone_redirect l3_csum_replace l4_csum_replace lwt_push_encap lwt_seg6_action "
    "lwt_seg6_adjust_srh lwt_seg6_store_bytes msg_pop_data msg_pull_data msg_push_data "
    "skb_adjust_room skb_change_head skb_change_proto skb_change_tail skb_pull_data "
    "skb_store_bytes skb_vlan_pop skb_vlan_push store_hdr_opt tail_call xdp_adjust_head "
    "xdp_adjust_meta xdp_adjust_tail"
)
"""Helpers behind which packet pointers are no pointers any more."""

RELEASES: Final = {
    isa.HELPER_IDS["sk_release"]: 1,
    isa.HELPER_IDS["ringbuf_submit"]: 1,
    isa.HELPER_IDS["ringbuf_discard"]: 1,
    KPTR_XCHG: 2,
}
"""Helpers that end an object: the argument that it is in."""

VALUE_SIZE: Final = -1
"""As a size: of the values of the map in R1."""

# helper, register of the pointer, and a register (r3) or a number of bytes.
_WRITES: Final = """
probe_read 1 r2, probe_read_str 1 r2, get_current_comm 1 r2, skb_load_bytes 3 r4,
skb_load_bytes_relative 3 r4, skb_get_tunnel_key 2 r3, skb_get_tunnel_opt 2 r3, get_stack 2 r3,
get_task_stack 2 r3, perf_event_read_value 3 r4, perf_prog_read_value 2 r3, getsockopt 4 r5,
skb_get_xfrm_state 3 r4, fib_lookup 2 r3, map_pop_elem 2 -1, map_peek_elem 2 -1,
sysctl_get_name 2 r3, sysctl_get_current_value 2 r3, sysctl_get_new_value 2 r3, strtol 4 8,
strtoul 4 8, probe_read_user 1 r2, probe_read_kernel 1 r2, probe_read_user_str 1 r2,
probe_read_kernel_str 1 r2, read_branch_records 2 r3, get_ns_current_pid_tgid 3 r4,
load_hdr_opt 2 r3, d_path 2 r3, copy_from_user 1 r2, snprintf_btf 1 r2, ima_inode_hash 2 r3,
check_mtu 3 4, snprintf 1 r2, sys_bpf 2 r3, get_branch_snapshot 1 r2, kallsyms_lookup_name 4 8,
get_func_arg 3 8, get_func_ret 2 8, xdp_load_bytes 3 r4, copy_from_user_task 1 r2,
ima_file_hash 2 r3, dynptr_from_mem 4 16, ringbuf_reserve_dynptr 4 16, dynptr_read 1 r2
"""
# The same for what is only read, which matters for how deep a stack is.
_READS: Final = """
map_lookup_elem 2 -2, map_update_elem 2 -2, map_delete_elem 2 -2, map_update_elem 3 -1,
map_push_elem 2 -1, map_lookup_percpu_elem 2 -2, sock_map_update 3 -2, sock_hash_update 3 -2,
perf_event_output 4 r5, skb_store_bytes 3 r4, csum_diff 1 r2, csum_diff 3 r4,
skb_set_tunnel_key 2 r3, skb_set_tunnel_opt 2 r3, trace_printk 1 r2, ringbuf_output 2 r3,
seq_write 2 r3, setsockopt 4 r5, bind 2 r3, sk_lookup_tcp 2 r3, sk_lookup_udp 2 r3,
skc_lookup_tcp 2 r3, xdp_store_bytes 3 r4, dynptr_write 3 r4, strncmp 1 r2, probe_write_user 2 r3,
seq_printf 2 r3, seq_printf 4 r5, snprintf 4 r5, redirect_neigh 2 r3, trace_vprintk 1 r2,
trace_vprintk 3 r4, xdp_output 4 r5, skb_output 4 r5
"""
KEY_SIZE: Final = -2

Touch = tuple[int, int, int]
"""Register of the pointer; register of the size, or 0; the size, where it is a number."""


def _touches(text: str) -> dict[int, tuple[Touch, ...]]:
    out: dict[int, tuple[Touch, ...]] = {}
    for entry in text.replace("\n", " ").split(","):
        name, register, size = entry.split()
        by = int(size[1:]) if size.startswith("r") else 0
        row = (int(register), by, 0 if by else int(size))
        helper = isa.HELPER_IDS[name]
        out[helper] = (*out.get(helper, ()), row)
    return out


WRITES: Final = _touches(_WRITES)
"""Memory that helpers write through their arguments."""
READS: Final = _touches(_READS)
"""Memory that helpers read through their arguments."""
