"""Programs with a line record on every instruction: the kernel then tells where each one went."""

from __future__ import annotations

import numpy as np

from bpfpatch.btf import Btf, BtfBuilder, Func, FuncLinkage, FuncProto, Int, IntEncoding
from bpfpatch.program import FUNC_INFO, LINE, LINE_INFO, Anchor, AnchoredTable, Program


def with_lines(program: Program) -> tuple[Program, Btf]:
    """A program with a line record for each instruction and a function record for each subprog.

    Args:
        program: without records.

    Returns:
        The program, its strings those of the types, and the types to load it with. The line
        number is the slot plus 1, the column 1.
    """
    builder = BtfBuilder()
    int_id = builder.add(Int("int", 4, 32, IntEncoding.SIGNED))
    proto = builder.add(FuncProto(int_id, ()))
    file_off, line_off = builder.string("case.s"), builder.string("insn")
    starts = program.subprogs.start
    ids = [
        builder.add(Func(f"f{index}", proto, FuncLinkage.STATIC)) for index in range(starts.size)
    ]
    slots = np.flatnonzero(~program.second_slots).astype(np.int32)
    lines = np.zeros(slots.size, LINE)
    lines["file_name_off"], lines["line_off"] = file_off, line_off
    lines["line_col"] = (slots + 1).astype(np.uint32) << 10 | 1
    functions = np.array([(type_id,) for type_id in ids], [("type_id", "<u4")])
    tables = {
        FUNC_INFO: AnchoredTable(starts, functions, Anchor.ENTRY, unique=True),
        LINE_INFO: AnchoredTable(slots, lines, Anchor.ENTRY, unique=True),
    }
    btf = builder.build()
    named = Program(
        program.insns,
        subprogs=program.subprogs,
        tables=tables,
        strings=btf.string_bytes,
    )
    return named, btf
