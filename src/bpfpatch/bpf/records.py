"""A program's func_info and line_info as bpf(2) takes them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bpfpatch.program import FUNC_INFO, LINE_INFO, Program


def func_info(program: Program) -> NDArray[Any]:
    """bpf_func_info rows; empty unless every subprog has one, since the kernel wants all or none.

    Source: linux v6.1, kernel/bpf/verifier.c, check_btf_func().
    """
    return _rows(program, FUNC_INFO)


def line_info(program: Program) -> NDArray[Any]:
    """bpf_line_info rows; empty unless every subprog starts with one.

    Source: linux v6.1, kernel/bpf/verifier.c, check_btf_line().
    """
    return _rows(program, LINE_INFO)


def _rows(program: Program, name: str) -> NDArray[Any]:
    table = program.tables.get(name)
    if table is None or not np.isin(program.subprogs.start, table.insn).all():
        return np.zeros(0, [("insn_off", "<u4")])
    fields = [(field, table.rows.dtype[field]) for field in table.rows.dtype.names or ()]
    out = np.zeros(len(table), np.dtype([("insn_off", "<u4"), *fields]))
    out["insn_off"] = table.insn
    for field, _ in fields:
        out[field] = table.rows[field]
    return out
