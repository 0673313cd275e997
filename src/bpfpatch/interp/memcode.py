"""Loads, stores and atomic operations as Python statements.

An address is looked up without a check: the tables of regions and the regions'
own bounds raise a Python exception for what is not there, which the function
turns into a trap. So the good case pays nothing.

Source: RFC 9669 sections 5.1 to 5.3; load_acquire and store_release: linux
v6.18, Documentation/bpf/standardization/instruction-set.rst; that a probing
load gives 0 where there is nothing: linux v6.18, arch/x86/net/bpf_jit_comp.c,
ex_handler_bpf().
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Final, TypeAlias

from .alucode import U32, U64, Ranges
from .memory import FRAME_SIZE, INSIDE, WINDOW_BITS

SIZES: Final = {"b": 1, "h": 2, "w": 4, "dw": 8}
_Generated: TypeAlias = Generator[str, None, str]

_SUMS: Final = {"add": "+", "or": "|", "and": "&", "xor": "^"}


class MemoryCode:
    """Writes the statements of memory instructions.

    Args:
        has_views: whether a frame can be indexed in units of 2, 4 and 8 bytes.
    """

    def __init__(self, has_views: bool) -> None:
        self._has_views = has_views

    def load(
        self, size: int, signed: bool, dst: int, base: int, byte_off: int, ranges: Ranges
    ) -> Iterator[str]:
        """A load, with the sign extended or zeros put in front."""
        place = self._stack_place(size, base, byte_off)
        if place is not None:
            yield f"r{dst} = {place}"
        elif size == 1:
            address = yield from _address(base, byte_off)
            yield f"r{dst} = R[{address} >> {WINDOW_BITS}][{address} & {INSIDE:#x}]"
        else:
            where = yield from self._where(size, base, byte_off, "R")
            yield f"r{dst}, = L{size}({where})"
        ranges.of[dst] = (0, (1 << 8 * size) - 1)
        if signed:
            sign = 1 << (8 * size - 1)
            yield f"r{dst} = ((r{dst} ^ {sign:#x}) - {sign:#x}) & {U64:#x}"
            ranges.of[dst] = (0, U64)

    def store(
        self, size: int, base: int, byte_off: int, src: int | None, imm: int, ranges: Ranges
    ) -> Iterator[str]:
        """A store of a register, or of a constant where ``src`` is None."""
        limit = (1 << 8 * size) - 1
        if src is None:
            value = f"{imm & limit:#x}"
        else:
            value = f"r{src}" if ranges.of[src][1] <= limit else f"r{src} & {limit:#x}"
        place = self._stack_place(size, base, byte_off)
        if place is not None:
            yield f"{place} = {value}"
        elif size == 1:
            address = yield from _address(base, byte_off)
            yield f"W[{address} >> {WINDOW_BITS}][{address} & {INSIDE:#x}] = {value}"
        else:
            where = yield from self._where(size, base, byte_off, "W")
            yield f"P{size}({where}, {value})"

    def atomic(
        self, op: str, size: int, dst: int, src: int, byte_off: int, ranges: Ranges
    ) -> Iterator[str]:
        """A read-modify-write: add or and xor, their fetch_ forms, xchg, cmpxchg."""
        limit = U64 if size == 8 else U32
        known = (0, limit)
        address = yield from _address(dst, byte_off)
        yield f"b = W[{address} >> {WINDOW_BITS}]; o = {address} & {INSIDE:#x}"
        yield f"t, = L{size}(b, o)"
        if op == "cmpxchg":
            yield f"if t == r0 & {limit:#x}: P{size}(b, o, r{src} & {limit:#x})"
            yield "r0 = t"
            ranges.of[0] = known
        elif op == "xchg":
            yield f"P{size}(b, o, r{src} & {limit:#x})"
        else:
            sign = _SUMS[op.removeprefix("fetch_")]
            yield f"P{size}(b, o, (t {sign} r{src}) & {limit:#x})"
        if op == "xchg" or op.startswith("fetch_"):
            yield f"r{src} = t"
            ranges.of[src] = known

    def probe(
        self, size: int, signed: bool, dst: int, address: str, ranges: Ranges
    ) -> Iterator[str]:
        """A load that gives 0 where there is nothing to read."""
        yield f"r{dst} = PROBE({address}, {size}, {signed})"
        ranges.of[dst] = (0, U64)

    def _stack_place(self, size: int, base: int, byte_off: int) -> str | None:
        """Where on the own frame the bytes are, if that can be told."""
        if base != 10 or not -FRAME_SIZE <= byte_off <= -size:
            return None
        at = FRAME_SIZE + byte_off
        if size == 1:
            return f"stk[{at}]"
        if self._has_views and at % size == 0:
            return f"s{size}[{at // size}]"
        return None

    def _where(self, size: int, base: int, byte_off: int, table: str) -> _Generated:
        """Yield what computes the address; return bytes and index as arguments."""
        if base == 10 and -FRAME_SIZE <= byte_off <= -size:
            return f"stk, {FRAME_SIZE + byte_off}"
        address = yield from _address(base, byte_off)
        return f"{table}[{address} >> {WINDOW_BITS}], {address} & {INSIDE:#x}"


def _address(base: int, byte_off: int) -> _Generated:
    """Yield what computes an address; return the variable that holds it."""
    if byte_off == 0:
        return f"r{base}"
    sign = "-" if byte_off < 0 else "+"
    yield f"a = r{base} {sign} {abs(byte_off)}"
    return "a"
