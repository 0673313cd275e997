"""What will be read of registers: a backward data flow, on one bit a register."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.patch import CodeView
from bpfpatch.program.types import Slots

from .segments import NOWHERE, Segments

Masks = NDArray[np.uint16]
"""One bit a register; bit r is register r."""

_N_REGS: Final = 13
_R0: Final = 1


@dataclass(frozen=True, slots=True, eq=False)
class Backward:
    """A backward flow, solved.

    In plain Python, at every instruction, until nothing changes any more::

        after[i] = union of before[j] for all j that may run next
        before[i] = (after[i] & ~defines[i]) | uses[i]

    Attributes:
        before: (n,) what is wanted in front of each instruction.
        after: (n,) what is wanted after it.
    """

    before: Masks
    after: Masks


def solve(
    view: CodeView,
    segments: Segments,
    uses: Masks,
    defines: Masks,
    *,
    follows_returns: bool = False,
    roots: Collection[int] | None = None,
) -> Backward:
    """Solve a flow.

    A call of a subprog uses, beside what the arrays say, those of R1 to R5 that
    its callee wants on entry, and defines R0 to R5.

    Args:
        view: the code.
        segments: its segments.
        uses: (n,) registers that each instruction uses.
        defines: (n,) registers that it defines, or destroys.
        follows_returns: whether an exit wants R0 only where a caller does, or
            where the kernel calls; else it wants what ``uses`` says.
        roots: the subprogs that the kernel calls; by default those whose address is taken,
            and those without a caller.

    The time is linear in instructions and edges: a segment is looked at again
    only when one that follows it wants a register more.
    """
    event_at = _events(uses | defines, segments.last)
    gen, kill = _summaries(segments, uses, event_at)
    after_last, before_last = _fixpoint(
        segments, gen, kill, uses[segments.last], defines[segments.last], follows_returns, roots
    )
    before = _spread(len(view), segments, uses, event_at, before_last)
    is_second = view.node < 0
    after = np.append(before[1:], np.uint16(0))[: len(view)]
    first = np.flatnonzero(is_second) - 1
    after[first] = np.append(before, np.uint16(0))[first + 2]
    after[segments.last] = after_last
    before[is_second] = after[first]
    after[is_second] = after[first]
    return Backward(before, after)


def _events(touched: Masks, last: Slots) -> list[tuple[int, Slots]]:
    """For each register that occurs, the slots at which something happens to it, and all last.

    ``touched`` is used up.
    """
    seen = int(np.bitwise_or.reduce(touched)) if touched.size else 0
    touched[last] = seen
    return [
        (register, np.flatnonzero(touched & np.uint16(1 << register) != 0).astype(np.int32))
        for register in range(_N_REGS)
        if seen >> register & 1
    ]


def _summaries(
    segments: Segments, uses: Masks, event_at: list[tuple[int, Slots]]
) -> tuple[list[int], list[int]]:
    """What each segment wants by itself, and what it defines first, but for its last one."""
    gen = np.zeros(len(segments), np.uint16)
    kill = np.zeros(len(segments), np.uint16)
    for register, at in event_at:
        first = at[np.searchsorted(at, segments.start)]
        is_body = first != segments.last
        is_use = (uses[first] >> register & 1).astype(bool)
        gen |= (is_body & is_use).astype(np.uint16) << register
        kill |= (is_body & ~is_use).astype(np.uint16) << register
    return gen.tolist(), kill.tolist()


def _spread(
    n_slots: int,
    segments: Segments,
    uses: Masks,
    event_at: list[tuple[int, Slots]],
    before_last: list[int],
) -> Masks:
    """From the segments' last instructions to all that come before them."""
    wanted = uses.copy()
    wanted[segments.last] = before_last
    out = np.zeros(n_slots, np.uint16)
    for register, at in event_at:
        value = wanted[at] & np.uint16(1 << register)
        out[: at[-1] + 1] |= np.repeat(value, np.diff(at, prepend=-1))
    return out


def _fixpoint(
    segments: Segments,
    gen: list[int],
    kill: list[int],
    uses: Masks,
    defines: Masks,
    follows_returns: bool,
    roots: Collection[int] | None,
) -> tuple[list[int], list[int]]:
    """What is wanted after and before each segment's last instruction."""
    flow = _Flow(segments, gen, kill, uses, defines, follows_returns, roots)
    flow.run()
    return flow.after, flow.before


