"""Random programs, structurally valid, with every kind of table on them."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import numpy as np

from bpfpatch import isa
from bpfpatch.program import (
    FUNC_INFO,
    LINE,
    LINE_INFO,
    Anchor,
    AnchoredTable,
    Column,
    OnReplace,
    Program,
    Subprogs,
)

JA, GOTOL, JEQ, CALL, EXIT, MOV, WIDE, FUNC = 0x05, 0x06, 0x15, 0x85, 0x95, 0xB7, 0x18, -1


def row(code: int, regs: int = 0, off: int = 0, imm: int = 0) -> np.ndarray:
    """One slot from its fields."""
    return np.array([(code, regs, off, imm)], isa.INSN)


def random_program(rng: random.Random, n_insns: int) -> Program:
    """A structurally valid program: jumps, gotol, calls, function addresses, ld_imm64, lines."""
    n_subprogs = rng.randint(1, min(4, n_insns))
    cuts = sorted(rng.sample(range(1, n_insns), n_subprogs - 1)) if n_insns > 1 else []
    bounds = [0, *cuts, n_insns]
    kinds: list[str] = []
    for first, behind in itertools.pairwise(bounds):
        for index in range(first, behind):
            kinds.append(
                rng.choice(["exit", "ja"])
                if index == behind - 1
                else rng.choice(["mov", "mov", "jeq", "jeq", "ja", "gotol", "call", "wide", "func"])
            )
    widths = [2 if kind in ("wide", "func") else 1 for kind in kinds]
    slots = np.cumsum([0, *widths]).tolist()
    starts = [slots[b] for b in bounds[:-1]]
    parts = []
    for index, kind in enumerate(kinds):
        owner = max(k for k, b in enumerate(bounds[:-1]) if b <= index)
        inside = slots[rng.randrange(bounds[owner], bounds[owner + 1])]
        jump = inside - slots[index] - 1
        call = rng.choice(starts) - slots[index] - 1
        imm = rng.randrange(1 << 20)
        parts.append(
            {
                "exit": lambda: row(EXIT),
                "mov": lambda imm=imm: row(MOV, rng.randrange(10), 0, imm),
                "ja": lambda jump=jump: row(JA, 0, jump),
                "gotol": lambda jump=jump: row(GOTOL, 0, 0, jump),
                "jeq": lambda jump=jump, imm=imm: row(JEQ, 1, jump, imm),
                "call": lambda call=call: row(CALL, 0x10, 0, call),
                "wide": lambda imm=imm: np.concatenate([row(WIDE, 2, 0, imm), row(0, 0, 0, ~imm)]),
                "func": lambda call=call: np.concatenate([row(WIDE, 0x42, 0, call), row(0)]),
            }[kind]()
        )
    insns = np.concatenate(parts)
    lines = sorted(
        {*starts, *(slot for slot in slots[:-1] if rng.random() < 0.6)}
        if rng.random() < 0.8
        else []
    )
    line_rows = np.zeros(len(lines), LINE)
    line_rows["line_col"] = (np.arange(len(lines)) + 1) << 10
    subprogs = Subprogs(
        np.array(starts, np.int32),
        tuple(f"f{k}" for k in range(len(starts))),
        np.zeros(len(starts), np.int32),
    )
    return Program(
        insns,
        subprogs=subprogs,
        tables={
            LINE_INFO: AnchoredTable(
                np.array(lines, np.int32), line_rows, Anchor.ENTRY, unique=True
            ),
            FUNC_INFO: AnchoredTable(
                np.array(starts, np.int32), np.arange(len(starts)), Anchor.ENTRY, unique=True
            ),
            "label": AnchoredTable(
                np.array(sorted(slots[:-1]), np.int32), np.array(slots[:-1]), Anchor.LAND
            ),
        },
    )


MARK_FILL = -7


def decorated(rng: random.Random, program: Program) -> Program:
    """The same code with sections, roots, user tables, user columns and external references."""
    n_slots, subprogs = len(program), program.subprogs
    first = np.flatnonzero(~program.second_slots).tolist()
    n_sections = rng.randint(1, 3)
    section = sorted(rng.randrange(n_sections) for _ in range(len(subprogs)))
    is_ref = program.refs.is_entry
    entries = program.refs.slot[is_ref].tolist()
    external = sorted(slot for slot in entries if rng.random() < 0.25)
    owners = sorted(rng.choices(first, k=rng.randint(0, 6)))
    forbidden = sorted(rng.sample(first, 1)) if rng.random() < 0.1 else []
    begins = sorted(rng.choices(first, k=rng.randint(0, 4)))
    ends = [rng.choice([*(s for s in first if s > begin), n_slots]) for begin in begins]
    return replace(
        program,
        subprogs=Subprogs(
            subprogs.start,
            subprogs.names,
            np.array(section, np.int32),
            np.array([rng.random() < 0.5 for _ in section], bool),
        ),
        sections=tuple(f"s{k}" for k in range(n_sections)),
        external=np.array(external, np.int32),
        tables={
            **program.tables,
            "reloc": AnchoredTable(
                np.array(owners, np.int32),
                np.arange(len(owners)),
                Anchor.OWN,
                on_replace=OnReplace.DROP,
            ),
            "strict": AnchoredTable(
                np.array(forbidden, np.int32), np.arange(len(forbidden)), Anchor.OWN
            ),
            "symbol": AnchoredTable(
                np.array(begins, np.int32),
                np.arange(len(begins)),
                Anchor.ENTRY,
                end=np.array(ends, np.int32),
            ),
        },
        columns={
            "mark": Column(np.arange(n_slots, dtype=np.int32) + 100, MARK_FILL),
            "kind": Column(np.zeros((n_slots, 2)), kinds),
        },
    )


def kinds(insns: np.ndarray) -> np.ndarray:
    """A column's value that depends on the instruction."""
    return np.stack([insns["code"], insns["code"] % 7], axis=1)
