"""Aux data from the verifier's own log: the columns of `bpfpatch.facts.columns`.

Source: linux v6.18, kernel/bpf/verifier.c, save_aux_ptr_type(), record_func_map(),
record_func_key(), update_loop_inline_state(), print_verification_stats().
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.btf import Btf, Kind
from bpfpatch.facts import columns as col
from bpfpatch.facts.columns import CALLBACK, MANY, NONE, SEEN, MemType
from bpfpatch.facts.helpers import HELPER_PROTOS
from bpfpatch.facts.kinds import MapType
from bpfpatch.facts.maps import MapFacts
from bpfpatch.facts.subject import Subject
from bpfpatch.linux.verifier.kerneltypes import KernelTypes
from bpfpatch.program import Anchor, AnchoredTable, Column, Program
from bpfpatch.program.types import Mask

from .logscan import Scan, Wish, scan_log
from .provenance import Origin, Question, origins
from .regtype import MapKey, RegType, merge, parse_reg
from .zextlog import zext_from_log

_TAIL_CALL: Final = isa.HELPER_IDS["tail_call"]
_LOOP: Final = isa.HELPER_IDS["loop"]
_MAP_REG: Final = {
    number: proto.map_reg for number, proto in HELPER_PROTOS.items() if proto.keeps_map
}
_KEY_REG: Final = 3
_LOOP_FLAGS_REG: Final = 4
_LOOP_CALLBACK_REG: Final = 2
_OF_MAPS: Final = (MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS)


def aux_from_log(
    log: str,
    program: Program,
    subject: Subject,
    *,
    map_names: Sequence[str] = (),
    kernel_btf: Btf | None = None,
) -> Program:
    """A program with what the verifier found out of each instruction.

    Adds the columns seen, zext_dst, mem_type, mem_id, call_map, call_key and callback, and with a
    log of level 4 the table stack_depth: the verifier's figures without what the kernel's own
    rewriting of bpf_loop and may_goto adds to them.

    Args:
        log: of log_level 2, better 6, of a load that went well.
        program: exactly what was submitted; its column ``ld_map`` tells maps that look the same
            in the log from each other.
        subject: the maps that ``ld_map`` counts; those that are found in maps of maps as well,
            see `bpfpatch.kernel.submitted`.
        map_names: for each of the subject's maps the name that the kernel shows, of 15
            characters; where not given, any name will do.
        kernel_btf: the kernel's types, for the numbers of kernel objects' types and the arguments
            of its functions.

    Raises:
        FormatError: the log is of another program.
    """
    insns = program.insns
    bases = _bases(insns)
    calls = _calls(insns)
    sums = _arithmetic(insns) if _has_arena(subject) else {}
    scan = scan_log(log, program, _wishes(insns, bases, calls, sums))
    facts = _Facts(program, subject, scan, tuple(map_names), kernel_btf)
    facts.resolve(bases, calls)
    facts.find_arena_pointers(sums)
    second = np.flatnonzero(program.second_slots)
    scan.seen[second] = scan.seen[second - 1]
    is_void = KernelTypes(kernel_btf).returns_nothing(subject)
    made = {
        col.SEEN: scan.seen,
        col.ZEXT_DST: zext_from_log(log, program, kernel_btf, is_void=is_void),
        col.MEM_TYPE: facts.mem_type,
        col.MEM_ID: facts.mem_id,
        col.CALL_MAP: facts.call_map,
        col.CALL_KEY: facts.call_key,
        col.CALLBACK: facts.callback,
    }
    if _has_arena(subject):
        made[col.ARENA_ALU] = facts.arena_alu
    out = program.with_columns(**{name: col.column(name, made[name]) for name in made})
    if not scan.depths:
        return out
    depths = depths_before(out, scan.starts, scan.depths)
    table = AnchoredTable(program.subprogs.start, depths, Anchor.ENTRY, unique=True)
    return out.with_tables(**{col.STACK_DEPTH: table})


def _bases(insns: isa.Insns) -> dict[int, int]:
    """By slot of each memory access: the register that it goes through."""
    loads, stores = isa.is_load(insns), isa.is_store(insns)
    atomics = isa.is_atomic(insns)
    # An acquiring load goes through its source, all other atomics through their destination.
    acquires = atomics & (insns["imm"] == _LOAD_ACQUIRE)
    src, dst = isa.src(insns), isa.dst(insns)
    slots = np.flatnonzero(loads | stores | atomics)
    regs = np.where(loads | acquires, src, dst)[slots]
    return dict(zip(slots.tolist(), regs.tolist(), strict=True))


_LOAD_ACQUIRE: Final = 0x100


def _has_arena(subject: Subject) -> bool:
    return any(one.type == MapType.ARENA for one in subject.maps)


def _arithmetic(insns: isa.Insns) -> dict[int, int]:
    """By slot of each 64-bit operation that may move a pointer: the register that it changes."""
    is_alu = (insns["code"] & _CLASS_MASK == _ALU_64) & (insns["code"] & _OP_MASK != _MOV)
    slots = np.flatnonzero(is_alu)
    return dict(zip(slots.tolist(), isa.dst(insns)[slots].tolist(), strict=True))


_CLASS_MASK, _ALU_64, _OP_MASK, _MOV = 0x07, 0x07, 0xF0, 0xB0


def _calls(insns: isa.Insns) -> dict[int, int]:
    """By slot of each helper call that something is kept of: the helper's number."""
    slots = np.flatnonzero(isa.is_helper_call(insns) & np.isin(insns["imm"], [*_MAP_REG, _LOOP]))
    return dict(zip(slots.tolist(), insns["imm"][slots].tolist(), strict=True))


