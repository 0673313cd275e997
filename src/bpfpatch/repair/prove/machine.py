"""Run instructions with terms in the place of numbers.

What comes from outside, what is loaded, and what calls give may be anything. Of registers that
hold a pointer on the path of the log, where code is entered or where they are loaded, it is assumed
that they hold a pointer in every run: no small number, and no small negative one. Bytes of the
frame below all whose address is taken are spills, which nothing else changes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from bpfpatch import isa
from bpfpatch.isa.semantics import SRC_X
from bpfpatch.prove.semantics import alu, condition
from bpfpatch.prove.solver import Term

from ..site import Fields, RepairSite, SiteCode

_FP: Final = 10
CALL, EXIT = 0x85, 0x95
_LDX, _ST, _STX, _ALU, JMP, JMP32, _ALU64 = 1, 2, 3, 4, 5, 6, 7
_MEM: Final = 0x60
LD_IMM64: Final = 0x18
_SMALL: Final = 1 << 16


@dataclass(slots=True)
class SymbolicState:
    """What is known at a point: when it is reached, registers, and spills by (place, size)."""

    reached: Term
    regs: list[Term]
    spills: dict[tuple[int, int], Term] = field(default_factory=dict)

    def copy(self, reached: Term) -> SymbolicState:
        """The same, reached under another condition."""
        return SymbolicState(reached, list(self.regs), dict(self.spills))


class SymbolicMachine:
    """Steps of terms, and the facts that hold of them.

    Args:
        z3: the module.
        code: the code.
        subprog: that is run.
        site: the refusal whose path tells which registers hold pointers.
    """

    def __init__(self, z3: Any, code: SiteCode, subprog: int, site: RepairSite | None) -> None:
        self.z3 = z3
        self.code = code
        self.facts: list[Term] = []
        self._pointers = set() if site is None else _pointers(code, site)
        self._n_fresh = 0
        self.frame = z3.BitVec("fp", 64)
        self._assume_pointer(self.frame)
        self._safe = code.lowest_taken(subprog)

    def anything(self, slot: int, reached: Term) -> SymbolicState:
        """The state of code that is entered at a slot, from anywhere."""
        regs = [self.fresh(64) for _ in range(_FP)] + [self.frame]
        for reg in range(_FP):
            if (slot, reg, False) in self._pointers:
                self.facts.append(self.z3.Implies(reached, self._is_pointer(regs[reg])))
        return SymbolicState(reached, regs)

    def step(self, slot: int, state: SymbolicState) -> None:
        """One instruction."""
        fields = self.code.fields(slot)
        kind = fields.code & 7
        if kind in (_ALU, _ALU64):
            dst, operand = state.regs[fields.dst], self._operand(fields, state)
            value = alu(self.z3, fields.code, fields.off, fields.imm, dst, operand)
            state.regs[fields.dst] = self.fresh(64) if value is None else value
        elif kind == _LDX and fields.code & 0xE0 == _MEM:
            self._load(slot, fields, state)
        elif kind in (_ST, _STX) and fields.code & 0xE0 == _MEM:
            self._store(fields, state, is_imm=kind == _ST)
        elif fields.code == CALL:
            self._forget(state)
            for reg in range(6):
                state.regs[reg] = self.fresh(64)
            self._learn(slot, 0, state)
        elif fields.code == LD_IMM64:
            state.regs[fields.dst] = self._imm64(slot, fields)
        elif kind not in (JMP, JMP32):
            writes = int(isa.writes(self.code.view.insns[slot : slot + 1])[0])
            self._forget(state)
            for reg in range(_FP):
                if writes >> reg & 1:
                    state.regs[reg] = self.fresh(64)

    def taken(self, fields: Fields, state: SymbolicState) -> Term | None:
        """When a conditional jump is taken; None where this does not know."""
        operand = self._operand(fields, state)
        return condition(self.z3, fields.code, state.regs[fields.dst], operand)

    def _operand(self, fields: Fields, state: SymbolicState) -> Term:
        if fields.code & SRC_X:
            return state.regs[fields.src]
        return self.z3.BitVecVal(fields.imm, 64)

    def _load(self, slot: int, fields: Fields, state: SymbolicState) -> None:
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
        fresh = self.fresh(bits)
        state.regs[fields.dst] = fresh if bits == 64 else self.z3.ZeroExt(64 - bits, fresh)
        self._learn(slot, fields.dst, state)

    def _store(self, fields: Fields, state: SymbolicState, *, is_imm: bool) -> None:
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

    def _forget(self, state: SymbolicState) -> None:
        """Forget what may be changed through an address in the frame."""
        state.spills = {
            place: value for place, value in state.spills.items() if sum(place) <= self._safe
        }

    def _learn(self, slot: int, reg: int, state: SymbolicState) -> None:
        if (slot, reg, True) in self._pointers:
            self.facts.append(self.z3.Implies(state.reached, self._is_pointer(state.regs[reg])))

    def _imm64(self, slot: int, fields: Fields) -> Term:
        if fields.src:
            value = self.fresh(64)
            self._assume_pointer(value)
            return value
        high = int(self.code.view.insns["imm"][slot + 1])
        return self.z3.BitVecVal((high & 0xFFFFFFFF) << 32 | fields.imm & 0xFFFFFFFF, 64)

    def _assume_pointer(self, value: Term) -> None:
        self.facts.append(self._is_pointer(value))

    def _is_pointer(self, value: Term) -> Term:
        z3 = self.z3
        return z3.And(z3.UGE(value, _SMALL), z3.ULE(value, (1 << 64) - _SMALL))

    def fresh(self, bits: int) -> Term:
        """A term that may be anything."""
        self._n_fresh += 1
        return self.z3.BitVec(f"v{self._n_fresh}", bits)

    def fresh_bool(self) -> Term:
        """A condition that may be either."""
        self._n_fresh += 1
        return self.z3.Bool(f"b{self._n_fresh}")


def _pointers(code: SiteCode, site: RepairSite) -> set[tuple[int, int, bool]]:
    """(slot, register, whether after it) at which the path has pointers that are not NULL.

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
    return {(slot, reg, after) for (slot, after), held in out.items() for reg in held}
