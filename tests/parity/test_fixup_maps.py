"""Helper calls on maps, beside what the running kernel makes of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from bpfpatch import kernel
from bpfpatch.linux.passes.fixup_calls import FixupCalls
from support.cases.fixupparity import Case, assert_same
from support.machine.tools import need_bpf

pytestmark = pytest.mark.kernel

NO_PREALLOC = 1
NUMA_NODE = 1 << 2
RDONLY_PROG = 1 << 7
WRONLY_PROG = 1 << 8
ZERO_SEED = 1 << 6
MMAPABLE = 1 << 10
INNER_MAP = 1 << 12

HASHES = ("hash", "percpu_hash", "lru_hash", "lru_percpu_hash")


@pytest.fixture(autouse=True)
def _bpf() -> None:
    need_bpf()


@pytest.fixture
def make() -> Iterator[Any]:
    """Makes maps that are closed when the test ends."""
    made: list[kernel.Map] = []

    def create(kind: str, *args: int, **options: Any) -> kernel.Map:
        made.append(kernel.Map.create(kind, *args, **options))
        return made[-1]

    yield create
    for one in made:
        one.close()


ROOM = "r9 = r1; " + "".join(f"*(u64 *)(r10 - {off}) = 0; " for off in range(8, 65, 8))
CALLS = {
    "lookup": "r1 = map[id:0]; r2 = r10; r2 += -32; call 1",
    "update": "r1 = map[id:0]; r2 = r10; r2 += -32; r3 = r10; r3 += -64; r4 = 0; call 2",
    "delete": "r1 = map[id:0]; r2 = r10; r2 += -32; call 3",
    "percpu": "r1 = map[id:0]; r2 = r10; r2 += -32; r3 = 0; call 195",
    "push": "r1 = map[id:0]; r2 = r10; r2 += -32; r3 = 0; call 87",
    "pop": "r1 = map[id:0]; r2 = r10; r2 += -32; call 88",
    "peek": "r1 = map[id:0]; r2 = r10; r2 += -32; call 89",
    "redirect": "r1 = map[id:0]; r2 = 1; r3 = 0; call 51",
}


def same(made: kernel.Map, *calls: str, **load: Any) -> None:
    """One program with these calls on one map."""
    text = ROOM + "; ".join(CALLS[call] for call in calls) + "; r0 = 0; exit"
    assert_same(Case(text, maps=[made] * len(calls), load=load), FixupCalls())


@pytest.mark.parametrize("flags", [0, NO_PREALLOC, NUMA_NODE, ZERO_SEED])
@pytest.mark.parametrize("key_size", [1, 4, 8, 12, 13, 32])
@pytest.mark.parametrize("kind", HASHES)
def test_hashes(make: Any, kind: str, key_size: int, flags: int) -> None:
    """Look-ups in hashes are written out for their keys' size; other calls are direct."""
    if ("lru" in kind and flags == NO_PREALLOC) or ("percpu" in kind and flags == NUMA_NODE):
        pytest.skip("not on this kernel: no such map")
    made = make(kind, key_size, 8, 64, flags=flags)
    calls = ["lookup", "update", "delete"] + (["percpu"] if "percpu" in kind else [])
    same(made, *calls)


@pytest.mark.parametrize("flags", [RDONLY_PROG, WRONLY_PROG])
@pytest.mark.parametrize("kind", ["array", "hash", "lru_hash"])
def test_one_way_maps(make: Any, kind: str, flags: int) -> None:
    """That a program may only read or only write changes nothing."""
    same(make(kind, 4, 8, 16, flags=flags), "lookup" if flags == RDONLY_PROG else "update")


@pytest.mark.parametrize("flags", [0, NUMA_NODE, MMAPABLE, INNER_MAP])
@pytest.mark.parametrize("entries", [1, 5, 8, 1000, 70000])
@pytest.mark.parametrize("value_size", [1, 4, 8, 12, 16, 20, 24])
def test_arrays(make: Any, value_size: int, entries: int, flags: int) -> None:
    """Look-ups in arrays scale by the padded size, unless the map may stand for others."""
    same(make("array", 4, value_size, entries, flags=flags), "lookup", "update", "delete")