def _wishes(
    insns: isa.Insns, bases: dict[int, int], calls: dict[int, int], sums: dict[int, int]
) -> dict[int, tuple[Wish, ...]]:
    writes = isa.writes(insns)
    out: dict[int, tuple[Wish, ...]] = {}
    for slot, reg in bases.items():
        out[slot] = ((reg, bool(writes[slot] >> reg & 1)),)
    for slot, reg in sums.items():
        out[slot] = ((reg, True),)
    for slot, helper in calls.items():
        if helper == _LOOP:
            out[slot] = ((_LOOP_FLAGS_REG, True),)
        elif helper == _TAIL_CALL:
            out[slot] = ((_MAP_REG[helper], True), (_KEY_REG, True))
        else:
            out[slot] = ((_MAP_REG[helper], True),)
    return out


@dataclass(slots=True)
class _Facts:
    """The columns in the making."""

    program: Program
    subject: Subject
    scan: Scan
    map_names: tuple[str, ...]
    kernel_btf: Btf | None
    mem_type: NDArray[np.uint8] = field(init=False)
    mem_id: NDArray[np.int32] = field(init=False)
    call_map: NDArray[np.int32] = field(init=False)
    call_key: NDArray[np.int64] = field(init=False)
    callback: NDArray[np.int32] = field(init=False)
    arena_alu: NDArray[np.bool_] = field(init=False)
    ld_map: list[int] = field(init=False)
    _types: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n_slots = len(self.program)
        self.mem_type = np.full(n_slots, MemType.UNKNOWN, np.uint8)
        self.mem_id = np.full(n_slots, NONE, np.int32)
        self.call_map = np.full(n_slots, NONE, np.int32)
        self.call_key = np.full(n_slots, NONE, np.int64)
        self.callback = np.full(n_slots, NONE, np.int32)
        self.arena_alu = np.zeros(n_slots, np.bool_)
        given = self.program.columns.get(col.LD_MAP, Column(np.full(n_slots, NONE, np.int32)))
        self.ld_map = given.values.tolist()

    def resolve(self, bases: dict[int, int], calls: dict[int, int]) -> None:
        """Fill the columns from what was shown."""
        keys: dict[Question, set[MapKey]] = {}
        for slot, reg in bases.items():
            self._access(slot, reg, keys)
        for slot, helper in calls.items():
            if helper in _MAP_REG:
                shown = self._shown(slot, _MAP_REG[helper])
                keys[slot, _MAP_REG[helper]] = {one.map for one in shown if one.map}
        loops = [slot for slot, helper in calls.items() if helper == _LOOP and self._is_plain(slot)]
        self._maps(keys, bases, loops)
        for slot, helper in calls.items():
            if helper == _TAIL_CALL:
                self.call_key[slot] = self._key(slot)

    def find_arena_pointers(self, sums: dict[int, int]) -> None:
        """Note which arithmetic was on a pointer into an arena, on any path.

        Source: linux v6.18, kernel/bpf/verifier.c, adjust_reg_min_max_vals().
        """
        for slot, reg in sums.items():
            shown = self._shown(slot, reg)
            self.arena_alu[slot] = any(one.type is MemType.ARENA for one in shown)

    def _shown(self, slot: int, reg: int) -> list[RegType]:
        texts = self.scan.shown.get((slot, reg), {})
        return list(dict.fromkeys(parse_reg(text) for text in texts))

    def _access(self, slot: int, reg: int, keys: dict[Question, set[MapKey]]) -> None:
        shown = self._shown(slot, reg)
        if not shown:
            return
        kind = merge(shown)
        self.mem_type[slot] = kind
        if kind in (MemType.BTF_ID, MemType.BTF_ID_PROBE):
            ids = {self._struct_id(one.struct) for one in shown}
            self.mem_id[slot] = ids.pop() if len(ids) == 1 else MANY
        elif kind is MemType.MAP_VALUE or kind is MemType.MAP_KEY:
            keys[slot, reg] = {one.map for one in shown if one.map}

    def _struct_id(self, name: str) -> int:
        """The number of a type of the kernel; NONE where several have the name."""
        if not name or self.kernel_btf is None:
            return NONE
        if name not in self._types:
            found = [
                *self.kernel_btf.find(name, Kind.STRUCT),
                *self.kernel_btf.find(name, Kind.UNION),
            ]
            self._types[name] = found[0] if len(found) == 1 else NONE
        return self._types[name]

    def _maps(
        self, keys: dict[Question, set[MapKey]], bases: dict[int, int], loops: list[int]
    ) -> None:
        candidates = {
            question: {key: self._candidates(key) for key in found}
            for question, found in keys.items()
        }
        open_ = {
            question
            for question, found in candidates.items()
            if any(len(maps) > 1 for maps in found.values())
        }
        asked = open_ | {(slot, _LOOP_CALLBACK_REG) for slot in loops}
        found = origins(self.program, self.scan.seen, self._outer(), asked) if asked else {}
        for question, by_key in candidates.items():
            maps = {one for group in by_key.values() for one in group}
            if question in open_:
                maps &= {self._map_of(origin) for origin in found[question]}
            slot = question[0]
            column = self.mem_id if slot in bases else self.call_map
            # Two names are two maps, whatever they are.
            is_one = len(maps) == 1 and len(by_key) == 1
            column[slot] = maps.pop() if is_one else MANY if len(maps) > 1 else NONE
        for slot in loops:
            self._loop(slot, found[slot, _LOOP_CALLBACK_REG])

    def _candidates(self, key: MapKey) -> list[int]:
        """The maps that look like this in the log."""
        out = []
        for index, facts in enumerate(self.subject.maps):
            has_name = not self.map_names or key.name in (None, self.map_names[index])
            sizes = (facts.key_size, facts.value_size)
            if has_name and sizes == (key.key_size, key.value_size):
                out.append(index)
        return out

    def _outer(self) -> set[int]:
        """Slots that load the address of a map of maps."""
        kinds = [facts.type for facts in self.subject.maps]
        return {
            slot
            for slot, index in enumerate(self.ld_map)
            if index != NONE and kinds[index] in _OF_MAPS
        }

    def _map_of(self, origin: Origin) -> int:
        index = self.ld_map[origin.slot]
        if not origin.is_inner or index == NONE:
            return index
        return inner_index(self.subject.maps, index)

    def _key(self, slot: int) -> int:
        """The one constant index of a tail call, or NONE."""
        numbers = {one.number for one in self._shown(slot, _KEY_REG)}
        index = int(self.call_map[slot])
        number = numbers.pop() if len(numbers) == 1 else None
        if number is None or index < 0:
            return NONE
        return number if 0 <= number < self.subject.maps[index].max_entries else NONE

    def _is_plain(self, slot: int) -> bool:
        """Whether a bpf_loop call was visited, always with flags of 0."""
        shown = self._shown(slot, _LOOP_FLAGS_REG)
        return bool(shown) and all(one.number == 0 for one in shown)

    def _loop(self, slot: int, found: frozenset[Origin]) -> None:
        """Number a bpf_loop call and its callback by the callback's subprog."""
        starts = self.program.subprogs.start.tolist()
        target = dict(
            zip(self.program.refs.slot.tolist(), self.program.refs.target.tolist(), strict=True)
        )
        reached = self.scan.branches.get(slot, set()) & set(starts)
        may = {target[origin.slot] for origin in found if origin.slot in target}
        callbacks = reached or may
        if len(callbacks) != 1:
            return
        (start,) = callbacks
        number = starts.index(start)
        self.callback[slot] = number
        is_func = isa.is_pseudo(self.program.insns, isa.Pseudo.FUNC)
        for site in np.flatnonzero(is_func).tolist():
            if target[site] == start:
                self.callback[site] = number


