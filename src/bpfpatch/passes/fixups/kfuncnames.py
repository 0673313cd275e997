"""Names of the kernel functions that a program calls."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bpfpatch import isa
from bpfpatch.program.types import Slots

from .job import Job


def kfunc_calls(job: Job) -> Iterator[tuple[Slots, str]]:
    """Calls of the kernel's own functions, those of one function together.

    Functions of modules, whose calls are left as they are, have no name here.

    Raises:
        OptionError: there are such calls, and nobody gave the kernel's types.
    """
    sites = np.flatnonzero(isa.is_kfunc_call(job.insns) & (job.insns["off"] == 0)).astype(np.int32)
    ids = job.insns["imm"][sites]
    for type_id in np.unique(ids).tolist():
        yield sites[ids == type_id], job.btf.name_of(type_id)
