"""Memory: what can be reached, what traps, and what the error says."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bpfpatch.asm import assemble
from bpfpatch.errors import BpfPatchError, SlotError
from bpfpatch.facts import MapDefinition, MapType
from bpfpatch.interp import BudgetError, HelperError, Machine, MachineOptions, TrapError
from bpfpatch.interp.memory import Memory

Make = Callable[..., Machine]


@pytest.mark.parametrize(
    ("insn", "size", "access"),
    [
        ("r0 = *(u8 *)(r1 + 4)", 1, "read"),
        ("r0 = *(u16 *)(r1 + 3)", 2, "read"),
        ("r0 = *(u32 *)(r1 - 1)", 4, "read"),
        ("r0 = *(u64 *)(r1 + 0)", 8, "read"),
        ("r0 = *(s16 *)(r1 + 3)", 2, "read"),
        ("*(u8 *)(r1 + 4) = 1", 1, "write"),
        ("*(u32 *)(r1 + 1) = r1", 4, "write"),
        ("lock *(u64 *)(r1 + 0) += r2", 8, "write"),
        ("r0 = *(u64 *)(r10 + 0)", 8, "read"),
        ("*(u64 *)(r10 - 516) = 1", 8, "write"),
        ("r0 = *(u8 *)(r0 + 0)", 1, "read"),
        ("w0 = load_acquire((u32 *)(r1 + 2))", 4, "read"),
        ("store_release((u32 *)(r1 + 2), w0)", 4, "write"),
    ],
)
def test_stray_access_traps(make: Make, insn: str, size: int, access: str) -> None:
    """An access that is not inside one region traps, with its place, size and kind."""
    machine = make(f"r9 = 0; {insn}; exit")
    with pytest.raises(TrapError, match=f"stray {access} of {size} bytes") as caught:
        machine.run(mem=b"abcd")
    error = caught.value
    assert (error.slot, error.size, error.access) == (1, size, access)
    assert any("stack of frame 0" in line for line in error.regions)
    assert isinstance(error, SlotError)


def test_the_last_bytes_can_be_used(make: Make) -> None:
    """An access may end where its region does."""
    assert make("r0 = *(u32 *)(r1 + 0); exit").run(mem=b"\1\0\0\0").r0 == 1
    assert make("*(u64 *)(r10 - 512) = 3; r0 = *(u64 *)(r10 - 512); exit").run().r0 == 3


def test_unaligned_stack(make: Make) -> None:
    """The stack can be used at any byte."""
    text = "*(u64 *)(r10 - 13) = 0x01020304; r0 = *(u16 *)(r10 - 12); exit"
    assert make(text).run().r0 == 0x0203


def test_read_only_data(make: Make) -> None:
    """Read-only data can be read; a write to it traps and says so."""
    machine = make("r0 = *(u8 *)(r1 + 0); *(u8 *)(r1 + 0) = 1; exit")
    data = machine.add_data(".rodata", b"x", writable=False)
    with pytest.raises(TrapError, match="is read-only") as caught:
        machine.run(r1=data.data_address)
    assert caught.value.slot == 1


def test_code_is_no_memory(make: Make) -> None:
    """A function's address cannot be read."""
    with pytest.raises(TrapError):
        make("r1 = f ll; r0 = *(u64 *)(r1 + 0); exit; f: exit").run()


def test_helpers_check_memory_too(make: Make) -> None:
    """A helper's access to nothing is a trap at the call, naming the helper."""
    text = "r1 = 0; r2 = 64; call bpf_get_current_comm; exit"
    with pytest.raises(TrapError, match="by helper get_current_comm") as caught:
        make(text).run()
    assert (caught.value.slot, caught.value.size) == (2, 64)


