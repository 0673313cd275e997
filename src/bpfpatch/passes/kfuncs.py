"""What calls of kernel functions and global functions take: the object's types say it."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.btf import Btf, Func, FuncLinkage, FuncProto, Kind
from bpfpatch.dataflow.backward import Masks
from bpfpatch.elf import ElfObject
from bpfpatch.elf.decode import is_text_name
from bpfpatch.elf.space import SYMBOL_TABLE
from bpfpatch.facts.helperproto import MOST_ARGS
from bpfpatch.patch import CodeView
from bpfpatch.program import Program
from bpfpatch.program.types import LOST, Mask, Slots

_STAND_INS: Final = (
    "ktime_get_ns",
    "get_cgroup_classid",
    "map_lookup_elem",
    "probe_read",
    "map_update_elem",
    "csum_diff",
)
"""Helpers by how many arguments they take, which return something and call nothing back."""


def called_names(obj: ElfObject, program: Program) -> dict[int, str]:
    """The names of kernel functions, by the slot of the call."""
    table, symbols = program.tables["reloc"], obj.symbols
    outside = set(program.external.tolist())
    is_call = isa.alone(isa.is_call, program.insns[table.insn])
    slots, indices = table.insn[is_call].tolist(), table.rows["sym"][is_call].tolist()
    pairs = zip(slots, indices, strict=True)
    return {slot: symbols[index].name for slot, index in pairs if slot in outside}


def with_stand_ins(view: CodeView, names: dict[int, str], btf: Btf | None) -> CodeView:
    """The view with helper calls for those of kernel functions, of as many arguments.

    Analyses know nothing of a kernel function; all that they need to know of it is
    how many registers it reads.

    Args:
        view: the code.
        names: of kernel functions, by the slot of the call in the view.
        btf: the object's types.
    """
    if not names or btf is None:
        return view
    insns = view.insns.copy()
    for slot, name in names.items():
        count = _n_params(btf, name)
        if count is not None and count <= MOST_ARGS:
            insns[slot] = isa.call_helper(_STAND_INS[count])[0]
    return replace(view, insns=np.ascontiguousarray(insns))


def arguments_taken(view: CodeView, program: Program, btf: Btf | None) -> Masks | None:
    """(m,) registers that each subprog may be given at most, by its prototype; None without types.

    The verifier gives a global function what its prototype has and no more, whatever else its
    callers have set; a static one gets all. A program gets its context, even one whose
    prototype says void, as those written in assembly do.
    """
    if btf is None:
        return None
    out = np.full(len(view.starts), isa.ARGS, np.uint16)
    enters = may_be_programs(view, program)
    for row, subprog in enumerate(view.subprog.tolist()):
        name = program.subprogs.names[subprog]
        count = _n_params(btf, name, FuncLinkage.GLOBAL) if name and not enters[row] else None
        if count is not None and count < MOST_ARGS:
            out[row] = ((1 << count) - 1) << 1
    return out


def may_be_programs(view: CodeView, program: Program) -> Mask:
    """(m,) functions that the kernel may enter: of a program's section, or called by none."""
    called = view.subprog_of(view.ref_target[view.ref_is_entry & (view.ref_target != LOST)])
    subprogs = program.subprogs
    out: Mask = subprogs.is_root[view.subprog] | ~np.isin(np.arange(len(view.starts)), called)
    if SYMBOL_TABLE in program.tables:  # an object's code: a flat program is all of one section
        is_text = np.array([is_text_name(name) for name in program.sections], bool)
        out |= ~is_text[subprogs.section[view.subprog]]
    return out


def checked_alone(view: CodeView, program: Program, btf: Btf | None) -> Mask | None:
    """(m,) global functions, which the verifier checks alone, by their types; None without."""
    if btf is None:
        return None
    names = [program.subprogs.names[subprog] for subprog in view.subprog.tolist()]
    is_checked = [
        bool(name) and _n_params(btf, name, FuncLinkage.GLOBAL) is not None for name in names
    ]
    return np.array(is_checked, bool)


def roots_of(view: CodeView, program: Program, btf: Btf | None, mains: Slots) -> list[int]:
    """The subprogs, by number, whose R0 the kernel looks at.

    They are the programs, what it calls back, and global functions that return something: all
    but static functions and those of type void. Without types, all.

    Source: linux v6.18, kernel/bpf/verifier.c, check_return_code() and prepare_func_exit().
    """
    if btf is None:
        return list(range(len(view.starts)))
    live = view.ref_is_entry & (view.ref_target != LOST)
    slots, goals = view.ref_slot[live], view.subprog_of(view.ref_target[live])
    is_call = isa.alone(isa.is_call, view.insns[slots])
    called, pointed_at = set(goals[is_call].tolist()), set(goals[~is_call].tolist())
    out = set(view.subprog_of(mains).tolist()) | pointed_at
    for row, subprog in enumerate(view.subprog.tolist()):
        name = program.subprogs.names[subprog]
        if row not in called or not name or _may_be_checked(btf, name):
            out.add(row)
    return sorted(out)


def _may_be_checked(btf: Btf, name: str) -> bool:
    """Whether some function of this name, if there is any, is global and returns something."""
    found = [btf.type(one) for one in btf.find(name, Kind.FUNC)]
    for func in found:
        proto = btf.type(func.type_id) if isinstance(func, Func) else None
        is_static = isinstance(func, Func) and func.linkage == FuncLinkage.STATIC
        is_void = isinstance(proto, FuncProto) and proto.type_id == 0
        if not (is_static or is_void):
            return True
    return not found


def _n_params(btf: Btf, name: str, linkage: FuncLinkage | None = None) -> int | None:
    """How many arguments a function has that the object declares, of one linkage or any."""
    for type_id in btf.find(name, Kind.FUNC):
        func = btf.type(type_id)
        proto = btf.type(func.type_id) if isinstance(func, Func) else None
        is_it = linkage is None or (isinstance(func, Func) and func.linkage == linkage)
        if isinstance(proto, FuncProto) and is_it:
            return len(proto.params)
    return None
