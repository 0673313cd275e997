"""Laws of decoding, text and assembly, for any instruction."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bpfpatch import isa
from bpfpatch.asm import assemble, format_insns, format_program, parse
from bpfpatch.errors import AsmError
from bpfpatch.program import Program
from support.machine.asmtools import random_insn

seeds = st.integers(0, 1 << 32)


def random_code(seed: int, size: int = 60) -> isa.Insns:
    """Random instructions of the table, well-formed one by one."""
    rng = random.Random(seed)
    return isa.concat(random_insn(rng.choice(isa.OPCODES), rng) for _ in range(size))


def random_words(seed: int, size: int = 400) -> isa.Insns:
    """Random bytes, but with small fields often, so that many hit a row."""
    rng = np.random.default_rng(seed)
    insns = np.frombuffer(rng.bytes(8 * size), isa.INSN).copy()
    is_small = rng.random(size) < 0.7
    insns["off"][is_small] = rng.integers(-2, 34, is_small.sum())
    insns["imm"][is_small] = rng.choice([0, 1, 16, 32, 64, 0x41, 0xE1, 0xF1, 0x100], is_small.sum())
    insns["regs"][is_small] &= 0x7F
    insns["code"][rng.random(size) < 0.2] = isa.LD_IMM64
    return insns


def naive_row(code: int, src: int, off: int, imm: int) -> int:
    """The row that an instruction is, by looking at all of them; the most special one wins."""
    found = isa.UNKNOWN
    for row, op in enumerate(isa.OPCODES):
        wanted = {"src": op.src, "off": op.off, "imm": op.imm}
        given_ = {"src": src, "off": off, "imm": imm}
        selects = [field for field, value in wanted.items() if value is not None]
        if op.code != code or any(wanted[field] != given_[field] for field in selects):
            continue
        if found == isa.UNKNOWN or len(selects) > 1:
            found = row
    return found


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_rows_are_what_the_table_says(seed: int) -> None:
    """Vectorised decoding finds what a search through the table finds."""
    insns = random_words(seed)
    second = isa.second_slots(insns)
    fields = zip(insns["code"], isa.src(insns), insns["off"], insns["imm"], strict=True)
    naive = [naive_row(*map(int, one)) for one in fields]
    naive = [isa.SECOND if is_second else row for row, is_second in zip(naive, second, strict=True)]
    assert isa.rows(insns).tolist() == naive


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_columns_agree_with_rows(seed: int) -> None:
    """A predicate's short cut by code gives what the row says."""
    insns = random_words(seed)
    ops = [isa.OPCODES[row] if row >= 0 else None for row in isa.rows(insns).tolist()]
    assert isa.ref_kinds(insns).tolist() == [op.ref if op else 0 for op in ops]
    assert isa.defines_32(insns).tolist() == [bool(op and op.defines_32) for op in ops]
    assert isa.is_subprog_call(insns).tolist() == [op is isa.BY_NAME["call_subprog"] for op in ops]
    assert isa.is_atomic(insns).tolist() == [bool(op and op.kind is isa.Kind.ATOMIC) for op in ops]


@given(seeds)
@settings(max_examples=60, deadline=None)
def test_text_reads_back(seed: int) -> None:
    """parse(format(x)) == x, for every instruction of the table."""
    insns = random_code(seed)
    for alu32 in (False, True):
        text = "; ".join(format_insns(insns, alu32=alu32))
        assert parse(text).insns.tolist() == insns.tolist()


@given(seeds)
@settings(max_examples=60, deadline=None)
def test_listing_reads_back(seed: int) -> None:
    """assemble(format_program(p)) has p's instructions and subprog starts."""
    program = Program(random_code(seed))
    again = assemble(format_program(program))
    assert again.insns.tolist() == program.insns.tolist()
    assert again.subprogs.start.tolist() == program.subprogs.start.tolist()


WORDS = """
r1 r2 w3 r10 r77 = += s>>= == goto if call exit lock ( ) [ ] * u64 u8 skb , ; @orig @end a: a b:
1: 1f 1b ll 5 -7 0x 0xfff 099 99999999999999999999 // # /* */ .8byte .subprog .globl & < <a> - +
(b7) cmpxchg_64 be16 func map id pc kfunc
"""
PIECES = st.sampled_from([*WORDS.split(), "\n", "\0", "\u00e9", " "])


def place_of_error(text: str) -> tuple[int, int] | None:
    """Where the AsmError is that a text gives, if it gives one."""
    try:
        assemble(text)
    except AsmError as error:
        return error.line, error.column
    return None


@given(st.lists(PIECES, max_size=30).map(" ".join) | st.text(max_size=200))
@settings(max_examples=600, deadline=None)
def test_any_text_assembles_or_is_an_asm_error(text: str) -> None:
    """Whatever the text, there is a program or an AsmError at a place of the text."""
    line, column = place_of_error(text) or (1, 1)
    lines = text.split("\n")
    assert 1 <= line <= len(lines)
    assert 1 <= column <= len(lines[line - 1]) + 1
