"""Programs of struct_ops: functions that fill a table of the kernel's.

Source: libbpf v1.1, src/libbpf.c, bpf_object__collect_st_ops_relos() and
bpf_map__init_kern_struct_ops().
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bpfpatch.bpf.errors import KernelError
from bpfpatch.bpf.loadedbtf import vmlinux_btf
from bpfpatch.btf import Btf, DataSec, Kind, Struct, Var
from bpfpatch.elf import ElfObject
from bpfpatch.elf.mapdefs import pointers_in

from .corematch import essential_name

_SECTIONS: Final = (".struct_ops", ".struct_ops.link")


@dataclass(frozen=True, slots=True)
class StructOpsPlace:
    """The entry of a table that a program is for.

    Attributes:
        struct: the table's type, such as ``tcp_congestion_ops``.
        member: the entry's name.
    """

    struct: str
    member: str

    def in_kernel(self) -> tuple[int, int]:
        """(id of the type, index of the member) in the kernel's types.

        Raises:
            KernelError: this kernel has no such table or entry.
        """
        kernel = vmlinux_btf()
        found = kernel.find_one(self.struct, Kind.STRUCT)
        record = kernel.type(found) if found is not None else None
        if found is None or not isinstance(record, Struct):
            raise KernelError(0, f"this kernel has no struct {self.struct}")
        for index, member in enumerate(record.members):
            if member.name == self.member:
                return found, index
        raise KernelError(0, f"this kernel's struct {self.struct} has no {self.member}")


def struct_ops_places(obj: ElfObject) -> dict[str, StructOpsPlace]:
    """Which entry each program of an object is for; others are left out."""
    btf = obj.btf
    if btf is None:
        return {}
    out: dict[str, StructOpsPlace] = {}
    for section in _SECTIONS:
        pointers = pointers_in(obj, section)
        starts = _variables(obj, btf, section) if pointers else []
        for byte_off, program in pointers:
            for start, struct in starts:
                place = _place(struct, 8 * (byte_off - start))
                if place is not None:
                    out.setdefault(program, place)
    return out


def _variables(obj: ElfObject, btf: Btf, section: str) -> list[tuple[int, Struct]]:
    """(byte_off, type) of a section's variables."""
    index = obj.raw.find(section)
    starts = {symbol.name: symbol.value for symbol in obj.symbols if symbol.section == index}
    out = []
    for type_id in btf.find(section, Kind.DATASEC):
        record = btf.type(type_id)
        assert isinstance(record, DataSec)
        for row in record.variables:
            var = btf.type(row.type_id)
            struct = btf.type(btf.resolve(var.type_id)) if isinstance(var, Var) else None
            if isinstance(struct, Struct):
                out.append((starts.get(var.name, row.byte_off), struct))
    return out


def _place(struct: Struct, bit_off: int) -> StructOpsPlace | None:
    if not 0 <= bit_off < 8 * struct.size:
        return None
    for member in struct.members:
        if member.bit_off == bit_off:
            return StructOpsPlace(essential_name(struct.name), member.name)
    return None
