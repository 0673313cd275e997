"""What each helper takes, returns, reads and writes: one row a helper.

A row reads like a prototype, and its words mean:

================ ====================================================================
argument         what R1, R2, ... hold; ``a|b`` where it depends on the kind of program
``mem size``     memory, and the register with its number of bytes
``mem[8]``       memory of a fixed size
``key value``    memory of the size of the map's keys or values
``!``            the helper writes that memory without reading it; ``&``: it does both
``?``            may be null, or of a size may be 0
``~``            the object ends with the call
``unchecked``    read, and the verifier does not look at it
``...``          as many more, up to R5, as the program sets
result           ``int<=r3``: an error, or at most R3; ``obj:name!``: a trusted struct
``gpl``          only for programs with a GPL-compatible licence, whatever their kind
``sleeps``       only for programs that may sleep
``fast``         there is a form of it that clobbers R0 and its arguments alone
``acquires``     the result refers to an object that has to be released
``casts``        the result ends with the object in R1
``keeps-map``    the verifier notes on which map it is called
``adds-gfp``     the kernel passes one more argument: how it may look for memory
``adds-aux``     the same: what it keeps of the program
``moves-packet`` pointers into the packet are none any more
``calls(...)``   calls the function in its ``func`` before it returns, with these arguments:
                 a kind, or the helper's own register
``later(...)``   the same, but some time after it has returned
================ ====================================================================

Source: linux v6.18, the bpf_func_proto of each helper, as a running kernel has them in its
memory (tests/kernel/test_helper_protos.py compares all of them);
kernel/bpf/verifier.c, record_func_map(), do_refine_retval_range(), is_acquire_function(),
is_ptr_cast_function(), set_*_callback_state(); net/core/filter.c,
bpf_helper_changes_pkt_data(). Where a helper is not in every kernel's configuration
(bpf_override_return, bpf_rc_*): the source alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.program.types import Insns

from .helperproto import (
    KEY_SIZE,
    VALUE_SIZE,
    ArgKind,
    HelperAccess,
    HelperArg,
    HelperCallback,
    HelperProto,
    HelperResult,
    ResultKind,
)

_SIZE_OF: Final = {ArgKind.KEY: KEY_SIZE, ArgKind.VALUE: VALUE_SIZE, ArgKind.DYNPTR: 16}

# By number, from 1 on.
_ROWS: Final = """
map_lookup_elem: map key -> value? keeps-map
map_update_elem: map key value any -> int keeps-map
map_delete_elem: map key -> int keeps-map
probe_read: mem! size? any -> int gpl
ktime_get_ns: -> int
trace_printk: mem size ... -> int gpl
get_prandom_u32: -> int
get_smp_processor_id: -> int fast
skb_store_bytes: ctx any mem size any -> int moves-packet
l3_csum_replace: ctx any any any any -> int moves-packet
l4_csum_replace: ctx any any any any -> int moves-packet
tail_call: ctx map any -> void keeps-map moves-packet
clone_redirect: ctx any any -> int moves-packet
get_current_pid_tgid: -> int
get_current_uid_gid: -> int
get_current_comm: mem! size -> int
get_cgroup_classid: ctx -> int
skb_vlan_push: ctx any any -> int moves-packet
skb_vlan_pop: ctx -> int moves-packet
skb_get_tunnel_key: ctx mem! size any -> int
skb_set_tunnel_key: ctx mem size any -> int
perf_event_read: map any -> int gpl
redirect: any any -> int
get_route_realm: ctx -> int
perf_event_output: ctx map any mem size? -> int gpl
skb_load_bytes: ctx any mem! size -> int
get_stackid: ctx map any -> int
csum_diff: mem? size? mem? size? any -> int
skb_get_tunnel_opt: ctx mem! size -> int
skb_set_tunnel_opt: ctx mem size -> int
skb_change_proto: ctx any any -> int moves-packet
skb_change_type: ctx any -> int
skb_under_cgroup: ctx map any -> int
get_hash_recalc: ctx -> int
get_current_task: -> int gpl
probe_write_user: any mem size -> int gpl
current_task_under_cgroup: map any -> int
skb_change_tail: ctx any any -> int moves-packet
skb_pull_data: ctx any -> int moves-packet
csum_update: ctx any -> int
set_hash_invalid: ctx -> int
get_numa_node_id: -> int
skb_change_head: ctx any any -> int moves-packet
xdp_adjust_head: ctx any -> int moves-packet
probe_read_str: mem! size? any -> int<=r2 gpl
get_socket_cookie: ctx|sock? -> int
get_socket_uid: ctx -> int
set_hash: ctx any -> int
setsockopt: ctx|sock any any mem size -> int
skb_adjust_room: ctx any any any -> int moves-packet
redirect_map: map any any -> int keeps-map
sk_redirect_map: ctx map any any -> int
sock_map_update: ctx map key any -> int
xdp_adjust_meta: ctx any -> int moves-packet
perf_event_read_value: map any mem! size -> int gpl
perf_prog_read_value: ctx mem! size -> int gpl
getsockopt: ctx|sock any any mem! size -> int
override_return: ctx any -> int gpl
sock_ops_cb_flags_set: ctx any -> int
msg_redirect_map: ctx map any any -> int
msg_apply_bytes: ctx any -> int
msg_cork_bytes: ctx any -> int
msg_pull_data: ctx any any any -> int moves-packet
bind: ctx mem size -> int
xdp_adjust_tail: ctx any -> int moves-packet
skb_get_xfrm_state: ctx any mem! size any -> int
get_stack: ctx mem! size? any -> int<=r3 gpl
skb_load_bytes_relative: ctx any mem! size any -> int
fib_lookup: ctx mem& size any -> int gpl
sock_hash_update: ctx map key any -> int
msg_redirect_hash: ctx map key any -> int
sk_redirect_hash: ctx map key any -> int
lwt_push_encap: ctx any mem size -> int moves-packet
lwt_seg6_store_bytes: ctx any mem size -> int moves-packet
lwt_seg6_adjust_srh: ctx any any -> int moves-packet
lwt_seg6_action: ctx any mem size -> int moves-packet
rc_repeat: ctx -> int gpl
rc_keydown: ctx any any any -> int gpl
skb_cgroup_id: ctx -> int
get_current_cgroup_id: -> int
get_local_storage: map any -> value
sk_select_reuseport: ctx map key any -> int
skb_ancestor_cgroup_id: ctx any -> int
sk_lookup_tcp: ctx mem size? any any -> socket? acquires
sk_lookup_udp: ctx mem size? any any -> socket? acquires
sk_release: sock~ -> int
map_push_elem: map value any -> int keeps-map
map_pop_elem: map value! -> int keeps-map
map_peek_elem: map value! -> int keeps-map
msg_push_data: ctx any any any -> int moves-packet
msg_pop_data: ctx any any any -> int moves-packet
rc_pointer_rel: ctx any any -> int gpl
spin_lock: lock -> void
spin_unlock: lock -> void
sk_fullsock: sock -> socket? casts
tcp_sock: sock -> tcp_sock? casts
skb_ecn_set_ce: ctx -> int
get_listener_sock: sock -> socket?
skc_lookup_tcp: ctx mem size? any any -> sock_common? acquires
tcp_check_syncookie: sock mem size mem size -> int gpl
sysctl_get_name: ctx mem& size any -> int
sysctl_get_current_value: ctx mem! size -> int
sysctl_get_new_value: ctx mem! size -> int
sysctl_set_new_value: ctx mem size -> int
strtol: mem size any mem[8]! -> int
strtoul: mem size any mem[8]! -> int
sk_storage_get: map ctx|obj|sock? value? any -> value? adds-gfp
sk_storage_delete: map obj|sock? -> int
send_signal: any -> int
tcp_gen_syncookie: sock mem size mem size -> int gpl
skb_output: ctx|obj map any mem size? -> int gpl
probe_read_user: mem! size? any -> int gpl
probe_read_kernel: mem! size? any -> int gpl
probe_read_user_str: mem! size? any -> int<=r2 gpl
probe_read_kernel_str: mem! size? any -> int<=r2 gpl
tcp_send_ack: obj any -> int
send_signal_thread: any -> int
jiffies64: -> int
read_branch_records: ctx mem&? size? any -> int gpl
get_ns_current_pid_tgid: any any mem! size -> int
xdp_output: ctx|obj map any mem size? -> int gpl
get_netns_cookie: ctx? -> int
get_current_ancestor_cgroup_id: any -> int
sk_assign: ctx sock? any -> int
ktime_get_boot_ns: -> int
seq_printf: obj mem size mem? size? -> int gpl
seq_write: obj mem size? -> int gpl
sk_cgroup_id: sock -> int
sk_ancestor_cgroup_id: sock any -> int
ringbuf_output: map mem size? any -> int
ringbuf_reserve: map alloc any -> mem? acquires
ringbuf_submit: record~ any -> void
ringbuf_discard: record~ any -> void
ringbuf_query: map any -> int
csum_level: ctx any -> int
skc_to_tcp6_sock: sock -> obj:tcp6_sock? casts
skc_to_tcp_sock: sock -> obj:tcp_sock? casts
skc_to_tcp_timewait_sock: sock -> obj:tcp_timewait_sock? casts
skc_to_tcp_request_sock: sock -> obj:tcp_request_sock? casts
skc_to_udp6_sock: sock -> obj:udp6_sock? casts
get_task_stack: obj mem! size? any -> int<=r3
load_hdr_opt: ctx mem& size any -> int
store_hdr_opt: ctx mem size any -> int moves-packet
reserve_hdr_opt: ctx any any -> int
inode_storage_get: map obj? value? any -> value? adds-gfp
inode_storage_delete: map obj? -> int
d_path: obj mem& size? -> int
copy_from_user: mem! size? any -> int sleeps
snprintf_btf: mem& size mem size any -> int
seq_printf_btf: obj mem size? any -> int gpl
skb_cgroup_classid: ctx -> int
redirect_neigh: any mem? size? any -> int
per_cpu_ptr: percpu any -> percpu?
this_cpu_ptr: percpu -> percpu
redirect_peer: any any -> int
task_storage_get: map obj? value? any -> value? adds-gfp
task_storage_delete: map obj? -> int
get_current_task_btf: -> obj:task_struct! gpl
bprm_opts_set: obj any -> int
ktime_get_coarse_ns: -> int
ima_inode_hash: obj mem! size -> int sleeps
sock_from_file: obj -> obj:socket?
check_mtu: ctx any mem[4]& any any -> int gpl
for_each_map_elem: map func stack? any -> int keeps-map calls(map,key,value,r3)
snprintf: mem&? size? str mem? size? -> int gpl
sys_bpf: any mem size -> int
btf_find_by_name_kind: mem size any any -> int
sys_close: any -> int
timer_init: timer map any -> int gpl
timer_set_callback: timer func -> int gpl later(map,key,value) adds-aux
timer_start: timer any any -> int gpl
timer_cancel: timer -> int gpl
get_func_ip: ctx -> int
get_attach_cookie: ctx -> int
task_pt_regs: obj -> obj:pt_regs gpl
get_branch_snapshot: mem! size? unchecked -> int gpl
trace_vprintk: mem size mem? size? -> int gpl
skc_to_unix_sock: sock -> obj:unix_sock? casts
kallsyms_lookup_name: mem size? any mem[8]! -> int
find_vma: obj any func stack? any -> int calls(r1,vma,r4)
loop: any func stack? any -> int calls(any,r3)
strncmp: mem size str -> int
get_func_arg: ctx any mem[8]! -> int
get_func_ret: ctx mem[8]! -> int
get_func_arg_cnt: ctx -> int
get_retval: -> int
set_retval: any -> int
xdp_get_buff_len: ctx|obj -> int
xdp_load_bytes: ctx any mem! size -> int
xdp_store_bytes: ctx any mem size -> int
copy_from_user_task: mem! size? any obj any -> int gpl sleeps
skb_set_tstamp: ctx any any -> int
ima_file_hash: obj mem! size -> int sleeps
kptr_xchg: kptr obj?~ -> obj? acquires
map_lookup_percpu_elem: map key any -> value? keeps-map
skc_to_mptcp_sock: sock -> obj:mptcp_sock? casts
dynptr_from_mem: mem! size? any dynptr! -> int
ringbuf_reserve_dynptr: map any any dynptr! -> int
ringbuf_submit_dynptr: dynptr~ any -> void
ringbuf_discard_dynptr: dynptr~ any -> void
dynptr_read: mem! size? dynptr any any -> int
dynptr_write: dynptr any mem size? any -> int
dynptr_data: dynptr any alloc -> mem?
tcp_raw_gen_syncookie_ipv4: mem[20] mem size? -> int gpl
tcp_raw_gen_syncookie_ipv6: mem[40] mem size? -> int gpl
tcp_raw_check_syncookie_ipv4: mem[20] mem[20] -> int gpl
tcp_raw_check_syncookie_ipv6: mem[40] mem[20] -> int gpl
ktime_get_tai_ns: -> int
user_ringbuf_drain: map func stack? any -> int calls(dynptr,r3)
cgrp_storage_get: map obj? value? any -> value? adds-gfp
cgrp_storage_delete: map obj? -> int
"""

# The first helper that each kernel added. Source: the history of include/uapi/linux/bpf.h.
_FIRST_OF: Final = """
map_lookup_elem 3.19, probe_read 4.1, tail_call 4.2, get_cgroup_classid 4.3, redirect 4.4,
skb_load_bytes 4.5, get_stackid 4.6, skb_change_proto 4.8, current_task_under_cgroup 4.9,
get_numa_node_id 4.10, probe_read_str 4.11, get_socket_cookie 4.12, set_hash 4.13,
redirect_map 4.14, xdp_adjust_meta 4.15, override_return 4.16, msg_redirect_map 4.17,
xdp_adjust_tail 4.18, get_local_storage 4.19, sk_lookup_tcp 4.20, msg_pop_data 5.0, spin_lock 5.1,
skc_lookup_tcp 5.2, send_signal 5.3, tcp_gen_syncookie 5.4, skb_output 5.5, tcp_send_ack 5.6,
read_branch_records 5.7, ktime_get_boot_ns 5.8, skc_to_tcp6_sock 5.9, load_hdr_opt 5.10,
task_storage_get 5.11,
check_mtu 5.12, for_each_map_elem 5.13, sys_bpf 5.14, timer_init 5.15, get_branch_snapshot 5.16,
find_vma 5.17, get_retval 5.18, kptr_xchg 5.19, tcp_raw_gen_syncookie_ipv4 6.0,
ktime_get_tai_ns 6.1, cgrp_storage_get 6.2
"""

_ROW: Final = re.compile(r"(?P<name>\w+):(?P<args>.*?) -> (?P<result>\S+)(?P<notes>.*)")
_ARG: Final = re.compile(r"(?P<kinds>[a-z|]+)(?:\[(?P<n_bytes>\d+)\])?(?P<marks>[!&?~]*)")
_RESULT: Final = re.compile(
    r"(?P<kind>\w+?)(?::(?P<struct>\w+))?(?P<marks>[!?]*)(?:<=r(?P<most>\d))?"
)
_CALLBACK: Final = re.compile(r"(?P<when>calls|later)\((?P<args>.*)\)")


def _parse() -> dict[int, HelperProto]:
    since = {}
    for entry in _FIRST_OF.replace("\n", " ").split(","):
        name, version = entry.split()
        major, minor = version.split(".")
        since[isa.HELPER_IDS[name]] = int(major), int(minor)
    found: dict[int, HelperProto] = {}
    first = (0, 0)
    for number, row in enumerate(_ROWS.strip().splitlines(), 1):
        first = since.get(number, first)
        found[number] = _proto(number, first, row)
    return found


def _proto(number: int, since: tuple[int, int], row: str) -> HelperProto:
    match = _ROW.fullmatch(row)
    assert match is not None, row
    assert match["name"] == isa.HELPERS[number], row
    words = match["args"].split()
    is_variadic = bool(words) and words[-1] == "..."
    args = tuple(map(_arg, words[: len(words) - is_variadic]))
    notes = match["notes"].split()
    callback = next((found for note in notes if (found := _CALLBACK.fullmatch(note))), None)
    return HelperProto(
        number,
        match["name"],
        args,
        _result(match["result"]),
        since,
        is_variadic,
        "gpl" in notes,
        "sleeps" in notes,
        "fast" in notes,
        "acquires" in notes,
        "casts" in notes,
        "keeps-map" in notes,
        "moves-packet" in notes,
        next((note.removeprefix("adds-") for note in notes if note.startswith("adds-")), ""),
        None if callback is None else _callback(args, callback),
        _accesses(args, is_write=False),
        _accesses(args, is_write=True),
    )


def _arg(word: str) -> HelperArg:
    match = _ARG.fullmatch(word)
    assert match is not None, word
    kinds = tuple(map(ArgKind, match["kinds"].split("|")))
    marks = match["marks"]
    return HelperArg(
        kinds,
        is_maybe_null="?" in marks,
        is_read="!" not in marks,
        is_written="!" in marks or "&" in marks,
        is_released="~" in marks,
        n_bytes=int(match["n_bytes"] or 0),
    )


def _result(word: str) -> HelperResult:
    match = _RESULT.fullmatch(word)
    assert match is not None, word
    marks, struct = match["marks"], match["struct"] or ""
    most = int(match["most"] or 0)
    return HelperResult(ResultKind(match["kind"]), "?" in marks, struct, "!" in marks, most)


def _callback(args: tuple[HelperArg, ...], match: re.Match[str]) -> HelperCallback:
    reg = next(reg for reg, arg in enumerate(args, 1) if ArgKind.FUNC in arg.kinds)
    return HelperCallback(reg, tuple(match["args"].split(",")), match["when"] == "later")


def _accesses(args: tuple[HelperArg, ...], *, is_write: bool) -> tuple[HelperAccess, ...]:
    found = []
    for reg, arg in enumerate(args, 1):
        if not (arg.is_written if is_write else arg.is_read):
            continue
        for kind in arg.kinds:
            if kind in _SIZE_OF:
                found.append(HelperAccess(reg, 0, _SIZE_OF[kind]))
            elif kind is ArgKind.MEM:
                found.append(HelperAccess(reg, 0 if arg.n_bytes else reg + 1, arg.n_bytes))
    return tuple(found)


HELPER_PROTOS: Final[Mapping[int, HelperProto]] = MappingProxyType(_parse())
"""All helpers by number."""


def _mask(n_args: int) -> int:
    return ((1 << n_args) - 1) << 1


_KNOWN: Final = range(1, len(HELPER_PROTOS) + 1)
_ARGS_OF: Final = np.array(
    [isa.ARGS, *(_mask(len(HELPER_PROTOS[number].args)) for number in _KNOWN)], np.uint16
)
_CHECKED_ARGS_OF: Final = np.array(
    [isa.ARGS, *(_mask(HELPER_PROTOS[number].n_checked) for number in _KNOWN)], np.uint16
)
_IS_VARIADIC: Final = np.array(
    [False, *(HELPER_PROTOS[number].is_variadic for number in _KNOWN)], np.bool_
)
_IS_VOID: Final = np.array(
    [True, *(HELPER_PROTOS[number].result.kind is ResultKind.VOID for number in _KNOWN)]
)


def helpers_where(is_one: Callable[[HelperProto], object]) -> frozenset[int]:
    """The numbers of the helpers of a kind."""
    return frozenset(number for number, proto in HELPER_PROTOS.items() if is_one(proto))


def helper_args(insns: Insns, *, are_checked: bool = False) -> NDArray[np.uint16]:
    """The argument registers that helper calls certainly read.

    Args:
        insns: (n,) helper calls.
        are_checked: leave out those that the verifier does not look at.

    Returns:
        (n,) masks of R1 to R5; all of them where the helper is not known.
    """
    return (_CHECKED_ARGS_OF if are_checked else _ARGS_OF)[_number(insns)]


def is_variadic(insns: Insns) -> NDArray[np.bool_]:
    """(n,) helper calls that may read any further registers up to R5 that the program set."""
    return _IS_VARIADIC[_number(insns)]


def returns_nothing(insns: Insns) -> NDArray[np.bool_]:
    """(n,) helper calls after which R0 might not be readable."""
    return _IS_VOID[_number(insns)]


def _number(insns: Insns) -> NDArray[np.int64]:
    """(n,) helper numbers; 0 for one that is not in the table."""
    imm = insns["imm"].astype(np.int64)
    return np.where((imm > 0) & (imm < len(_ARGS_OF)), imm, 0)