def inner_index(maps: Sequence[MapFacts], outer: int) -> int:
    """The index of a map of maps' inner one, which stands after the others; NONE if absent."""
    inner = maps[outer].inner
    if inner is None:
        return NONE
    return next((index for index, facts in enumerate(maps) if facts is inner), NONE)


# Stack of each subprog before the kernel's rewriting, from the figures that it prints after.

_LOOP_BYTES: Final = 24
"""Three registers that an inlined bpf_loop saves; the stack is rounded up to 8 before.
Source: linux v6.18, kernel/bpf/verifier.c, optimize_bpf_loop()."""


def may_goto_bytes() -> int:
    """Bytes of stack for may_goto's counter: 16 where it counts time, too.

    Source: linux v6.18, bpf_jit_supports_timed_may_goto() of arch/x86/net/bpf_jit_comp.c and
    arch/arm64/net/bpf_jit_comp.c.
    """
    return 16 if platform.machine() in {"x86_64", "aarch64"} else 8


def depths_before(
    program: Program, starts: Sequence[int], depths: Sequence[int]
) -> NDArray[np.int32]:
    """(m,) bytes of stack of each subprog; 0 for one that is never reached.

    Where a bpf_loop is inlined the figure may be up to 7 bytes too large, rounded up to 8, as
    the kernel itself rounds it.

    Args:
        program: with the columns seen and callback.
        starts: of the verifier's subprogs; empty where the log does not tell.
        depths: what the log tells of those that were reached.
    """
    seen = program.columns[SEEN].values
    callback = program.columns[CALLBACK].values
    insns = program.insns
    known = np.array(starts or program.subprogs.start, np.int64)
    ends = np.append(known[1:], len(insns))
    is_loop = isa.is_helper_call(insns) & (insns["imm"] == _LOOP) & (callback != NONE)
    is_waiting = _waits(insns, seen)
    before: dict[int, int] = {}
    left = iter(depths)
    for start, end in zip(known.tolist(), ends.tolist(), strict=True):
        if not seen[start:end].any():
            continue
        depth = next(left, 0)
        depth -= _LOOP_BYTES if is_loop[start:end].any() else 0
        depth -= may_goto_bytes() if is_waiting[start:end].any() else 0
        before[start] = max(depth, 0)
    return np.array([before.get(start, 0) for start in program.subprogs.start.tolist()], np.int32)


def _waits(insns: isa.Insns, seen: Mask) -> Mask:
    """(n,) may_gotos that are left: not those that jump over nothing but dead code."""
    slots = np.flatnonzero(isa.is_may_goto(insns) & seen)
    live = np.append(0, np.cumsum(seen))
    off = insns["off"][slots].astype(np.int64)
    target = np.clip(slots + 1 + off, 0, len(insns))
    out = np.zeros(len(insns), bool)
    out[slots] = (off < 0) | (live[target] > live[slots + 1])
    return out
