"""From a kind of program to a section's name, the inverse of what libbpf's names say."""

from __future__ import annotations

import pytest

from bpfpatch.facts.kinds import ProgType
from bpfpatch.facts.sections import section_kind, section_of

NAMES = """
xdp xdp.frags xdp/devmap tc tcx/egress socket kprobe uprobe.s kprobe.multi tracepoint
raw_tp.w fentry/f fexit.s/f lsm/f lsm.s/f syscall cgroup_skb/egress cgroup/connect6
cgroup/dev sockops sk_msg sk_lookup perf_event netfilter flow_dissector cgroup/sysctl
struct_ops
"""


@pytest.mark.parametrize("name", NAMES.split())
def test_a_section_asks_for_what_it_is_made_of(name: str) -> None:
    """The name for a section's type, attachment and flags asks for these."""
    kind = section_kind(name)
    assert kind.type is not None
    target = name.partition("/")[2] if kind.needs_attach_btf else ""
    made = section_kind(section_of(kind.type, int(kind.attach_type), kind.flags, target))
    assert (made.type, made.attach_type, made.flags) == (kind.type, kind.attach_type, kind.flags)
    assert made.section.partition("/")[2] == target or not target


def test_an_older_loaders_attach_type() -> None:
    """A type's first name stands for an attach type that no name has: older loaders give 0."""
    assert section_of(ProgType.XDP, 0, 0).startswith("xdp")
