"""The tables of versions are whole, and name what there is."""

from __future__ import annotations

import pytest

from bpfpatch import isa
from bpfpatch.facts import MapType, ProgType
from bpfpatch.facts.since import (
    FIRST,
    INSN_SINCE,
    MAP_TYPE_SINCE,
    PROG_TYPE_SINCE,
    insn_since,
)


def test_every_kind_has_a_version():
    """Each kind of map and program says since when it is there."""
    assert set(MAP_TYPE_SINCE) == set(MapType) - {MapType.UNSPEC}
    assert set(PROG_TYPE_SINCE) == set(ProgType) - {ProgType.UNSPEC}


def test_every_instruction_named_exists():
    """Each beginning of a name is that of an instruction."""
    names = [opcode.name for opcode in isa.OPCODES]
    assert [known for known in INSN_SINCE if not any(n.startswith(known) for n in names)] == []


def test_newer_instructions_have_a_version():
    """What needs cpu v2 or more has a version; 32-bit arithmetic is as old as BPF."""
    n_newer = 0
    for opcode in isa.OPCODES:
        is_old = opcode.kind is isa.Kind.ALU and opcode.cpu == 3
        if 1 < opcode.cpu <= isa.CPU_NEWER and not is_old and opcode.name != "callx":
            assert insn_since(opcode.name) > FIRST, opcode.name
            n_newer += 1
    assert n_newer > 20


@pytest.mark.parametrize(
    ("name", "since"),
    [
        ("jlt_imm", (4, 14)),
        ("jlt32_reg", (5, 1)),
        ("jeq_imm", FIRST),
        ("jeq32_imm", (5, 1)),
        ("add32_reg", FIRST),
        ("atomic_add_dw", FIRST),
        ("atomic_fetch_add_w", (5, 12)),
        ("cmpxchg_dw", (5, 12)),
        ("movsx64_8", (6, 6)),
        ("sdiv32_imm", (6, 6)),
        ("gotox", (6, 19)),
        ("ld_map_idx_value", (5, 14)),
        ("ld_map_value", (5, 2)),
        ("ld_imm64", FIRST),
    ],
)
def test_versions_of_instructions(name, since):
    """By name, whatever its form."""
    assert insn_since(name) == since
