"""Where inserted code finds registers to work with.

A register that nobody reads any more is free. Where there are too few, others
are spilled to stack bytes below all that the function uses; where that is not
possible either, the place will not do, and the answer says why.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.dataflow.blocks import Blocks
from bpfpatch.dataflow.initialized import initialized
from bpfpatch.dataflow.liveness import Liveness
from bpfpatch.dataflow.stackuse import StackUse, stack_room
from bpfpatch.patch import CodeView
from bpfpatch.program.types import Insns, Mask, Slots

_GENERAL: Final = np.uint16((1 << isa.R10) - 1)
_WORD: Final = 8
_STX_DW, _LDX_DW = 0x7B, 0x79


@dataclass(frozen=True, slots=True)
class Place:
    """A place in front of an instruction, and what code there may use.

    Attributes:
        slot: of the instruction.
        registers: to work with.
        spills: (register, bytes below R10) to save before and to restore behind.
    """

    slot: int
    registers: tuple[int, ...]
    spills: tuple[tuple[int, int], ...] = ()

    def around(self, work: Insns) -> Insns:
        """The instructions with what they spill saved around them."""
        if not self.spills:
            return work
        saves = [isa.store("u64", isa.R10, -at, isa.Reg(reg)) for reg, at in self.spills]
        loads = [isa.load("u64", reg, isa.R10, -at) for reg, at in self.spills]
        return np.concatenate([*saves, work, *loads])


class Scratch:
    """Finds places in the code of one view.

    Args:
        view: the code.
        blocks: its blocks.
        reserved: bytes of each frame, below what it uses, that are somebody else's.
    """

    def __init__(self, view: CodeView, blocks: Blocks, reserved: int = 0) -> None:
        liveness = Liveness.of(view, blocks)
        is_set = initialized(view, blocks, liveness)
        if isa.is_subprog_call(view.insns).any():
            # The verifier checks arguments of a global function, whether that reads them or not.
            liveness = Liveness.of(view, blocks, args=is_set)
        self._view = view
        self._live = liveness.before
        self._set = is_set & _GENERAL
        self._stack = StackUse.of(view, blocks)
        self._reserved = reserved
        self._fits: dict[int, Mask] = {}
        free = _N_BITS[~self._live & _GENERAL]
        self._n_free = np.where(_allowed(view), free, np.int8(-1))

    @property
    def stack(self) -> StackUse:
        """The frames."""
        return self._stack

    def live(self, slot: int) -> int:
        """Registers that somebody reads later, in front of an instruction, as a mask."""
        return int(self._live[slot])

    def home(self, subprog: int, n_bytes: int) -> int | None:
        """Bytes below R10 of n_bytes of a frame that nobody uses, 8-aligned; None for no room.

        There is room for so many bytes if all other frames may grow by as many, too: whoever
        asks for one function may ask for those that it calls.

        Args:
            subprog: index into the view's ``starts``.
            n_bytes: how many, beside those that are reserved.
        """
        if not self._stack.is_known[subprog]:
            return None
        deepest = -(-self._stack.deepest // _WORD) * _WORD
        bottoms = deepest + self._reserved + -(-n_bytes // _WORD) * _WORD
        if n_bytes not in self._fits:
            self._fits[n_bytes] = stack_room(self._view, bottoms.tolist()) >= 0
        return int(bottoms[subprog]) if self._fits[n_bytes][subprog] else None

    def within(self, first: int, last: int, n_registers: int) -> Place | str:
        """The best place in front of one of a block's instructions.

        Args:
            first: slot of the block's first instruction.
            last: slot of its last.
            n_registers: how many registers the code needs.

        Returns:
            A place without spills if there is one; or why there is none at all.
        """
        n_free = self._n_free[first : last + 1]
        enough = np.flatnonzero(n_free >= n_registers)
        if enough.size:
            return self._place(first + int(enough[0]), n_registers)
        slot = first + int(np.argmax(n_free))
        if n_free[slot - first] < 0:
            return "all of it is a sequence that the kernel knows and that must stay together"
        return self.at(slot, n_registers)

    def at(self, slot: int, n_registers: int) -> Place | str:
        """The same in front of one certain instruction."""
        if self._n_free[slot] < 0:
            return "it is inside of a sequence that the kernel knows and that must stay together"
        return self._place(slot, n_registers)

    def _place(self, slot: int, n_registers: int) -> Place | str:
        free = [reg for reg in range(isa.R10) if not self._live[slot] >> reg & 1]
        # Those behind the arguments first: who reads the listing finds calls as they were.
        free.sort(key=lambda reg: (1 <= reg <= 5, reg))
        missing = n_registers - len(free)
        if missing <= 0:
            return Place(slot, tuple(free[:n_registers]))
        owner = int(self._view.subprog_of(np.array([slot], np.int32))[0])
        can_spill = [
            reg for reg in range(isa.R10) if reg not in free and self._set[slot] >> reg & 1
        ]
        if len(can_spill) < missing:
            return "no register is free, and too few are set that could be spilled"
        bottom = self.home(owner, missing * _WORD)
        if bottom is None and not self._stack.is_known[owner]:
            return "no register is free, and how much of the stack is in use cannot be told"
        if bottom is None:
            return "no register is free, and the stack has no room to spill one"
        chosen = can_spill[-missing:]
        spills = tuple((reg, bottom - index * _WORD) for index, reg in enumerate(chosen))
        return Place(slot, (*free, *chosen), spills)


_N_BITS: Final = np.array([mask.bit_count() for mask in range(1 << isa.R10)], np.int8)


def _allowed(view: CodeView) -> Mask:
    """(n,) places where code may be put in: at instructions, not inside of fastcall sequences."""
    allowed = view.node >= 0
    for begin, end in fastcall_sequences(view.insns, np.flatnonzero(allowed).astype(np.int32)):
        allowed[begin : end + 1] = False
    return np.asarray(allowed, np.bool_)


def fastcall_sequences(insns: Insns, slots: Slots) -> list[tuple[int, int]]:
    """Calls with registers saved in front and restored behind, which the kernel may take out.

    Args:
        insns: (n,) of the code.
        slots: where its instructions start.

    Returns:
        (second instruction, last instruction) of each: where nothing may be put in.

    Source: linux v6.18, kernel/bpf/verifier.c, mark_fastcall_pattern_for_call().
    """
    some = insns[slots]
    calls = np.flatnonzero((isa.is_helper_call(insns) | isa.is_kfunc_call(insns))[slots])
    regs, code, off = some["regs"], some["code"], some["off"]
    calls = calls[(calls > 0) & (calls + 1 < slots.size)]
    pairs = (code[calls - 1] == _STX_DW) & (code[calls + 1] == _LDX_DW)
    out = []
    for call in calls[pairs].tolist():
        depth = 0
        while _is_pair(code, regs, off, call - depth - 1, call + depth + 1):
            depth += 1
        if depth:
            out.append((int(slots[call - depth + 1]), int(slots[call + depth])))
    return out


def _is_pair(code: Insns, regs: Insns, off: Insns, before: int, behind: int) -> bool:
    """Whether one instruction saves a register to the stack and the other restores it."""
    if before < 0 or behind >= len(code):
        return False
    if int(code[before]) != _STX_DW or int(code[behind]) != _LDX_DW:
        return False
    saved, restored = int(regs[before]), int(regs[behind])
    is_stack = saved & 0xF == isa.R10 and restored >> 4 == isa.R10
    return is_stack and saved >> 4 == restored & 0xF and int(off[before]) == int(off[behind])
