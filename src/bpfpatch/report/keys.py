"""What makes two instructions of different programs the same one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.program import Program
from bpfpatch.program.types import Slots

Positions = NDArray[np.int64]

_OWN, _OUTSIDE = np.int64(-1), np.int64(-2)
_FACTOR: Final = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True, eq=False)
class Keys:
    """The instructions of a program, an ld_imm64 as one, and what each is apart from its place.

    Attributes:
        program: the program.
        slot: (n,) int32 first slot of each instruction.
        word: (n,) uint64, the instruction without its distance.
        wide: (n,) uint64, the second slot of an ld_imm64; the place that a reference
            to another function, or out of the program, leads to; else 0.
        name_id: (n,) int64 number of what a call, function address or relocation names, or 0.
        ids: (n,) int64, all of these in one number, to align by.
        jump_to: (n,) int64 position of the instruction that a jump leads to, else -1.
        starts: (m + 1,) position of each function's first instruction, and n.
    """

    program: Program
    slot: Slots
    word: NDArray[np.uint64]
    wide: NDArray[np.uint64]
    name_id: NDArray[np.int64]
    ids: NDArray[np.int64]
    jump_to: Positions
    starts: Positions

    def span(self, function: int) -> tuple[int, int]:
        """Positions of a function's instructions: first and end; of none (-1), none."""
        if function < 0:
            return 0, 0
        return int(self.starts[function]), int(self.starts[function + 1])

    def slots(self, function: int) -> tuple[int, int] | None:
        """Slots of a function: first and end; of none (-1), None."""
        if function < 0:
            return None
        subprogs = self.program.subprogs
        ends = subprogs.start[function + 1 : function + 2]
        end = int(ends[0]) if ends.size else len(self.program)
        return int(subprogs.start[function]), end

    def name(self, function: int) -> str:
        """A function's name, or ``sub_<slot>``."""
        return function_name(self.program, function)

    def section(self, function: int) -> str:
        """The section that a function is in."""
        return self.program.sections[int(self.program.subprogs.section[function])]

    def index_of(self, slots: Slots) -> Positions:
        """(k,) positions of the instructions that start at these slots."""
        return np.searchsorted(self.slot, slots).astype(np.int64)

    def same_as(self, other: Keys, mine: Positions, its: Positions) -> NDArray[np.bool_]:
        """(k,) whether instructions are the same, wherever their jumps lead."""
        same: NDArray[np.bool_] = (
            (self.word[mine] == other.word[its])
            & (self.wide[mine] == other.wide[its])
            & (self.name_id[mine] == other.name_id[its])
        )
        return same


def keys_of(program: Program, names: Mapping[int, str], functions: NDArray[np.int64]) -> Keys:
    """The keys of a program's instructions.

    Args:
        program: the program.
        names: by slot, what a relocation there refers to.
        functions: (m,) a number for each function; the same one in two programs for
            functions that count as the same.
    """
    slot = np.flatnonzero(~program.second_slots).astype(np.int32)
    at = np.cumsum(~program.second_slots) - 1  # position of the instruction at each slot
    plain = program.insns.copy()
    refs = program.refs
    is_short = refs.kind == isa.RefKind.JUMP16
    plain["off"][refs.slot[is_short]] = 0
    plain["imm"][refs.slot[~is_short]] = 0
    words = plain.view(np.uint64)
    wide = np.zeros(slot.size, np.uint64)
    # The last instruction may lack its second half, and then has none to be compared.
    is_wide = isa.is_ld_imm64(program.insns)[slot] & (slot + 1 < len(program))
    wide[is_wide] = words[slot[is_wide] + 1]
    jump_to = np.full(slot.size, -1, np.int64)
    name_of, place = _places(program, functions)
    is_near = ~refs.is_entry & (name_of == _OWN)
    jump_to[at[refs.slot[is_near]]] = at[refs.target[is_near]]
    wide[at[refs.slot]] += place
    by_slot = np.zeros(len(program), np.int64)
    by_slot[refs.slot] = np.where(is_near, 0, name_of)
    for one, name in names.items():
        by_slot[one] = hash(name)
    word, name_id = words[slot], by_slot[slot]
    ids = (word * _FACTOR ^ wide) * _FACTOR ^ name_id.astype(np.uint64)
    # A jump that does nothing would align with any other, were it not told apart here.
    ids[isa.is_nop(program.insns)[slot]] += np.uint64(1)
    return Keys(
        program=program,
        slot=slot,
        word=word,
        wide=wide,
        name_id=name_id,
        ids=ids.view(np.int64),
        jump_to=jump_to,
        starts=np.append(np.searchsorted(slot, program.subprogs.start), slot.size).astype(np.int64),
    )


def function_name(program: Program, function: int) -> str:
    """A function's name, or ``sub_<slot>``."""
    return program.subprogs.names[function] or f"sub_{program.subprogs.start[function]}"


def _places(
    program: Program, functions: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Where each reference leads, in terms that mean the same in another program.

    Returns:
        (n_refs,) a number of the function, `_OWN` for a jump within its own, `_OUTSIDE` for
        none; and (n_refs,) the place in it, 0 where the first tells all. Outside it is the
        distance to the program's start or end.
    """
    refs, subprogs = program.refs, program.subprogs
    # From the field itself: a target outside is not kept.
    insns = program.insns[refs.slot]
    is_short = refs.kind == isa.RefKind.JUMP16
    target = refs.slot + 1 + np.where(is_short, insns["off"], insns["imm"]).astype(np.int64)
    is_inside = (target >= 0) & (target < len(program))
    function = subprogs.of(target[is_inside].astype(np.int32))
    is_own = ~refs.is_entry[is_inside] & (function == subprogs.of(refs.slot[is_inside]))
    name_of = np.full(target.size, _OUTSIDE, np.int64)
    name_of[is_inside] = np.where(is_own, _OWN, functions[function])
    place = np.where(target < 0, target, target - len(program) + 1)
    place[is_inside] = np.where(is_own, 0, target[is_inside] - subprogs.start[function])
    return name_of, place.view(np.uint64)