def test_memory_has_a_limit(make: Make) -> None:
    """A program that fills maps without end runs into the memory limit."""
    text = """
    r6 = 0
    l:
    *(u64 *)(r10 - 8) = r6
    r1 = map[id:1]
    r2 = r10
    r2 += -8
    r3 = r2
    r4 = 0
    call bpf_map_update_elem
    r6 += 1
    goto l
    """
    machine = make(
        text, maps={1: MapDefinition("", MapType.HASH, 8, 8, 1 << 30)}, memory_limit=1 << 20
    )
    with pytest.raises(BudgetError, match="bytes of memory") as caught:
        machine.run()
    assert (caught.value.unit, caught.value.budget) == ("bytes", 1 << 20)


@pytest.mark.parametrize(
    "call",
    [
        "r1 = map[id:1]; r2 = r10; r2 += -8; r3 = 8; r4 = 0; call bpf_ringbuf_output",
        "r1 = r10; r1 += -8; r2 = 8; call bpf_trace_printk",
    ],
)
def test_output_without_end(make: Make, call: str) -> None:
    """What a program prints and sends counts as memory, too."""
    maps = {1: MapDefinition("", MapType.RINGBUF, 0, 0, 1 << 20)}
    machine = make(f"*(u64 *)(r10 - 8) = 0x41; l: {call}; goto l", maps=maps, memory_limit=100_000)
    with pytest.raises(BudgetError, match="bytes of memory"):
        machine.run()


def test_memory_that_is_too_big_to_start_with(make: Make) -> None:
    """Memory beyond the limit is refused before anything runs."""
    with pytest.raises(BpfPatchError, match="where 1000 are allowed"):
        make("exit", memory_limit=1000)


def test_huge_records_are_not_made(make: Make) -> None:
    """A ring buffer gives no record that it has no room for, however much it is asked."""
    text = "r1 = map[id:1]; r2 = 0x7fffffff; r3 = 0; call bpf_ringbuf_reserve; exit"
    assert make(text, maps={1: MapDefinition("", MapType.RINGBUF, 0, 0, 4096)}).run().r0 == 0


def test_wild_map_address(make: Make) -> None:
    """A number that is no map is an error of the helper."""
    with pytest.raises(HelperError, match="0x5 is not a map's address"):
        make("r1 = 5; r2 = r10; call bpf_map_lookup_elem; exit").run()


def test_map_that_was_not_given(make: Make) -> None:
    """Loading a map that the machine does not have traps and says what to do."""
    with pytest.raises(TrapError, match="give it maps="):
        make("r1 = map[id:3]; r0 = 0; exit").run()


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("r0 = 1", "control goes to slot 1"),
        ("r0 = 1; goto +7", "control goes to slot 9"),
        ("call pc+7; exit", "control goes to slot 8"),
        ("goto +1; r0 = 5 ll; exit", "second slot"),
        ("r10 = 1; exit", "r10 is the frame pointer"),
    ],
)
def test_broken_control_flow_traps(make: Make, text: str, match: str) -> None:
    """What the verifier would refuse traps when it is reached."""
    with pytest.raises(TrapError, match=match):
        make(text).run()


def test_broken_code_that_is_not_reached(make: Make) -> None:
    """What never runs does no harm."""
    assert make("r0 = 1; exit; r10 = 1; goto +99").run().r0 == 1


def test_unknown_opcode(make: Make) -> None:
    """An opcode that does not exist traps."""
    engine = make("exit").engine
    program = assemble("exit")
    broken = type(program).from_bytes(b"\xff" + bytes(7))
    with pytest.raises(TrapError, match="opcode 0xff"):
        Machine(broken, options=MachineOptions(engine=engine)).run()


def test_rounding_up_forgets_how_many_regions_there_were() -> None:
    """With another number of regions in front, what is added later is at the same address."""
    found = set()
    for n_regions in (0, 1, 5, 63):
        memory = Memory("little", 1 << 20)
        for _ in range(n_regions):
            memory.add("map", 8)
        memory.round_up(64)
        found.add(memory.add("context", 8).address)
    assert len(found) == 1
