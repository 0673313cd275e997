"""Hostile programs: however they try, a run ends soon, in an error that says why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bpfpatch.errors import UnsupportedError
from bpfpatch.facts import MapDefinition, MapType
from bpfpatch.interp import BudgetError, InterpError, Machine, Skb, Xdp

Make = Callable[..., Machine]

MAPS = {
    1: MapDefinition("big", MapType.ARRAY, 4, 1 << 20, 1),
    2: MapDefinition("huge", MapType.ARRAY, 4, 1 << 31, 1),
    3: MapDefinition("many", MapType.ARRAY, 4, 8, 1 << 31),
    4: MapDefinition("table", MapType.HASH, 4, 8, 1 << 31),
    5: MapDefinition("ring", MapType.RINGBUF, 0, 0, 1 << 31),
    6: MapDefinition("queue", MapType.QUEUE, 0, 1 << 20, 1 << 30),
    7: MapDefinition("routes", MapType.LPM_TRIE, 260, 8, 1 << 20),
}
LOOKUP = (
    "*(u32 *)(r10 - 4) = 0; r1 = map[id:{}]; r2 = r10; r2 += -4; call 1; if r0 == 0 goto x; r6 = r0"
)
LIMITS = {"budget": 100_000, "memory_limit": 8 << 20, "maps": MAPS}

HUNGRY = {
    "a value that is too big": LOOKUP.format(2) + "; x: exit",
    "elements without end": "r6 = 0; l: *(u32 *)(r10 - 4) = r6; r1 = map[id:3]; r2 = r10; "
    "r2 += -4; call 1; r6 += 1; goto l",
    "entries without end": "r6 = 0; l: *(u32 *)(r10 - 4) = r6; *(u64 *)(r10 - 16) = r6; "
    "r1 = map[id:4]; r2 = r10; r2 += -4; r3 = r10; r3 += -16; r4 = 0; call 2; r6 += 1; goto l",
    "records that are never submitted": "l: r1 = map[id:5]; r2 = 4096; r3 = 0; call 131; goto l",
    "a record that is too big": "r1 = map[id:5]; r2 = 0x3fffff00; r3 = 0; call 131; exit",
    "a queue that is never emptied": LOOKUP.format(1)
    + "; l: r1 = map[id:6]; r2 = r6; r3 = 0; call 87; goto l; x: exit",
    "records of events": LOOKUP.format(1)
    + "; l: r1 = map[id:5]; r2 = r6; r3 = 0x100000; r4 = 0; call 130; goto l; x: exit",
}
"""Programs that want more memory than there is."""

ENDLESS = {
    "callbacks": "r1 = 0x800000; r2 = f ll; r3 = 0; r4 = 0; call 181; exit; f: r0 = 0; exit",
    "callbacks of callbacks": "r1 = 0x800000; r2 = g ll; r3 = 0; r4 = 0; call 181; exit; "
    "f: r0 = 0; exit; g: r1 = 0x800000; r2 = f ll; r3 = 0; r4 = 0; call 181; r0 = 0; exit",
    "may_goto": "l: may_goto x; goto l; x: exit",
    "a helper that fails": "l: r1 = r10; r2 = 0; r3 = 0; call 113; goto l",
}
"""Programs that would not come to an end by themselves."""


@pytest.mark.parametrize("name", HUNGRY)
def test_memory_without_end(make: Make, name: str) -> None:
    """Who wants more memory than the machine may have gets an error that says so."""
    with pytest.raises(BudgetError) as caught:
        make(HUNGRY[name], **{**LIMITS, "budget": 1_000_000}).run()
    assert caught.value.unit == "bytes"


@pytest.mark.parametrize("name", ENDLESS)
def test_work_without_end(make: Make, name: str) -> None:
    """Calls back from helpers count as instructions, too."""
    with pytest.raises(BudgetError) as caught:
        make(ENDLESS[name], **LIMITS).run()
    assert caught.value.unit == "instructions"


def test_callbacks_that_call_themselves(make: Make) -> None:
    """A callback is a frame like any other, and there are eight."""
    with pytest.raises(BudgetError) as caught:
        make("f: r1 = 9; r2 = f ll; r3 = 0; r4 = 0; call 181; exit", **LIMITS).run()
    assert (caught.value.unit, caught.value.budget) == ("frames", 8)


def test_copies_without_end(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A helper that copies a megabyte is one instruction; what all copy together has a limit."""
    monkeypatch.setattr("bpfpatch.interp.memory.MOVE_LIMIT", 16 << 20)
    code = LOOKUP.format(1) + (
        "; l: r1 = r6; r2 = 0x80000; r3 = r6; r3 += 0x80000; call 113; goto l; x: exit"
    )
    machine = make(code, **LIMITS)
    for _ in range(2):
        with pytest.raises(BudgetError, match="read and written more than 16777216 bytes"):
            machine.run()


