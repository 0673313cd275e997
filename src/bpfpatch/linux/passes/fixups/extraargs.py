"""Helpers that get one more argument than the program gave them.

Source: linux v6.18, kernel/bpf/verifier.c, do_misc_fixups(), compared with
what such a kernel makes of them.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.btf import Kind
from bpfpatch.facts import MemType, ProgFlag
from bpfpatch.facts.columns import MEM_TYPE
from bpfpatch.facts.helperproto import ResultKind
from bpfpatch.facts.helpers import helpers_where
from bpfpatch.isa import R1, R3, R5
from bpfpatch.passes.addresses import Address
from bpfpatch.passes.search import Opcodes
from bpfpatch.program.types import Insns, Mask

from .atomicparts import atomic_parts
from .job import ORIG, Job, body
from .symbols import LD_IMM64, kfunc_calls

_LOADS: Final = Opcodes(lambda opcode: opcode.kind is isa.Kind.LOAD)

_STORAGES: Final = helpers_where(lambda proto: proto.adds == "gfp")
_CALLBACKS: Final = helpers_where(lambda proto: proto.adds == "aux")
GFP_ATOMIC: Final = 0x820
GFP_KERNEL: Final = 0xCC0
"""How the kernel may look for memory. Source: linux v6.18, include/linux/gfp_types.h."""

_PER_CPU: Final = helpers_where(lambda proto: proto.result.kind is ResultKind.PER_CPU)
_PER_CPU_NEW: Final = "bpf_percpu_obj_new_impl"
_PER_CPU_TAG: Final = "percpu_kptr"

TIMER: Final = body(isa.ld_imm64(R3, 0), ORIG)


def add_arguments(job: Job) -> None:
    """Set the arguments that programs do not know of.

    Raises:
        UnsupportedError: which one depends on what is not known of the program.
    """
    first = job.replace(job.calls_of(*_CALLBACKS), TIMER)
    job.note_address(first, Address.PROG_AUX)
    _add_memory_flags(job)
    _load_percpu_pointers(job)


def _add_memory_flags(job: Job) -> None:
    """Tell storages whether they may wait for memory."""
    sites = job.calls_of(*_STORAGES)
    if not sites.size:
        return
    may_wait = np.zeros(sites.size, bool)
    if job.subject.flags & ProgFlag.SLEEPABLE:
        may_wait = ~atomic_parts(job)[sites]
    job.replace(sites[may_wait], body(isa.mov(R5, GFP_KERNEL), ORIG))
    job.replace(sites[~may_wait], body(isa.mov(R5, GFP_ATOMIC), ORIG))


def is_percpu_call(insns: Insns) -> Mask:
    """(n,) helper calls on per-CPU pointers, which may be the program's own or the kernel's."""
    found: Mask = isa.is_helper_call(insns) & np.isin(insns["imm"], list(_PER_CPU))
    return found


def _load_percpu_pointers(job: Job) -> None:
    """Per-CPU memory that a program allocated has one more step to it than a variable.

    Raises:
        UnsupportedError: the program has both, so that a call may be on either.
    """
    sites = job.calls_of(*_PER_CPU)
    if not sites.size or not _allocates(job):
        return
    if _has_kernel_pointers(job):
        raise job.refuse(
            int(sites[0]),
            "the program has per-CPU memory of its own: whether this is a pointer to such, or "
            "to a variable of the kernel's, is not known; the two are called differently",
        )
    job.replace(sites, body(isa.load("u64", R1, R1, 0), ORIG))


def _allocates(job: Job) -> bool:
    """Whether a program has per-CPU memory of its own, or gets such from a map."""
    if any(name == _PER_CPU_NEW for _, name in kfunc_calls(job)):
        return True
    types = [job.subject.btf, *(map_.btf for map_ in job.subject.maps)]
    return any(btf is not None and btf.find(_PER_CPU_TAG, Kind.TYPE_TAG) for btf in types)


def _has_kernel_pointers(job: Job) -> bool:
    """Whether a program gets pointers from the kernel's variables or objects."""
    insns = job.insns
    addresses = job.code.find(LD_IMM64)
    if (isa.src(insns[addresses]) == isa.Pseudo.BTF_ID).any():
        return True
    loads = job.code.find(_LOADS)
    through = job.column(MEM_TYPE, loads)
    return bool(np.isin(through, (MemType.BTF_ID, MemType.BTF_ID_PROBE)).any())
