"""Aux data of iterators' programs from our own analysis: the same as the verifier's."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest

from bpfpatch import asm, kernel
from bpfpatch.btf import Btf, Kind
from bpfpatch.facts.columns import MEM_ID, MEM_TYPE, SEEN
from bpfpatch.linux.verifier.auxdata import aux_data
from support.machine.tools import need_bpf

pytestmark = pytest.mark.kernel

LOADS = ("u64", "u32", "u8", "s8", "s32")
PREFIX = "bpf_iter_"


@lru_cache(maxsize=1)
def vmlinux() -> Btf:
    """The running kernel's types."""
    return kernel.vmlinux_btf()


def targets() -> list[int]:
    """What iterators' programs can attach to, and more."""
    btf = vmlinux()
    return [
        number
        for number in range(1, len(btf))
        if btf.head(number).number == Kind.FUNC and btf.name_of(number).startswith(PREFIX)
    ]


def loaded(text: str, target: int) -> kernel.AuxLoad | None:
    """A program for an iterator; None where the verifier does not have it."""
    try:
        return kernel.load_with_aux(
            asm.assemble(text), prog_type="tracing", attach_type="trace_iter", attach_btf_id=target
        )
    except kernel.KernelError:
        return None


def differences(aux: kernel.AuxLoad) -> list[str]:
    """The columns that differ from the verifier's."""
    theirs = aux.submitted.program
    mine = aux_data(theirs, aux.submitted.subject, vmlinux())
    return [
        f"{name} at {np.flatnonzero(mine.columns[name].values != theirs.columns[name].values)}"
        for name in (SEEN, MEM_TYPE, MEM_ID)
        if (mine.columns[name].values != theirs.columns[name].values).any()
    ]


@pytest.mark.parametrize("arg", range(4))
def test_iterators_arguments_are_the_verifiers(arg: int) -> None:
    """Which arguments may be null and which are trusted is as the iterator registers it."""
    need_bpf()
    n_programs = 0
    for target in targets():
        for load in LOADS:
            text = f"""
                r2 = *(u64 *)(r1 + {8 * arg})
                if r2 == 0 goto out
                r3 = *({load} *)(r2 + 0)
                if r2 != 0 goto out
                r3 = 1
            out:
                r0 = 0
                exit
            """
            aux = loaded(text, target)
            if aux is None:
                continue
            with aux.loaded:
                n_programs += 1
                assert differences(aux) == [], (vmlinux().name_of(target), load)
    if not n_programs:
        pytest.skip("not on this kernel: it has no iterator with such an argument")


def test_registers_of_a_task_may_be_null_for_the_verifier() -> None:
    """A comparison of what bpf_task_pt_regs gives with null is not decided."""
    need_bpf()
    aux = loaded(
        """
        r1 = *(u64 *)(r1 + 8)
        if r1 == 0 goto out
        call bpf_task_pt_regs
        if r0 == 0 goto out
        r1 = *(s32 *)(r0 + 0)
    out:
        r0 = 0
        exit
        """,
        vmlinux().find_one("bpf_iter_task", Kind.FUNC) or 0,
    )
    if aux is None:
        pytest.skip("not on this kernel: the program does not load")
    with aux.loaded:
        assert differences(aux) == []
        assert aux.submitted.program.columns[SEEN].values.all()
