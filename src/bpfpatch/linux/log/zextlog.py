"""Which upper halves the verifier saw read: its walk, replayed from the log.

The verifier keeps, of each register, the instruction that defined its lower 32 bits last. A
read of all 64 bits marks that instruction (its zext_dst) and forgets it. It does so as it
walks, path by path: what is pruned as safe marks nothing, and an edge that is never taken
carries nothing. So the marks are neither data flow nor reachability, and depend on the order
of the walk, which the log has::

    5: (16) if w7 == 0x0 goto pc+2   ; another path is left for later here
    6: (bf) r2 = r7                  ; marks what defined w7
    from 5 to 8: R7=0 ...            ; and is taken up here, with what was known at 5

Source: linux v6.18, kernel/bpf/verifier.c, check_reg_arg(), is_reg64(), mark_insn_zext(),
check_func_call(), prepare_func_exit(), push_callback_call(), mark_btf_func_reg_size(),
check_cond_jmp_op(), check_ld_abs(); compared with what BPF_F_TEST_RND_HI32 shows on v6.18.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.btf import Btf, Func, FuncProto, Ptr
from bpfpatch.dataflow.liveness import defined_registers, reads_64
from bpfpatch.patch import CodeView
from bpfpatch.program import Program
from bpfpatch.program.types import Mask

_EVENT: Final = re.compile(
    r"(?P<insn>\d+): \([0-9a-f]{2}\)"
    r"|from (?P<origin>\d+) to (?P<target>\d+)(?: \(speculative execution\))?:(?P<state>.*)"
    r"|(?P<whole>Validating )"
)
_FRAME: Final = re.compile(r" frame(\d+):")
_PLACE: Final = re.compile(r"\b(R\d+|fp-\d+)(?:_\w+)?=(\S+)")
_STARTS: Final = frozenset("0123456789fV")
_N_REGS: Final = 13
_TAIL_CALL_ID: Final = isa.HELPER_IDS["tail_call"]
_MOST_TRIED: Final = 32
_FAR: Final = 256
"""What has not been shown for so many lines is the same on all paths that are in question."""
_PLAIN, _CONDITION, _NARROW_LOAD, _CALL, _TAIL_CALL, _SUBPROG, _EXIT = range(7)

Regs = list[int]
"""By register: one more than the slot whose 32 bits it holds, or 0."""


@dataclass(frozen=True, slots=True)
class _Frame:
    """A caller, waiting.

    Attributes:
        regs: its registers.
        is_helper: whether what was called is a helper's callback.
    """

    regs: tuple[int, ...]
    is_helper: bool = False


@dataclass(frozen=True, slots=True)
class _Left:
    """A state that another path may start from."""

    slot: int
    line: int
    callers: tuple[_Frame, ...]
    regs: tuple[int, ...]


def _is_pointer(line: str, reg: int) -> bool:
    """Whether an instruction's line shows that it put a pointer into a register."""
    found = re.search(rf" R{reg}(?:_\w+)?=([a-z]\w+)", line)
    return found is not None and not found[1].startswith(("scalar", "inv"))


def _was_shown(lines: list[str], at: int, name: str, text: str) -> bool:
    """Whether a register or stack slot was last shown like this, on a line or before it."""
    shown = re.compile(rf" {name}(?:_\w+)?=(\S+)")
    for back in range(at, max(at - _FAR, -1), -1):
        found = shown.search(lines[back]) if name in lines[back] else None
        if found is not None:
            return found[1] == text
    return True


def zext_from_log(
    log: str, program: Program, kernel_btf: Btf | None = None, *, is_void: bool = False
) -> Mask:
    """(n,) instructions that define 32 bits whose upper half the verifier saw read.

    Where several visits of one jump may have left a path, the one whose registers look most
    like those that the path starts with counts. In a log whose walk cannot be followed, all
    count as read.

    Args:
        log: of log_level 2, of a load that went well.
        program: what was submitted.
        kernel_btf: the kernel's types; without, its functions read all of their arguments.
        is_void: whether the kernel calls the program for nothing that it returns.
    """
    insns = program.insns
    defines = isa.defines_32(insns)
    lines = [line for line in log.split("\n") if line[:1] in _STARTS and line]
    events = [(at, match) for at, line in enumerate(lines) if (match := _EVENT.match(line))]
    origins = {int(match["origin"]) for _, match in events if match["origin"]}
    replay = _Replay(_Code.of(program, kernel_btf, is_void=is_void), lines, origins)
    marked = replay.run(events)
    if marked is None:
        return defines
    out: Mask = defines & np.frombuffer(marked, np.bool_)
    return out


