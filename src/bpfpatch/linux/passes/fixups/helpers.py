"""Helpers that the kernel writes out in place of their call.

Source: linux v6.18, kernel/bpf/verifier.c, do_misc_fixups(). jiffies64,
get_smp_processor_id, get_branch_snapshot and kptr_xchg were compared with what
such a kernel makes of them; those of trampolines are from the source alone.
"""

from __future__ import annotations

from errno import EINVAL, ENOENT, EOPNOTSUPP
from typing import Final

from bpfpatch import isa
from bpfpatch.facts import AttachType, ProgType
from bpfpatch.facts.functions import function
from bpfpatch.isa import R0, R1, R2, R3
from bpfpatch.passes.addresses import Address
from bpfpatch.patch import Body

from .job import Job, body
from .maplookups import this_cpu

_ID: Final = isa.HELPER_IDS

# The product's upper bits are a third: see "Hacker's Delight", unsigned division by 3.
_A_THIRD: Final = 0xAAAAAAAB
_BRANCH_ENTRY: Final = 24  # sizeof(struct perf_branch_entry)

_N_ARGS_OFF: Final = -8
_IP_OFF: Final = -16
_HAVE_RESULT: Final = (AttachType.TRACE_FEXIT, AttachType.MODIFY_RETURN)
_XCHG_ARCHES: Final = ("x86_64", "aarch64", "riscv64")


def inline_helpers(job: Job) -> None:
    """Write out the helpers that the target's kernel does."""
    arch = job.setting.target.arch
    if arch.word_bits != 64:
        return
    job.note_address(job.replace(job.calls_of(_ID["jiffies64"]), JIFFIES), Address.JIFFIES)
    if arch.name == "x86_64":
        first = job.replace(job.calls_of(_ID["get_smp_processor_id"]), CPU_NUMBER)
        job.note_address(first, Address.CPU_NUMBER)
    if arch.name in _XCHG_ARCHES:
        job.replace(job.calls_of(_ID["kptr_xchg"]), KPTR_XCHG)
    job.replace(job.calls_of(_ID["get_branch_snapshot"]), BRANCH_SNAPSHOT)
    _inline_trampoline_helpers(job)


def _inline_trampoline_helpers(job: Job) -> None:
    """What a trampoline has left in front of a tracing program's context."""
    helpers = ("get_func_arg", "get_func_ret", "get_func_arg_cnt", "get_func_ip")
    sites = job.calls_of(*(_ID[name] for name in helpers))
    if not sites.size or job.subject.prog_type != ProgType.TRACING:
        return
    has_result = job.subject.attach_type in _HAVE_RESULT
    job.replace(job.calls_of(_ID["get_func_arg"]), FUNC_ARG)
    job.replace(job.calls_of(_ID["get_func_ret"]), FUNC_RET if has_result else NO_FUNC_RET)
    job.replace(job.calls_of(_ID["get_func_arg_cnt"]), FUNC_ARG_CNT)
    job.replace(job.calls_of(_ID["get_func_ip"]), FUNC_IP)


JIFFIES: Final = body(isa.ld_imm64(R0, 0), isa.load("u64", R0, R0, 0))

# A per-CPU symbol's address fits 32 bits, signed.
CPU_NUMBER: Final = body(isa.mov(R0, 0), this_cpu(R0), isa.load("u32", R0, R0, 0))

KPTR_XCHG: Final = body(isa.mov(R0, R2), isa.atomic("xchg", "u64", R1, 0, R0))

BRANCH_SNAPSHOT: Final = body(
    isa.jump("!=", R3, 0, 7),  # flags
    isa.mov32(R0, _A_THIRD),
    isa.alu("*=", R2, R0),
    isa.alu(">>=", R2, 36),  # bytes / 24
    isa.call_helper(function("perf_snapshot_branch_stack")),
    isa.jump("==", R0, 0, 4),
    isa.alu("*=", R0, _BRANCH_ENTRY, width=32),
    isa.ja(3),
    isa.mov(R0, -EINVAL),
    isa.ja(1),
    isa.mov(R0, -ENOENT),
)

FUNC_ARG: Final = body(
    isa.load("u64", R0, R1, _N_ARGS_OFF),
    isa.jump(">=", R2, R0, 6, width=32),
    isa.alu("<<=", R2, 3),
    isa.alu("+=", R2, R1),
    isa.load("u64", R0, R2, 0),
    isa.store("u64", R3, 0, R0),
    isa.mov(R0, 0),
    isa.ja(1),
    isa.mov(R0, -EINVAL),
)

FUNC_RET: Final = body(
    isa.load("u64", R0, R1, _N_ARGS_OFF),
    isa.alu("<<=", R0, 3),
    isa.alu("+=", R0, R1),
    isa.load("u64", R3, R0, 0),
    isa.store("u64", R2, 0, R3),
    isa.mov(R0, 0),
)

NO_FUNC_RET: Final[Body] = body(isa.mov(R0, -EOPNOTSUPP))
FUNC_ARG_CNT: Final[Body] = body(isa.load("u64", R0, R1, _N_ARGS_OFF))
FUNC_IP: Final[Body] = body(isa.load("u64", R0, R1, _IP_OFF))
