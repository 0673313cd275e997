"""Production objects that the running kernel refuses, repaired."""

from __future__ import annotations

from pathlib import Path

import pytest

import bpfpatch as bp
from bpfpatch.elf import ElfObject
from bpfpatch.repair import Limits, Order, repair
from bpfpatch.repair.check import check, is_fired
from support.inputs.production import production
from support.machine.tools import load_with_bpftool, need_bpf, unload

pytestmark = pytest.mark.kernel

OBJECTS = {
    "clang-19_-O2_nat64_kern.o": {"spill"},
    "clang-21_-O1_bpf_sock.o": {"unset"},
    "clang-21_-O2_seccomp_x86_bpfel.o": {"guard-index"},
    "clang-17_-O1_felix_bin_bpf_to_nat_no_log.o": {"guard-scalar"},
    "shift_constraint.bpf.o": {"guard-index"},
}
"""Objects of several projects, and the kinds of mending that they need."""


@pytest.mark.parametrize("name", OBJECTS)
def test_repaired(name: str, tmp_path: Path) -> None:
    """It loads, with bpftool too; no input was found that shows a difference."""
    need_bpf()
    found = production(name)
    obj = ElfObject.read(str(found.path))
    done = repair(obj, name=name, prog_type=found.type)
    assert done.report.is_whole, list(done.report.lines())
    assert {mending.kind for mending in done.report.mendings} == OBJECTS[name]
    assert all(mending.order is Order.SAME for mending in done.report.mendings)
    assert done.obj is not None
    out = tmp_path / name
    done.obj.write(str(out))
    if "bpf_sock" not in name:  # its maps ask for pins of their own
        unload(load_with_bpftool(out))
    verdicts = list(check(obj, done, found.type, seconds=0.3))
    assert verdicts
    assert not any(verdict.differs and not is_fired(verdict) for verdict in verdicts)


def test_what_cannot_be_mended_is_said() -> None:
    """Where nothing helps, the reason has the refusal, and the input is as it was."""
    need_bpf()
    found = production("test_get_stack_rawtp.bpf.o")
    obj = ElfObject.read(str(found.path))
    before = obj.to_bytes()
    done = repair(obj, limits=Limits(rounds=4))
    (program,) = done.report.programs
    assert program.is_loaded or "max value is outside" in program.reason
    assert obj.to_bytes() == before


def test_limits_are_kept() -> None:
    """With no rounds left, the report says so."""
    need_bpf()
    found = production("clang-21_-O1_bpf_sock.o")
    done = repair(bp.ElfObject.read(str(found.path)), limits=Limits(rounds=1))
    reasons = [program.reason for program in done.report.programs if not program.is_loaded]
    assert reasons
    assert set(reasons) == {"1 rounds were not enough"}
