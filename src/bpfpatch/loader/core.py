"""CO-RE: adapt a program's instructions to the running kernel's types.

Source: linux v6.1, tools/lib/bpf/relo_core.c, bpf_core_calc_relo_insn() and
bpf_core_patch_insn(); tools/lib/bpf/libbpf.c, bpf_core_find_cands().
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.bpf.errors import CoreRelocationError
from bpfpatch.bpf.loadedbtf import vmlinux_btf
from bpfpatch.btf import Btf, Kind
from bpfpatch.elf.space import CORE_RELO
from bpfpatch.errors import BpfPatchError
from bpfpatch.facts.functions import CORE_POISON
from bpfpatch.program import Program

from .corematch import essential_name
from .corespec import CoreKind, Spec, Types, match_spec, parse_spec
from .corevalue import CoreResult, relocate

_CLASS: Final = 0x07
_ALU, _ALU64 = 0x04, 0x07
_LD, _LDX, _ST, _STX = range(4)
_SIZE: Final = 0x18
_SIZE_CODE: Final = {4: 0x00, 2: 0x08, 1: 0x10, 8: 0x18}
_SIZE_BYTES: Final = {code: size for size, code in _SIZE_CODE.items()}
_MAX_OFF: Final = (1 << 15) - 1
_U64: Final = (1 << 64) - 1


class CoreTypes(Types):
    """The kernel's types, with a way to find those that a name can mean."""

    def __init__(self, btf: Btf) -> None:
        super().__init__(btf)
        self._candidates: dict[str, tuple[int, ...]] = {}

    def candidates(self, name: str) -> tuple[int, ...]:
        """Ids of all types with this essential name, ascending."""
        name = essential_name(name)
        if name not in self._candidates:
            found = set(self.btf.find(name))
            # Flavors in the kernel's own types are rare: look among its strings first.
            wanted = b"\0" + re.escape(name.encode("utf-8", "surrogateescape")) + b"___[^\0]*"
            for text in re.findall(wanted, self.btf.string_bytes):
                flavor = text[1:].decode("utf-8", "surrogateescape")
                if essential_name(flavor) == name:
                    found.update(self.btf.find(flavor))
            self._candidates[name] = tuple(sorted(found))
        return self._candidates[name]


@cache
def kernel_types() -> CoreTypes:
    """The running kernel's."""
    return CoreTypes(vmlinux_btf())


def apply_core(program: Program, btf: Btf, kernel: CoreTypes | None = None) -> NDArray[Any]:
    """Apply a linked program's CO-RE records.

    Args:
        program: has a ``core_relo`` table.
        btf: the types that the table refers to.
        kernel: the types to adapt to; the running kernel's if not given.

    Returns:
        (n,) `isa.INSN`, new.

    Raises:
        CoreRelocationError: a record does not fit its instruction, or is ambiguous.
        KernelError: the kernel tells no types.
    """
    insns = program.insns.copy()
    table = program.tables.get(CORE_RELO)
    if table is None or not len(table) or "kind" not in (table.rows.dtype.names or ()):
        return insns  # what clang 9 wrote libbpf ignores, see `bpfpatch.btf.ext`
    resolver = _Resolver(Types(btf), kernel)
    rows = table.rows
    for slot, type_id, str_off, kind in zip(
        table.insn.tolist(),
        rows["type_id"].tolist(),
        rows["access_str_off"].tolist(),
        rows["kind"].tolist(),
        strict=True,
    ):
        try:
            result = resolver.resolve(type_id, btf.string(str_off), kind)
            _patch(insns, slot, result)
        except CoreRelocationError:
            raise
        except (BpfPatchError, ValueError) as error:
            raise CoreRelocationError(program.where(slot), f"CO-RE: {error}") from error
    return insns


