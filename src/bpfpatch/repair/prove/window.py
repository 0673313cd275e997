"""A window: the blocks in front of a jump, run with terms in the place of numbers.

What comes into the window from outside, by whatever path, may be anything; so may what is loaded,
and what calls give. Back edges count as outside. So what holds here holds in every run. Of
registers that hold a pointer on the path of the log, where the window begins or where they are
loaded, it is assumed that they hold a pointer in every run: no small number, and no small negative
one. Bytes of the frame below all whose address is taken are spills, which nothing else changes.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass, field
from typing import Any, Final

from bpfpatch import isa

from ..site import Code, Fields, Site
from ..webs import successors
from .ops import Term, alu, condition

MOST_BLOCKS: Final = 60
MOST_INSNS: Final = 800
MILLISECONDS: Final = 1500
_FP: Final = 10
_CALL, _EXIT = 0x85, 0x95
_LD, _LDX, _ST, _STX, _ALU, _JMP, _JMP32, _ALU64 = 0, 1, 2, 3, 4, 5, 6, 7
_MEM: Final = 0x60
_LD_IMM64: Final = 0x18
_SMALL: Final = 1 << 16


def is_available() -> bool:
    """Whether z3 is installed."""
    return importlib.util.find_spec("z3") is not None


def never_taken(code: Code, jump: int, site: Site | None = None, *, falls: bool = False) -> bool:
    """Whether a conditional jump is provably never taken.

    Args:
        code: the code, with the jump in it.
        jump: its slot.
        site: the refusal whose path tells which registers hold pointers.
        falls: ask whether it is never passed, instead.
    """
    z3 = importlib.import_module("z3")
    return _Window(z3, code, jump, site).is_impossible(falls=falls)


@dataclass(slots=True)
class _State:
    """What is known at a point: when it is reached, registers, and spills by (place, size)."""

    reached: Term
    regs: list[Term]
    spills: dict[tuple[int, int], Term] = field(default_factory=dict)

    def copy(self, reached: Term) -> _State:
        return _State(reached, list(self.regs), dict(self.spills))


class _Window:
    """One window."""

    def __init__(self, z3: Any, code: Code, jump: int, site: Site | None) -> None:
        self.z3 = z3
        self.code = code
        self.jump = jump
        self.facts: list[Term] = []
        self._pointers = set() if site is None else _pointers(code, site)
        self._n_fresh = 0
        self.frame = z3.BitVec("fp", 64)
        self._assume_pointer(self.frame)
        self._safe = _lowest_taken(code, code.subprog(jump))
        self._order = _region(code, code.block(jump))

    def is_impossible(self, *, falls: bool) -> bool:
        """Whether no run gets to the jump and takes it, or falls through it."""
        at = self._run()
        fields = self.code.fields(self.jump)
        if at is None:
            return False
        taken = condition(
            self.z3, fields.code, fields.imm, at.regs[fields.dst], at.regs[fields.src]
        )
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

    def _run(self) -> _State | None:
        """The state in front of the jump."""
        code, blocks = self.code, self.code.blocks
        inside = set(self._order)
        rank = {block: index for index, block in enumerate(self._order)}
        edges: dict[int, list[_State]] = {block: [] for block in self._order}
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
                self._step(slot, state)
                if slot == end:
                    self._leave(block, slot, state, edges, rank)
                slot += 2 if code.view.insns["code"][slot] == _LD_IMM64 else 1
            if block == last:
                return None
        return None

    def _leave(
        self,
        block: int,
        slot: int,
        state: _State,
        edges: dict[int, list[_State]],
        rank: dict[int, int],
    ) -> None:
        """Send the state along the block's edges."""
        fields = self.code.fields(slot)
        taken: Term = self.z3.BoolVal(True)
        is_jump = fields.code & 7 in (_JMP, _JMP32) and fields.code not in (_CALL, _EXIT)
        falls, jump = bool(self.code.blocks.falls[block]), int(self.code.blocks.jump[block])
        if is_jump and falls:
            known = condition(
                self.z3, fields.code, fields.imm, state.regs[fields.dst], state.regs[fields.src]
            )
            taken = self._fresh_bool() if known is None else known
        here = rank[block]
        if falls and rank.get(block + 1, -1) > here:
            goes = self.z3.Not(taken) if is_jump else self.z3.BoolVal(True)
            edges[block + 1].append(state.copy(self.z3.And(state.reached, goes)))
        if jump >= 0 and rank.get(jump, -1) > here:
            edges[jump].append(state.copy(self.z3.And(state.reached, taken)))

    def _joined(self, states: list[_State], slot: int, *, is_open: bool) -> _State:
        """One state of several that meet; anything, if the block is open to the outside."""
        z3 = self.z3
        if is_open:
            regs = [self._fresh(64) for _ in range(_FP)] + [self.frame]
            reached = self._fresh_bool()
            for reg in range(_FP):
                if (slot, reg, False) in self._pointers:
                    self.facts.append(z3.Implies(reached, self._is_pointer(regs[reg])))
            states = [*states, _State(reached, regs)]
        if not states:
            return _State(z3.BoolVal(False), [self._fresh(64) for _ in range(_FP)] + [self.frame])
        # What comes from outside is last, and so looked at first: the others need not be false.
        out = states[0]
        for state in states[1:]:
            out = self._either(state, out)
        return out

    def _either(self, one: _State, other: _State) -> _State:
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
        return _State(z3.Or(one.reached, other.reached), regs, spills)

    def _step(self, slot: int, state: _State) -> None:
        """One instruction."""
        fields = self.code.fields(slot)
        kind = fields.code & 7
        if kind in (_ALU, _ALU64):
            value = alu(
                self.z3, fields.code, fields.off, fields.imm, state.regs[fields.dst],
                state.regs[fields.src],
            )  # fmt: skip
            state.regs[fields.dst] = self._fresh(64) if value is None else value
        elif kind == _LDX and fields.code & 0xE0 == _MEM:
            self._load(slot, fields, state)
        elif kind in (_ST, _STX) and fields.code & 0xE0 == _MEM:
            self._store(fields, state, is_imm=kind == _ST)
        elif fields.code == _CALL:
            self._forget(state)
            for reg in range(6):
                state.regs[reg] = self._fresh(64)
            self._learn(slot, 0, state)
        elif fields.code == _LD_IMM64:
            state.regs[fields.dst] = self._imm64(slot, fields)
        elif kind not in (_JMP, _JMP32):
            writes = int(isa.writes(self.code.view.insns[slot : slot + 1])[0])
            self._forget(state)
            for reg in range(_FP):
                if writes >> reg & 1:
                    state.regs[reg] = self._fresh(64)

    def _load(self, slot: int, fields: Fields, state: _State) -> None:
        known = state.spills.get((fields.off, fields.size)) if fields.src == _FP else None
        if known is not None:
            bits = 8 * fields.size
            value = known if bits == 64 else self.z3.ZeroExt(64 - bits, known)
            state.regs[fields.dst] = value
            return
        if fields.src != _FP:
            address = state.regs[fields.src] + self.z3.BitVecVal(fields.off, 64)
            self.facts.append(self.z3.Implies(state.reached, self._is_pointer(address)))
        bits = 64 if (slot, fields.dst, True) in self._pointers else 8 * fields.size
        fresh = self._fresh(bits)
        state.regs[fields.dst] = fresh if bits == 64 else self.z3.ZeroExt(64 - bits, fresh)
        self._learn(slot, fields.dst, state)

    def _store(self, fields: Fields, state: _State, *, is_imm: bool) -> None:
        z3 = self.z3
        if fields.dst != _FP:
            address = state.regs[fields.dst] + z3.BitVecVal(fields.off, 64)
            self.facts.append(z3.Implies(state.reached, self._is_pointer(address)))
            self._forget(state)
            return
        low, high = fields.off, fields.off + fields.size
        state.spills = {
            (off, size): value
            for (off, size), value in state.spills.items()
            if off >= high or off + size <= low
        }
        value = z3.BitVecVal(fields.imm, 64) if is_imm else state.regs[fields.src]
        bits = 8 * fields.size
        state.spills[fields.off, fields.size] = (
            z3.Extract(bits - 1, 0, value) if bits < 64 else value
        )

    def _forget(self, state: _State) -> None:
        """Forget what may be changed through an address in the frame."""
        state.spills = {
            place: value for place, value in state.spills.items() if sum(place) <= self._safe
        }

    def _learn(self, slot: int, reg: int, state: _State) -> None:
        if (slot, reg, True) in self._pointers:
            self.facts.append(self.z3.Implies(state.reached, self._is_pointer(state.regs[reg])))

    def _imm64(self, slot: int, fields: Fields) -> Term:
        if fields.src:
            value = self._fresh(64)
            self._assume_pointer(value)
            return value
        high = int(self.code.view.insns["imm"][slot + 1])
        return self.z3.BitVecVal((high & 0xFFFFFFFF) << 32 | fields.imm & 0xFFFFFFFF, 64)

    def _assume_pointer(self, value: Term) -> None:
        self.facts.append(self._is_pointer(value))

    def _is_pointer(self, value: Term) -> Term:
        z3 = self.z3
        return z3.And(z3.UGE(value, _SMALL), z3.ULE(value, (1 << 64) - _SMALL))

    def _fresh(self, bits: int) -> Term:
        self._n_fresh += 1
        return self.z3.BitVec(f"v{self._n_fresh}", bits)

    def _fresh_bool(self) -> Term:
        self._n_fresh += 1
        return self.z3.Bool(f"b{self._n_fresh}")


