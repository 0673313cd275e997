"""Programs with n sites of one kind of patch, and the same without anything to patch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.facts import LD_MAP, MapFacts, MapType, ProgType, Subject, column
from bpfpatch.program import Program

_HEAD: Final = np.concatenate([isa.mov(isa.R6, isa.Reg(isa.R1)), isa.mov(isa.R0, 1)])
_MAP: Final = MapFacts("table", MapType.ARRAY, 4, 8, 1)


def _program(head: isa.Insns, site: isa.Insns, n_sites: int) -> Program:
    """The head, the site again and again, an exit."""
    return Program(np.concatenate([head, np.tile(site, n_sites), isa.exit_()]))


def _blind(n_sites: int) -> tuple[Program, Program]:
    """``r0 = CONSTANT``, all of them different; the control is the program itself."""
    program = _program(_HEAD[:1], isa.mov(isa.R0, 0), n_sites)
    insns = program.insns.copy()
    insns["imm"][1:-1] = np.arange(1, n_sites + 1)
    return Program(insns), Program(insns)


def _division(n_sites: int) -> tuple[Program, Program]:
    """``r0 /= r7`` and, without a guard, ``r0 += r7``."""
    head = np.concatenate([_HEAD, isa.load("u32", isa.R7, isa.R1, 0)])
    return (
        _program(head, isa.alu("/=", isa.R0, isa.Reg(isa.R7)), n_sites),
        _program(head, isa.alu("+=", isa.R0, isa.Reg(isa.R7)), n_sites),
    )


def _context(n_sites: int) -> tuple[Program, Program]:
    """``r0 = skb->ifindex``, which becomes several loads, and a move."""
    return (
        _program(_HEAD, isa.load("u32", isa.R0, isa.R6, 40), n_sites),
        _program(_HEAD, isa.mov(isa.R0, isa.Reg(isa.R6)), n_sites),
    )


def _lookup(n_sites: int, number: int = 0) -> tuple[Program, Program]:
    """A look-up in an array map, which is inlined, and another helper's call."""
    head = np.concatenate([_HEAD, isa.store("u32", isa.R10, -4, 0)])
    arguments = np.concatenate(
        [
            isa.mov(isa.R2, isa.Reg(isa.R10)),
            isa.alu("+=", isa.R2, -4),
            isa.ld_imm64(isa.R1, number, 1),
        ]
    )
    site = np.concatenate([arguments, isa.call_helper("map_lookup_elem")])
    control = np.concatenate([arguments, isa.call_helper("ktime_get_ns")])
    return _program(head, site, n_sites), _program(head, control, n_sites)


def _dead(n_sites: int) -> tuple[Program, Program]:
    """A branch that is always taken over dead code, and two moves."""
    head = np.concatenate([_HEAD, isa.mov(isa.R7, 1)])
    site = np.concatenate([isa.jump("!=", isa.R7, 0, 1), isa.mov(isa.R0, 5)])
    control = np.concatenate([isa.mov(isa.R0, 4), isa.mov(isa.R0, 5)])
    return _program(head, site, n_sites), _program(head, control, n_sites)


def _nops(n_sites: int) -> tuple[Program, Program]:
    """``goto +0``, and a move."""
    return (
        _program(_HEAD, isa.ja(0), n_sites),
        _program(_HEAD, isa.mov(isa.R0, 4), n_sites),
    )


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of patch.

    Attributes:
        what: in words.
        make: n sites -> (program, control).
        n_head: slots in front of the first site; sites are all of one length.
        passes: those of ours that do what the kernel does there.
        rounds: how many slots a site grows by, in each of the kernel's goes over the program.
        needs_aux: whether they need the analysis.
        needs_types: whether they need the kernel's types.
        has_immediates: whether blinding, by somebody else's setting, would spoil the figure.
        is_hardened: whether the kernel does it when it blinds constants, only.
        seconds: how long one load may take: what is longer, as far as can be told, is not begun.
    """

    what: str
    make: Callable[[int], tuple[Program, Program]]
    n_head: int
    passes: str
    rounds: tuple[int, ...]
    needs_aux: bool = False
    needs_types: bool = False
    has_immediates: bool = True
    is_hardened: bool = False
    seconds: float = 60.0


# Removals cannot be interrupted, and block their core: those loads are kept short.
KINDS: Final = {
    # The goal is about as many sites as take the kernel minutes.
    "blind": Kind("immediates blinded", _blind, 1, "blind", (2,), is_hardened=True, seconds=240.0),
    "division": Kind("division guards", _division, 3, "fixup-calls", (3,), has_immediates=False),
    "context": Kind(
        "context loads",
        _context,
        2,
        "ctx-access",
        (1,),
        needs_aux=True,
        needs_types=True,
        has_immediates=False,
    ),
    "lookup": Kind(
        "array look-ups inlined",
        _lookup,
        3,
        "fixup-calls",
        (6,),
        needs_aux=True,
        needs_types=True,
    ),
    "dead": Kind(
        "dead branches removed",
        _dead,
        3,
        "dce{aux=true},nops{once=true}",
        (-1, -1),
        needs_aux=True,
        seconds=10.0,
    ),
    "nops": Kind("nops removed", _nops, 2, "nops{once=true}", (-1,), seconds=10.0),
}


def subject() -> Subject:
    """What a loader would say of them: a classifier with one map."""
    return Subject(ProgType.SCHED_CLS, maps=(_MAP,))


def with_map_column(program: Program) -> Program:
    """The program with the column that says which map each ld_imm64 is of."""
    values: NDArray[Any] = np.full(len(program), -1, np.int32)
    loads = (program.insns["code"] == isa.LD_IMM64) & ~program.second_slots
    values[loads] = 0
    return program.with_columns(**{LD_MAP: column(LD_MAP, values)})
