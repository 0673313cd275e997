"""Which functions of the kernel stand behind helpers."""

from __future__ import annotations

import pytest

from bpfpatch import isa
from bpfpatch.linux.parity.names import IMPLEMENTATIONS, helpers_of, implementations
from support.machine.tools import need_bpf

NEVER_CALLED = {"bpf_sk_storage_get_cg_sock", "bpf_get_socket_ptr_cookie"}
ALWAYS_REWRITTEN = {"tail_call", "get_func_arg", "get_func_ret", "get_func_arg_cnt"}
NOT_BUILT = {"override_return", "rc_repeat", "rc_keydown", "rc_pointer_rel"}


def test_each_implementation_leads_back() -> None:
    """A helper is among those that its functions stand behind."""
    pairs = [(helper, name) for helper in isa.HELPERS for name in implementations(helper)]
    assert len(pairs) >= len(isa.HELPERS)
    for helper, name in pairs:
        assert helper in helpers_of([name])


def test_exceptions_name_helpers() -> None:
    """The table is about helpers that exist."""
    assert set(IMPLEMENTATIONS) <= set(isa.HELPERS.values())


def test_only_tracing_outputs_share_a_function() -> None:
    """No other two helpers have a function in common."""
    shared = {
        frozenset(isa.HELPERS[helper] for helper in helpers_of([name]))
        for helper in isa.HELPERS
        for name in implementations(helper)
        if len(helpers_of([name])) > 1
    }
    assert shared == {
        frozenset({"perf_event_output", "skb_output"}),
        frozenset({"perf_event_output", "xdp_output"}),
    }


@pytest.mark.kernel
def test_names_are_the_kernels() -> None:
    """The running kernel has the functions, as far as it is built with them."""
    need_bpf()
    from bpfpatch.loader.externs import kernel_addresses

    there = kernel_addresses()
    missing = {
        name
        for helper, helper_name in isa.HELPERS.items()
        if helper_name not in ALWAYS_REWRITTEN | NOT_BUILT
        for name in implementations(helper)
        if name not in there
    }
    assert missing <= NEVER_CALLED