class _Resolver:
    """Resolves the records of one program; candidates that once fit are the only ones later."""

    def __init__(self, local: Types, kernel: CoreTypes | None) -> None:
        self.local = local
        self._kernel = kernel
        self._candidates: dict[int, list[int]] = {}
        self._known: dict[tuple[int, str, int], CoreResult] = {}

    @property
    def kernel(self) -> CoreTypes:
        """The kernel's types, read when first needed."""
        if self._kernel is None:
            self._kernel = kernel_types()
        return self._kernel

    def resolve(self, type_id: int, access: str, kind_number: int) -> CoreResult:
        """What one record comes to."""
        key = (type_id, access, kind_number)
        if key not in self._known:
            self._known[key] = self._resolve(type_id, access, CoreKind(kind_number))
        return self._known[key]

    def _resolve(self, type_id: int, access: str, kind: CoreKind) -> CoreResult:
        mine = parse_spec(self.local, type_id, access, kind)
        if kind is CoreKind.TYPE_ID_LOCAL:
            return CoreResult(type_id, type_id, is_exact=False)
        fitting: list[tuple[int, CoreResult]] = []
        candidates = self._candidates_of(type_id)
        for candidate in candidates:
            theirs = match_spec(self.local, mine, self.kernel, candidate, kind)
            if theirs is not None:
                fitting.append((candidate, self._relocate(kind, mine, theirs)))
        if not fitting:
            return self._relocate(kind, mine, None)
        first = fitting[0][1]
        for candidate, other in fitting[1:]:
            if (other.bit_off, other.is_poison, other.new) != (
                first.bit_off,
                first.is_poison,
                first.new,
            ):
                raise ValueError(
                    f"types {fitting[0][0]} and {candidate} of the kernel's both fit, and differ: "
                    f"{first.new} or {other.new}"
                )
        self._candidates[type_id] = [candidate for candidate, _ in fitting]
        return first

    def _relocate(self, kind: CoreKind, mine: Spec, theirs: Spec | None) -> CoreResult:
        return relocate(kind, self.local, mine, self.kernel, theirs)

    def _candidates_of(self, type_id: int) -> list[int]:
        if type_id not in self._candidates:
            name = self.local.btf.name_of(type_id)
            if not name:
                raise ValueError(f"type {type_id} has no name to look for in the kernel's types")
            kernel = self.kernel
            number = _kind_class(self.local.btf.head(type_id).number)
            self._candidates[type_id] = [
                found
                for found in kernel.candidates(name)
                if _kind_class(kernel.btf.head(found).number) == number
            ]
        return self._candidates[type_id]


def _kind_class(number: int) -> int:
    return int(Kind.ENUM) if number == Kind.ENUM64 else number


def _patch(insns: NDArray[Any], slot: int, result: CoreResult) -> None:
    """Put a record's number into its instruction."""
    code = int(insns["code"][slot])
    group = code & _CLASS
    if group in (_ALU, _ALU64):
        if code & 0x08:
            raise ValueError("its instruction takes a register where the number has to go")
        _patch_alu(insns, slot, result)
    elif group in (_LDX, _ST, _STX):
        _patch_memory(insns, slot, result)
    else:
        _patch_imm64(insns, slot, result)


def _poison(insns: NDArray[Any], slot: int, count: int) -> None:
    insns[slot : slot + count] = isa.make(0x85, imm=CORE_POISON)


def _expect(found: int, result: CoreResult) -> None:
    if result.is_exact and found & _U64 != result.old & _U64:
        raise ValueError(
            f"its instruction holds {found} where the compiler put {result.old}: "
            "was it changed, or split?"
        )


def _patch_alu(insns: NDArray[Any], slot: int, result: CoreResult) -> None:
    if result.is_poison:
        _poison(insns, slot, 1)
        return
    _expect(int(insns["imm"][slot]), result)
    insns["imm"][slot] = np.uint32(result.new & 0xFFFFFFFF).view(np.int32)


def _patch_memory(insns: NDArray[Any], slot: int, result: CoreResult) -> None:
    if result.is_poison:
        _poison(insns, slot, 1)
        return
    _expect(int(insns["off"][slot]), result)
    if result.new > _MAX_OFF:
        raise ValueError(f"byte_off {result.new} does not fit its field, which holds {_MAX_OFF}")
    if result.is_misread:
        _poison(insns, slot, 1)
        return
    insns["off"][slot] = result.new
    if result.old_size == result.new_size:
        return
    code = int(insns["code"][slot])
    if _SIZE_BYTES[code & _SIZE] != result.old_size or result.new_size not in _SIZE_CODE:
        raise ValueError(
            f"its instruction moves {_SIZE_BYTES[code & _SIZE]} bytes of a field that has "
            f"{result.old_size} in the program and {result.new_size} in the kernel"
        )
    insns["code"][slot] = code & ~_SIZE | _SIZE_CODE[result.new_size]


def _patch_imm64(insns: NDArray[Any], slot: int, result: CoreResult) -> None:
    if int(insns["code"][slot]) != isa.LD_IMM64 or int(insns["regs"][slot]) >> 4:
        raise ValueError("its instruction has no field for the number")
    if result.is_poison:
        _poison(insns, slot, 2)
        return
    low, high = (int(insns["imm"][at]) & 0xFFFFFFFF for at in (slot, slot + 1))
    _expect(low | high << 32, result)
    halves = np.array([result.new & 0xFFFFFFFF, result.new >> 32 & 0xFFFFFFFF], np.uint32)
    insns["imm"][slot : slot + 2] = halves.view(np.int32)
