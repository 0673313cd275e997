"""copies: read a value where it already is, and take out what only made it again."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.dataflow.samevalues import SameValues, ValueRecord
from bpfpatch.isa.semantics import ALU, ALU64, CLASS_MASK, signed
from bpfpatch.patch import PatchList

from ..base import Pass, register
from ..setting import Setting
from .code import Scope, ShrinkCode, run_rounds, scope_for
from .operands import Fields, with_number, with_register

_MOST: Final = 64
"""Uses of one value that are looked at, and blocks that are gone through to find them."""
_LDX, _STX = 1, 3
_MOV32, _MOV64, _MOV64_REG = 0xB4, 0xB7, 0xBF
_FP: Final = 10


@register
@dataclass(frozen=True)
class Copies(Pass):
    """Read a value where it already is, and remove what only made it again.

    An instruction goes that gives a register what another one, or the register itself, holds
    already: a move, a load of a word of the frame, an address or a number computed again. It goes
    only if all that reads its result can read the other register; and one that gives a number,
    only if all that reads it can have it as an immediate. What computes a number of numbers
    becomes a move of that, and a load of a word of the frame that a register holds one of that.

    With ``safe=true``, which is the default, only moves go, of registers and of numbers; a number
    goes into a store only if it is 0 and the store is one to the frame.

    Attributes:
        safe: whether to do only what takes nothing from any kernel's verifier.
    """

    name = "copies"
    knows_landing_pads = True
    safe: bool = True

    def run_for(self, patches: PatchList, setting: Setting) -> None:
        """Go round until nothing is found, or for a bounded number of rounds."""
        drop_copies(patches, scope_for(patches, setting, is_safe=self.safe))


@dataclass(slots=True, eq=False)
class CopyEdits:
    """What a round changes.

    Attributes:
        gone: slots that are deleted.
        changed: by slot the fields of what stands there from now on.
    """

    gone: set[int] = field(default_factory=set)
    changed: dict[int, Fields] = field(default_factory=dict)

    def make(self, code: ShrinkCode) -> int:
        """Edit the list; gives how many edits there are."""
        node = code.view.node
        slots = np.array(sorted(self.changed.keys() - self.gone), np.int32)
        if slots.size:
            rows = np.array([self.changed[slot] for slot in slots.tolist()], np.int64)
            columns = dict(zip(Fields._fields, rows.T, strict=True))
            code.patches.modify(node[slots], **columns)
        if self.gone:
            code.patches.delete(node[np.array(sorted(self.gone), np.int32)])
        return len(self.gone) + slots.size


def drop_copies(patches: PatchList, scope: Scope) -> int:
    """Run the pass; gives how many edits it made."""
    return run_rounds(patches, scope, _look)


def _look(code: ShrinkCode) -> int:
    values = SameValues(code.view, code.blocks, code.opaque, code.walks)
    edits = CopyEdits()
    for subprog in code.subprogs:
        _Round(code, values, subprog, edits).run()
    return edits.make(code)


class _Round:
    """One look at one subprog.

    A register whose value is read elsewhere from now on (a victim) is not read in place of another
    one (a source) in the same round: so no change relies on what another one takes away.
    """

    def __init__(
        self, code: ShrinkCode, values: SameValues, subprog: int, edits: CopyEdits
    ) -> None:
        self.code, self.values, self.subprog, self.edits = code, values, subprog, edits
        self.is_safe = code.scope.is_safe
        self.victims = self.sources = 0
        self.begin, self.end = begin, end = code.slots_of(subprog)
        some = code.view.insns[begin:end]
        self.fields = [
            Fields(*row)
            for row in zip(
                some["code"].tolist(),
                isa.dst(some).tolist(),
                isa.src(some).tolist(),
                some["off"].tolist(),
                some["imm"].tolist(),
                strict=True,
            )
        ]
        is_second = code.view.node[begin:end] < 0
        reads, writes = code.liveness.reads[begin:end], code.liveness.writes[begin:end]
        self.reads: list[int] = np.where(is_second, 0, reads).tolist()
        self.writes: list[int] = np.where(is_second, 0, writes).tolist()
        fixed = code.opaque[begin:end].copy()
        refs = code.view.ref_slot
        here = refs[(refs >= begin) & (refs < end)] - begin
        fixed[here[isa.alone(isa.is_ld_imm64, some[here])]] = True
        self.is_fixed: list[bool] = fixed.tolist()
        both = np.where(is_second, 0, reads | writes)
        self.events = [(np.flatnonzero(both >> one & 1) + begin).tolist() for one in range(_FP + 1)]

    def run(self) -> None:
        """Find what goes, and what changes for that."""
        into = self.values.solve(self.subprog)
        self.record: ValueRecord = self.values.record(into)
        for slot in sorted(self.record.results):
            if not self.is_fixed[slot - self.begin]:
                self._look_at(slot, self.fields[slot - self.begin])

    def _look_at(self, slot: int, now: Fields) -> None:
        target, number = now.dst, self.record.results[slot]
        constant = self.values.constant(number)
        is_move = now.code == _MOV64_REG and not now.off
        is_number = now.code in (_MOV32, _MOV64, isa.LD_IMM64)
        if self.is_safe and not (is_move or is_number):
            return
        if self.record.at(slot, target) == number and not self.victims >> target & 1:
            self.edits.gone.add(slot)
            self.sources |= 1 << target
            return
        others = [now.src] if self.is_safe and is_move else range(_FP, -1, -1)
        same = [
            other
            for other in others
            if other != target
            and self.record.at(slot, other) == number
            and not self.victims >> other & 1
        ]
        if self.is_safe and is_number:
            same = []
        is_free = bool(same or constant is not None) and not self.sources >> target & 1
        is_gone = is_free and self._moves(slot, target, same)
        if is_gone or is_number or self.is_safe:
            return
        if constant is not None:
            self._fold(slot, now, signed(constant, 64))
        elif same and now.code & CLASS_MASK == _LDX and slot not in self.edits.changed:
            self.edits.changed[slot] = Fields(_MOV64_REG, target, same[0], 0, 0)
            self.sources |= 1 << same[0]

    def _fold(self, slot: int, now: Fields, number: int) -> None:
        """Put a number in place of what computes it."""
        is_computed = now.code & CLASS_MASK in (ALU, ALU64)
        if is_computed and -(1 << 31) <= number < 1 << 31 and slot not in self.edits.changed:
            self.edits.changed[slot] = Fields(_MOV64, now.dst, 0, 0, number)

    def _moves(self, slot: int, target: int, same: list[int]) -> bool:
        """Let all that reads a result read it elsewhere, if all can; then it goes."""
        uses = self._uses(slot, target)
        if uses is None:
            return False
        changes: dict[int, Fields] = {}
        sources = 0
        for use in uses:
            if self.is_fixed[use - self.begin] or use not in self.record.rows:
                return False
            now = self.edits.changed.get(use, self.fields[use - self.begin])
            found, other = self._elsewhere(use, now, target, same)
            if found is None:
                return False
            changes[use] = found
            sources |= other
        self.edits.changed.update(changes)
        self.edits.gone.add(slot)
        self.victims |= 1 << target
        self.sources |= sources
        return True

    def _elsewhere(
        self, use: int, now: Fields, target: int, same: list[int]
    ) -> tuple[Fields | None, int]:
        """An instruction that reads a number or another register, and which that is, as a mask."""
        number = self.record.at(use, target)
        constant = self.values.constant(number)
        if constant is not None and self._may_store(now, constant):
            found = with_number(now, target, constant)
            if found is not None:
                return found, 0
        for other in same:
            if self.record.at(use, other) == number and not self.victims >> other & 1:
                found = with_register(now, target, other)
                if found is not None:
                    return found, 1 << other
        return None, 0

    def _may_store(self, now: Fields, constant: int) -> bool:
        """Whether a store may become one of a number: what older kernels know of it is less."""
        if not self.is_safe or now.code & CLASS_MASK != _STX:
            return True
        return now.dst == _FP and not constant

    def _uses(self, slot: int, target: int) -> list[int] | None:
        """What reads the result of an instruction; None for too much to look at."""
        out: list[int] = []
        seen: set[int] = set()
        block = self.code.block_of(slot)
        todo = [(block, slot + 1)]
        while todo:
            block, start = todo.pop()
            if not self._uses_in(block, start, target, out):
                continue
            for goal in self.code.after(block):
                if goal not in seen:
                    seen.add(goal)
                    todo.append((goal, int(self.code.blocks.start[goal])))
            if len(seen) > _MOST or len(out) > _MOST:
                return None
        return sorted(set(out))

    def _uses_in(self, block: int, start: int, target: int, out: list[int]) -> bool:
        """Collect what reads a register in a block; gives whether it gets through to the end."""
        events = self.events[target]
        last = int(self.code.blocks.last[block])
        for at in range(bisect_left(events, start), len(events)):
            event = events[at]
            if event > last:
                return True
            if self.reads[event - self.begin] >> target & 1:
                out.append(event)
            if self.writes[event - self.begin] >> target & 1:
                return False
        return True
