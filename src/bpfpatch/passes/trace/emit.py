"""The instructions that print, or send a record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from bpfpatch import isa

from .mapping import HEAD, WORD

MOST_VALUES: Final = 3
"""That one bpf_trace_printk() prints."""
CLOBBERED: Final = isa.CALLER_SAVED


@dataclass(frozen=True, slots=True)
class Saves:
    """Where values are while helpers are called.

    Attributes:
        moved: registers by those that are copied to them and back.
        spilled: bytes below R10 by the registers that are saved there.
        record: bytes below R10 of the record that is sent, 0 for none.
        live: registers that are to have their values again, as a mask.
    """

    moved: dict[int, int]
    spilled: dict[int, int]
    record: int
    live: int


@dataclass(frozen=True, slots=True)
class EmittedCode:
    """Instructions, and which of their ld_imm64 load an address that a relocation fills in.

    Attributes:
        insns: the instructions.
        addresses: slots of those.
    """

    insns: isa.Insns
    addresses: tuple[int, ...]


def pipe(saves: Saves, registers: tuple[int, ...], texts: list[tuple[int, int]]) -> EmittedCode:
    """Print.

    Args:
        saves: where values are.
        registers: whose values to print.
        texts: (byte offset in the variable of texts, bytes) of each call's format.
    """
    parts = _save(saves)
    addresses = []
    for call, (byte_off, size) in enumerate(texts):
        addresses.append(sum(map(len, parts)))
        parts += [isa.ld_imm64(isa.R1, byte_off), isa.mov(isa.R2, size)]
        values = registers[call * MOST_VALUES : (call + 1) * MOST_VALUES]
        parts += [_fetch(saves, isa.R3 + at, register) for at, register in enumerate(values)]
        parts.append(isa.call_helper("trace_printk"))
    parts += _restore(saves, {})
    return EmittedCode(np.concatenate(parts), tuple(addresses))


def ring(saves: Saves, registers: tuple[int, ...], number: int) -> EmittedCode:
    """Send a record: the place, the time, and the registers' values.

    What the record has of live registers need not be saved anywhere else.

    Args:
        saves: where values are.
        registers: whose values to send.
        number: of the place.
    """
    home = {register: saves.record - HEAD - WORD * at for at, register in enumerate(registers)}
    parts = _save(saves)
    parts += [isa.store("u64", isa.R10, -at, isa.Reg(reg)) for reg, at in home.items()]
    parts += [
        isa.call_helper("ktime_get_ns"),
        isa.store("u64", isa.R10, -saves.record + WORD, isa.R0),
        isa.ld_imm64(isa.R1, number),
        isa.store("u64", isa.R10, -saves.record, isa.R1),
    ]
    address = sum(map(len, parts))
    parts += [
        isa.ld_imm64(isa.R1, 0),
        isa.mov(isa.R2, isa.R10),
        isa.alu("+=", isa.R2, -saves.record),
        isa.mov(isa.R3, HEAD + WORD * len(registers)),
        isa.mov(isa.R4, 0),
        isa.call_helper("ringbuf_output"),
    ]
    parts += _restore(saves, home)
    return EmittedCode(np.concatenate(parts), (address,))


def _save(saves: Saves) -> list[isa.Insns]:
    copies = [isa.mov(kept, isa.Reg(reg)) for reg, kept in saves.moved.items()]
    stores = [isa.store("u64", isa.R10, -at, isa.Reg(reg)) for reg, at in saves.spilled.items()]
    return copies + stores


def _fetch(saves: Saves, to: int, register: int) -> isa.Insns:
    """Load what a register held."""
    if register in saves.spilled:
        return isa.load("u64", to, isa.R10, -saves.spilled[register])
    return isa.mov(to, isa.Reg(saves.moved.get(register, register)))


def _restore(saves: Saves, home: dict[int, int]) -> list[isa.Insns]:
    """Give the live registers back what the calls destroyed."""
    out = []
    for register in range(isa.R10):
        if not (saves.live & CLOBBERED) >> register & 1:
            continue
        if register in home:
            out.append(isa.load("u64", register, isa.R10, -home[register]))
        else:
            out.append(_fetch(saves, register, register))
    return out
