"""What calls of kernel functions take: their prototypes are among the object's types."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.btf import Btf, Func, FuncProto, Kind
from bpfpatch.elf import ElfObject
from bpfpatch.facts.helpers import MOST_ARGS
from bpfpatch.patch import CodeView
from bpfpatch.program import Program

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


def _n_params(btf: Btf, name: str) -> int | None:
    """How many arguments a function has that the object declares."""
    for type_id in btf.find(name, Kind.FUNC):
        func = btf.type(type_id)
        proto = btf.type(func.type_id) if isinstance(func, Func) else None
        if isinstance(proto, FuncProto):
            return len(proto.params)
    return None
