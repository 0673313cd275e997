"""Maps, as programs see them through helpers, and as Python sees them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bpfpatch.asm import assemble
from bpfpatch.facts import MapDefinition, MapType
from bpfpatch.interp import Machine, TrapError

Make = Callable[..., Machine]
U64 = (1 << 64) - 1


def errno(number: int) -> int:
    """What R0 holds when a helper fails so."""
    return U64 + 1 - number


def key_call(helper: str, *, value: bool = False) -> str:
    """Call a map helper with the key that R1 of the program points at, value 8 bytes behind it."""
    extra = "r3 = r6; r3 += 8; r4 = r7;" if value else ""
    return f"r6 = r1; r7 = r2; r1 = map[id:1]; r2 = r6; {extra} call bpf_{helper};"


LOOKUP = key_call("map_lookup_elem") + "if r0 == 0 goto out; r0 = *(u64 *)(r0 + 0); out: exit"
UPDATE = key_call("map_update_elem", value=True) + "exit"
DELETE = key_call("map_delete_elem") + "exit"


class Table:
    """A map with 4-byte keys and 8-byte values, driven by programs."""

    def __init__(self, make: Make, spec: MapDefinition) -> None:
        self.machine = make(LOOKUP, maps={1: spec})
        self.programs = {
            text: self.machine.add_program(assemble(text)) for text in (LOOKUP, UPDATE, DELETE)
        }

    def call(self, text: str, key: int, value: int = 0, flags: int = 0) -> int:
        """R0 of one of the three programs."""
        self.machine.image = self.programs[text]
        mem = key.to_bytes(4, "little") + bytes(4) + value.to_bytes(8, "little")
        return self.machine.run(mem=mem, r2=flags).r0


def test_hash(make: Make) -> None:
    """Update, look up, delete, and the errors of each."""
    table = Table(make, MapDefinition("", MapType.HASH, 4, 8, 2))
    assert table.call(LOOKUP, 1) == 0
    assert table.call(UPDATE, 1, 11, flags=2) == errno(2)
    assert table.call(UPDATE, 1, 11) == 0
    assert table.call(UPDATE, 1, 12, flags=1) == errno(17)
    assert table.call(UPDATE, 2, 22) == 0
    assert table.call(UPDATE, 3, 33) == errno(7)
    assert table.call(LOOKUP, 1) == 11
    assert table.call(DELETE, 1) == 0
    assert table.call(DELETE, 1) == errno(2)
    assert table.machine.maps["0"].contents() == {
        (2).to_bytes(4, "little"): (22).to_bytes(8, "little")
    }


def test_array(make: Make) -> None:
    """All elements are there from the start, none beyond the last, and none can be deleted."""
    table = Table(make, MapDefinition("", MapType.ARRAY, 4, 8, 2))
    assert table.call(LOOKUP, 1) == 0
    assert table.call(UPDATE, 1, 5) == 0
    assert table.call(LOOKUP, 1) == 5
    assert table.call(UPDATE, 2, 5) == errno(7)
    assert table.call(UPDATE, 1, 5, flags=1) == errno(17)
    assert table.call(DELETE, 1) == errno(22)


def test_lru_forgets_the_oldest(make: Make) -> None:
    """A full LRU map takes a new key in place of the one that nobody used for longest."""
    table = Table(make, MapDefinition("", MapType.LRU_HASH, 4, 8, 2))
    for key in (1, 2):
        table.call(UPDATE, key, key)
    table.call(LOOKUP, 1)
    table.call(UPDATE, 3, 3)
    assert [table.call(LOOKUP, key) for key in (1, 2, 3)] == [1, 0, 3]


def test_values_are_apart(make: Make) -> None:
    """An access past a value traps, though the next element would be there in the kernel."""
    text = "r6 = r1; r1 = map[id:1]; r2 = r6; call bpf_map_lookup_elem; r0 = *(u64 *)(r0 + 1); exit"
    with pytest.raises(TrapError, match="8 bytes: counts"):
        make(text, maps={1: MapDefinition("counts", MapType.ARRAY, 4, 8, 9)}).run(mem=bytes(4))


def test_trie_takes_the_longest_prefix(make: Make) -> None:
    """The value of the longest matching prefix is found."""
    text = """
    r6 = r1
    r1 = map[id:1]
    r2 = r6
    call bpf_map_lookup_elem
    if r0 == 0 goto out
    r0 = *(u32 *)(r0 + 0)
    out:
    exit
    """
    machine = make(text, maps={1: MapDefinition("routes", MapType.LPM_TRIE, 8, 4, 8)})

    def prefix(n_bits: int, *address: int) -> bytes:
        return n_bits.to_bytes(4, "little") + bytes(address)

    routes = machine.maps["routes"]
    routes.set(prefix(8, 10, 0, 0, 0), 1)
    routes.set(prefix(16, 10, 1, 99, 99), 2)
    wanted = {(10, 2, 3, 4): 1, (10, 1, 3, 4): 2, (11, 0, 0, 1): 0}
    assert {a: machine.run(mem=prefix(32, *a)).r0 for a in wanted} == wanted
    routes.set(prefix(16, 10, 1, 0, 0), 3)  # the same prefix again
    assert machine.run(mem=prefix(32, 10, 1, 3, 4)).r0 == 3
    assert routes.delete(prefix(16, 10, 1, 0, 0)) == 0
    assert machine.run(mem=prefix(32, 10, 1, 3, 4)).r0 == 1
    assert machine.run(mem=prefix(4, 10, 1, 3, 4)).r0 == 0


@pytest.mark.parametrize(("kind", "wanted"), [("queue", 1), ("stack", 2)])
def test_queue_and_stack(make: Make, kind: str, wanted: int) -> None:
    """A queue gives the oldest value first, a stack the newest."""
    text = """
    *(u64 *)(r10 - 8) = 1
    r1 = map[id:1]
    r2 = r10
    r2 += -8
    r3 = 0
    call bpf_map_push_elem
    *(u64 *)(r10 - 8) = 2
    r1 = map[id:1]
    r2 = r10
    r2 += -8
    r3 = 0
    call bpf_map_push_elem
    r1 = map[id:1]
    r2 = r10
    r2 += -8
    call bpf_map_pop_elem
    r0 = *(u64 *)(r10 - 8)
    exit
    """
    assert make(text, maps={1: MapDefinition("", MapType.of(kind), 0, 8, 4)}).run().r0 == wanted


def test_ring_buffer(make: Make) -> None:
    """A submitted record is there afterwards; its address is no good any more."""
    text = """
    r1 = map[id:1]
    r2 = 8
    r3 = 0
    call bpf_ringbuf_reserve
    r6 = r0
    *(u64 *)(r6 + 0) = 258
    r1 = r6
    r2 = 0
    call bpf_ringbuf_submit
    """
    machine = make(
        text + "r0 = 0; exit", maps={1: MapDefinition("events", MapType.RINGBUF, 0, 0, 4096)}
    )
    machine.run()
    assert machine.maps["events"].contents() == [b"\2\1\0\0\0\0\0\0"]
    stale = make(
        text + "r0 = *(u8 *)(r6 + 0); exit",
        maps={1: MapDefinition("", MapType.RINGBUF, 0, 0, 4096)},
    )
    with pytest.raises(TrapError):
        stale.run()


def test_old_value_stays_readable_after_an_update(make: Make) -> None:
    """Who holds a hash value's address keeps the old value when the key gets a new one."""
    text = """
    *(u32 *)(r10 - 4) = 1
    *(u64 *)(r10 - 16) = 70
    r1 = map[id:1]
    r2 = r10
    r2 += -4
    call bpf_map_lookup_elem
    r6 = r0
    r1 = map[id:1]
    r2 = r10
    r2 += -4
    r3 = r10
    r3 += -16
    r4 = 0
    call bpf_map_update_elem
    r0 = *(u64 *)(r6 + 0)
    exit
    """
    machine = make(text, maps={1: MapDefinition("h", MapType.HASH, 4, 8, 4)})
    machine.maps["h"].set(1, 5)
    assert machine.run().r0 == 5
    assert machine.maps["h"].get(1) == (70).to_bytes(8, "little")


