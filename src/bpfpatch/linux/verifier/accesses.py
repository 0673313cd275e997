"""Loads, stores and atomics: what they go through, and what a load gives.

Source: linux v6.18, kernel/bpf/verifier.c, check_mem_access(), check_atomic(),
check_ld_abs(), check_pseudo_btf_id().
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bpfpatch.btf import Btf
from bpfpatch.btf.types import Array, DataSec, Ptr, Struct, TypeTag, Union, Var
from bpfpatch.facts.columns import MemType
from bpfpatch.facts.kinds import ProgFlag
from bpfpatch.facts.maps import MapFacts
from bpfpatch.isa import PARAMS

from . import scalars
from .kerneltypes import KernelTypes
from .scalars import LOADED, LOADED_SIGNED, UNKNOWN, Pointer, Value
from .state import FRAME_POINTER, VerifierState, frame_pointer, read_stack, write_stack
from .values import LEGACY, RCU, TRUSTED, UNTRUSTED, is_pointer, lost, pointer

if TYPE_CHECKING:
    from .absint import Interpreter

_SIZES: Final = {0x00: 4, 0x08: 2, 0x10: 1, 0x18: 8}
_MODE, _MEMSX = 0xE0, 0x80
_CLASS, _ST = 0x07, 0x02
_FETCH, _CMPXCHG, _LOAD_ACQUIRE, _STORE_RELEASE = 0x01, 0xF1, 0x100, 0x110
_STACK_BYTES: Final = 512
_CTX, _STACK = int(MemType.CTX), int(MemType.STACK)
_MAP_VALUE, _BTF_ID = int(MemType.MAP_VALUE), int(MemType.BTF_ID)


class Accesses:
    """What instructions that access memory do to a state.

    Args:
        owner: the analysis that they are part of.
    """

    def __init__(self, owner: Interpreter) -> None:
        self._owner = owner
        self._findings = owner.findings
        self._in_rcu = not owner.subject.flags & ProgFlag.SLEEPABLE
        self._kptrs: dict[int, dict[int, Pointer]] = {}

    def load(self, slot: int, state: VerifierState) -> None:
        """An LDX."""
        owner = self._owner
        code = owner.code.opcode[slot]
        size = _SIZES[code & 0x18]
        value = self._read(slot, state, owner.code.src[slot], owner.code.off[slot], size)
        if code & _MODE == _MEMSX:
            value = (
                scalars.sign_extended(scalars.without_id(value), size, True)
                if scalars.is_scalar(value) and value is not LOADED[size]
                else LOADED_SIGNED[size]
            )
        state.regs[owner.code.dst[slot]] = value

    def _read(self, slot: int, state: VerifierState, base: int, byte_off: int, size: int) -> Value:  # noqa: PLR0911 - one way out for each kind
        if base == PARAMS:
            return LOADED[size]  # what callers store there is not followed
        at = state.regs[base] if base != FRAME_POINTER else frame_pointer(state)
        if not is_pointer(at):
            self._owner.may_reach(state, at)
            return LOADED[size]
        kind, ref, low, high, _, _, _, trust = at
        self._findings.access(slot, kind, ref, trust)
        is_fixed = low == high
        low += byte_off
        if kind == _STACK:
            self._owner.reach(state, ref, low)
            if not is_fixed or not -_STACK_BYTES <= low < 0:
                return LOADED[size]
            return read_stack(state.stacks[ref], low, size)
        if kind == _CTX:
            return self._context(low, size) if is_fixed else LOADED[size]
        if kind == _MAP_VALUE:
            return self._map_value(ref, low, size) if is_fixed else LOADED[size]
        if kind == _BTF_ID and is_fixed:
            return self._member(at, low, size)
        return LOADED[size]

    def _context(self, byte_off: int, size: int) -> Value:
        field = self._owner.context.get(byte_off)
        if field is None or (size < 8 and field.kind in (MemType.BTF_ID, MemType.SOCKET)):
            return LOADED[size]
        ident = 0
        if field.is_maybe_null:
            ident = self._owner.fresh()
        ref = self._owner.types.type_of(field)
        return pointer(
            field.kind, ref, 0, ident, is_maybe_null=field.is_maybe_null, trust=field.trust
        )

    def _map_value(self, ref: int, byte_off: int, size: int) -> Value:
        maps = self._owner.subject.maps
        if not 0 <= ref < len(maps):
            return LOADED[size]
        content = maps[ref].content
        if content is not None:
            if 0 <= byte_off <= len(content) - size:
                return int.from_bytes(content[byte_off : byte_off + size], "little")
            return LOADED[size]
        if size < 8 or maps[ref].btf is None:
            return LOADED[size]
        if ref not in self._kptrs:
            self._kptrs[ref] = kernel_pointers(maps[ref], self._owner.types)
        found = self._kptrs[ref].get(byte_off)
        return UNKNOWN if found is None else (*found[:4], self._owner.fresh(), True, *found[6:])

    def _member(self, at: Pointer, byte_off: int, size: int) -> Value:
        owner = self._owner
        trust = at[7] or (TRUSTED if at[6] else LEGACY)  # an acquired object is trusted
        step = owner.types.load(at[1], byte_off, size, trust, is_null=at[5], in_rcu=self._in_rcu)
        if step is None:
            return LOADED[size]
        ident = owner.fresh() if step.is_maybe_null else 0
        return pointer(
            MemType.BTF_ID, step.type_id, 0, ident,
            is_maybe_null=step.is_maybe_null, trust=step.trust,
        )  # fmt: skip

    def store(self, slot: int, state: VerifierState) -> None:
        """An ST or STX."""
        owner = self._owner
        code = owner.code.opcode[slot]
        is_imm = code & _CLASS == _ST
        size = _SIZES[code & 0x18]
        if is_imm:
            value: Value = owner.code.imm64[slot]
        else:
            value = self._stored(state, owner.code.src[slot], size)
        self._write(slot, state, owner.code.dst[slot], size, value, is_imm=is_imm)

    def _stored(self, state: VerifierState, register: int, size: int) -> Value:
        """The register's value; a number that is spilled whole is linked to what it leaves."""
        if register == FRAME_POINTER:
            return frame_pointer(state)
        value = state.regs[register]
        if isinstance(value, tuple) and (size == 8 or (size == 4 and scalars.is_scalar(value))):
            return self._owner.arithmetic.linked(value, register, state)
        return value

    def _write(
        self, slot: int, state: VerifierState, base: int, size: int, value: Value, *, is_imm: bool
    ) -> None:
        if base == PARAMS:
            state.lost |= lost(value)
            return
        at = state.regs[base] if base != FRAME_POINTER else frame_pointer(state)
        if not is_pointer(at):
            if self._owner.may_reach(state, at):
                state.forget_frames()
            return
        kind, ref, low, high, _, _, _, trust = at
        byte_off = self._owner.code.off[slot]
        self._findings.access(slot, kind, ref, trust)
        if kind != _STACK:
            return
        self._owner.reach(state, ref, low + byte_off)
        if low == high and -_STACK_BYTES <= low + byte_off < 0:
            write_stack(state.stacks[ref], low + byte_off, size, value, is_imm=is_imm)
        else:
            state.forget(ref, max(low + byte_off, -_STACK_BYTES), min(high + byte_off + size, 0))

    def atomic(self, slot: int, state: VerifierState) -> None:
        """An atomic operation, or an acquiring load or releasing store."""
        owner = self._owner
        size = _SIZES[owner.code.opcode[slot] & 0x18]
        operation, src = owner.code.imm[slot], owner.code.src[slot]
        regs = state.regs
        if operation == _LOAD_ACQUIRE:
            regs[owner.code.dst[slot]] = self._read(slot, state, src, owner.code.off[slot], size)
            return
        if operation == _STORE_RELEASE:
            value = self._stored(state, src, size)
            self._write(slot, state, owner.code.dst[slot], size, value, is_imm=False)
            return
        old = self._read(slot, state, owner.code.dst[slot], owner.code.off[slot], size)
        self._write(slot, state, owner.code.dst[slot], size, None, is_imm=False)
        if operation == _CMPXCHG:
            regs[0] = scalars.without_id(old) if scalars.is_scalar(old) else old
        elif operation & _FETCH:
            regs[src] = scalars.without_id(old) if scalars.is_scalar(old) else old

    def legacy_load(self, slot: int, state: VerifierState) -> None:
        """An LD_ABS or LD_IND."""
        state.regs[:6] = [UNKNOWN, None, None, None, None, None]

    def kernel_variable(self, type_id: int) -> Value:
        """The address of a variable of the kernel, or of a function."""
        types = self._owner.types
        variable = types.type(type_id)
        if not isinstance(variable, Var):
            return pointer(MemType.MEM)
        target = types.resolve(variable.type_id)
        if types.is_per_cpu(type_id):
            return pointer(MemType.BTF_ID, target)
        if isinstance(types.type(target), (Struct, Union)):
            return pointer(MemType.BTF_ID, target)
        return pointer(MemType.MEM)


# Fields of map values that hold pointers to objects of the kernel.
#
# Source: linux v6.18, kernel/bpf/btf.c, btf_find_kptr(), and kernel/bpf/verifier.c,
# check_map_kptr_access(): the type tags "kptr_untrusted", "kptr", "percpu_kptr" and "uptr".

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
