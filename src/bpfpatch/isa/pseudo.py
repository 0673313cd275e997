"""What the field src of an ld_imm64 or a call says of its immediate.

Source: linux v6.18, include/uapi/linux/bpf.h, BPF_PSEUDO_*.
"""

from __future__ import annotations

from enum import IntEnum


class Pseudo(IntEnum):
    """What an ld_imm64 loads."""

    NUMBER = 0
    MAP_FD = 1
    MAP_VALUE = 2
    BTF_ID = 3
    FUNC = 4
    MAP_IDX = 5
    MAP_IDX_VALUE = 6


class PseudoCall(IntEnum):
    """What a call calls."""

    HELPER = 0
    SUBPROG = 1
    KFUNC = 2


MAP_PSEUDOS = (Pseudo.MAP_FD, Pseudo.MAP_VALUE, Pseudo.MAP_IDX, Pseudo.MAP_IDX_VALUE)
"""The forms of an ld_imm64 that are of a map."""
