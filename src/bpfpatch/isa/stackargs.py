"""Arguments from the sixth on: a caller stores them below R11, the callee loads them above it.

Up to Linux 7.1 R11 is the kernel's hidden register, which no program may name. From 7.2 on it is
the base of a small area, and good for nothing else: the k-th argument after the fifth is the eight
bytes at ``r11 - 8 * k`` for a caller, and those at ``r11 + 8 * k`` for its callee.

Source: linux v7.2, include/linux/filter.h, is_stack_arg_ldx(), is_stack_arg_st() and
is_stack_arg_stx(); kernel/bpf/verifier.c, check_stack_arg_write() and check_stack_arg_read();
llvm 23, BPF back end, __BPF_FEATURE_STACK_ARGUMENT.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from .decode import second_slots
from .encoding import Insns
from .opcodes import AX

PARAMS: Final = 11
"""The register that is their base, from Linux 7.2 on."""
MOST_STACK_ARGS: Final = 7
"""A function has twelve arguments at most, and five of them in registers."""
STACK_ARG_LOAD: Final = 0x79
STACK_ARG_STORES: Final = (0x7A, 0x7B)
"""The opcodes that can get at them: 64 bits, of a register or of a constant."""

_WIDTH: Final = 8


def stack_args(insns: Insns) -> npt.NDArray[np.int8]:
    """Which stack argument each instruction stores or loads.

    Args:
        insns: (n,) `INSN`.

    Returns:
        (n,) int8: k where it loads the k-th one, -k where it stores it, 0 for all others, those
        that use R11 in any other way among them.
    """
    out = np.zeros(len(insns), np.int8)
    regs = insns["regs"]
    at = np.flatnonzero((regs & 0xF == PARAMS) | (regs >> 4 == PARAMS))
    if not at.size:
        return out
    code, dst, src = insns["code"][at], regs[at] & 0xF, regs[at] >> 4
    which, rest = np.divmod(insns["off"][at].astype(np.int64), _WIDTH)
    is_load = (code == STACK_ARG_LOAD) & (src == PARAMS) & (dst < PARAMS) & (which > 0)
    is_store = np.isin(code, STACK_ARG_STORES) & (dst == PARAMS) & (src < PARAMS) & (which < 0)
    fits = (is_load | is_store) & (rest == 0) & (np.abs(which) <= MOST_STACK_ARGS)
    fits &= ~second_slots(insns)[at]
    out[at[fits]] = which[fits]
    return out


def hidden_register(insns: Insns) -> int:
    """The number of the register that is the kernel's own in this code: 11, or 12.

    Nothing writes the base of stack arguments, and the hidden register is written before it is
    read. So R11 is hidden where it is more than a base.

    Args:
        insns: (n,) `INSN`, loadable or in the kernel's form.
    """
    regs = insns["regs"]
    highest = max(int((regs & 0xF).max(initial=0)), int((regs >> 4).max(initial=0)))
    if highest != PARAMS:
        return AX + (highest > PARAMS)
    names_it = ((regs & 0xF == PARAMS) | (regs >> 4 == PARAMS)) & ~second_slots(insns)
    return AX + bool((stack_args(insns)[names_it] != 0).all() and names_it.any())


def has_stack_args(insns: Insns) -> bool:
    """Whether any instruction stores or loads a stack argument."""
    return hidden_register(insns) != AX and bool(stack_args(insns).any())