def test_for_each_visits_all_until_told_to_stop(make: Make) -> None:
    """The callback sees map, key, value and context; a non-zero result ends the visit."""
    text = """
    *(u64 *)(r10 - 8) = 0
    r1 = map[id:1]
    r2 = f ll
    r3 = r10
    r3 += -8
    r4 = 0
    call bpf_for_each_map_elem
    r6 = *(u64 *)(r10 - 8)
    r0 *= 1000
    r0 += r6
    exit
    f:
    r0 = *(u32 *)(r2 + 0)
    r1 = *(u64 *)(r3 + 0)
    r2 = *(u64 *)(r4 + 0)
    r2 += r1
    *(u64 *)(r4 + 0) = r2
    r1 = r0
    r0 = 0
    if r1 != 2 goto out
    r0 = 1
    out:
    exit
    """
    machine = make(text, maps={1: MapDefinition("a", MapType.ARRAY, 4, 8, 9)})
    for index in range(9):
        machine.maps["a"].set(index, 10 + index)
    assert machine.run().r0 == 3000 + 10 + 11 + 12


def test_loop_counts_and_stops(make: Make) -> None:
    """bpf_loop calls with the index until the callback returns 1; it says how often."""
    text = """
    r1 = 100
    r2 = f ll
    r3 = 0
    r4 = 0
    call bpf_loop
    exit
    f:
    r0 = 0
    if r1 < 6 goto out
    r0 = 1
    out:
    exit
    """
    assert make(text).run().r0 == 7


def test_tail_call(make: Make) -> None:
    """A tail call does not come back; one to an empty entry goes on, R0 as it was."""
    text = "r0 = 3; r2 = map[id:1]; r3 = 4; call bpf_tail_call; r0 += 1; exit"
    machine = make(text, maps={1: MapDefinition("jmp", MapType.PROG_ARRAY, 4, 4, 8)})
    assert machine.run().r0 == 4
    machine.set_tail_call("jmp", 4, machine.add_program(assemble("r0 = 77; exit")))
    assert machine.run().r0 == 77


def test_tail_calls_are_counted(make: Make) -> None:
    """After 33 tail calls the next one goes on instead."""
    text = """
    r6 = r1
    r0 = *(u64 *)(r6 + 0)
    r0 += 1
    *(u64 *)(r6 + 0) = r0
    r1 = r6
    r2 = map[id:1]
    r3 = 0
    call bpf_tail_call
    r0 = *(u64 *)(r6 + 0)
    exit
    """
    machine = make(text, maps={1: MapDefinition("jmp", MapType.PROG_ARRAY, 4, 4, 1)})
    machine.set_tail_call("jmp", 0, machine.image)
    assert machine.run(mem=bytes(8)).r0 == 34
