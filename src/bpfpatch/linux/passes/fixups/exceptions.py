"""bpf_throw: a function for what catches it, where the program has none.

It returns what was thrown, and comes last; nothing in the code refers to it.

Source: linux v6.18, kernel/bpf/verifier.c, do_misc_fixups(), compared with
what such a kernel makes of it.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.isa import R0, R1
from bpfpatch.linux.verifier.globalargs import exception_callback

from .job import Job, body
from .symbols import kfunc_calls

_THROW: Final = "bpf_throw"


def add_exception_callback(job: Job) -> None:
    """Append the function, if a program throws."""
    if not any(name == _THROW for _, name in kfunc_calls(job)) or _has_callback(job):
        return
    last = job.view.node[np.flatnonzero(job.view.node >= 0)[-1]]
    job.patches.insert_after(int(last), body(isa.mov(R0, R1), isa.exit_()))


def _has_callback(job: Job) -> bool:
    """Whether the program's main function names one; those of others are not its own."""
    subject = job.setting.subject
    return subject is not None and exception_callback(job.patches.program, subject) is not None
