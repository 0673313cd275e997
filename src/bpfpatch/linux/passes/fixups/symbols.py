"""ld_imm64 of a variable or function of the kernel, named by its type id: a plain address.

Source: linux v6.18, kernel/bpf/verifier.c, check_pseudo_btf_id() and
convert_pseudo_ld_imm64().
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bpfpatch import isa
from bpfpatch.isa import Reg
from bpfpatch.passes.addresses import Address
from bpfpatch.passes.search import Opcodes, groups
from bpfpatch.program.types import Slots

from .job import Job, body

LD_IMM64: Final = Opcodes(lambda opcode: opcode.code == isa.LD_IMM64)


def load_symbols(job: Job) -> None:
    """Load an address that only the kernel knows."""
    loads = job.code.find(LD_IMM64)
    named = loads[isa.src(job.insns[loads]) == isa.Pseudo.BTF_ID]
    for reg, sites in groups(isa.dst(job.insns[named]), named):
        first = job.replace(sites, body(isa.ld_imm64(Reg(int(reg)), 0)))
        job.note_address(first, Address.SYMBOL)


# Names of the kernel functions that a program calls.


def kfunc_calls(job: Job) -> Iterator[tuple[Slots, str]]:
    """Calls of the kernel's own functions, those of one function together.

    Functions of modules, whose calls are left as they are, have no name here.

    Raises:
        OptionError: there are such calls, and the kernel's types were not given.
    """
    for type_id, sites in job.kfunc_calls.items():
        yield sites, job.btf.name_of(type_id)
