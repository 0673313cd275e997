"""The instructions that count."""

from __future__ import annotations

from typing import Final

import numpy as np

from bpfpatch import isa

WORD: Final = 8


def direct(pointer: int, value: int, counter: int, *, is_atomic: bool) -> isa.Insns:
    """Add 1 to a counter in a global variable, whose address a relocation fills in."""
    address = isa.ld_imm64(pointer, WORD * counter)
    if is_atomic:
        return np.concatenate(
            [address, isa.mov(value, 1), isa.atomic("add", "u64", pointer, 0, value)]
        )
    return np.concatenate([address, *_add_one(pointer, value, 0)])


def _add_one(pointer: int, value: int, byte_off: int) -> list[isa.Insns]:
    return [
        isa.load("u64", value, pointer, byte_off),
        isa.alu("+=", value, 1),
        isa.store("u64", pointer, byte_off, isa.Reg(value)),
    ]


def percpu(pointer: int, value: int, home: int, byte_off: int) -> isa.Insns:
    """Add 1 to this processor's counter; the map's entries are always there."""
    work = _add_one(pointer, value, byte_off)
    return np.concatenate(
        [
            isa.load("u64", pointer, isa.R10, -home),
            isa.jump("==", pointer, 0, len(work)),
            *work,
        ]
    )


def lookup(home: int, live: list[int], free: list[int], entry: int) -> isa.Insns:
    """Look up an entry, and keep the registers that the call destroys.

    Where there are more of them than free ones, one waits where the pointer will be.

    Args:
        home: bytes below R10 of the pointer, and of the key above it.
        live: those of R0 to R5 that are read later, at most one more than are free.
        free: those of R6 to R9 that are not.
        entry: the key.
    """
    pairs = list(zip(free, live, strict=False))
    rest = live[len(free) :]
    assert len(rest) <= 1
    return np.concatenate(
        [
            *[isa.mov(kept, isa.Reg(argument)) for kept, argument in pairs],
            *[isa.store("u64", isa.R10, -home, isa.Reg(argument)) for argument in rest],
            isa.store("u32", isa.R10, -home + WORD, entry),
            isa.mov(isa.R2, isa.R10),
            isa.alu("+=", isa.R2, -home + WORD),
            isa.ld_imm64(isa.R1, 0),
            isa.call_helper("map_lookup_elem"),
            *[isa.load("u64", argument, isa.R10, -home) for argument in rest],
            isa.store("u64", isa.R10, -home, isa.R0),
            *[isa.mov(argument, isa.Reg(kept)) for kept, argument in pairs],
        ]
    )
