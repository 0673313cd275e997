"""What an ELF section's name says about the programs in it.

Source: libbpf v1.1 and v1.5, src/libbpf.c, section_defs[], sec_def_matches(),
libbpf_prepare_prog_load() and find_kernel_btf_id().
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .kinds import AttachType, ProgFlag, ProgType

_NO_ATTACH: Final = AttachType(0)

# Section, kind, attach type, flags. "+" takes the name alone and the name with "/..." after it.
_DEFS: Final = """
socket socket_filter
sk_reuseport/migrate sk_reuseport sk_reuseport_select_or_migrate
sk_reuseport sk_reuseport sk_reuseport_select
kprobe+ kprobe
uprobe+ kprobe
uprobe.s+ kprobe - sleepable
kretprobe+ kprobe
uretprobe+ kprobe
uretprobe.s+ kprobe - sleepable
kprobe.multi+ kprobe trace_kprobe_multi
kretprobe.multi+ kprobe trace_kprobe_multi
kprobe.session+ kprobe trace_kprobe_session
uprobe.multi+ kprobe trace_uprobe_multi
uretprobe.multi+ kprobe trace_uprobe_multi
uprobe.session+ kprobe trace_uprobe_session
uprobe.multi.s+ kprobe trace_uprobe_multi sleepable
uretprobe.multi.s+ kprobe trace_uprobe_multi sleepable
uprobe.session.s+ kprobe trace_uprobe_session sleepable
ksyscall+ kprobe
kretsyscall+ kprobe
usdt+ kprobe
usdt.s+ kprobe - sleepable
tc/ingress sched_cls tcx_ingress
tc/egress sched_cls tcx_egress
tcx/ingress sched_cls tcx_ingress
tcx/egress sched_cls tcx_egress
tc sched_cls
classifier sched_cls
action sched_act
netkit/primary sched_cls netkit_primary
netkit/peer sched_cls netkit_peer
tracepoint+ tracepoint
tp+ tracepoint
raw_tracepoint+ raw_tracepoint
raw_tp+ raw_tracepoint
raw_tracepoint.w+ raw_tracepoint_writable
raw_tp.w+ raw_tracepoint_writable
tp_btf+ tracing trace_raw_tp btf
fentry+ tracing trace_fentry btf
fmod_ret+ tracing modify_return btf
fexit+ tracing trace_fexit btf
fentry.s+ tracing trace_fentry btf,sleepable
fmod_ret.s+ tracing modify_return btf,sleepable
fexit.s+ tracing trace_fexit btf,sleepable
freplace+ ext - btf
lsm+ lsm lsm_mac btf
lsm.s+ lsm lsm_mac btf,sleepable
lsm_cgroup+ lsm lsm_cgroup btf
iter+ tracing trace_iter btf
iter.s+ tracing trace_iter btf,sleepable
syscall syscall - sleepable
xdp.frags/devmap xdp xdp_devmap frags
xdp/devmap xdp xdp_devmap
xdp.frags/cpumap xdp xdp_cpumap frags
xdp/cpumap xdp xdp_cpumap
xdp.frags xdp xdp frags
xdp xdp xdp
perf_event perf_event
lwt_in lwt_in
lwt_out lwt_out
lwt_xmit lwt_xmit
lwt_seg6local lwt_seg6local
sockops sock_ops cgroup_sock_ops
sk_skb/stream_parser sk_skb sk_skb_stream_parser
sk_skb/stream_verdict sk_skb sk_skb_stream_verdict
sk_skb/verdict sk_skb sk_skb_verdict
sk_skb sk_skb
sk_msg sk_msg sk_msg_verdict
lirc_mode2 lirc_mode2 lirc_mode2
flow_dissector flow_dissector flow_dissector
cgroup_skb/ingress cgroup_skb cgroup_inet_ingress
cgroup_skb/egress cgroup_skb cgroup_inet_egress
cgroup/skb cgroup_skb
cgroup/sock_create cgroup_sock cgroup_inet_sock_create
cgroup/sock_release cgroup_sock cgroup_inet_sock_release
cgroup/sock cgroup_sock cgroup_inet_sock_create
cgroup/post_bind4 cgroup_sock cgroup_inet4_post_bind
cgroup/post_bind6 cgroup_sock cgroup_inet6_post_bind
cgroup/bind4 cgroup_sock_addr cgroup_inet4_bind
cgroup/bind6 cgroup_sock_addr cgroup_inet6_bind
cgroup/connect4 cgroup_sock_addr cgroup_inet4_connect
cgroup/connect6 cgroup_sock_addr cgroup_inet6_connect
cgroup/connect_unix cgroup_sock_addr cgroup_unix_connect
cgroup/sendmsg4 cgroup_sock_addr cgroup_udp4_sendmsg
cgroup/sendmsg6 cgroup_sock_addr cgroup_udp6_sendmsg
cgroup/sendmsg_unix cgroup_sock_addr cgroup_unix_sendmsg
cgroup/recvmsg4 cgroup_sock_addr cgroup_udp4_recvmsg
cgroup/recvmsg6 cgroup_sock_addr cgroup_udp6_recvmsg
cgroup/recvmsg_unix cgroup_sock_addr cgroup_unix_recvmsg
cgroup/getpeername4 cgroup_sock_addr cgroup_inet4_getpeername
cgroup/getpeername6 cgroup_sock_addr cgroup_inet6_getpeername
cgroup/getpeername_unix cgroup_sock_addr cgroup_unix_getpeername
cgroup/getsockname4 cgroup_sock_addr cgroup_inet4_getsockname
cgroup/getsockname6 cgroup_sock_addr cgroup_inet6_getsockname
cgroup/getsockname_unix cgroup_sock_addr cgroup_unix_getsockname
cgroup/sysctl cgroup_sysctl cgroup_sysctl
cgroup/getsockopt cgroup_sockopt cgroup_getsockopt
cgroup/setsockopt cgroup_sockopt cgroup_setsockopt
cgroup/dev cgroup_device cgroup_device
struct_ops+ struct_ops
struct_ops.s+ struct_ops - sleepable
sk_lookup sk_lookup sk_lookup
netfilter netfilter netfilter
"""

_FLAGS: Final = {"sleepable": ProgFlag.SLEEPABLE, "frags": ProgFlag.XDP_HAS_FRAGS, "btf": 0}


@dataclass(frozen=True, slots=True)
class SectionKind:
    """What a section's name asks for.

    Attributes:
        section: the name, without the mark below.
        is_autoloaded: false for a name that starts with ``?``.
        type: kind of program, or None where the name does not tell.
        attach_type: where it attaches.
        flags: `ProgFlag` bits.
        needs_attach_btf: whether it attaches to something in the kernel's types, whose name
            follows the first ``/``.
    """

    section: str
    is_autoloaded: bool
    type: ProgType | None
    attach_type: AttachType
    flags: int
    needs_attach_btf: bool


def section_kind(section: str) -> SectionKind:
    """Look a section's name up."""
    is_autoloaded = not section.startswith("?")
    name = section.removeprefix("?")
    pattern = _pattern(name)
    if pattern is None:
        return SectionKind(name, is_autoloaded, None, _NO_ATTACH, 0, needs_attach_btf=False)
    prog_type, attach_type, words = _TABLE[pattern]
    flags = sum(_FLAGS[word] for word in words)
    return SectionKind(name, is_autoloaded, prog_type, attach_type, flags, "btf" in words)


