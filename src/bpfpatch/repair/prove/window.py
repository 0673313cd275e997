"""A window: the blocks in front of a jump, run with terms in the place of numbers.

Back edges count as outside, from where anything may come. So what holds here holds in every run.
"""

from __future__ import annotations

from typing import Any, Final

from bpfpatch.prove.solver import Term, require_z3

from ..site import RepairSite, SiteCode
from ..webs import successors
from .machine import CALL, EXIT, JMP, JMP32, LD_IMM64, SymbolicMachine, SymbolicState

MOST_BLOCKS: Final = 60
MOST_INSNS: Final = 800
MILLISECONDS: Final = 1500
_FP: Final = 10


def never_taken(
    code: SiteCode, jump: int, site: RepairSite | None = None, *, falls: bool = False
) -> bool:
    """Whether a conditional jump is provably never taken.

    Args:
        code: the code, with the jump in it.
        jump: its slot.
        site: the refusal whose path tells which registers hold pointers.
        falls: ask whether it is never passed, instead.
    """
    z3 = require_z3()
    return _Window(z3, code, jump, site).is_impossible(falls=falls)


class _Window(SymbolicMachine):
    """One window."""

    def __init__(self, z3: Any, code: SiteCode, jump: int, site: RepairSite | None) -> None:
        super().__init__(z3, code, code.subprog(jump), site)
        self.jump = jump
        self._order = _region(code, code.block(jump))

    def is_impossible(self, *, falls: bool) -> bool:
        """Whether no run gets to the jump and takes it, or falls through it."""
        at = self._run()
        fields = self.code.fields(self.jump)
        if at is None:
            return False
        taken = self.taken(fields, at)
        if taken is None:
            return False
        solver = self.z3.Solver()
        solver.set("timeout", MILLISECONDS)
        solver.add(*self.facts, at.reached)
        # From assumptions that contradict each other, all would follow.
        if solver.check() != self.z3.sat:
            return False
        solver.add(self.z3.Not(taken) if falls else taken)
        return bool(solver.check() == self.z3.unsat)

    def _run(self) -> SymbolicState | None:
        """The state in front of the jump."""
        code, blocks = self.code, self.code.blocks
        inside = set(self._order)
        rank = {block: index for index, block in enumerate(self._order)}
        edges: dict[int, list[SymbolicState]] = {block: [] for block in self._order}
        sources = _predecessors(code, code.subprog(self.jump))
        last = code.block(self.jump)
        for block in self._order:
            is_open = block == _entry(code, self.jump) or any(
                one not in inside or rank[one] >= rank[block] for one in sources.get(block, ())
            )
            state = self._joined(edges[block], int(blocks.start[block]), is_open=is_open)
            slot, end = int(blocks.start[block]), int(blocks.last[block])
            while slot <= end:
                if slot == self.jump:
                    return state
                self.step(slot, state)
                if slot == end:
                    self._leave(block, slot, state, edges, rank)
                slot += 2 if code.view.insns["code"][slot] == LD_IMM64 else 1
            if block == last:
                return None
        return None

    def _leave(
        self,
        block: int,
        slot: int,
        state: SymbolicState,
        edges: dict[int, list[SymbolicState]],
        rank: dict[int, int],
    ) -> None:
        """Send the state along the block's edges."""
        fields = self.code.fields(slot)
        taken: Term = self.z3.BoolVal(True)
        is_jump = fields.code & 7 in (JMP, JMP32) and fields.code not in (CALL, EXIT)
        falls, jump = bool(self.code.blocks.falls[block]), int(self.code.blocks.jump[block])
        if is_jump and falls:
            known = self.taken(fields, state)
            taken = self.fresh_bool() if known is None else known
        here = rank[block]
        if falls and rank.get(block + 1, -1) > here:
            goes = self.z3.Not(taken) if is_jump else self.z3.BoolVal(True)
            edges[block + 1].append(state.copy(self.z3.And(state.reached, goes)))
        if jump >= 0 and rank.get(jump, -1) > here:
            edges[jump].append(state.copy(self.z3.And(state.reached, taken)))

    def _joined(self, states: list[SymbolicState], slot: int, *, is_open: bool) -> SymbolicState:
        """One state of several that meet; anything, if the block is open to the outside."""
        z3 = self.z3
        if is_open:
            states = [*states, self.anything(slot, self.fresh_bool())]
        if not states:
            return SymbolicState(
                z3.BoolVal(False), [self.fresh(64) for _ in range(_FP)] + [self.frame]
            )
        # What comes from outside is last, and so looked at first: the others need not be false.
        out = states[0]
        for state in states[1:]:
            out = self._either(state, out)
        return out

    def _either(self, one: SymbolicState, other: SymbolicState) -> SymbolicState:
        """The one state where it is reached, else the other."""
        z3 = self.z3

        def pick(new: Term, old: Term) -> Term:
            return old if old is new else z3.If(one.reached, new, old)

        regs = [pick(new, old) for new, old in zip(one.regs, other.regs, strict=True)]
        spills = {
            place: pick(one.spills[place], value)
            for place, value in other.spills.items()
            if place in one.spills
        }
        return SymbolicState(z3.Or(one.reached, other.reached), regs, spills)


def _predecessors(code: SiteCode, subprog: int) -> dict[int, list[int]]:
    begin, end = code.span(subprog)
    first, last = code.block(begin), code.block(end - 1)
    out: dict[int, list[int]] = {}
    for block in range(first, last + 1):
        for goal in successors(code, block):
            out.setdefault(goal, []).append(block)
    return out


def _entry(code: SiteCode, slot: int) -> int:
    begin, _ = code.span(code.subprog(slot))
    return code.block(begin)


def _region(code: SiteCode, last: int) -> list[int]:
    """Blocks that lead to one, without back edges: nearest first taken, given in order of flow."""
    begin, _ = code.span(code.subprog(int(code.blocks.start[last])))
    rank = _ranks(code, code.block(begin))
    sources = _predecessors(code, code.subprog(int(code.blocks.start[last])))
    taken, todo, n_insns = {last}, [last], 0
    while todo and len(taken) < MOST_BLOCKS and n_insns < MOST_INSNS:
        block = todo.pop(0)
        n_insns += int(code.blocks.last[block] - code.blocks.start[block]) + 1
        for source in sources.get(block, ()):
            if source not in taken and rank.get(source, 1 << 30) < rank.get(block, -1):
                taken.add(source)
                todo.append(source)
    return sorted(taken, key=lambda block: rank.get(block, 1 << 30))


def _ranks(code: SiteCode, entry: int) -> dict[int, int]:
    """Blocks in reverse postorder: along all edges but back edges the rank grows."""
    order: list[int] = []
    seen = {entry}
    stack = [(entry, iter(successors(code, entry)))]
    while stack:
        block, goals = stack[-1]
        goal = next((one for one in goals if one not in seen), None)
        if goal is None:
            order.append(block)
            stack.pop()
            continue
        seen.add(goal)
        stack.append((goal, iter(successors(code, goal))))
    return {block: index for index, block in enumerate(reversed(order))}