COSTLY = {
    "texts that are compared": "; l: r1 = r6; r2 = 0x80000; r3 = r6; call 182; goto l; x: exit",
    "numbers that are read": "; l: r1 = r6; r2 = 0x80000; r3 = 10; r4 = r10; r4 += -16; call 105; "
    "goto l; x: exit",
    "texts that are copied": "; l: r1 = r6; r2 = 0x80000; r3 = r6; r3 += 0x80000; call 45; goto l;"
    " x: exit",
    "keys that are visited": "; r7 = 0; m: *(u32 *)(r10 - 4) = r7; *(u64 *)(r10 - 16) = r7; "
    "r1 = map[id:4]; r2 = r10; r2 += -4; r3 = r10; r3 += -16; r4 = 0; call 2; r7 += 1; "
    "if r7 < 4000 goto m; l: r1 = map[id:4]; r2 = f ll; r3 = 0; r4 = 0; call 164; goto l; "
    "x: exit; f: r0 = 1; exit",
    "prefixes that are looked up": "; r7 = 0; m: *(u32 *)(r10 - 264) = r7; r1 = map[id:7]; "
    "r2 = r10; r2 += -264; r3 = r10; r3 += -16; r4 = 0; call 2; r7 += 1; if r7 < 2048 goto m; "
    "*(u8 *)(r10 - 260) = 255; l: *(u32 *)(r10 - 264) = 2048; r1 = map[id:7]; r2 = r10; "
    "r2 += -264; call 1; goto l; x: exit",
}
"""Programs that call what takes long."""


@pytest.mark.parametrize("name", COSTLY)
def test_costly_helpers(make: Make, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """What a helper goes through is counted, whatever it does with it."""
    monkeypatch.setattr("bpfpatch.interp.memory.MOVE_LIMIT", 8 << 20)
    machine = make(LOOKUP.format(1) + COSTLY[name], **LIMITS)
    value = machine.maps["big"].lookup(bytes(4))
    machine.memory.write(value, b"1" * (1 << 20))
    with pytest.raises(BudgetError, match="read and written more than 8388608 bytes"):
        machine.run()


@pytest.mark.parametrize(
    ("code", "context"),
    [
        ("r6 = r1; l: r1 = r6; r2 = 0x7fffffff; r3 = 0; call 38; r1 = r6; r2 = 65535; r3 = 0; "
         "call 38; r1 = r6; r2 = 20; r3 = 0; call 38; goto l", Skb(bytes(64))),
        ("r6 = r1; l: r1 = r6; r2 = 1; call 65; goto l", Xdp(bytes(64))),
        ("r6 = r1; l: r1 = r6; r2 = -1; call 44; goto l", Xdp(bytes(64))),
    ],
)  # fmt: skip
def test_packets_do_not_grow_without_end(make: Make, code: str, context: Any) -> None:
    """A packet has the room that the kernel would give it."""
    with pytest.raises(BudgetError) as caught:
        make(code, **{**LIMITS, "budget": 20_000}).run(context)
    assert caught.value.unit == "instructions"


@pytest.mark.parametrize(
    "code",
    [
        "r1 = 0xdeadbeef00000000 ll; r0 = *(u64 *)(r1 + 0); exit",
        "r1 = -1; *(u8 *)(r1 + 0) = 1; exit",
        "r1 = 0xfffffffffffffff8 ll; lock *(u64 *)(r1 + 8) += r2; exit",
        "r10 += 0",
        "r1 = r10; r1 += -8; r2 = 0x7fffffff; r3 = 0; r4 = r10; r4 += -16; call 105; exit",
        "r3 = 0x12345678; callx r3; exit",
    ],
)
def test_wild_pointers(make: Make, code: str) -> None:
    """An address where nothing is, is an error, whoever goes there: a load, a helper, a call."""
    with pytest.raises(InterpError):
        make(code, **LIMITS).run()


def test_a_machine_outlives_what_it_ran(make: Make) -> None:
    """After a run that was ended, the next one has all of the budget and a clean stack."""
    machine = make("if r1 == 0 goto l; r0 = r2; exit; l: call l", **LIMITS)
    for _ in range(3):
        with pytest.raises(BudgetError):
            machine.run()
        assert machine.run(mem=b"abc").r0 == 3


@pytest.mark.parametrize(
    ("kind", "key_size"),
    [
        (MapType.LPM_TRIE, 4),
        (MapType.LPM_TRIE, 261),
        (MapType.LPM_TRIE, 508),
        (MapType.HASH, 1 << 22),
    ],
)
def test_keys_of_a_size_that_the_kernel_refuses(make: Make, kind: MapType, key_size: int) -> None:
    """To look such a key up might take for ever, and no loader could make the map."""
    with pytest.raises(UnsupportedError, match=f"has keys of {key_size} bytes"):
        make("r0 = 0; exit", maps={1: MapDefinition("m", kind, key_size, 8, 16)})
