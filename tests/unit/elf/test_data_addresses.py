"""Addresses of code in data: the relocation's type says what the field holds."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest

from bpfpatch.elf import ElfObject
from bpfpatch.patch import Body, PatchList
from support.machine.tools import need

SOURCE = """
	.text
	.globl fa
	.type fa,@function
fa:	r0 = 0
	exit
	.size fa, .-fa
	.globl fb
	.type fb,@function
fb:	r0 = 1
	r0 = 2
	r0 = 3
	exit
	.size fb, .-fb
	.section ptrs,"aw",@progbits
	.quad fb+16
	.quad fb+8
	.quad fb
"""


@pytest.fixture
def ambiguous(tmp_path: Path) -> bytes:
    """An object in which a field of 0x10 is an addend to a symbol whose value is 0x10, too."""
    need("clang-19")
    source, out = tmp_path / "a.s", tmp_path / "a.o"
    source.write_text(SOURCE)
    command = ["clang-19", "--target=bpf", "-c", "-x", "assembler", str(source), "-o", str(out)]
    subprocess.run(command, check=True)
    return out.read_bytes()


def pointers(obj: ElfObject) -> list[int]:
    """What the section of pointers holds."""
    from io import BytesIO

    from elftools.elf.elffile import ELFFile

    section = ELFFile(BytesIO(obj.to_bytes())).get_section_by_name("ptrs")
    return list(struct.unpack("<3Q", section.data()))


def test_addend_that_equals_the_symbol_is_an_addend(ambiguous: bytes):
    """Clang's field is an addend, also when it happens to equal the symbol's value."""
    obj = ElfObject.parse(ambiguous)
    patches = PatchList(obj.code)
    patches.insert_after(2, Body.asm("r5 = 0; r5 = 1"))
    moved = obj.with_code(patches.linearize())
    assert pointers(obj) == [16, 8, 0]
    assert pointers(moved) == [32, 24, 0]