def _pointers(code: Code, site: Site) -> set[tuple[int, int, bool]]:
    """(slot, register, whether behind it) at which the path has pointers that are not NULL.

    Where the path comes by several times, it has one each time.
    """
    slots = {int(node): slot for slot, node in enumerate(code.view.node.tolist()) if node >= 0}
    frame = site.steps[site.last].frame
    out: dict[tuple[int, bool], set[int]] = {}
    for index, step in enumerate(site.steps):
        if step.frame != frame:
            continue
        held = {
            int(name[1:])
            for name, state in step.before.items()
            if name.startswith("R") and state.is_pointer and not state.is_or_null
        }
        places = [(slots.get(site.node(index), -1), False)]
        if index and site.steps[index - 1].frame == frame:
            places.append((slots.get(site.node(index - 1), -1), True))
        for place in places:
            out[place] = out[place] & held if place in out else held
    return {(slot, reg, behind) for (slot, behind), held in out.items() for reg in held}


def _lowest_taken(code: Code, subprog: int) -> int:
    """The lowest place in the frame whose address is taken; what ends below is only spilled to."""
    begin, end = code.span(subprog)
    insns = code.view.insns[begin:end]
    op, dst, src = insns["code"], isa.dst(insns), isa.src(insns)
    copies = {int(reg) for reg in dst[(op == 0xBF) & (src == _FP)]}
    if not copies:
        return 0
    lows = [
        int(insn["imm"])
        for insn, reg in zip(insns[op == 0x07], dst[op == 0x07].tolist(), strict=True)
        if reg in copies and -512 <= int(insn["imm"]) < 0
    ]
    return min(lows, default=-512)


def _predecessors(code: Code, subprog: int) -> dict[int, list[int]]:
    begin, end = code.span(subprog)
    first, last = code.block(begin), code.block(end - 1)
    out: dict[int, list[int]] = {}
    for block in range(first, last + 1):
        for goal in successors(code, block):
            out.setdefault(goal, []).append(block)
    return out


def _entry(code: Code, slot: int) -> int:
    begin, _ = code.span(code.subprog(slot))
    return code.block(begin)


def _region(code: Code, last: int) -> list[int]:
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


def _ranks(code: Code, entry: int) -> dict[int, int]:
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
