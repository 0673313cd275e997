"""Aux data from our own analysis: the same as the verifier's, program by program."""

from __future__ import annotations

import numpy as np
import pytest

from bpfpatch import asm, kernel
from bpfpatch.elf import ElfObject
from bpfpatch.errors import BpfPatchError
from bpfpatch.facts.columns import (
    CALL_KEY,
    CALL_MAP,
    CALLBACK,
    MEM_ID,
    MEM_TYPE,
    SEEN,
    STACK_DEPTH,
)
from bpfpatch.linux.verifier.auxdata import aux_data
from support.generators.programs import verifiable_code
from support.inputs.bpfobjects import debian_objects, fixture_objects
from support.machine.tools import need_bpf

pytestmark = pytest.mark.kernel

COLUMNS = (SEEN, MEM_TYPE, MEM_ID, CALL_MAP, CALL_KEY, CALLBACK)
MIXED = {"blk_account_io_merge_bio"}
"""Programs with an instruction that goes through the stack or a map value, as it comes: the
kernel keeps which it saw first, and that decides nothing."""


@pytest.fixture(autouse=True)
def _bpf() -> None:
    need_bpf()


def differences(submitted: kernel.Submitted) -> list[str]:
    """The columns that differ in what the verifier visited, and the stack's depth."""
    theirs = submitted.program
    mine = aux_data(theirs, submitted.subject, kernel.vmlinux_btf())
    seen = theirs.columns[SEEN].values
    out = []
    for name in COLUMNS:
        differs = mine.columns[name].values != theirs.columns[name].values
        if name != SEEN:
            differs &= seen & ~theirs.second_slots
        if differs.any():
            out.append(f"{name} at {np.flatnonzero(differs)[:4].tolist()}")
    starts = theirs.subprogs.start
    depth = [table.tables[STACK_DEPTH].rows[seen[starts]].tolist() for table in (mine, theirs)]
    if depth[0] != depth[1]:
        out.append(f"{STACK_DEPTH} {depth}")
    return out


def compare(objects: list[tuple[str, bytes]]) -> tuple[int, list[str]]:
    """How many programs were compared, and the differences."""
    n_programs, found = 0, []
    for name, data in objects:
        try:
            opened = kernel.open_object(ElfObject.parse(data), [])
        except BpfPatchError:
            continue
        with opened:
            for info in opened.obj.programs:
                try:
                    aux = kernel.load_object_with_aux(opened, info.name)
                except BpfPatchError:
                    continue
                n_programs += 1
                if info.name not in MIXED:
                    found += [f"{name}: {info.name}: {it}" for it in differences(aux.submitted)]
    return n_programs, found


def test_fixtures_have_the_verifiers_aux() -> None:
    """All columns and the stack depths of our own objects' programs are the verifier's."""
    n_programs, found = compare([(n, data) for n, data in fixture_objects() if ".eb." not in n])
    assert found == []
    assert n_programs > 40


def test_installed_programs_have_the_verifiers_aux() -> None:
    """So are those of the programs that the distribution brings."""
    objects = debian_objects()
    if not objects:
        pytest.skip("neither libxdp1 nor libbpf-tools is installed")
    n_programs, found = compare(objects[::2])
    if not n_programs:
        pytest.skip("not on this kernel: none of the installed programs loads")
    assert found == []


@pytest.mark.parametrize("seed", range(40))
def test_random_programs_have_the_verifiers_aux(seed: int) -> None:
    """A random program's dead code, with all its ranges, is what the verifier says it is."""
    aux = kernel.load_with_aux(asm.assemble(verifiable_code(seed)))
    with aux.loaded:
        assert differences(aux.submitted) == []
