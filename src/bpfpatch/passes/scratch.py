"""Where inserted code finds registers and stack bytes to work with.

A register that is not read any more is free. Where there are too few, others are used that can be
made again, or spilled: to stack bytes below all that the function uses, or to bytes of its frame
that are dead at the place. Where none of that is possible, the place will not do, and the answer
says why::

    scratch = Scratch.of(patches, setting.edit.obj)
    place = scratch.at(slot, 2)
    if isinstance(place, str):
        raise UnsupportedError(f"no place to count: {place}")
    a, b = place.registers
    body = place.body(f"r{a} = &hits; r{b} = 1; lock *(u64 *)(r{a} + 0) += r{b}")
    patches.insert_before(int(patches.view().node[slot]), body)
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from bpfpatch import isa
from bpfpatch.asm import format_insns
from bpfpatch.dataflow.backward import Masks
from bpfpatch.dataflow.blocks import Blocks
from bpfpatch.dataflow.givenargs import given_args
from bpfpatch.dataflow.liveness import Liveness
from bpfpatch.dataflow.remakes import Remakes, remaking
from bpfpatch.dataflow.stacklive import FRAME_BYTES, FrameLiveness, dead_words
from bpfpatch.dataflow.stackuse import (
    ROUND_COMPILED,
    ROUND_INTERPRETED,
    StackUse,
    stack_room,
)
from bpfpatch.elf import ElfObject
from bpfpatch.errors import OptionError
from bpfpatch.isa import Syntax
from bpfpatch.patch import Body, CodeView, Insn, PatchList
from bpfpatch.program.types import Insns, Mask, Slots

from .kfuncs import arguments_taken, checked_alone, roots_of
from .sites import indirect_targets, opaque_slots

_GENERAL: Final = np.uint16((1 << isa.R10) - 1)
_WORD: Final = 8
_STX_DW, _LDX_DW = 0x7B, 0x79
_LEAVES: Final = re.compile(r"@(?:end|orig|target)\b")
_BUSY: Final = "no register is free"


@dataclass(frozen=True, slots=True, eq=False)
class ScratchPlace:
    """A place in front of an instruction, and what code there may use.

    Attributes:
        slot: of the instruction.
        registers: to work with.
        spills: (register, bytes below R10) to save before and to restore after.
        remakes: instructions that give further registers their values back.
        loads: (index into ``remakes``, slot) of each ld_imm64 there, and of the one that it is
            a copy of: what refers to one has to refer to the other.
    """

    slot: int
    registers: tuple[int, ...]
    spills: tuple[tuple[int, int], ...] = ()
    remakes: Insns | None = None
    loads: tuple[tuple[int, int], ...] = ()

    @property
    def n_extra(self) -> int:
        """How many instructions it takes beside the work."""
        return 2 * len(self.spills) + (0 if self.remakes is None else len(self.remakes))

    def around(self, work: Insns) -> Insns:
        """The instructions with what they spill saved around them."""
        if not self.n_extra:
            return work
        return np.concatenate([*self.saves(), work, *self.restores()])

    def body(self, work: str, **nodes: int | Insn) -> Body:
        """A body of assembly, with what it spills saved around it.

        Args:
            work: assembly that uses `registers`, and goes on at its end: it ends in no jump,
                and its jumps go to its own labels.
            nodes: see `Body.asm`.

        Raises:
            OptionError: it jumps past what gives registers back.
            AsmError: it is no assembly.
        """
        if self.n_extra and _LEAVES.search(work):
            raise OptionError(
                "this work goes to @end, @orig or @target, past what gives registers back; let it "
                "jump to a label at its end"
            )
        saves = [f"*(u64 *)(r10 - {at}) = r{reg}" for reg, at in self.spills]
        restores = [f"r{reg} = *(u64 *)(r10 - {at})" for reg, at in self.spills]
        if self.remakes is not None:
            restores += [text for text in format_insns(self.remakes, Syntax.ASM) if text]
        return Body.asm("\n".join([*saves, work, *restores]), **nodes)

    def saves(self) -> list[Insns]:
        """What comes first."""
        return [isa.store("u64", isa.R10, -at, isa.Reg(reg)) for reg, at in self.spills]

    def restores(self) -> list[Insns]:
        """What comes last: ``remakes`` is at its end."""
        out = [isa.load("u64", reg, isa.R10, -at) for reg, at in self.spills]
        return out if self.remakes is None else [*out, self.remakes]


class Scratch:
    """Finds registers, and bytes of stack, that code may use in front of instructions.

    `of` makes one for a list; it is about the code as the list has it then. Ask for all places
    first and edit afterwards, or make another one.

    Args:
        view: the code.
        blocks: its blocks.
        reserved: bytes of each frame, below what it uses, that are taken.
        opaque: (n,) slots whose immediate is not known before loading; by default none.
        copyable: (n,) slots of ld_imm64 that may be copied, with what refers to them; by
            default none.
        takes: (m,) arguments that each subprog may have at most, where its type is known: the
            verifier gives a global function no others.
        checked: (m,) subprogs that the verifier checks alone, by their types; by default none.
        roots: the subprogs, by number, whose R0 the kernel looks at; by default all.
    """

    def __init__(
        self,
        view: CodeView,
        blocks: Blocks,
        reserved: int = 0,
        opaque: Mask | None = None,
        copyable: Mask | None = None,
        takes: Masks | None = None,
        checked: Mask | None = None,
        roots: Collection[int] | None = None,
    ) -> None:
        liveness = Liveness.of(view, blocks, takes=takes, roots=roots)
        # A register may be live where no path to it has set it: none that runs reads it then.
        is_set = given_args(view, blocks, liveness.writes, np.zeros(len(view), np.uint16), takes)
        if isa.is_subprog_call(view.insns).any():
            # The verifier checks arguments of a global function, whether that reads them or not.
            liveness = Liveness.of(view, blocks, is_set, takes, roots)
        none = np.zeros(len(view), bool)
        self._view = view
        self._liveness = liveness
        self._set = is_set & _GENERAL
        self._stack = StackUse.of(view, blocks, checked)
        self._reserved = reserved
        self._fits: dict[tuple[int, int], Mask] = {}
        self._frames: dict[int, FrameLiveness] = {}
        self._held: dict[int, int] = {}
        self._remakes = Remakes(
            view, blocks, none if opaque is None else opaque, none if copyable is None else copyable
        )
        self._sequences = fastcall_sequences(
            view.insns, np.flatnonzero(view.node >= 0).astype(np.int32)
        )
        free = _N_BITS[~liveness.before & _GENERAL]
        self._n_free = np.where(_allowed(view, self._sequences), free, np.int8(-1))
        self._n_free_at = self._n_free.data  # one at a time, that is faster
        self._free: dict[int, list[int]] = {}

    @classmethod
    def of(cls, patches: PatchList, obj: ElfObject | None = None, reserved: int = 0) -> Self:
        """For the code of a list as it is now.

        Args:
            patches: the list.
            obj: the object that it is the code of, by whose types more is known to be free.
            reserved: bytes of each frame, below what it uses, that are taken.
        """
        view, program = patches.view(), patches.program
        blocks = Blocks.of(view, indirect_targets(program, view))
        opaque = opaque_slots(patches, view)
        if obj is None or obj.btf is None:
            return cls(view, blocks, reserved, opaque)
        mains = np.array([info.start for info in obj.programs], np.int32)
        entries = np.flatnonzero(np.isin(view.node, mains)).astype(np.int32)
        takes = arguments_taken(view, program, obj.btf)
        checked = checked_alone(view, program, obj.btf)
        roots = roots_of(view, program, obj.btf, entries)
        return cls(view, blocks, reserved, opaque, takes=takes, checked=checked, roots=roots)

    @property
    def stack(self) -> StackUse:
        """The frames."""
        return self._stack

    @property
    def liveness(self) -> Liveness:
        """The registers."""
        return self._liveness

    def live(self, slot: int) -> int:
        """Registers that are read later, in front of an instruction, as a mask."""
        return int(self._liveness.before[slot])

    def arguments(self, slot: int) -> list[int]:
        """Those of R1 to R5 that are set for certain, and read later."""
        mask = self.live(slot) & int(self._set[slot])
        return [register for register in range(1, 6) if mask >> register & 1]

    def home(self, subprog: int, n_bytes: int) -> int | None:
        """Bytes below R10 of n_bytes of a frame that are not in use, 8-aligned; None for no room.

        There is room for so many bytes if all other frames may grow by as many, too: whoever
        asks for one function may ask for those that it calls. Frames are taken to be rounded up
        as the interpreter has them, and only where that leaves no room as the JIT compiler has
        them.

        Args:
            subprog: index into the view's ``starts``.
            n_bytes: how many, beside those that are reserved.
        """
        if not self._stack.is_known[subprog]:
            return None
        deepest = -(-self._stack.deepest // _WORD) * _WORD
        bottoms = deepest + self._reserved + -(-n_bytes // _WORD) * _WORD
        for rounded_to in (ROUND_INTERPRETED, ROUND_COMPILED):
            key = n_bytes, rounded_to
            if key not in self._fits:
                room = stack_room(self._view, bottoms.tolist(), rounded_to)
                self._fits[key] = room >= 0
            if self._fits[key][subprog]:
                return int(bottoms[subprog])
        return None

    def words(self, slot: int, n_words: int) -> list[int]:
        """Bytes below R10 of words that code in front of an instruction may use, all or none.

        They are below all that the function uses, or dead there.
        """
        owner = self._owner(slot)
        bottom = self.home(owner, n_words * _WORD)
        if bottom is not None:
            return [bottom - index * _WORD for index in range(n_words)]
        found = self.dead(slot)[:n_words]
        return found if len(found) == n_words else []

    def dead(self, slot: int) -> list[int]:
        """Bytes below R10 of words of the frame that are not read before they are written."""
        owner = self._owner(slot)
        if owner not in self._frames:
            self._frames[owner] = FrameLiveness(self._stack.walks, owner)
            self._held[owner] = self._kept(owner)
        live = self._frames[owner].before(slot) | self._held[owner]
        return dead_words(live, int(self._stack.deepest[owner]))

    def within(self, first: int, last: int, n_registers: int) -> ScratchPlace | str:
        """The best place in front of one of a block's instructions.

        Args:
            first: slot of the block's first instruction.
            last: slot of its last.
            n_registers: how many registers the code needs.

        Returns:
            A place without spills if there is one; or why there is none at all.
        """
        for slot in range(first, last + 1):
            if self._n_free_at[slot] >= n_registers:
                return self._place(slot, n_registers)
        n_free = self._n_free[first : last + 1]
        slots = np.argsort(-n_free, kind="stable")
        if n_free[slots[0]] < 0:
            return "all of it is a sequence that the kernel knows and that must stay together"
        wrong = ""
        for slot in (slots[n_free[slots] >= 0] + first).tolist():
            found = self._place(slot, n_registers)
            if isinstance(found, ScratchPlace):
                return found
            wrong = wrong or found
        return wrong

    def at(self, slot: int, n_registers: int) -> ScratchPlace | str:
        """The same in front of one certain instruction."""
        if self._n_free[slot] < 0:
            return "it is inside of a sequence that the kernel knows and that must stay together"
        return self._place(slot, n_registers)

    def more(self, slot: int, n_registers: int, free: list[int], taken: int) -> ScratchPlace | str:
        """A place with registers that are free for certain, and others made so if need be.

        Args:
            slot: of the instruction.
            n_registers: how many registers the code needs.
            free: registers to begin with.
            taken: registers that must not be used, as a mask.
        """
        missing = n_registers - len(free)
        if missing <= 0:
            return ScratchPlace(slot, tuple(free[:n_registers]))
        left = [reg for reg in range(isa.R10) if reg not in free and not taken >> reg & 1]
        recipes = self._remakes.before(slot)
        made = [reg for reg in left if reg in recipes][-missing:]
        can_spill = [reg for reg in left if reg not in made and self._set[slot] >> reg & 1]
        n_spills = missing - len(made)
        if len(can_spill) < n_spills:
            return f"{_BUSY}, and too few are set that could be spilled"
        words = self.words(slot, n_spills) if n_spills else []
        if len(words) < n_spills and not self._stack.is_known[self._owner(slot)]:
            return f"{_BUSY}, and how much of the stack is in use cannot be told"
        if len(words) < n_spills:
            return f"{_BUSY}, and the stack has no room to spill one"
        chosen = can_spill[len(can_spill) - n_spills :]
        parts, loads, at = [], [], 0
        for register in made:
            how, value = recipes[register]
            if how == "load":
                loads.append((at, value))
            parts.append(remaking(self._view, register, recipes[register]))
            at += len(parts[-1])
        return ScratchPlace(
            slot,
            (*free, *made, *chosen),
            tuple(zip(chosen, words, strict=True)),
            np.concatenate(parts) if parts else None,
            tuple(loads),
        )

    def _place(self, slot: int, n_registers: int) -> ScratchPlace | str:
        live = self.live(slot)
        free = self._free.get(live)
        if free is None:
            free = [reg for reg in range(isa.R10) if not live >> reg & 1]
            # Those after the arguments first: who reads the listing finds calls as they were.
            free.sort(key=lambda reg: (1 <= reg <= 5, reg))
            self._free[live] = free
        return self.more(slot, n_registers, free, 0)

    def _owner(self, slot: int) -> int:
        return int(self._view.subprog_of(np.array([slot], np.int32))[0])

    def _kept(self, subprog: int) -> int:
        """The bytes of sequences that the kernel takes out if nothing else uses them."""
        bounds = [*self._view.starts.tolist(), len(self._view)]
        out = 0
        for _, last in self._sequences:
            if not bounds[subprog] <= last < bounds[subprog + 1]:
                continue
            for slot in range(last, bounds[subprog], -1):
                insn = self._view.insns[slot]
                if int(insn["code"]) != _LDX_DW:
                    break
                at = FRAME_BYTES + int(insn["off"])
                out |= ((1 << _WORD) - 1) << at if at >= 0 else 0
        return out


_N_BITS: Final = np.array([mask.bit_count() for mask in range(1 << isa.R10)], np.int8)


def _allowed(view: CodeView, sequences: list[tuple[int, int]]) -> Mask:
    """(n,) places where code may be put in: at instructions, not inside of fastcall sequences."""
    allowed = view.node >= 0
    for begin, end in sequences:
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