@dataclass(frozen=True, slots=True, eq=False)
class _Code:
    """By slot: what kind it is, what it reads and defines."""

    kind: list[int]
    reads: list[tuple[int, ...]]
    defines: list[int]
    value: list[int]
    target: dict[int, int]

    @classmethod
    def of(cls, program: Program, kernel_btf: Btf | None, *, is_void: bool) -> _Code:
        insns, view = program.insns, CodeView.of_program(program)
        masks = reads_64(view)
        if kernel_btf is not None:
            calls = np.flatnonzero(isa.is_kfunc_call(insns) & (insns["off"] == 0))
            masks[calls] = wide_arguments(insns["imm"][calls].tolist(), kernel_btf)
        masks[isa.is_subprog_call(insns)] = 0
        if is_void:
            end = int(program.subprogs.ends(len(program))[0])
            masks[:end][isa.is_exit(insns[:end])] = 0
        kinds = np.full(len(insns), _PLAIN, np.int64)
        # May_goto leaves the path after it for later, a comparison the one that it jumps to.
        kinds[isa.is_cond_jump(insns) & ~isa.is_may_goto(insns)] = _CONDITION
        kinds[isa.is_load(insns) & isa.defines_32(insns)] = _NARROW_LOAD
        kinds[isa.is_helper_call(insns) | isa.is_kfunc_call(insns)] = _CALL
        kinds[isa.is_helper_call(insns) & (insns["imm"] == _TAIL_CALL_ID)] = _TAIL_CALL
        kinds[isa.is_subprog_call(insns)] = _SUBPROG
        kinds[isa.is_exit(insns)] = _EXIT
        wide = np.where(isa.defines_32(insns), np.arange(1, len(insns) + 1), 0)
        target = dict(zip(program.refs.slot.tolist(), program.refs.target.tolist(), strict=True))
        known: dict[int, tuple[int, ...]] = {}
        for mask in np.unique(masks).tolist():
            known[mask] = tuple(reg for reg in range(_N_REGS) if mask >> reg & 1)
        # At most one register is defined: its number, from the mask's only bit.
        first = [mask.bit_length() - 1 for mask in defined_registers(insns).tolist()]
        return cls(
            kinds.tolist(), [known[mask] for mask in masks.tolist()], first, wide.tolist(), target
        )


