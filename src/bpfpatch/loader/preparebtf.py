"""Complete an object's types: the kernel wants what compilers leave to the loader.

Source: libbpf v1.1, src/libbpf.c, btf_fixup_datasec() and bpf_object__collect_externs();
libbpf v1.5, bpf_object__sanitize_prog() and bpf_object__add_programs(), which marks functions
of hidden visibility static.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from bpfpatch.btf import (
    Btf,
    BtfBuilder,
    DataSec,
    Func,
    FuncLinkage,
    FuncProto,
    Int,
    IntEncoding,
    Kind,
    SecVar,
    Var,
    VarLinkage,
)
from bpfpatch.elf import ElfObject
from bpfpatch.elf.symtab import STT_FUNC

from .kconfig import SECTION as KCONFIG
from .kconfig import kconfig_layout

_KSYMS: Final = ".ksyms"
_INT_SIZE: Final = 4


def prepare_btf(obj: ElfObject) -> Btf | None:
    """An object's types as the kernel takes them, or None where it has none.

    Ids and string offsets stay. Sizes of data sections and places of variables come
    from the ELF sections and symbols; externs become variables that look defined.

    Raises:
        FormatError: the types or symbols are broken.
    """
    btf = obj.btf
    if btf is None:
        return None
    edit = _Edit(obj, btf)
    # What no other object may call is verified with its callers, and not by itself.
    hidden = {one.name for one in obj.symbols if one.type == STT_FUNC and one.is_hidden}
    for type_id in _of_kind(btf, Kind.DATASEC):
        section = btf.type(type_id)
        assert isinstance(section, DataSec)
        if section.name == _KSYMS:
            edit.ksyms(type_id, section)
        elif section.name == KCONFIG:
            edit.kconfig(type_id, section)
        else:
            edit.data(type_id, section)
    for type_id in _of_kind(btf, Kind.FUNC):
        func = btf.type(type_id)
        assert isinstance(func, Func)
        if func.linkage == FuncLinkage.EXTERN:
            edit.function(type_id, func)
        elif func.linkage == FuncLinkage.GLOBAL and func.name in hidden:
            edit.builder.replace(type_id, replace(func, linkage=FuncLinkage.STATIC))
    return edit.builder.build()


def _of_kind(btf: Btf, kind: Kind) -> list[int]:
    kinds = btf.kinds
    return [int(type_id) for type_id in (kinds == kind).nonzero()[0]]


class _Edit:
    def __init__(self, obj: ElfObject, btf: Btf) -> None:
        self.btf = btf
        self.builder = BtfBuilder(btf)
        self.sizes = {section.name: section.size for section in reversed(obj.sections)}
        names = {section.index: section.name for section in obj.sections}
        self.places = {
            (names.get(symbol.section, ""), symbol.name): symbol.value for symbol in obj.symbols
        }
        self._dummy: int | None = None

    def data(self, type_id: int, section: DataSec) -> None:
        """Fill in a section's size and its variables' places, which are 0 as clang writes them."""
        size = section.size or self.sizes.get(section.name, 0)
        rows = section.variables
        if not section.size:
            rows = tuple(self._placed(section.name, row) for row in rows)
        rows = tuple(sorted(rows, key=lambda row: row.byte_off))
        self._replace(type_id, replace(section, size=size, variables=rows), section)

    def _placed(self, section: str, row: SecVar) -> SecVar:
        var = self.btf.type(row.type_id)
        if not isinstance(var, Var) or var.linkage == VarLinkage.STATIC:
            return row
        return replace(row, byte_off=self.places.get((section, var.name), row.byte_off))

    def ksyms(self, type_id: int, section: DataSec) -> None:
        """Kernel symbols become four-byte integers in a row, their functions one more each."""
        rows = []
        for number, row in enumerate(section.variables):
            found = self.btf.type(row.type_id)
            var_id = row.type_id
            if isinstance(found, Var):
                new = replace(found, type_id=self._int(), linkage=VarLinkage.GLOBAL)
                self.builder.replace(var_id, new)
            else:
                var_id = self._dummy_var()
            rows.append(SecVar(var_id, _INT_SIZE * number, _INT_SIZE))
        size = _INT_SIZE * len(rows)
        self.builder.replace(type_id, replace(section, size=size, variables=tuple(rows)))

    def kconfig(self, type_id: int, section: DataSec) -> None:
        """Configuration values get the places that `kconfig_layout` gives them."""
        layout = kconfig_layout(self.btf)
        rows = []
        for place in layout:
            var = self.btf.type(place.var_id)
            assert isinstance(var, Var)
            self.builder.replace(place.var_id, replace(var, linkage=VarLinkage.GLOBAL))
            rows.append(SecVar(place.var_id, place.byte_off, place.size))
        size = max((row.byte_off + row.size for row in rows), default=0)
        self.builder.replace(type_id, replace(section, size=size, variables=tuple(rows)))

    def function(self, type_id: int, func: Func) -> None:
        """An extern function is a global one with names for all its parameters."""
        self.builder.replace(type_id, replace(func, linkage=FuncLinkage.GLOBAL))
        proto = self.btf.type(func.type_id)
        if not isinstance(proto, FuncProto):
            return
        params = tuple(
            replace(param, name="arg") if param.type_id and not param.name else param
            for param in proto.params
        )
        self._replace(func.type_id, replace(proto, params=params), proto)

    def _replace(self, type_id: int, new: DataSec | FuncProto, old: DataSec | FuncProto) -> None:
        if new != old:
            self.builder.replace(type_id, new)

    def _int(self) -> int:
        for type_id in _of_kind(self.btf, Kind.INT):
            found = self.btf.type(type_id)
            if isinstance(found, Int) and (found.size, found.bits) == (_INT_SIZE, 32):
                return type_id
        return self.builder.add(Int("int", _INT_SIZE, 32, IntEncoding.SIGNED))

    def _dummy_var(self) -> int:
        if self._dummy is None:
            self._dummy = self.builder.add(Var("dummy_ksym", self._int(), VarLinkage.GLOBAL))
        return self._dummy
