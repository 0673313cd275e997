"""What a global subprog may take for granted of its arguments.

Source: linux v6.18, kernel/bpf/btf.c, btf_prepare_func_args(); kernel/bpf/verifier.c,
do_check_common().
"""

from __future__ import annotations

from typing import Final

import numpy as np

from bpfpatch.btf import Btf, Kind
from bpfpatch.btf.types import DeclTag, Func, FuncLinkage, FuncProto, Param, Ptr
from bpfpatch.facts.columns import MemType
from bpfpatch.facts.subject import Subject
from bpfpatch.program import FUNC_INFO, AnchoredTable, Program

from .contexts import STRUCTS
from .scalars import UNKNOWN, Value
from .values import pointer

_MOST_ARGS: Final = 5
_WITHOUT_SIZE: Final = (Kind.VOID, Kind.FWD, Kind.FUNC, Kind.FUNC_PROTO)
_EXCEPTION: Final = "exception_callback:"


def is_global(program: Program, subject: Subject, slot: int) -> bool:
    """Whether the subprog that starts at a slot is verified on its own."""
    found = _function(program, subject.btf, slot)
    return found is not None and found.linkage == FuncLinkage.GLOBAL


def global_arguments(program: Program, subject: Subject, slot: int) -> list[Value]:
    """R0 to R9 at the start of a global subprog."""
    regs: list[Value] = [None] * 10
    found = _function(program, subject.btf, slot)
    btf = subject.btf
    if found is None or btf is None:
        return regs
    proto = btf.type(found.type_id)
    if not isinstance(proto, FuncProto):
        return regs
    for register, param in enumerate(proto.params[:_MOST_ARGS], 1):
        regs[register] = _argument(btf, subject, param, register)
    return regs


def argument_sizes(program: Program, subject: Subject, slot: int) -> dict[int, int]:
    """Bytes at each pointer that a subprog takes, by register; void has none."""
    found = _function(program, subject.btf, slot)
    btf = subject.btf
    if found is None or btf is None:
        return {}
    proto = btf.type(found.type_id)
    if not isinstance(proto, FuncProto):
        return {}
    out = {}
    for register, param in enumerate(proto.params[:_MOST_ARGS], 1):
        target = _pointee(btf, param)
        if target:
            out[register] = _size(btf, target)
    return out


def exception_callback(program: Program, subject: Subject) -> int | None:
    """Where the subprog starts that a thrown exception ends in; it always counts as called.

    Source: linux v6.18, kernel/bpf/verifier.c, do_check_subprogs(); kernel/bpf/btf.c,
    btf_find_decl_tag_value().
    """
    btf, table = subject.btf, program.tables.get(FUNC_INFO)
    if btf is None or table is None or not len(table):
        return None
    numbers = _type_ids(table)
    tags = np.flatnonzero(btf.kinds == Kind.DECL_TAG).tolist()
    for tag in (btf.type(type_id) for type_id in tags):
        assert isinstance(tag, DeclTag)
        if tag.type_id != numbers[0] or not tag.name.startswith(_EXCEPTION):
            continue
        wanted = tag.name.removeprefix(_EXCEPTION)
        for slot, number in zip(table.insn.tolist(), numbers, strict=True):
            if btf.name_of(number) == wanted:
                return int(slot)
    return None


def _type_ids(table: AnchoredTable) -> list[int]:
    rows = table.rows
    out: list[int] = (rows["type_id"] if rows.dtype.names else rows).tolist()
    return out


def _function(program: Program, btf: Btf | None, slot: int) -> Func | None:
    table = program.tables.get(FUNC_INFO)
    if table is None or btf is None:
        return None
    row = int(table.insn.searchsorted(slot))
    if row >= len(table) or table.insn[row] != slot:
        return None
    type_id = _type_ids(table)[row]
    found = btf.type(type_id) if 0 < type_id < len(btf) else None
    return found if isinstance(found, Func) else None


def _pointee(btf: Btf, param: Param) -> int:
    found = btf.type(btf.resolve(param.type_id))
    return found.type_id if isinstance(found, Ptr) else 0


def _size(btf: Btf, type_id: int) -> int:
    inner = btf.resolve(type_id)
    if btf.head(inner).number in _WITHOUT_SIZE:
        return 0
    return btf.size_of(inner)


def _argument(btf: Btf, subject: Subject, param: Param, register: int) -> Value:
    found = btf.type(btf.resolve(param.type_id))
    if not isinstance(found, Ptr):
        return UNKNOWN
    names = {btf.name_of(found.type_id), btf.name_of(btf.resolve(found.type_id))}
    if names & set(STRUCTS.get(subject.prog_type, ())):
        return pointer(MemType.CTX)
    if register == 1 and param.name == "ctx" and not _size(btf, found.type_id):
        return pointer(MemType.CTX)
    return pointer(MemType.MEM, 0, 0, register, is_maybe_null=True)
