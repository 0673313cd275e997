"""Fields of map values that hold pointers to objects of the kernel.

Source: linux v6.18, kernel/bpf/btf.c, btf_find_kptr(), and kernel/bpf/verifier.c,
check_map_kptr_access(): the type tags "kptr_untrusted", "kptr", "percpu_kptr" and "uptr".
"""

from __future__ import annotations

from typing import Final

from bpfpatch.btf import Btf
from bpfpatch.btf.types import Array, DataSec, Ptr, Struct, TypeTag, Var
from bpfpatch.facts.columns import MemType
from bpfpatch.facts.maps import MapFacts

from .kerneltypes import KernelTypes
from .scalars import Pointer
from .values import LEGACY, RCU, UNTRUSTED, pointer

_TAGS: Final = {
    "kptr_untrusted": UNTRUSTED,
    "kptr": RCU,
    "percpu_kptr": RCU,
    "uptr": LEGACY,
}
_MOST_ELEMENTS: Final = 64


def kernel_pointers(facts: MapFacts, types: KernelTypes) -> dict[int, Pointer]:
    """The pointers in a map's values, by byte_off."""
    if facts.btf is None or not facts.value_type_id:
        return {}
    out: dict[int, Pointer] = {}
    _collect(facts.btf, facts.value_type_id, 0, types, out, depth=8)
    return out


def _collect(
    btf: Btf, type_id: int, byte_off: int, types: KernelTypes, out: dict[int, Pointer], depth: int
) -> None:
    found = btf.type(btf.resolve(type_id))
    if depth == 0:
        return
    if isinstance(found, Struct):
        for member in found.members:
            _collect(btf, member.type_id, byte_off + member.bit_off // 8, types, out, depth - 1)
    elif isinstance(found, Array):
        size = btf.size_of(found.type_id)
        for index in range(min(found.count, _MOST_ELEMENTS)):
            _collect(btf, found.type_id, byte_off + index * size, types, out, depth - 1)
    elif isinstance(found, DataSec):
        for row in found.variables:
            variable = btf.type(row.type_id)
            if isinstance(variable, Var):
                at = byte_off + row.byte_off
                _collect(btf, variable.type_id, at, types, out, depth - 1)
    elif isinstance(found, Ptr):
        tag = btf.type(found.type_id)
        if isinstance(tag, TypeTag) and tag.name in _TAGS:
            name = btf.name_of(btf.resolve(tag.type_id))
            target = types.struct(name) if name else 0
            kind = MemType.MEM if tag.name == "uptr" else MemType.BTF_ID
            out[byte_off] = pointer(kind, target, is_maybe_null=True, trust=_TAGS[tag.name])
