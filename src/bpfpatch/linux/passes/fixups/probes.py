"""Loads through pointers that may be stale: they must not reach user space.

On x86-64 the JIT checks the address. Where a kernel has the check written out
before the JIT, its limit is the processor's, and set at the kernel's build.

Source: linux v6.18, kernel/bpf/verifier.c, do_misc_fixups(), and
bpf_arch_uaddress_limit() in arch/*/net/.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from .job import Job

_MODE_MASK: Final = 0xE7
_PROBE_MEM: Final = (0x21, 0x41)  # LDX | PROBE_MEM, LDX | PROBE_MEMSX, without the size
_NO_LIMIT: Final = ("x86_64", "s390x")


def check_probing_loads(job: Job) -> None:
    """Leave them where the JIT does it.

    Raises:
        UnsupportedError: there are some, on a processor whose limit is not known.
    """
    arch = job.setting.target.arch
    if arch.name in _NO_LIMIT or arch.word_bits != 64:
        return
    found = np.flatnonzero(np.isin(job.code.codes & _MODE_MASK, _PROBE_MEM))
    if found.size:
        raise job.refuse(
            int(found[0]),
            "a probing load is guarded by the highest address of user space, which is unknown "
            f"for {arch.name}",
        )