@dataclass(slots=True)
class _Replay:
    """The walk.

    Attributes:
        left: states that may be taken up later, the latest last. Those of comparisons that were
            decided are among them: the log does not tell, and nothing takes them up.
        places: by slot, where in ``left`` the states are that were left there.
    """

    code: _Code
    lines: list[str]
    origins: set[int]
    left: list[_Left] = field(default_factory=list)
    places: dict[int, list[int]] = field(default_factory=dict)
    callers: list[_Frame] = field(default_factory=list)
    regs: Regs = field(default_factory=lambda: [0] * _N_REGS)
    marked: bytearray = field(init=False)

    def __post_init__(self) -> None:
        self.marked = bytearray(len(self.code.kind))

    def run(self, events: list[tuple[int, re.Match[str]]]) -> bytearray | None:
        """The marks by slot, or None where the log leads astray."""
        slots = [int(match["insn"]) if match["insn"] else -1 for _, match in events]
        for (at, match), slot, following in zip(events, slots, [*slots[1:], -1], strict=True):
            if slot >= 0:
                self._visit(at, slot, following)
            elif match["whole"]:
                self._begin()
            elif not self._take_up(match):
                return None
        return self.marked

    def _begin(self) -> None:
        """A function that is looked at by itself."""
        self._drop(0)
        self.callers.clear()
        self.regs = [0] * _N_REGS

    def _visit(self, at: int, slot: int, following: int) -> None:
        """An instruction; ``following`` is the slot that is visited next, or -1."""
        code, regs = self.code, self.regs
        kind = code.kind[slot]
        if kind == _EXIT and self.callers:
            self._return()
            return
        for reg in code.reads[slot]:
            if regs[reg]:
                self.marked[regs[reg] - 1] = 1
                regs[reg] = 0
        # A comparison leaves where it jumps to: not if it goes there itself.
        jumps = kind == _CONDITION and following not in (slot + 1, -1)
        if slot in self.origins and not jumps:
            self.places.setdefault(slot, []).append(len(self.left))
            self.left.append(_Left(slot, at, tuple(self.callers), tuple(regs)))
        if kind == _SUBPROG:
            self._call(slot, following)
            return
        if kind == _TAIL_CALL and self.callers and following != slot + 1:
            # The other program may return to the caller; the path after the call is left.
            regs[0] = 0
            self._return()
            return
        defined = code.defines[slot]
        if defined < 0:
            return
        regs[defined] = code.value[slot]
        # A pointer of the context is loaded whole, however few bytes its field there has.
        if kind == _NARROW_LOAD and _is_pointer(self.lines[at], defined):
            regs[defined] = 0

    def _call(self, slot: int, following: int) -> None:
        """A call of a subprog; a global one is not entered."""
        regs = self.regs
        args = regs[1:6]
        regs[:6] = [0] * 6
        if following != self.code.target.get(slot):
            return
        self.callers.append(_Frame(tuple(regs)))
        self.regs = [0, *args, *[0] * (_N_REGS - 6)]

    def _return(self) -> None:
        """An exit of a subprog or callback, after which the caller goes on.

        Nothing reads what a callback returns, and the helper's call is visited once more.
        """
        caller, result = self.callers.pop(), self.regs[0]
        self.regs = list(caller.regs)
        if not caller.is_helper:
            self.regs[0] = result

    def _take_up(self, match: re.Match[str]) -> bool:
        """Go on with a state that was left; False where there is none."""
        origin, target, shown = int(match["origin"]), int(match["target"]), match["state"]
        if self.code.kind[origin] == _EXIT:
            return True  # back in the caller, on the same path
        index = self._find(origin, shown)
        if index is None:
            return False
        found = self.left[index]
        # Of those that were left later, none is there any more: the latest is taken up first.
        self._drop(index)
        self.callers, self.regs = list(found.callers), list(found.regs)
        if self.code.kind[origin] not in (_CALL, _TAIL_CALL):
            return True
        if target == origin + 1:
            self.regs[:6] = [0] * 6
            return True
        frame = _FRAME.match(shown)
        is_late = frame is None and not shown.startswith(" safe")
        self.callers = [] if is_late else [*self.callers, _Frame(tuple(self.regs), is_helper=True)]
        self.regs = [0] * _N_REGS
        return True

    def _drop(self, first: int) -> None:
        """Forget what was left from here on."""
        while len(self.left) > first:
            self.places[self.left.pop().slot].pop()

    def _find(self, origin: int, shown: str) -> int | None:
        """The index of the state that is taken up: the likeliest, of several the latest."""
        places = self.places.get(origin, [])
        if len(places) < 2:
            return places[0] if places else None
        best, index = -1, places[-1]
        for place in places[: -_MOST_TRIED - 1 : -1]:
            line = self.left[place].line
            # What the jump itself is about is another on its two paths.
            own = {name for name, _ in _PLACE.findall(self.lines[line])}
            wanted = [one for one in _PLACE.findall(shown) if one[0] not in own]
            score = sum(_was_shown(self.lines, line, *one) for one in wanted)
            if score == len(wanted):
                return place
            if score > best:
                best, index = score, place
        return index


# Which arguments a function of the kernel takes whole, all 64 bits of them.
#
# Source: linux v6.18, kernel/bpf/verifier.c, check_kfunc_call(), mark_btf_func_reg_size().

_WORD: Final = 8
_MOST: Final = 5


def wide_arguments(type_ids: Sequence[int], btf: Btf) -> list[int]:
    """For each function, the registers R1 to R5 that hold its arguments of 8 bytes, as masks.

    Args:
        type_ids: what the calls have.
        btf: the kernel's types.
    """
    return [_of(type_id, btf) for type_id in type_ids]


@lru_cache(4096)
def _of(type_id: int, btf: Btf) -> int:
    """One of them; all of R1 to R5 where that is not a function."""
    func = btf.type(type_id) if 0 < type_id < len(btf) else None
    proto = btf.type(func.type_id) if isinstance(func, Func) else None
    if not isinstance(proto, FuncProto):
        return int(isa.ARGS)
    out = 0
    for register, param in enumerate(proto.params[:_MOST], start=1):
        target = btf.type(btf.resolve(param.type_id))
        if isinstance(target, Ptr) or btf.size_of(param.type_id) == _WORD:
            out |= 1 << register
    return out
