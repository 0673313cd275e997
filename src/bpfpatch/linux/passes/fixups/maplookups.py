"""Look-ups in a map, written out in place of the call.

========================= ================================================
map                       what the body does
========================= ================================================
array                     index, compare, scale, add
percpu_array              the same to a per-CPU pointer, and this CPU's part
array_of_maps             the same to a pointer, or NULL
hash                      call the search; add the value's place in the node
lru_hash                  the same, and mark the node as used
percpu_hash               the same, then this CPU's part
hash_of_maps              the same, then the pointer
xskmap                    index, compare, scale, load
========================= ================================================

All others are a call of the map's own function: see `mapcalls`.

The kernel tells maps apart that were made without CAP_PERFMON: their indices
are masked as well. Here maps are a privileged user's.

Source: linux v6.18, kernel/bpf/arraymap.c, hashtab.c, net/xdp/xskmap.c,
functions named *_gen_lookup(), compared with what such a kernel writes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bpfpatch import isa
from bpfpatch.btf import Btf
from bpfpatch.facts import MapFacts, MapType
from bpfpatch.facts.functions import function
from bpfpatch.isa import R0, R1, R2, Reg
from bpfpatch.passes.target import Arch
from bpfpatch.patch import Body
from bpfpatch.program.types import Insns

from .job import body

INNER_MAP: Final = 1 << 12
"""BPF_F_INNER_MAP: other arrays of another size may be put in this one's place."""

_POINTER: Final = 8


def lookup_body(map_: MapFacts, btf: Btf, arch: Arch) -> Body | None:
    """The look-up in a map, or None where it stays a call.

    Raises:
        OptionError: the types do not have what is looked for.
    """
    if map_.type in _PER_CPU and not has_percpu_insn(arch):
        return None
    if map_.type in _FIXED_SIZE and map_.flags & INNER_MAP:
        return None
    make = _BODIES.get(map_.type)
    return None if make is None else make(map_, btf)


def _array(map_: MapFacts, btf: Btf) -> Body:
    return _indexed(map_, btf.offset_of("struct bpf_array", "value"), _padded(map_.value_size))


def _percpu_array(map_: MapFacts, btf: Btf) -> Body:
    place = btf.offset_of("struct bpf_array", "pptrs")
    return _indexed(map_, place, _POINTER, isa.load("u64", R0, R0, 0), this_cpu(R0))


def _array_of_maps(map_: MapFacts, btf: Btf) -> Body:
    # A NULL that was loaded and one for a bad index leave by the same instruction.
    return _indexed(
        map_,
        btf.offset_of("struct bpf_array", "value"),
        _POINTER,
        isa.load("u64", R0, R0, 0),
        isa.jump("==", R0, 0, 1),
    )


def _indexed(map_: MapFacts, value_off: int, elem_size: int, *more: Insns) -> Body:
    if elem_size & (elem_size - 1):
        scale = isa.alu("*=", R0, elem_size)
    else:
        scale = isa.alu("<<=", R0, elem_size.bit_length() - 1)
    return body(
        isa.alu("+=", R1, value_off),
        isa.load("u32", R0, R2, 0),
        isa.jump(">=", R0, map_.max_entries, 3 + len(more)),
        scale,
        isa.alu("+=", R0, R1),
        *more,
        isa.ja(1),
        isa.mov(R0, 0),
    )


def _xskmap(map_: MapFacts, btf: Btf) -> Body:
    return body(
        isa.load("u32", R0, R2, 0),
        isa.jump(">=", R0, map_.max_entries, 5),
        isa.alu("<<=", R0, _POINTER.bit_length() - 1),
        isa.alu("+=", R1, btf.offset_of("struct xsk_map", "xsk_map")),
        isa.alu("+=", R0, R1),
        isa.load("u64", R0, R0, 0),
        isa.ja(1),
        isa.mov(R0, 0),
    )


def _hash(map_: MapFacts, btf: Btf) -> Body:
    return _searched(map_, btf)


def _lru_hash(map_: MapFacts, btf: Btf) -> Body:
    ref = btf.offset_of("struct htab_elem", "lru_node.ref")
    mark = (
        isa.load("u8", R1, R0, ref),
        isa.jump("!=", R1, 0, 1),
        isa.store("u8", R0, ref, 1),
    )
    return _searched(map_, btf, before=mark)


def _percpu_hash(map_: MapFacts, btf: Btf) -> Body:
    return _searched(map_, btf, after=(isa.load("u64", R0, R0, 0), this_cpu(R0)))


def _hash_of_maps(map_: MapFacts, btf: Btf) -> Body:
    return _searched(map_, btf, after=(isa.load("u64", R0, R0, 0),))


def _searched(
    map_: MapFacts, btf: Btf, before: tuple[Insns, ...] = (), after: tuple[Insns, ...] = ()
) -> Body:
    value_off = btf.offset_of("struct htab_elem", "key") + _padded(map_.key_size)
    return body(
        isa.call_helper(function("__htab_map_lookup_elem")),
        isa.jump("==", R0, 0, 1 + len(before) + len(after)),
        *before,
        isa.alu("+=", R0, value_off),
        *after,
    )


def _padded(size: int) -> int:
    return (size + 7) & ~7


_BODIES: Final[dict[MapType, Callable[[MapFacts, Btf], Body]]] = {
    MapType.ARRAY: _array,
    MapType.PERCPU_ARRAY: _percpu_array,
    MapType.ARRAY_OF_MAPS: _array_of_maps,
    MapType.HASH: _hash,
    MapType.LRU_HASH: _lru_hash,
    MapType.PERCPU_HASH: _percpu_hash,
    MapType.HASH_OF_MAPS: _hash_of_maps,
    MapType.XSKMAP: _xskmap,
}

_PER_CPU: Final = (MapType.PERCPU_ARRAY, MapType.PERCPU_HASH)
_FIXED_SIZE: Final = (MapType.ARRAY, MapType.PERCPU_ARRAY)


# The kernel's own instruction for "this CPU's part", and which processors have it.

_ADDR_PERCPU: Final = -1
_MOV_64_REG: Final = 0xBF
_ARCHES: Final = ("x86_64", "aarch64", "riscv64")


def this_cpu(reg: Reg) -> Insns:
    """``r0 = &(void __percpu *)(r0)``: a mov that the JIT makes an addition of.

    Source: linux v6.18, include/linux/filter.h, BPF_MOV64_PERCPU_REG().
    """
    return isa.make(_MOV_64_REG, reg, reg, _ADDR_PERCPU)


def has_percpu_insn(arch: Arch) -> bool:
    """Whether a processor's JIT knows it.

    Source: linux v6.18, arch/*/net/bpf_jit*.c, bpf_jit_supports_percpu_insn().
    """
    return arch.name in _ARCHES
