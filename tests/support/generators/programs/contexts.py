"""Fields of the contexts of many kinds of programs, for random programs to read and write.

Source: linux v6.18, include/uapi/linux/bpf.h, and the is_valid_access functions of
net/core/filter.c, kernel/bpf/cgroup.c and kernel/trace/bpf_trace.c.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Context:
    """What a kind of program may do with its context.

    Attributes:
        type: the kind of program.
        attach: where it attaches, where that matters.
        words: byte_offs of 4-byte fields.
        longs: byte_offs of 8-byte fields.
        narrow: byte_offs of 4-byte fields of which parts may be read.
        writable: byte_offs of 4-byte fields that may be written.
        data: byte_offs and size of the fields data and data_end.
        has_ld_abs: whether it may use LD_ABS and LD_IND.
        helpers: calls without arguments that it may make.
    """

    type: str
    attach: str = ""
    words: tuple[int, ...] = ()
    longs: tuple[int, ...] = ()
    narrow: tuple[int, ...] = ()
    writable: tuple[int, ...] = ()
    data: tuple[int, int, int] | None = None
    has_ld_abs: bool = False
    helpers: tuple[str, ...] = ("get_smp_processor_id", "ktime_get_ns", "get_prandom_u32")


def _every(first: int, end: int, step: int = 4) -> tuple[int, ...]:
    return tuple(range(first, end, step))


NET = ("get_smp_processor_id", "ktime_get_ns", "get_prandom_u32", "jiffies64")
TRACE = (*NET, "get_current_task", "get_current_pid_tgid", "get_current_uid_gid")
SKB = (*_every(0, 72), 84)
CB = _every(48, 68)

CONTEXTS = (
    Context("socket_filter", "", SKB, (), SKB, CB, None, True, NET),
    Context(
        "sched_cls",
        "",
        (*SKB, 72, 160, 164, 176),
        (152, 184),
        SKB,
        (8, 12, 32, 44, 72, *CB),
        (76, 80, 4),
        True,
        NET,
    ),
    Context(
        "cgroup_skb",
        "cgroup_inet_ingress",
        (*SKB, 164, 176, *_every(88, 140)),
        (152,),
        SKB,
        (8, 32, *CB),
        (76, 80, 4),
        False,
        NET,
    ),
    Context("lwt_xmit", "", SKB, (), SKB, (8, 32, *CB), (76, 80, 4), False, NET),
    Context(
        "sk_skb",
        "sk_skb_stream_verdict",
        (0, 4, *_every(12, 72), *_every(88, 140)),
        (),
        (0, 4, *_every(12, 72)),
        (32, 44),
        (76, 80, 4),
        False,
        NET,
    ),
    Context("xdp", "", (12, 16), (), (), (), (0, 4, 4), False, NET),
    Context("cgroup_sock", "cgroup_inet_sock_create", _every(0, 24), (), (), (0, 16, 20)),
    Context("cgroup_sock_addr", "cgroup_inet4_connect", (0, 4, 24, 28, 32, 36), (), (4,), (4, 24)),
    Context(
        "cgroup_sock_addr",
        "cgroup_inet6_connect",
        (0, *_every(8, 40)),
        (8, 16),
        _every(8, 24),
        _every(8, 28),
    ),
    Context("cgroup_sysctl", "cgroup_sysctl", (0, 4), (), (0, 4), (4,)),
    Context("cgroup_device", "cgroup_device", (0, 4, 8)),
    Context("sock_ops", "cgroup_sock_ops", (0, *_every(4, 168)), (168, 176), (), (4,)),
    Context("sk_msg", "sk_msg_verdict", _every(16, 72), (), (), (), (0, 8, 8), False, NET),
    Context(
        "sk_lookup",
        "sk_lookup",
        (*_every(8, 36), *_every(40, 68)),
        (),
        (8, 12, *_every(16, 36), *_every(40, 68)),
        (),
        None,
        False,
        NET,
    ),
    Context("sk_reuseport", "", (16, 20, 24, 28, 32), (), (16,), (), (0, 8, 8), False, NET),
    Context("perf_event", "", (), (*_every(0, 168, 8), 168, 176), (), (), None, False, TRACE),
    Context("raw_tracepoint", "", (), _every(0, 64, 8), (), (), None, False, TRACE),
    Context("kprobe", "", (), _every(0, 160, 8), (), (), None, False, TRACE),
    Context("tracepoint", "", _every(8, 64), (8, 16, 24), _every(8, 64), (), None, False, TRACE),
)
