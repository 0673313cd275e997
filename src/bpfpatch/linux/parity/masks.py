"""Random numbers that the kernel puts into a program, taken out so that two can be compared.

Two patterns have one, both through the hidden register, ax, which no program can name:

- a blinded constant: ``ax = a``, ``ax ^= b``, both of one width. What counts is a ^ b: it
  becomes ``ax = a ^ b``, ``ax ^= 0``.
- a random upper half (BPF_F_TEST_RND_HI32): ``ax = a``, ``ax <<= 32``, ``reg |= ax``.
  It becomes ``ax = 0``.

Nothing else changes: the same constant stays the same, another one another.

Source: linux v6.18, kernel/bpf/core.c, bpf_jit_blind_insn(), and kernel/bpf/verifier.c,
opt_subreg_zext_lo32_rnd_hi32().
"""

from __future__ import annotations

from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.program.types import Insns

_MOV: Final = (0xB4, 0xB7)  # w = imm, r = imm
_XOR: Final = (0xA4, 0xA7)
_SHIFT: Final = 0x67  # r <<= imm
_OR: Final = 0x4F  # r |= r


def unmask(insns: Insns, hidden: int = isa.AX) -> Insns:
    """The same instructions with all random masks taken out.

    Args:
        insns: (n,) `isa.INSN`; second slots of ld_imm64 must have code 0, as in any
            well-formed program.
        hidden: number of the hidden register: 11, and from Linux 7.2 on 12.
    """
    out = insns.copy()
    if len(out) < 2:
        return out
    code, dst = out["code"], isa.dst(out)
    is_ax_mov = np.isin(code, _MOV) & (out["regs"] == hidden)
    pairs = np.flatnonzero(is_ax_mov[:-1] & (code[1:] == code[:-1] - 0x10) & (dst[1:] == hidden))
    out["imm"][pairs] ^= out["imm"][pairs + 1]
    out["imm"][pairs + 1] = 0
    if len(out) > 2:
        triples = np.flatnonzero(
            (is_ax_mov & (code == _MOV[1]))[:-2]
            & (code[1:-1] == _SHIFT)
            & (dst[1:-1] == hidden)
            & (out["imm"][1:-1] == 32)
            & (code[2:] == _OR)
            & (isa.src(out)[2:] == hidden)
        )
        out["imm"][triples] = 0
    return out
