"""bpf_throw: a function for what catches it, where the program has none.

It returns what was thrown, and comes last; nothing in the code refers to it.

Source: linux v6.18, kernel/bpf/verifier.c, do_misc_fixups(), compared with
what such a kernel makes of it.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.btf import DeclTag, Kind
from bpfpatch.isa import R0, R1

from .job import Job, body
from .kfuncnames import kfunc_calls

_THROW: Final = "bpf_throw"
_CALLBACK: Final = "exception_callback:"


def add_exception_callback(job: Job) -> None:
    """Append the function, if a program throws."""
    if not any(name == _THROW for _, name in kfunc_calls(job)) or _has_callback(job):
        return
    last = job.view.node[np.flatnonzero(job.view.node >= 0)[-1]]
    job.patches.insert_after(int(last), body(isa.mov(R0, R1), isa.exit_()))


def _has_callback(job: Job) -> bool:
    """Whether a function of the program names one of its own."""
    btf = job.setting.subject.btf if job.setting.subject is not None else None
    if btf is None:
        return False
    tags = (btf.type(int(type_id)) for type_id in np.flatnonzero(btf.kinds == Kind.DECL_TAG))
    return any(isinstance(tag, DeclTag) and tag.name.startswith(_CALLBACK) for tag in tags)
