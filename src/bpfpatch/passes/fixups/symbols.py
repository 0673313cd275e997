"""ld_imm64 of a variable or function of the kernel, named by its type id: a plain address.

Source: linux v6.18, kernel/bpf/verifier.c, check_pseudo_btf_id() and
convert_pseudo_ld_imm64().
"""

from __future__ import annotations

from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.isa import Reg

from .addresses import Address
from .job import Job, body

BTF_ID: Final = 3


def load_symbols(job: Job) -> None:
    """Load an address that only the kernel knows."""
    named = isa.is_ld_imm64(job.insns) & (isa.src(job.insns) == BTF_ID)
    dst = isa.dst(job.insns)
    for reg in np.unique(dst[named]).tolist():
        sites = np.flatnonzero(named & (dst == reg)).astype(np.int32)
        first = job.replace(sites, body(isa.ld_imm64(Reg(reg), 0)))
        job.note_address(first, Address.SYMBOL)
