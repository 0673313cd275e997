"""The table itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpfpatch import isa

# RFC 9669 sections 4 and 5: classes, operations, sizes and modes.
ALU_OPS = (*range(0x00, 0x80, 0x10), 0x90, 0xA0, 0xB0, 0xC0)
JUMP_OPS = (*range(0x10, 0x80, 0x10), 0xA0, 0xB0, 0xC0, 0xD0)
SIZES = (0x00, 0x08, 0x10, 0x18)
RFC_CODES = {
    *(op | source | cls for op in ALU_OPS for source in (0, 8) for cls in (0x04, 0x07)),
    *(op | source | cls for op in JUMP_OPS for source in (0, 8) for cls in (0x05, 0x06)),
    *(0x84, 0x87, 0xD4, 0xDC, 0xD7, 0x05, 0x06, 0x85, 0x95, 0x18, 0xC3, 0xDB),
    *(0x61 | size for size in SIZES),
    *(0x62 | size for size in SIZES),
    *(0x63 | size for size in SIZES),
    *(0x81 | size for size in SIZES[:3]),
    *(mode | size for mode in (0x20, 0x40) for size in SIZES[:3]),
}


def test_every_code_of_the_rfc_is_there() -> None:
    """The table has each opcode byte that RFC 9669 defines."""
    assert {op.code for op in isa.OPCODES} >= RFC_CODES


def test_what_the_rfc_lacks_is_marked() -> None:
    """A code that RFC 9669 does not define needs a newer kernel or is the kernel's own."""
    others = [op for op in isa.OPCODES if op.code not in RFC_CODES]
    assert others
    assert all(op.cpu >= isa.CPU_NEWER for op in others)


def test_names_are_unique() -> None:
    """A name stands for one row."""
    assert len(isa.BY_NAME) == len(isa.OPCODES)


def test_every_row_is_found_by_its_own_fields() -> None:
    """Decoding an instruction made from a row gives that row."""
    for row, op in enumerate(isa.OPCODES):
        insn = isa.make(op.code, 1, op.src or 0, op.off or 0, op.imm or 0)
        assert isa.rows(insn).tolist() == [row], op.name


# (code, src, off, imm) and the row that the sources named in the table give it.
MEANINGS = [
    ((0xBF, 2, 0, 0), "mov64_reg"),
    ((0xBF, 2, 8, 0), "movsx64_8"),
    ((0xBF, 2, 32, 0), "movsx64_32"),
    ((0xBF, 2, 1, 1), "addr_space_cast"),
    ((0xBF, 2, -1, 0), "mov_percpu"),
    ((0xBC, 2, 0, 0), "mov32_reg"),
    ((0xBC, 2, 16, 0), "movsx32_16"),
    ((0xBC, 2, 0, 1), "zext_mark"),
    ((0x37, 0, 0, 3), "div64_imm"),
    ((0x37, 0, 1, 3), "sdiv64_imm"),
    ((0x9C, 2, 1, 0), "smod32_reg"),
    ((0xD4, 0, 0, 16), "le16"),
    ((0xDC, 0, 0, 64), "be64"),
    ((0xD7, 0, 0, 32), "bswap32"),
    ((0x85, 0, 0, 1), "call_helper"),
    ((0x85, 1, 0, 1), "call_subprog"),
    ((0x85, 2, 0, 1), "call_kfunc"),
    ((0xE5, 0, 3, 0), "may_goto"),
    ((0xE5, 1, 3, 9), "call_args"),
    ((0x18, 0, 0, 0), "ld_imm64"),
    ((0x18, 1, 0, 0), "ld_map_fd"),
    ((0x18, 2, 0, 0), "ld_map_value"),
    ((0x18, 3, 0, 0), "ld_btf_id"),
    ((0x18, 4, 0, 0), "ld_func"),
    ((0x18, 5, 0, 0), "ld_map_idx"),
    ((0x18, 6, 0, 0), "ld_map_idx_value"),
    ((0xDB, 2, 0, 0x00), "atomic_add_dw"),
    ((0xDB, 2, 0, 0x41), "atomic_fetch_or_dw"),
    ((0xC3, 2, 0, 0x51), "atomic_fetch_and_w"),
    ((0xC3, 2, 0, 0xA0), "atomic_xor_w"),
    ((0xDB, 2, 0, 0xE1), "xchg_dw"),
    ((0xC3, 2, 0, 0xF1), "cmpxchg_w"),
    ((0xD3, 2, 0, 0x100), "load_acquire_b"),
    ((0xCB, 2, 0, 0x110), "store_release_h"),
    ((0xE3, 2, 0, 0xF1), "probe_cmpxchg_w"),
    ((0x0D, 0, 0, 0), "gotox"),
    ((0x06, 0, 0, 9), "gotol"),
    ((0xC2, 0, 0, 0), "nospec"),
    ((0xF5, 0, 0, 0), "tail_call"),
    ((0x39, 2, 0, 0), "probe_ldx_dw"),
]