class _Flow:
    """A fixpoint in the making: ``into`` is what is wanted in front of each segment."""

    def __init__(
        self,
        segments: Segments,
        gen: list[int],
        kill: list[int],
        uses: Masks,
        defines: Masks,
        follows_returns: bool,
        roots: Collection[int] | None,
    ) -> None:
        self.segments = segments
        self.gen, self.kill = gen, kill
        self.last_gen: list[int] = uses.tolist()
        self.last_kill: list[int] = defines.tolist()
        self.owner: list[int] = segments.subprog.tolist()
        self.callee: list[int] = segments.callee.tolist()
        self.is_gotox: list[bool] = segments.is_gotox.tolist()
        self.falls: list[int] = segments.falls.tolist()
        self.jump: list[int] = segments.jump.tolist()
        is_odd = (segments.callee != NOWHERE) | segments.is_exit | segments.is_gotox
        self.is_odd: list[bool] = is_odd.tolist()
        self.into = [0] * len(segments)
        self.after = [0] * len(segments)
        self.before = [0] * len(segments)
        self.hub = [0] * len(segments.entry)  # wanted where a gotox of the subprog may go
        self.callers = _by_value(segments.callee)
        self.exits = _by_value(np.where(segments.is_exit, segments.subprog, NOWHERE))
        self.gotoxs = _by_value(np.where(segments.is_gotox, segments.subprog, NOWHERE))
        self.entered = {segment: subprog for subprog, segment in enumerate(segments.entry)}
        self.hub_of = {one: m for m, numbers in segments.indirect.items() for one in numbers}
        if roots is None:
            is_taken = segments.is_pointed_at
            roots = {m for m, taken in enumerate(is_taken) if taken or m not in self.callers}
        self.returned = [not follows_returns or m in roots for m in range(len(segments.entry))]
        # What the first look at all segments does not settle: those that leave their subprog, and
        # those that jump back.
        jumps_back = (segments.jump >= 0) & (segments.jump <= np.arange(len(segments)))
        self.todo: list[int] = np.flatnonzero(is_odd | jumps_back).tolist()
        self.is_queued = bytearray((is_odd | jumps_back).tobytes())

    def run(self) -> None:
        self._look_at_all()
        into, jumper, jumpers = self.into, self.segments.jumper, self.segments.jumpers
        for segment, owner in self.hub_of.items():
            self.hub[owner] |= into[segment]
        todo, is_queued = self.todo, self.is_queued
        while todo:
            at = todo.pop()
            is_queued[at] = 0
            want = self._look_at(at)
            if want == into[at]:
                continue
            into[at] = want
            if at and self.falls[at - 1] == at:
                self._push((at - 1,))
            self._push(jumper[jumpers[at] : jumpers[at + 1]])
            self._tell(at, want)

    def _look_at(self, at: int) -> int:
        """What is wanted in front of a segment, if what follows it wants what is known so far."""
        into, falls, jump = self.into, self.falls[at], self.jump[at]
        out = into[falls] if falls >= 0 else 0
        if jump >= 0:
            out |= into[jump]
        need = self.last_gen[at]
        if self.is_odd[at]:
            out, need = self._leave(at, out, need)
        self.after[at] = out
        self.before[at] = before = (out & ~self.last_kill[at]) | need
        return (before & ~self.kill[at]) | self.gen[at]

    def _look_at_all(self) -> None:
        """Look at each segment once, from the last on, so that most are settled.

        This is `_look_at` again, for those that stay in their subprog.
        """
        into, after, before = self.into, self.after, self.before
        columns = (
            range(len(into)), self.falls, self.jump, self.is_odd, self.last_gen, self.last_kill,
            self.gen, self.kill,
        )  # fmt: skip
        for at, falls, jump, is_odd, last_gen, last_kill, gen, kill in zip(
            *map(reversed, columns), strict=True
        ):
            if is_odd:
                into[at] = self._look_at(at)
                continue
            out = into[falls] if falls >= 0 else 0
            if jump >= 0:
                out |= into[jump]
            after[at] = out
            before[at] = want = (out & ~last_kill) | last_gen
            into[at] = (want & ~kill) | gen

    def _leave(self, at: int, out: int, need: int) -> tuple[int, int]:
        """What is wanted after, and by, a last instruction that leaves its subprog, or a gotox."""
        owner, callee = self.owner[at], self.callee[at]
        if self.is_gotox[at]:
            return out | self.hub[owner], need
        if callee == NOWHERE:
            return out, need if self.returned[owner] else need & ~_R0
        self.last_kill[at] = isa.CALLER_SAVED
        if out & _R0 and not self.returned[callee]:
            self.returned[callee] = True
            self._push(self.exits.get(callee, ()))
        return out, need | (self.into[self.segments.entry[callee]] & isa.ARGS)

    def _tell(self, at: int, want: int) -> None:
        """Tell those who come to a segment other than by a jump or from the one before."""
        if at in self.entered:
            self._push(self.callers.get(self.entered[at], ()))
        if at in self.hub_of:
            owner = self.hub_of[at]
            if want & ~self.hub[owner]:
                self.hub[owner] |= want
                self._push(self.gotoxs.get(owner, ()))

    def _push(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            if not self.is_queued[number]:
                self.is_queued[number] = 1
                self.todo.append(number)


def _by_value(values: NDArray[np.int32]) -> dict[int, list[int]]:
    """Indices by value, but for those of NOWHERE."""
    out: dict[int, list[int]] = {}
    at = np.flatnonzero(values != NOWHERE)
    for index, value in zip(at.tolist(), values[at].tolist(), strict=True):
        out.setdefault(value, []).append(index)
    return out
