"""The table of helpers."""

from __future__ import annotations

import pytest

from bpfpatch import isa
from bpfpatch.facts.helperproto import KEY_SIZE, VALUE_SIZE, HelperProto
from bpfpatch.facts.helpers import (
    HELPER_PROTOS,
    helper_args,
    helpers_where,
    is_variadic,
    returns_nothing,
)


def row(name: str) -> HelperProto:
    """A helper's row."""
    return HELPER_PROTOS[isa.HELPER_IDS[name]]


def test_every_helper_has_a_row() -> None:
    """The table has the helpers that calls can name, under the same numbers."""
    assert {number: proto.name for number, proto in HELPER_PROTOS.items()} == dict(isa.HELPERS)
    assert all(number == proto.number for number, proto in HELPER_PROTOS.items())


@pytest.mark.parametrize(
    ("version", "last"),
    [
        ((3, 19), "map_delete_elem"),
        ((4, 9), "set_hash_invalid"),
        ((4, 19), "skb_ancestor_cgroup_id"),
        ((5, 4), "tcp_gen_syncookie"),
        ((5, 10), "redirect_peer"),
        ((5, 15), "task_pt_regs"),
        ((6, 1), "user_ringbuf_drain"),
        ((6, 18), "cgrp_storage_delete"),
    ],
)
def test_since(version: tuple[int, int], last: str) -> None:
    """A kernel has the helpers up to the last of its include/uapi/linux/bpf.h, and no others."""
    known = helpers_where(lambda proto: proto.since <= version)
    assert known == frozenset(range(1, isa.HELPER_IDS[last] + 1))


@pytest.mark.parametrize(
    ("name", "reads", "writes"),
    [
        ("map_update_elem", [(2, 0, KEY_SIZE), (3, 0, VALUE_SIZE)], []),
        ("map_pop_elem", [], [(2, 0, VALUE_SIZE)]),
        ("csum_diff", [(1, 2, 0), (3, 4, 0)], []),
        ("strtol", [(1, 2, 0)], [(4, 0, 8)]),
        ("fib_lookup", [(2, 3, 0)], [(2, 3, 0)]),
        ("probe_read_kernel", [], [(1, 2, 0)]),
        ("ringbuf_reserve_dynptr", [], [(4, 0, 16)]),
    ],
)
def test_accesses(name: str, reads: list[object], writes: list[object]) -> None:
    """Memory behind arguments is read and written as far as the next argument, or the map, says."""
    assert list(row(name).reads) == reads
    assert list(row(name).writes) == writes


def test_callbacks() -> None:
    """Five helpers call functions of the program, one of them later."""
    found = {
        proto.name: (proto.callback.reg, proto.callback.args, proto.callback.is_late)
        for proto in HELPER_PROTOS.values()
        if proto.callback is not None
    }
    assert found == {
        "for_each_map_elem": (2, ("map", "key", "value", "r3"), False),
        "timer_set_callback": (2, ("map", "key", "value"), True),
        "find_vma": (3, ("r1", "vma", "r4"), False),
        "loop": (2, ("any", "r3"), False),
        "user_ringbuf_drain": (2, ("dynptr", "r3"), False),
    }


def test_arguments_of_calls() -> None:
    """A call reads the registers of its helper's arguments; of an unknown helper all."""
    names = ("get_prandom_u32", "trace_printk", "get_branch_snapshot", "skb_get_xfrm_state")
    calls = isa.concat([*(isa.call_helper(name) for name in names), isa.call_helper(9999)])
    every = 0b111110
    assert helper_args(calls).tolist() == [0, 0b110, 0b1110, every, every]
    assert helper_args(calls, are_checked=True).tolist() == [0, 0b110, 0b110, every, every]
    assert is_variadic(calls).tolist() == [False, True, False, False, False]


def test_calls_without_result() -> None:
    """R0 is not readable after a helper that returns nothing, nor after an unknown one."""
    names = ("map_lookup_elem", "spin_lock", "set_hash_invalid")
    calls = isa.concat([*(isa.call_helper(name) for name in names), isa.call_helper(9999)])
    assert returns_nothing(calls).tolist() == [False, True, False, True]
