"""The kernel's own instruction for "this CPU's part", and which processors have it."""

from __future__ import annotations

from typing import Final

from bpfpatch import isa
from bpfpatch.isa import Reg
from bpfpatch.passes.target import Arch
from bpfpatch.program.types import Insns

_ADDR_PERCPU: Final = -1
_MOV_64_REG: Final = 0xBF
_ARCHES: Final = ("x86_64", "aarch64", "riscv64")


def this_cpu(reg: Reg) -> Insns:
    """``r0 = &(void __percpu *)(r0)``: a mov that the JIT makes an addition of.

    Source: linux v6.18, include/linux/filter.h, BPF_MOV64_PERCPU_REG().
    """
    return isa.make(_MOV_64_REG, reg, reg, _ADDR_PERCPU)


def has_percpu_insn(arch: Arch) -> bool:
    """Whether a processor's JIT knows it.

    Source: linux v6.18, arch/*/net/bpf_jit*.c, bpf_jit_supports_percpu_insn().
    """
    return arch.name in _ARCHES