@pytest.mark.parametrize(("fields", "name"), MEANINGS)
def test_meaning(fields: tuple[int, int, int, int], name: str) -> None:
    """One code with several meanings is told apart by src, off or imm."""
    code, src, off, imm = fields
    found = isa.rows(isa.make(code, 1, src, off, imm)).tolist()
    assert [isa.OPCODES[row].name for row in found] == [name]


@pytest.mark.parametrize(
    "fields",
    [
        (0x00, 0, 0, 0),  # the code of a second slot
        (0x86, 0, 0, 0),  # JMP32 | CALL
        (0x96, 0, 0, 0),  # JMP32 | EXIT
        (0x8F, 0, 0, 0),  # NEG | X
        (0x38, 0, 0, 0),  # ld_abs of 64 bits
        (0x99, 0, 0, 0),  # ldsx of 64 bits
        (0xBF, 0, 7, 0),  # a sign extension from 7 bits
        (0xBC, 0, 32, 0),  # a 32-bit sign extension from 32 bits
        (0x37, 0, 2, 0),  # neither division
        (0xD4, 0, 0, 8),  # a byte swap of 8 bits
        (0x85, 3, 0, 0),  # no kind of call
        (0x18, 7, 0, 0),  # no kind of ld_imm64
        (0xDB, 0, 0, 0x10),  # no atomic operation
        (0xDB, 0, 0, -1),
        (0xDB, 0, 0, 0x7FFFFFFF),
        (0xD3, 0, 0, 0),  # an atomic add of 8 bits
        (0xE5, 2, 0, 0),  # no conditional pseudo jump
        (0xFF, 0, 0, 0),
    ],
)
def test_unknown(fields: tuple[int, int, int, int]) -> None:
    """What the table lacks is unknown, reads and writes nothing and is for no cpu."""
    code, src, off, imm = fields
    insn = isa.concat([isa.make(code, 1, src, off, imm), isa.exit_()])
    assert isa.rows(insn)[0] == isa.UNKNOWN
    assert isa.unknown(insn).tolist() == [0]
    assert isa.reads(insn)[0] == isa.writes(insn)[0] == 0
    assert isa.min_cpu(insn)[0] == isa.CPU_INTERNAL
    assert isa.ref_kinds(insn)[0] == isa.RefKind.NONE


@given(st.integers(0, 2**64 - 1))
def test_opcode_of_one_is_that_of_many(word: int) -> None:
    """One instruction at a time and all at once, the same row is found."""
    row = int(isa.rows(np.array([word], np.uint64).view(isa.INSN))[0])
    assert isa.opcode_of(word) == (None if row < 0 else isa.OPCODES[row])


def test_opcode_of_each_selected_form() -> None:
    """Every row is found by its own selectors."""
    for opcode in isa.OPCODES:
        off, imm = (opcode.off or 0) & 0xFFFF, (opcode.imm or 0) & 0xFFFFFFFF
        word = opcode.code | (opcode.src or 0) << 12 | off << 16 | imm << 32
        assert isa.opcode_of(word) is opcode
        assert isa.OPCODES[isa.rows(np.array([word], np.uint64).view(isa.INSN))[0]] is opcode
