"""The kernel's functions and variables that a load refers to, as externs of an object.

Source: libbpf v1.5, src/libbpf.c, bpf_object__collect_externs() and
bpf_object__resolve_ksym_func_btf_id().
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.bpf.loadedbtf import vmlinux_btf
from bpfpatch.bpf.loadrequest import LoadRequest
from bpfpatch.btf import (
    BtfBuilder,
    DataSec,
    Func,
    FuncLinkage,
    Kind,
    SecVar,
    TypeCopier,
    Var,
    VarLinkage,
)
from bpfpatch.errors import UnsupportedError

_KSYMS: Final = ".ksyms"


class Externs:
    """What a program refers to by its number in the kernel's types.

    Args:
        insns: the program; its references are cleared as an object has them.
        request: the load.

    Attributes:
        declared: ids of the load's types that have become externs.
    """

    def __init__(self, insns: isa.Insns, request: LoadRequest) -> None:
        self._functions: dict[int, list[int]] = {}
        self._variables: dict[int, list[int]] = {}
        self._btf = request.btf
        self.declared: set[int] = set()
        program = request.program
        for slot in np.flatnonzero(isa.is_kfunc_call(insns)).tolist():
            if not insns["imm"][slot]:  # a weak one that the kernel has not, in dead code
                continue
            if insns["off"][slot]:
                raise UnsupportedError(f"{program.where(slot)} calls a function of a module")
            self._functions.setdefault(int(insns["imm"][slot]), []).append(slot)
            insns["regs"][slot] = isa.PseudoCall.SUBPROG << 4
            insns["imm"][slot] = -1
        for slot in np.flatnonzero(isa.is_pseudo(insns, isa.Pseudo.BTF_ID)).tolist():
            if not insns["imm"][slot]:
                continue
            if insns["imm"][slot + 1]:
                raise UnsupportedError(f"{program.where(slot)} loads a variable of a module")
            self._variables.setdefault(int(insns["imm"][slot]), []).append(slot)
            insns["regs"][slot] &= 0xF
            insns["imm"][slot] = 0

    def __bool__(self) -> bool:
        return bool(self._functions or self._variables)

    def declare(self, types: BtfBuilder) -> dict[int, str]:
        """Declare all in a program's types; names by slot.

        Raises:
            UnsupportedError: one of them is neither a function nor a variable.
        """
        kernel = vmlinux_btf()
        copier = TypeCopier(kernel, types)
        uses: dict[int, str] = {}
        rows = []
        for ids in (self._functions, self._variables):
            for type_id, slots in ids.items():
                found = kernel.type(type_id)
                new: Func | Var
                if isinstance(found, Func):
                    proto = copier.copy(found.type_id)
                    new = replace(found, type_id=proto, linkage=FuncLinkage.EXTERN)
                elif isinstance(found, Var):
                    var_type = copier.copy(found.type_id)
                    new = replace(found, type_id=var_type, linkage=VarLinkage.EXTERN)
                else:
                    raise UnsupportedError(
                        f"the kernel's type {type_id} is neither a function nor a variable"
                    )
                rows.append(SecVar(self._put(types, new), 0, 0))
                uses |= dict.fromkeys(slots, found.name)
        section = DataSec(_KSYMS, 0, tuple(rows))
        known = () if self._btf is None else self._btf.find(_KSYMS, Kind.DATASEC)
        if known:
            types.replace(known[0], section)
        else:
            types.add(section)
        return uses

    def _put(self, types: BtfBuilder, new: Func | Var) -> int:
        """Its id; loaders take the first of its name, which may be what one has left of it."""
        known = () if self._btf is None else self._btf.find(new.name, new.kind)
        if not known:
            return types.add(new)
        types.replace(known[0], new)
        self.declared.add(known[0])
        return known[0]
