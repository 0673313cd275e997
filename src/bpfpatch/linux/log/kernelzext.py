"""Which upper halves the verifier saw read, from a load that fills the others with noise.

With BPF_F_TEST_RND_HI32 the kernel puts a random number into the upper half of every register
that an instruction defines 32 bits of, except where it knows that the upper half is read. Those
exceptions are the verifier's zext_dst.

Source: linux v6.18, kernel/bpf/verifier.c, opt_subreg_zext_lo32_rnd_hi32().
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.bpf.loaded import LoadedProgram
from bpfpatch.bpf.origins import Origins, origins
from bpfpatch.facts.columns import MEM_TYPE, ZEXT_DST, MemType, column
from bpfpatch.facts.kinds import ProgFlag
from bpfpatch.linux.versions import Topic, running, value
from bpfpatch.program import DELETED, Program
from bpfpatch.program.types import Mask

_SHIFT: Final = 32
_LEN: Final = 3


def kernel_zext(loaded: LoadedProgram, program: Program | None = None) -> Program:
    """The program with the column ``zext_dst``; costs a second load.

    Where the kernel does not show it, the column has what an inserted instruction would have:
    for a load through a context, an instruction that it removed, and one that it rewrote, of
    which the kernel itself forgets what it knew (adjust_insn_aux_data()).

    Args:
        loaded: from `load` or `KernelObject.load`.
        program: what was submitted, with ``mem_type`` where it is known; what ``loaded`` has
            otherwise.

    Raises:
        OptionError: the program was not loaded here.
        KernelError: the kernel refuses it so, or does not hand out the code.
    """
    given = loaded.program if program is None else program
    found = origins(loaded, flags=ProgFlag.TEST_RND_HI32)
    defines = isa.defines_32(given.insns)
    is_shown = defines & (found.start != DELETED)
    if MEM_TYPE in given.columns:
        is_shown &= ~(isa.is_load(given.insns) & (given.columns[MEM_TYPE].values == MemType.CTX))
    values = defines & ~(is_shown & _is_noisy(found, len(given)))
    return replace(given.with_columns(**{ZEXT_DST: column(ZEXT_DST, values)}))


def _is_noisy(found: Origins, n_old: int) -> Mask:
    """(n_old,) instructions whose rewriting ends in ``ax = random; ax <<= 32; dst |= ax``."""
    insns = found.xlated.raw
    out = np.zeros(n_old, bool)
    if len(insns) < _LEN:
        return out
    first, second, third = insns[:-2], insns[1:-1], insns[2:]
    hidden = value(Topic.HIDDEN_REGISTER, running())
    is_noise = (first["code"] == _MOV64_IMM) & (isa.dst(first) == hidden)
    is_noise &= (second["code"] == _LSH64_IMM) & (isa.dst(second) == hidden)
    is_noise &= second["imm"] == _SHIFT
    is_noise &= (third["code"] == _OR64_REG) & (isa.src(third) == hidden)
    at = np.flatnonzero(is_noise)
    # All three belong to one instruction, and nothing of it comes after them.
    after = np.append(found.site, -1)[at + _LEN]
    own = (found.site[at] == found.site[at + 2]) & (after != found.site[at])
    out[found.site[at[own]]] = True
    return out


_MOV64_IMM: Final = 0xB7
_LSH64_IMM: Final = 0x67
_OR64_REG: Final = 0x4F