@pytest.mark.parametrize("entries", [1, 5, 300])
@pytest.mark.parametrize("value_size", [1, 8, 20])
def test_percpu_arrays(make: Any, value_size: int, entries: int) -> None:
    """Look-ups in per-CPU arrays go through this CPU's part."""
    made = make("percpu_array", 4, value_size, entries)
    same(made, "lookup", "update", "delete", "percpu")


@pytest.mark.parametrize("entries", [1, 5, 300])
@pytest.mark.parametrize("kind", ["array_of_maps", "hash_of_maps"])
def test_maps_of_maps(make: Any, kind: str, entries: int) -> None:
    """Look-ups in maps of maps give the pointer in them, or NULL."""
    same(make(kind, 4, 4, entries, inner=make("array", 4, 8, 3)), "lookup")


def test_tries(make: Any) -> None:
    """Calls on tries are direct."""
    same(make("lpm_trie", 8, 8, 9, flags=NO_PREALLOC), "lookup", "update", "delete")


@pytest.mark.parametrize("kind", ["queue", "stack"])
def test_queues(make: Any, kind: str) -> None:
    """Calls on queues and stacks are direct."""
    same(make(kind, 0, 8, 9), "push", "pop", "peek")


def test_bloom_filters(make: Any) -> None:
    """Calls on bloom filters are direct."""
    same(make("bloom_filter", 0, 8, 9), "push", "peek")


@pytest.mark.parametrize("kind", ["devmap", "devmap_hash", "cpumap", "xskmap"])
def test_redirections(make: Any, kind: str) -> None:
    """Redirections by a map are direct calls."""
    same(make(kind, 4, 4, 4), "redirect", prog_type="xdp")


@pytest.mark.parametrize("kind", ["devmap", "devmap_hash", "xskmap"])
@pytest.mark.parametrize("entries", [1, 5])
def test_looking_up_devices(make: Any, kind: str, entries: int) -> None:
    """Sockets of an xskmap are looked up in place, devices by a call."""
    same(make(kind, 4, 4, entries), "lookup", prog_type="xdp")


@pytest.mark.parametrize("kind", ["sockmap", "sockhash"])
def test_sockets(make: Any, kind: str) -> None:
    """Calls on maps of sockets are direct."""
    release = "if r0 == 0 goto over; r1 = r0; call 86; over: r0 = 0; exit"
    text = ROOM + CALLS["delete"] + "; " + CALLS["lookup"] + "; " + release
    made = make(kind, 4, 8, 4)
    assert_same(Case(text, maps=[made] * 2, load={"prog_type": "sched_cls"}), FixupCalls())


PLACES = {
    "target": "{0}; if r0 == 0 goto at; r8 = r0; at: {0}; r0 = 0; exit",
    "loop": "r6 = 3; at: {0}; r6 -= 1; if r6 > 0 goto at; r0 = 0; exit",
    "last of a subprog": "call sub; exit; sub: "
    "*(u64 *)(r10 - 32) = 0; {0}; if r0 == 0 goto end; r0 = 1; end: exit",
    "twice": "{0}; {0}; r0 = 0; exit",
    "division behind": "{0}; r0 = 5; r6 = 7; r0 /= r6; exit",
}
ONE = ("array", 4, 8, 5), ("hash", 4, 8, 5), ("lru_hash", 4, 8, 5), ("percpu_array", 4, 8, 5)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ONE, ids=lambda kind: kind[0])
def test_places(make: Any, kind: tuple[Any, ...], place: str) -> None:
    """Wherever the look-up is, jumps and calls around it go where the kernel's go."""
    made = make(*kind)
    text = ROOM + PLACES[place].format(CALLS["lookup"])
    assert_same(Case(text, maps=[made] * text.count("map[")), FixupCalls())


def test_several_kinds(make: Any) -> None:
    """A call on one map here and on another there stays a helper call."""
    text = (
        ROOM + "call 7; r1 = map[id:0]; if r0 == 0 goto at; r1 = map[id:0]; at: "
        "r2 = r10; r2 += -32; call 1; r0 = 0; exit"
    )
    maps = [make("hash", 4, 8, 4), make("array", 4, 8, 4)]
    assert_same(Case(text, maps=maps, call_map={17: -2}), FixupCalls())