def section_of(prog_type: ProgType, attach_type: int, flags: int, target: str = "") -> str:
    """A section's name that asks for a kind of program; "" where none does.

    Of several the one with the same attach type, then the one with the same flags, then the
    first. Flags that no name asks for count for nothing.

    Args:
        prog_type: the kind.
        attach_type: where it attaches.
        flags: `ProgFlag` bits.
        target: what it attaches to, for kinds whose names have that in them.
    """
    known = sum(flag for flag in _FLAGS.values())
    rows = [(pattern, row) for pattern, row in _TABLE.items() if row[0] is prog_type]
    if not rows:
        return ""

    def distance(row: tuple[str, tuple[ProgType, AttachType, tuple[str, ...]]]) -> tuple[int, int]:
        _, (_, attach, words) = row
        asked = sum(_FLAGS[word] for word in words)
        return int(attach) != attach_type, (asked ^ flags & known).bit_count()

    pattern, (_, _, words) = min(rows, key=distance)
    base = pattern.removesuffix("+")
    return f"{base}/{target}" if target and "btf" in words else base


def _pattern(name: str) -> str | None:
    for pattern in _TABLE:
        base = pattern.removesuffix("+")
        if name == base or (pattern != base and name.startswith(base + "/")):
            return pattern
    # libbpf before 1.0 took any name with the right start, and objects of that time rely on it.
    for pattern in _TABLE:
        rest = name.removeprefix(pattern)
        if rest != name and (rest[0] in "/_" or rest[0].isdigit()):
            return pattern
    return None


def _read(line: str) -> tuple[str, tuple[ProgType, AttachType, tuple[str, ...]]]:
    section, prog_type, attach, words = (*line.split(), "-", "-")[:4]
    attach_type = _NO_ATTACH if attach == "-" else AttachType.of(attach)
    flags = () if words == "-" else tuple(words.split(","))
    return section, (ProgType.of(prog_type), attach_type, flags)


_TABLE: Final = dict(_read(line) for line in _DEFS.strip().splitlines())
