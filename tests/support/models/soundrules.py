"""Each rule of the value analysis' domain, against random concrete states that it must hold of."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from bpfpatch.isa.semantics import (
    ADD,
    ALU,
    ALU64,
    JMP,
    JMP32,
    MOV,
    SRC_X,
    SUB,
    U32,
    U64,
    compute,
    holds,
)
from bpfpatch.linux.verifier import branches, scalarops, scalars
from bpfpatch.linux.verifier.arithmetic import Arithmetic
from bpfpatch.linux.verifier.jumps import Jumps
from bpfpatch.linux.verifier.scalars import SCALAR, UNKNOWN
from bpfpatch.linux.verifier.state import VerifierState, read_stack, write_stack
from bpfpatch.linux.verifier.values import PACKET_END, PARTIAL, Ids, pointer

from .concrete import (
    BEYOND_END,
    MAP_VALUE,
    PACKET,
    STACK,
    Addr,
    Cell,
    Concrete,
    Shape,
    any_number,
    as_number,
    is_in,
    near,
    scalar_of,
    violation,
)

Rule = Callable[[random.Random], str]
"""Tries one random case; what does not hold of it, or ""."""

_OPERATIONS = (0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x80, 0x90, 0xA0, 0xC0)
_COMPARISONS = (0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0xA0, 0xB0, 0xC0, 0xD0)
_SHIFTS = (0x60, 0x70, 0xC0)


def _numbers(rng: random.Random) -> list[int]:
    first = any_number(rng)
    return [first if not i else near(rng, first) if rng.random() < 0.7 else any_number(rng)
            for i in range(rng.randint(1, 4))]  # fmt: skip


def _check(numbers: list[int], value: Any, what: str) -> str:
    wrong = [number for number in numbers if not is_in(value, number)]
    return f"{what}: {wrong[0]:#x} is not in {value}" if wrong else ""


# Numbers.


def rule_sync(rng: random.Random) -> str:
    """What is known in parts that all hold of a number holds of it when they are put together."""
    numbers = _numbers(rng)
    return _check(numbers, scalar_of(rng, numbers), "sync")


def rule_union(rng: random.Random) -> str:
    """Numbers of either scalar are of their union, also when it is widened."""
    lefts, rights = _numbers(rng), _numbers(rng)
    both = scalars.union(scalar_of(rng, lefts), scalar_of(rng, rights))
    if rng.random() < 0.5:
        both = scalars.widened(both)
    return _check(lefts + rights, both, "union")


def rule_cut(rng: random.Random) -> str:
    """The lower bytes of a number, zero- or sign-extended, are of those of its scalar."""
    numbers = _numbers(rng)
    value = scalar_of(rng, numbers)
    size = rng.choice((1, 2, 4, 8))
    mask = (1 << 8 * size) - 1
    found = _check([n & mask for n in numbers], scalars.truncated(value, size), f"cut to {size}")
    if found or size == 8:
        return found
    is_64 = rng.random() < 0.5
    half = 1 << 8 * size - 1
    out = [((n & mask) ^ half) - half & (U64 if is_64 else U32) for n in numbers]
    return _check(out, scalars.sign_extended(value, size, is_64), f"sign of {size} {is_64}")


def rule_scalar_covers(rng: random.Random) -> str:
    """A scalar that covers another is of all its numbers."""
    numbers = _numbers(rng)
    narrow = scalar_of(rng, numbers)
    wide = scalar_of(rng, [*numbers, near(rng, numbers[0])][rng.randrange(2) :])
    return _check(numbers, wide, "covers") if scalars.covers(wide, narrow) else ""


def rule_arithmetic(rng: random.Random) -> str:
    """What an instruction computes of two numbers is in what it computes of their scalars."""
    code = rng.choice(_OPERATIONS) | rng.choice((ALU, ALU64))
    lefts, rights = _numbers(rng), _numbers(rng)
    if code & 0xF0 in _SHIFTS and rng.random() < 0.9:
        rights = [rng.randrange(64 if code & 7 == ALU64 else 32)]
    out = scalarops.arithmetic(code, scalar_of(rng, lefts), scalar_of(rng, rights))
    results = [compute(code, 0, a, b, 0) for a in lefts for b in rights]
    return _check([r for r in results if r is not None], out, f"{code:#x} {lefts} {rights}")


def rule_byte_swap(rng: random.Random) -> str:
    """A swapped or cut number is in what the swap makes of its scalar."""
    numbers, width = _numbers(rng), rng.choice((16, 32, 64))
    code = rng.choice((0xD4, 0xDC, 0xD7))
    mask = (1 << width) - 1
    out = [n & mask for n in numbers]
    if code != 0xD4:
        out = [int.from_bytes(n.to_bytes(width // 8, "little"), "big") for n in out]
    value = scalarops.arithmetic(code, scalar_of(rng, numbers), width)
    return _check(out, value, f"swap {code:#x} {width}")


def rule_decide(rng: random.Random) -> str:
    """A comparison that is decided of two scalars goes this way for each two of their numbers."""
    code = rng.choice(_COMPARISONS) | rng.choice((JMP, JMP32))
    lefts, rights = _numbers(rng), _numbers(rng)
    if rng.random() < 0.4:
        rights = [near(rng, rng.choice(lefts))]
    verdict = branches.decided(code, scalar_of(rng, lefts), scalar_of(rng, rights))
    if verdict is None:
        return ""
    for a in lefts:
        for b in rights:
            if holds(code, a, b) != verdict:
                return f"{code:#x} of {a:#x} and {b:#x} is not {verdict}"
    return ""


def rule_refine(rng: random.Random) -> str:
    """What each outcome of a comparison tells holds of all numbers that have it."""
    code = rng.choice(_COMPARISONS) | rng.choice((JMP, JMP32))
    lefts, rights = _numbers(rng), _numbers(rng)
    if rng.random() < 0.4:
        rights = [near(rng, rng.choice(lefts))]
    left, right = scalar_of(rng, lefts), scalar_of(rng, rights)
    if branches.decided(code, left, right) is not None:
        return ""
    for is_taken in (False, True):
        new_left, new_right = branches.refined(code, left, right, is_taken)
        for a in lefts:
            for b in rights:
                if holds(code, a, b) != is_taken:
                    continue
                if not is_in(new_left, a) or not is_in(new_right, b):
                    return f"{code:#x} {is_taken}: {a:#x}, {b:#x} not in {new_left}, {new_right}"
    return ""


# States.


def rule_join(rng: random.Random) -> str:
    """What a joined state claims holds of all concrete states of those that it joins."""
    n_states = rng.randint(2, 3)
    seeds = [rng.random() for _ in range(n_states)]
    if rng.random() < 0.3:
        seeds = seeds[:1] * n_states  # the same state, in which other numbers happen
    shapes = [Shape(random.Random(seed), 3) for seed in seeds]
    n_frames = len(shapes[0].state.stacks)
    shapes = [shape for shape in shapes if len(shape.state.stacks) == n_frames]
    ids = Ids(4)
    state = shapes[0].state
    for shape in shapes[1:]:
        if not state.covers(shape.state):
            state = state.joined(shape.state, ids, widen=rng.random() < 0.2)
    for shape in shapes:
        for concrete in shape.concretes:
            found = violation(state, concrete)
            if found:
                return f"join: {found}"
    return ""


_RANGE = scalars.in_range(0, 3)
_POINTERS = [
    pointer(kind, 0, 0, ident, is_maybe_null=is_maybe_null)
    for kind in (MAP_VALUE, STACK)
    for ident, is_maybe_null in ((0, False), (1, False), (0, True), (1, True), (2, True))
] + [(MAP_VALUE, 0, 0, 8, 1, True, 0, 0), (PACKET, 0, 0, 0, 0, False, 0, BEYOND_END)]
_LINKED = [
    (SCALAR, ident, delta, *base[3:])
    for base in (UNKNOWN, _RANGE)
    for ident, delta in ((0, 0), (3, 0), (4, 0), (3, 1 << 2 | 1), (3, 1 << 2 | 2))
]
_PARTIALS = [(PARTIAL, None, 0, 0xF0), (PARTIAL, 1, 4, 0), (PARTIAL, _LINKED[6], 4, 0xF0)]
_FEW = [None, 0, 1, *_POINTERS, *_LINKED]


def _a_few(rng: random.Random) -> VerifierState:
    regs = [rng.choice(_FEW) for _ in range(3)] + [None] * 7
    slot = rng.choice(_FEW + _PARTIALS)
    outer = [None] * 6 + [rng.choice(_FEW), None, None, None]
    return VerifierState(
        regs, [{-1: slot} if slot is not None else {}, {}], ((0, outer, False),), 0
    )


def _changed(rng: random.Random, state: VerifierState) -> VerifierState:
    """Like a state, in one or two places."""
    out = state.copy()
    for _ in range(rng.randint(0, 2)):
        where = rng.randrange(5)
        if where < 3:
            out.regs[where] = rng.choice(_FEW)
        elif where == 3:
            out.stacks[0] = {-1: rng.choice(_FEW[1:] + _PARTIALS)}
        else:
            outer = [None] * 6 + [rng.choice(_FEW), None, None, None]
            out.callers = ((0, outer, False),)
    return out


def _one_of(rng: random.Random, state: VerifierState) -> Concrete | None:
    """A concrete state that a state stands for."""
    is_null = {ident: rng.random() < 0.5 for ident in (1, 2)}
    base = {ident: rng.randrange(3) for ident in (3, 4)}
    packet_len = rng.randrange(3)

    def cell(value: Any) -> Cell:  # noqa: PLR0911 - one for each kind
        if value is None:
            return rng.choice((0, 1, any_number(rng), Addr(MAP_VALUE, 0, 0)))
        if isinstance(value, int):
            return value
        if value[0] == PARTIAL:
            low = as_number(cell(value[1])) if value[1] is not None else rng.randrange(1 << 32)
            return low & U32
        if value[0] == SCALAR:
            return base[value[1]] + (value[2] >> 2) & U64 if value[1] else rng.randrange(4)
        if value[5] and (is_null[value[4]] if value[4] else rng.random() < 0.5):
            return 0
        if value[0] == PACKET:
            return Addr(PACKET, 0, 0)
        return Addr(value[0], value[1], rng.randint(value[2], value[3]))

    regs = [cell(value) for value in state.regs]
    frames = [{slot: cell(value) for slot, value in frame.items()} for frame in state.stacks]
    callers = [[cell(value) for value in regs] for _, regs, _ in state.callers]
    out = Concrete(regs, frames, callers, packet_len)
    return None if violation(state, out) else out


def rule_covers(rng: random.Random) -> str:
    """A state that covers another stands for all concrete states of that one."""
    new = _a_few(rng)
    old = _changed(rng, new) if rng.random() < 0.9 else _a_few(rng)
    if rng.random() < 0.3:
        old, new = new, old
    if not old.covers(new):
        return ""
    for _ in range(4):
        concrete = _one_of(rng, new)
        found = violation(old, concrete) if concrete is not None else ""
        if found:
            return f"{old.regs[:3]} {old.stacks} covers {new.regs[:3]} {new.stacks}: {found}"
    return ""


class _Owner:
    """An analysis of one instruction."""

    def __init__(self, **fields: int) -> None:
        self.code = self
        for name in ("opcode", "dst", "src", "off", "imm", "imm64", "target", "block_of"):
            setattr(self, name, {0: fields.get(name, 0)})
        self.states: list[tuple[int, VerifierState]] = []
        self._arithmetic: Arithmetic | None = None
        self._n_ids = 100

    def fresh(self) -> int:
        """A new id."""
        self._n_ids += 1
        return self._n_ids

    def push(self, slot: int, state: VerifierState) -> None:
        """Control goes to a slot."""
        self.states.append((slot, state))

    def run_block(self, block: int, state: VerifierState, slot: int) -> None:
        """Run the instruction once more."""
        self.run(state)

    def run(self, state: VerifierState) -> None:
        """Run the instruction, which is arithmetic."""
        if self._arithmetic is None:
            self._arithmetic = Arithmetic(self)  # type: ignore[arg-type]  # all that it asks for
        self._arithmetic.run(0, state)
        self.push(1, state)


def _hold(owner: _Owner, slot: int, concrete: Concrete, what: str) -> str:
    found = [violation(state, concrete) for at, state in owner.states if at == slot]
    if "" in found:
        return ""
    return f"{what}: {found[0] if found else 'this way is not taken'}"


def rule_alu(rng: random.Random) -> str:
    """An instruction makes a state that holds of what it makes of each concrete state."""
    shape = Shape(rng, 3)
    dst, src = rng.randrange(4), rng.randrange(4)
    code = rng.choice((*_OPERATIONS, MOV, MOV, ADD, ADD, SUB)) | rng.choice((ALU, ALU64, ALU64))
    imm = rng.choice((-1, 1, 3, -8, 16, 0x7FFF_FFFF, -(1 << 31)))
    is_reg = rng.random() < 0.5
    operands = [c.regs[src] if is_reg else imm & U64 for c in shape.concretes]
    done = [
        _computed(code, c.regs[dst], by) for c, by in zip(shape.concretes, operands, strict=True)
    ]
    if None in done:
        return ""
    owner = _Owner(
        opcode=code | (SRC_X if is_reg else 0), dst=dst, src=src, imm=imm, imm64=imm & U64
    )
    owner.run(shape.state)
    for concrete, cell in zip(shape.concretes, done, strict=True):
        assert cell is not None
        concrete.regs[dst] = cell
        found = _hold(
            owner, 1, concrete, f"alu {code:#x} r{dst} {'r' if is_reg else ''}{src} {imm}"
        )
        if found:
            return found
    return ""


def _computed(code: int, left: Cell, right: Cell) -> Cell | None:
    """The result, or None where the verifier refuses to compute with a pointer."""
    operation = code & 0xF0
    if isinstance(left, int) and isinstance(right, int):
        return compute(code, 0, left, right, 0)
    if code & 7 == ALU:
        return None
    if operation == MOV:
        return right
    if operation == ADD and isinstance(left, int):
        left, right = right, left
    if operation not in (ADD, SUB) or isinstance(left, int) or not isinstance(right, int):
        return None
    by = scalars.as_s64(right)
    if not -(1 << 29) < by < 1 << 29:
        return None
    return left._replace(byte_off=left.byte_off + (by if operation == ADD else -by))


def rule_branch(rng: random.Random) -> str:
    """Where a conditional jump goes to, a state holds of each concrete state that goes there."""
    shape = Shape(rng, 3)
    dst, src = rng.randrange(4), rng.randrange(4)
    code = rng.choice((*_COMPARISONS, 0x10, 0x50)) | rng.choice((JMP, JMP, JMP32))
    imm = rng.choice((0, 0, 0, 1, -1, 7))
    is_reg = rng.random() < 0.5
    if rng.random() < 0.3:  # a packet's pointer, and its end
        is_reg, src, code = True, 4, rng.choice((0x20, 0x30, 0xA0, 0xB0)) | JMP
        shape.state.regs[4] = pointer(PACKET_END)
        for concrete in shape.concretes:
            concrete.regs[4] = Addr(PACKET_END, 0, 0)
        if rng.random() < 0.5:
            dst, src = src, dst
    owner = _Owner(
        opcode=code | (SRC_X if is_reg else 0), dst=dst, src=src, imm64=imm & U64, target=9
    )
    before = shape.state.copy()
    Jumps(owner).branch(0, shape.state)  # type: ignore[arg-type]  # all that it asks for
    for concrete in shape.concretes:
        right = concrete.regs[src] if is_reg else imm & U64
        is_taken = _is_taken(code, concrete.regs[dst], right, concrete.packet_len)
        if is_taken is None:
            continue
        text = f"branch {code:#x} r{dst} {right} {is_taken} of {before.regs[:5]} {before.stacks}"
        found = _hold(owner, 9 if is_taken else 1, concrete, text)
        if found:
            return found
    return ""


def _is_taken(code: int, left: Cell, right: Cell, packet_len: int) -> bool | None:
    """Which way is taken, or None where that depends on addresses."""
    if isinstance(left, int) and isinstance(right, int):
        return holds(code, left, right)
    kinds = {cell.kind for cell in (left, right) if isinstance(cell, Addr)}
    if isinstance(left, Addr) and isinstance(right, Addr) and kinds == {PACKET, PACKET_END}:
        ends = [c.byte_off if c.kind == PACKET else packet_len for c in (left, right)]
        return holds(code, ends[0] + 4096, ends[1] + 4096)
    if code & 7 == JMP and isinstance(left, Addr) and isinstance(right, Addr):
        if code & 0xF0 not in (0x10, 0x50):
            return None
        return (left == right) == (code & 0xF0 == 0x10)
    if code & 7 == JMP and 0 in (left, right) and code & 0xF0 in (0x10, 0x50):
        return code & 0xF0 == 0x50
    return None


def rule_stack(rng: random.Random) -> str:
    """What is stored in a frame, loaded from it, or forgotten, holds of what happens there."""
    shape = Shape(rng, 3)
    state, register = shape.state, rng.randrange(4)
    frame = state.stacks[0]
    for _ in range(rng.randint(1, 4)):
        size = rng.choice((1, 2, 4, 8))
        byte_off = -16 + rng.randrange(16 // size) * size
        what = rng.random()
        if what < 0.5:
            value = state.regs[register]
            write_stack(frame, byte_off, size, value, is_imm=rng.random() < 0.2)
            for concrete in shape.concretes:
                _store(concrete.frames[0], byte_off, size, concrete.regs[register])
        elif what < 0.7:
            low, high = sorted((rng.randrange(-16, 0), rng.randrange(-16, 1)))
            state.forget(0, low, high)
            for concrete in shape.concretes:
                for at in range(low, high):
                    _store(concrete.frames[0], at, 1, rng.randrange(256))
        else:
            register = rng.randrange(4)
            value = read_stack(frame, byte_off, size)
            state.regs[register] = value
            for concrete in shape.concretes:
                concrete.regs[register] = _load(concrete.frames[0], byte_off, size)
        for concrete in shape.concretes:
            found = violation(state, concrete)
            if found:
                return f"stack {byte_off} of {size}: {found}"
    return ""


def _store(frame: dict[int, Cell], byte_off: int, size: int, cell: Cell) -> None:
    slot, byte = byte_off >> 3, byte_off & 7
    if size == 8:
        frame[slot] = cell
        return
    mask = (1 << 8 * size) - 1
    old = as_number(frame.get(slot, 0)) & ~(mask << 8 * byte)
    frame[slot] = old | (as_number(cell) & mask) << 8 * byte


def _load(frame: dict[int, Cell], byte_off: int, size: int) -> Cell:
    found = frame.get(byte_off >> 3, 0)
    if size == 8:
        return found
    return as_number(found) >> 8 * (byte_off & 7) & ((1 << 8 * size) - 1)


RULES: dict[str, Rule] = {
    name.removeprefix("rule_"): rule
    for name, rule in sorted(globals().items())
    if name.startswith("rule_")
}
"""All of them, by name."""
