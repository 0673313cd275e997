"""Since when there are kfuncs."""

from __future__ import annotations

import pytest

from bpfpatch import isa
from bpfpatch.bpf.errors import KernelError
from bpfpatch.bpf.loadedbtf import vmlinux_btf
from bpfpatch.btf import Kind
from bpfpatch.facts.kfuncs import KFUNC_SINCE, kfunc_since

OF_PARTS = (
    *("bbr_", "cubictcp_", "dctcp_", "hid_bpf_", "scx_bpf_", "bpf_iter_dmabuf_", "bpf_qdisc_"),
    *("bpf_kfree_skb", "bpf_skb_get_hash", "bpf_skb_get_fou", "bpf_skb_set_fou"),
    *("bpf_skb_get_xfrm", "bpf_skb_set_xfrm", "bpf_xdp_get_xfrm", "bpf_xdp_xfrm"),
    *("bpf_xdp_ct_", "bpf_skb_ct_", "bpf_ct_", "bpf_get_fsverity", "bpf_crypto_"),
)
"""Beginnings of names that a kernel may have in a module, or be built without."""
GONE = {"cgroup_rstat_updated", "cgroup_rstat_flush", "crash_kexec", "bpf_stream_vprintk"}
"""What a later kernel has renamed, or no more."""


def test_a_flavor_is_the_function_itself() -> None:
    """What stands after three underscores tells declarations apart, and is no part of the name."""
    assert kfunc_since("bpf_throw___new") == KFUNC_SINCE["bpf_throw"] == (6, 7)
    assert kfunc_since("my_own") is None


def test_none_is_older_than_calls_of_kfuncs() -> None:
    """Calls of kernel functions came with 5.13, and none is a helper."""
    assert min(KFUNC_SINCE.values()) == (5, 13)
    assert not {name.removeprefix("bpf_") for name in KFUNC_SINCE} & set(isa.HELPER_IDS)


def test_names_are_the_running_kernels() -> None:
    """A name without a misprint is a function of the running kernel, or of a part it may lack."""
    try:
        types = vmlinux_btf()
    except KernelError as error:
        pytest.skip(str(error))
    known = {name for name in KFUNC_SINCE if types.find(name, Kind.FUNC)}
    missing = set(KFUNC_SINCE) - known
    assert len(known) > 100
    assert {one for one in missing if not one.startswith(OF_PARTS)} - GONE == set()
