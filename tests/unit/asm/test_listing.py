"""Whole programs as listings, and back."""

from __future__ import annotations

import numpy as np
import pytest

from bpfpatch import isa
from bpfpatch.asm import assemble, format_program
from bpfpatch.isa import R1
from bpfpatch.program import LINE, Anchor, AnchoredTable, Program, Subprogs

SOURCE = """\
main:
     0: r1 = 0x5
L1:
     1: r1 -= 0x1
     2: if r1 != 0x0 goto L1
     3: call bpf_get_prandom_u32
     4: call helper_fn
     5: r2 = callback ll
     7: gotol main

helper_fn:
     8: goto helper_fn

callback:
     9: r0 = 0x123456789 ll
    11: exit

.globl unused
unused:
    12: exit
"""


def test_listing_is_its_own_source() -> None:
    """Assembling a listing and listing it again gives the same text."""
    program = assemble(SOURCE)
    assert format_program(program) == SOURCE
    assert program.subprogs.names == ("main", "helper_fn", "callback", "unused")


def test_raw() -> None:
    """On request every slot shows its bytes, the second of an ld_imm64 too."""
    text = format_program(assemble("r1 = 5 ll; exit"), raw=True)
    assert text.splitlines()[1:] == [
        "     0: 18 01 00 00 05 00 00 00  r1 = 0x5 ll",
        "     1: 00 00 00 00 00 00 00 00",
        "     2: 95 00 00 00 00 00 00 00  exit",
    ]


def test_source_lines() -> None:
    """Line info shows before the instruction that it is about, and reads as a comment."""
    rows = np.zeros(2, LINE)
    strings = b"\0src/lb.c\0  int x = 1;\0return x; // done\0"
    rows["file_name_off"] = 1
    rows["line_off"] = [strings.index(b"  int"), strings.index(b"return")]
    rows["line_col"] = [12 << 10 | 3, 13 << 10]
    table = AnchoredTable(np.array([0, 1], np.int32), rows, Anchor.ENTRY, unique=True)
    program = Program(
        isa.concat([isa.mov(R1, 1), isa.exit_()]), tables={"line_info": table}, strings=strings
    )
    text = format_program(program)
    assert "       // lb.c:12  int x = 1;\n     0: r1 = 0x1\n" in text
    assert "       // lb.c:13  return x; // done\n     1: exit\n" in text
    assert assemble(text).to_bytes() == program.to_bytes()
    assert "//" not in format_program(program, sources=False)


@pytest.mark.parametrize(
    "name", ["", "r1", "call", "pc", "kfunc", "bpf_loop", "a b", "1x", "L3", "\u00e9"]
)
def test_awkward_names(name: str) -> None:
    """A function's name that cannot be a label, or means something else, still reads back."""
    insns = isa.concat([isa.call_subprog(2), isa.ja(0), isa.exit_(), isa.ja(-1)])
    program = Program(insns, subprogs=Subprogs.from_starts({0: name, 3: name}))
    again = assemble(format_program(program))
    assert again.to_bytes() == program.to_bytes()
    assert again.subprogs.start.tolist() == [0, 3]


def test_sections_are_named() -> None:
    """A program of several sections says where each begins."""
    subprogs = Subprogs(np.array([0, 1], np.int32), ("a", "b"), np.array([0, 1], np.int32))
    program = Program(isa.concat([isa.exit_()] * 2), subprogs=subprogs, sections=(".text", "xdp"))
    assert format_program(program) == (
        "// section '.text'\na:\n     0: exit\n\n// section 'xdp'\n.globl b\nb:\n     1: exit\n"
    )


def test_targets_outside() -> None:
    """A reference out of the program or into an ld_imm64 stays a number."""
    program = Program(isa.concat([isa.ja(100), isa.ja(1), isa.ld_imm64(R1, 0), isa.ja(-9)]))
    text = format_program(program)
    assert "goto +0x64" in text
    assert "goto +0x1" in text
    assert "goto -0x9" in text
    assert assemble(text).to_bytes() == program.to_bytes()


def test_relocated_call_stays_a_number() -> None:
    """A call that a relocation will fill refers to nothing here."""
    program = Program(isa.concat([isa.call_subprog(-1), isa.exit_()]), external=np.array([0]))
    assert "call pc-0x1" in format_program(program)


def test_jump_to_the_end() -> None:
    """A jump behind the last instruction has a label there."""
    assert format_program(assemble("goto end; end:")).endswith("L1:\n")


def test_dumped_callback() -> None:
    """A dump's function address, with a number in its upper half, loses nothing."""
    program = Program(isa.concat([isa.ld_imm64(R1, 1 | 7 << 32, 4), isa.exit_(), isa.exit_()]))
    assert assemble(format_program(program)).to_bytes() == program.to_bytes()


def test_empty() -> None:
    """An empty program is an empty listing."""
    assert format_program(Program(isa.concat([]))) == ""
    assert len(assemble("")) == 0
