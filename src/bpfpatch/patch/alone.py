"""Predicates on instructions that do not follow each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.program.types import Insns


def alone(predicate: Callable[[Insns], NDArray[Any]], firsts: Insns) -> NDArray[Any]:
    """Apply a predicate of `bpfpatch.isa` to (n,) first slots taken from here and there.

    In a program, what follows an ld_imm64 is its second slot and no instruction;
    taken out of it, the neighbour is another instruction. So each gets a zero
    slot behind it, where there is any such.
    """
    if not (firsts["code"] == isa.LD_IMM64).any():
        return predicate(firsts)
    apart = np.zeros(2 * len(firsts), isa.INSN)
    apart[::2] = firsts
    return predicate(apart)[::2]
