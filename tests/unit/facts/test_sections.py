"""Section names, against libbpf's section_defs (v1.5, src/libbpf.c)."""

import pytest

from bpfpatch.errors import OptionError
from bpfpatch.kernel import AttachType, MapType, ProgFlag, ProgType, section_kind


@pytest.mark.parametrize(
    ("section", "prog_type", "attach_type", "flags"),
    [
        ("xdp", "xdp", "xdp", 0),
        ("xdp.frags/devmap", "xdp", "xdp_devmap", ProgFlag.XDP_HAS_FRAGS),
        ("tc", "sched_cls", None, 0),
        ("tcx/egress", "sched_cls", "tcx_egress", 0),
        ("socket", "socket_filter", None, 0),
        ("kprobe/do_unlinkat", "kprobe", None, 0),
        ("kprobe", "kprobe", None, 0),
        ("uprobe.s//usr/bin/x:main", "kprobe", None, ProgFlag.SLEEPABLE),
        ("kprobe.multi/tcp_*", "kprobe", "trace_kprobe_multi", 0),
        ("fentry.s/f", "tracing", "trace_fentry", ProgFlag.SLEEPABLE),
        ("tp_btf/sys_enter", "tracing", "trace_raw_tp", 0),
        ("raw_tp.w/x", "raw_tracepoint_writable", None, 0),
        ("lsm_cgroup/socket_bind", "lsm", "lsm_cgroup", 0),
        ("syscall", "syscall", None, ProgFlag.SLEEPABLE),
        ("cgroup_skb/egress", "cgroup_skb", "cgroup_inet_egress", 0),
        ("cgroup/connect6", "cgroup_sock_addr", "cgroup_inet6_connect", 0),
        ("cgroup/dev", "cgroup_device", "cgroup_device", 0),
        ("sockops", "sock_ops", "cgroup_sock_ops", 0),
        ("sk_reuseport/migrate", "sk_reuseport", "sk_reuseport_select_or_migrate", 0),
        ("struct_ops/init", "struct_ops", None, 0),
        ("netfilter", "netfilter", "netfilter", 0),
        # Before libbpf 1.0 the start of the name was enough.
        ("xdp_prog", "xdp", "xdp", 0),
        ("socket1", "socket_filter", None, 0),
    ],
)
def test_sections_tell_the_kind(section, prog_type, attach_type, flags):
    """A section's name gives the kind, the attachment and the flags that libbpf gives it."""
    kind = section_kind(section)
    assert kind.type is ProgType.of(prog_type)
    assert kind.attach_type == (0 if attach_type is None else AttachType.of(attach_type))
    assert kind.flags == flags


@pytest.mark.parametrize("section", ["second", "1/0", "tcp_helper", "xdpfoo", ".text", ""])
def test_other_sections_tell_nothing(section):
    """A name that only resembles one of libbpf's has no kind."""
    assert section_kind(section).type is None


def test_a_question_mark_means_not_by_itself():
    """``?`` before the name keeps a program from being loaded unasked."""
    assert not section_kind("?xdp").is_autoloaded
    assert section_kind("?xdp").type is ProgType.XDP


def test_types_go_by_name_or_number():
    """A type is found by bpftool's name, in either case, and by its number."""
    assert MapType.of("percpu_array") is MapType.of(6) is MapType.PERCPU_ARRAY
    with pytest.raises(OptionError, match="no kind of map 'tree'"):
        MapType.of("tree")
