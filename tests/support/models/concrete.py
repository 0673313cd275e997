"""Concrete states of a program, and what a state of the value analysis claims of each of them.

This is the meaning of the analysis' domain, written down in the plainest way: a state stands for
all concrete states of which `violation` finds nothing to say.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bpfpatch.facts.columns import MemType
from bpfpatch.isa.semantics import U32, U64
from bpfpatch.linux.verifier.scalars import SCALAR, as_s32, as_s64, parts, sync
from bpfpatch.linux.verifier.state import Frame, VerifierState
from bpfpatch.linux.verifier.values import PARTIAL, UNTRUSTED

AT_END, BEYOND_END = 4, 5
"""The ``trust`` of a packet's pointer that was compared with the packet's end."""
STACK, MAP_VALUE, PACKET = int(MemType.STACK), int(MemType.MAP_VALUE), int(MemType.PACKET)


class Addr(NamedTuple):
    """An address: what it points to, and how many bytes after the start."""

    kind: int
    ref: int
    byte_off: int

    @property
    def number(self) -> int:
        """Some number that such an address may be."""
        return (0xFFFF_8880_0000_0000 + (self.kind << 32) + (self.ref << 24) + self.byte_off) & U64


Cell = int | Addr
"""What 8 bytes hold."""


@dataclass(slots=True)
class Concrete:
    """Registers, frames and callers' registers at one moment of one run.

    Attributes:
        regs: R0 to R9.
        frames: for each frame what its slots hold; what is absent is 0.
        callers: the registers of each caller.
        packet_len: bytes of the packet.
    """

    regs: list[Cell]
    frames: list[dict[int, Cell]] = field(default_factory=list)
    callers: list[list[Cell]] = field(default_factory=list)
    packet_len: int = 0


def as_number(cell: Cell) -> int:
    """The 64 bits."""
    return cell if isinstance(cell, int) else cell.number


def is_in(value: Any, number: int) -> bool:
    """Whether a scalar without its links may be this number."""
    bits, unknown, umin, umax, smin, smax, ul, uh, sl, sh = parts(value)
    return (
        not (number ^ bits) & ~unknown & U64
        and umin <= number <= umax
        and smin <= as_s64(number) <= smax
        and ul <= number & U32 <= uh
        and sl <= as_s32(number) <= sh
    )


class _Links:
    """What values of one id have said of it."""

    def __init__(self) -> None:
        self.is_null: dict[int, bool] = {}
        self.linked: dict[int, list[tuple[int, int]]] = {}

    def contradiction(self) -> str:
        """Numbers of one id that are no one number plus their constants."""
        for ident, found in self.linked.items():
            whole = {number - (link >> 2) & U64 for link, number in found if link & 3 != 2}
            half = {number - (link >> 2) & U32 for link, number in found if link & 3 == 2}
            if len(whole) > 1 or len(half | {number & U32 for number in whole}) > 1:
                return f"numbers linked by id {ident}: {found}"
        return ""


def violation(state: VerifierState, concrete: Concrete) -> str:
    """What a state claims that does not hold of a concrete state, or ""."""
    links = _Links()
    places = [(f"r{i}", value, concrete.regs[i]) for i, value in enumerate(state.regs)]
    for number, (_, regs, _) in enumerate(state.callers):
        mine = concrete.callers[number]
        places += [(f"caller {number} r{i}", value, mine[i]) for i, value in enumerate(regs)]
    for number, frame in enumerate(state.stacks):
        cells = concrete.frames[number]
        places += [
            (f"frame {number} slot {slot}", value, cells.get(slot, 0))
            for slot, value in frame.items()
        ]
    for name, value, cell in places:
        if not _may_be(value, cell, concrete, links):
            return f"{name} is {cell}, not {value}"
    return links.contradiction()


def _may_be(value: Any, cell: Cell, concrete: Concrete, links: _Links) -> bool:  # noqa: PLR0911 - one for each kind
    if value is None:
        return True
    if isinstance(value, int):
        return value == cell
    if value[0] == PARTIAL:
        return _may_be_partial(value, cell, concrete, links)
    if value[0] == SCALAR:
        if value[1]:
            links.linked.setdefault(value[1], []).append((value[2], as_number(cell)))
        return is_in(value, as_number(cell))
    kind, ref, low, high, ident, is_maybe_null, _, trust = value
    if is_maybe_null and ident and links.is_null.setdefault(ident, cell == 0) != (cell == 0):
        return False
    if cell == 0:
        return bool(is_maybe_null) or trust == UNTRUSTED
    if not isinstance(cell, Addr) or (cell.kind, cell.ref) != (kind, ref):
        return False
    if kind == PACKET and trust in (AT_END, BEYOND_END):
        beyond = cell.byte_off - concrete.packet_len
        if beyond < (trust == BEYOND_END):
            return False
    return bool(low <= cell.byte_off <= high)


def _may_be_partial(value: Any, cell: Cell, concrete: Concrete, links: _Links) -> bool:
    _, lower, size, zeros = value
    if lower is None and not zeros:
        return True
    number = as_number(cell)
    for byte in range(8):
        if zeros >> byte & 1 and number >> 8 * byte & 0xFF:
            return False
    return lower is None or _may_be(lower, number & ((1 << 8 * size) - 1), concrete, links)


EDGES = (0, 1, 2, 7, 0x7F, 0x80, 0xFF, 0x7FFF_FFFF, 0x8000_0000, U32, 1 << 32, (1 << 63) - 1)


def any_number(rng: random.Random) -> int:
    """A number, often one at an edge."""
    value = rng.choice(EDGES) if rng.random() < 0.7 else rng.randrange(1 << 64)
    return value if rng.random() < 0.6 else -value & U64


def near(rng: random.Random, number: int) -> int:
    """A number that is not far from another."""
    return number + rng.choice((-2, -1, 0, 0, 1, 1, 2, 16, 255)) & U64


def scalar_of(rng: random.Random, numbers: Sequence[int]) -> Any:
    """A scalar that all of these numbers are; often of others, too."""
    t, m = numbers[0], 0
    for number in numbers:
        m |= number ^ t
    ends: list[int] = []
    kinds = (
        (lambda n: n, 0, U64), (as_s64, -(1 << 63), (1 << 63) - 1),
        (lambda n: n & U32, 0, U32), (as_s32, -(1 << 31), (1 << 31) - 1),
    )  # fmt: skip
    for read, least, most in kinds:
        low, high = min(map(read, numbers)), max(map(read, numbers))
        spread = rng.choice((0, 0, 0, 1, 5, 300, 1 << 40))
        ends += [max(low - spread, least), min(high + spread, most)]
        if rng.random() < 0.3:
            ends[-2:] = [least, most]
    if rng.random() < 0.4:
        m |= rng.choice((0xF, 0xFF, U32, U64, U64 ^ U32))
    return sync((t & ~m, m, *ends))  # type: ignore[arg-type]  # eight of them


class Shape:
    """What a number of concrete states have in common, and the states themselves.

    Args:
        rng: decides all.
        count: how many concrete states there are.
        n_registers: how many registers are used.
        slots: which slots of the stack frame are used.
        ids: the ids to take.
    """

    def __init__(
        self,
        rng: random.Random,
        count: int,
        n_registers: int = 4,
        slots: Sequence[int] = (-1, -2),
        ids: Sequence[int] = (1, 2, 3, 4),
    ) -> None:
        self._rng = rng
        n_frames = rng.choice((1, 1, 2))
        self.concretes = [
            Concrete([0] * 10, [{} for _ in range(n_frames)], [[0] * 10] * (n_frames - 1),
                     packet_len=rng.randrange(4))
            for _ in range(count)
        ]  # fmt: skip
        null_of = {ident: [rng.random() < 0.5 for _ in range(count)] for ident in ids[:2]}
        base_of = {ident: self._bases(count) for ident in ids[2:]}
        self._null_of, self._base_of = null_of, base_of
        self._is_plain = rng.random() < 0.4  # few kinds, of which more meet
        regs: list[Any] = [None] * 10
        for register in range(n_registers):
            regs[register], cells = self._value()
            for concrete, cell in zip(self.concretes, cells, strict=True):
                concrete.regs[register] = cell
        stacks: list[Frame] = []
        for number in range(n_frames):
            frame: Frame = {}
            for slot in slots:
                value, cells = self._value() if rng.random() < 0.7 else self._partial()
                if value is not None:
                    frame[slot] = value
                for concrete, cell in zip(self.concretes, cells, strict=True):
                    concrete.frames[number][slot] = cell
            stacks.append(frame)
        callers = ()
        if n_frames == 2:
            outer: list[Any] = [None] * 10
            found = [self._value() for _ in range(2)]
            for register, (value, _) in enumerate(found, 6):
                outer[register] = value
            for index, concrete in enumerate(self.concretes):
                concrete.callers = [[0] * 6 + [cells[index] for _, cells in found] + [0, 0]]
            callers = ((7, outer, False),)
        self.state = VerifierState(regs, stacks, callers, 0)  # type: ignore[arg-type]  # one caller

    def _bases(self, count: int) -> list[int]:
        first = any_number(self._rng)
        if self._rng.random() < 0.4:
            first &= U32
        return [first if self._rng.random() < 0.3 else near(self._rng, first) for _ in range(count)]

    def _value(self) -> tuple[Any, list[Cell]]:
        kind = self._rng.random()
        if kind < 0.15:
            first = 0 if self._is_plain else any_number(self._rng)
            return first, [first] * len(self.concretes)
        if kind < 0.45 and not self._is_plain:
            return self._number()
        return self._pointer()

    def _number(self) -> tuple[Any, list[Cell]]:
        rng = self._rng
        if rng.random() < 0.4:
            numbers = self._bases(len(self.concretes))
            value = scalar_of(rng, numbers)
            return (None if rng.random() < 0.1 else value), list(numbers)
        ident = rng.choice(list(self._base_of))
        bases = self._base_of[ident]
        link = 0
        if rng.random() < 0.5:
            delta = rng.choice((-5, -1, 1, 3, 300, (1 << 31) - 1, -(1 << 31)))
            link = delta << 2 | (2 if rng.random() < 0.4 and max(bases) <= U32 else 1)
        mask = U32 if link & 3 == 2 else U64
        numbers = [base + (link >> 2) & mask for base in bases]
        value = scalar_of(rng, numbers)
        if not isinstance(value, int):
            value = (SCALAR, ident, link, *value[3:])
        return value, list(numbers)

    def _pointer(self) -> tuple[Any, list[Cell]]:
        rng = self._rng
        kind = MAP_VALUE if self._is_plain else rng.choice((MAP_VALUE, MAP_VALUE, STACK, PACKET))
        ref = 0 if self._is_plain or kind in (PACKET, STACK) else rng.randrange(2)
        offs = [rng.choice((0, 0, 8)) for _ in self.concretes]
        if kind == STACK:
            offs = [rng.choice((-8, -8, -16)) for _ in self.concretes]
        low, high = min(offs), max(offs)
        cells: list[Cell] = [Addr(kind, ref, off) for off in offs]
        if kind == PACKET:
            beyond = min(
                off - concrete.packet_len
                for off, concrete in zip(offs, self.concretes, strict=True)
            )
            trust = rng.choice((0, AT_END if beyond >= 0 else 0, BEYOND_END if beyond > 0 else 0))
            return (kind, ref, low, high, 0, False, 0, trust), cells
        ident = rng.choice(list(self._null_of))
        if rng.random() < 0.4:
            return (kind, ref, low, high, rng.choice((0, ident)), False, 0, 0), cells
        nulls = self._null_of[ident]
        cells = [0 if is_null else cell for is_null, cell in zip(nulls, cells, strict=True)]
        return (kind, ref, low, high, ident if rng.random() < 0.9 else 0, True, 0, 0), cells

    def _partial(self) -> tuple[Any, list[Cell]]:
        rng = self._rng
        size = rng.choice((1, 2, 4))
        mask = (1 << 8 * size) - 1
        numbers = [number & mask for number in self._bases(len(self.concretes))]
        value = scalar_of(rng, numbers) if rng.random() < 0.8 else None
        if not isinstance(value, int) and value is not None and value[6] > mask:
            value = None
        zeros = rng.randrange(256) & ~((1 << size) - 1) & 0xFF
        uppers = [rng.randrange(1 << 64) & ~mask for _ in numbers]
        for byte in range(8):
            if zeros >> byte & 1:
                uppers = [upper & ~(0xFF << 8 * byte) for upper in uppers]
        cells: list[Cell] = [n | upper for n, upper in zip(numbers, uppers, strict=True)]
        return (PARTIAL, value, size if value is not None else 0, zeros), cells
