"""Arithmetic and comparisons as Python expressions.

Registers are local variables ``r0`` to ``r11`` that always hold unsigned 64-bit
numbers. Python's integers do not wrap, so that results must be masked; what is
known about the operands' least and greatest values often shows that they need
not be.

Source: RFC 9669 sections 4.1 to 4.3; for addr_space_cast and the per-cpu move,
which change nothing in a machine with one address space and one cpu, linux
v6.18, include/uapi/linux/bpf.h and kernel/bpf/verifier.c.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

U64: Final = (1 << 64) - 1
U32: Final = (1 << 32) - 1
S64: Final = 1 << 63
S32: Final = 1 << 31

Range = tuple[int, int]
ANY: Final[Range] = (0, U64)
ANY32: Final[Range] = (0, U32)

M64: Final = f"{U64:#x}"
M32: Final = f"{U32:#x}"

_SWAPPED_BITS: Final = (16, 32, 64)

COMPARISONS: Final = {
    "jeq": ("==", "!=", False),
    "jne": ("!=", "==", False),
    "jgt": (">", "<=", False),
    "jge": (">=", "<", False),
    "jlt": ("<", ">=", False),
    "jle": ("<=", ">", False),
    "jsgt": (">", "<=", True),
    "jsge": (">=", "<", True),
    "jslt": ("<", ">=", True),
    "jsle": ("<=", ">", True),
}
"""By name: operator, its opposite, whether of signed numbers."""


def ceiling(value: int) -> int:
    """The least number of all ones that is not less than ``value``."""
    return (1 << value.bit_length()) - 1


class Ranges:
    """What is known about each register's value: least and greatest."""

    def __init__(self) -> None:
        self.of: list[Range] = [ANY] * 16

    def forget(self) -> None:
        """Nothing is known, as where control joins."""
        self.of = [ANY] * 16


def assign(op: str, width: int, dst: int, src: int | None, imm: int, ranges: Ranges) -> str:
    """A statement for one arithmetic instruction; updates what is known of ``dst``.

    Args:
        op: the operation as the opcode table names it, without width and operand.
        width: 64 or 32.
        dst: destination register.
        src: source register, or None for the immediate.
        imm: the immediate.
        ranges: what is known before, and then after it.
    """
    mask, limit = (M64, U64) if width == 64 else (M32, U32)
    right = f"r{src}" if src is not None else f"{imm & limit:#x}"
    known = ranges.of[src] if src is not None else (imm & limit, imm & limit)
    text, after = _EXPRESSIONS[op](
        _Operands(f"r{dst}", right, ranges.of[dst], known, width, mask, limit)
    )
    ranges.of[dst] = after
    return f"r{dst} = {text}"


class _Operands:
    """The two sides of an operation, and what is known about them."""

    def __init__(
        self, left: str, right: str, lhs: Range, rhs: Range, width: int, mask: str, limit: int
    ) -> None:
        self.left, self.right, self.lhs, self.rhs = left, right, lhs, rhs
        self.width, self.mask, self.limit = width, mask, limit
        self.top = (limit >> 1) + 1
        self.is_constant = rhs[0] == rhs[1] and not right.startswith("r")

    def fit(self, text: str, low: int, high: int) -> tuple[str, Range]:
        """The expression, masked where its value might not fit."""
        if low >= 0 and high <= self.limit:
            return text, (low, high)
        return f"({text}) & {self.mask}", (0, self.limit)

    @property
    def low_left(self) -> str:
        """The left side, cut to the width."""
        return self.left if self.lhs[1] <= self.limit else f"({self.left} & {self.mask})"

    @property
    def low_right(self) -> str:
        """The right side, cut to the width."""
        return self.right if self.rhs[1] <= self.limit else f"({self.right} & {self.mask})"

    def cut(self, known: Range) -> Range:
        """What is known of a side that was cut to the width."""
        return known if known[1] <= self.limit else (0, self.limit)


_Result = tuple[str, Range]


def _add(o: _Operands) -> _Result:
    if o.is_constant and o.rhs[0] >= o.top:  # a negative constant
        size = o.limit + 1 - o.rhs[0]
        return o.fit(f"{o.left} - {size:#x}", o.lhs[0] - size, o.lhs[1] - size)
    return o.fit(f"{o.left} + {o.right}", o.lhs[0] + o.rhs[0], o.lhs[1] + o.rhs[1])


def _sub(o: _Operands) -> _Result:
    if o.is_constant and o.rhs[0] >= o.top:
        size = o.limit + 1 - o.rhs[0]
        return o.fit(f"{o.left} + {size:#x}", o.lhs[0] + size, o.lhs[1] + size)
    return o.fit(f"{o.left} - {o.right}", o.lhs[0] - o.rhs[1], o.lhs[1] - o.rhs[0])


def _mul(o: _Operands) -> _Result:
    if o.is_constant and o.rhs[0] >= o.top:
        size = o.limit + 1 - o.rhs[0]
        return f"({o.left} * -{size:#x}) & {o.mask}", (0, o.limit)
    return o.fit(f"{o.left} * {o.right}", o.lhs[0] * o.rhs[0], o.lhs[1] * o.rhs[1])


def _or(o: _Operands) -> _Result:
    high = ceiling(max(o.lhs[1], o.rhs[1]))
    return o.fit(f"{o.left} | {o.right}", max(o.lhs[0], o.rhs[0]), high)


def _xor(o: _Operands) -> _Result:
    return o.fit(f"{o.left} ^ {o.right}", 0, ceiling(max(o.lhs[1], o.rhs[1])))


def _and(o: _Operands) -> _Result:
    return o.fit(f"{o.left} & {o.right}", 0, min(o.lhs[1], o.rhs[1]))


def _amount(o: _Operands) -> str:
    if o.is_constant:
        return str(o.rhs[0] & (o.width - 1))
    return f"({o.right} & {o.width - 1})" if o.rhs[1] >= o.width else o.right


def _most(o: _Operands) -> int:
    return o.rhs[0] & (o.width - 1) if o.is_constant else min(o.rhs[1], o.width - 1)


def _lsh(o: _Operands) -> _Result:
    return o.fit(f"{o.left} << {_amount(o)}", 0, o.lhs[1] << _most(o))


def _rsh(o: _Operands) -> _Result:
    least = _most(o) if o.is_constant else 0
    return f"{o.low_left} >> {_amount(o)}", (0, o.cut(o.lhs)[1] >> least)


def _arsh(o: _Operands) -> _Result:
    if o.cut(o.lhs)[1] < o.top:
        return _rsh(o)
    top = f"{o.top:#x}"
    return f"(({o.low_left} ^ {top}) - {top} >> {_amount(o)}) & {o.mask}", (0, o.limit)


def _neg(o: _Operands) -> _Result:
    return f"-{o.left} & {o.mask}", (0, o.limit)


def _mov(o: _Operands) -> _Result:
    return o.low_right, o.cut(o.rhs)


def _div(o: _Operands) -> _Result:
    if not o.is_constant:
        low = o.low_right
        return f"{o.low_left} // {low} if {low} else 0", (0, o.cut(o.lhs)[1])
    if o.rhs[0] == 0:
        return "0", (0, 0)
    return f"{o.low_left} // {o.right}", (0, o.cut(o.lhs)[1] // o.rhs[0])


def _mod(o: _Operands) -> _Result:
    if not o.is_constant:
        low = o.low_right
        return f"{o.low_left} % {low} if {low} else {o.low_left}", o.cut((0, o.lhs[1]))
    if o.rhs[0] == 0:
        return o.low_left, o.cut(o.lhs)
    return f"{o.low_left} % {o.right}", (0, o.rhs[0] - 1)


def _signed(name: str) -> Callable[[_Operands], _Result]:
    def expression(o: _Operands) -> _Result:
        return f"{name}({o.low_left}, {o.low_right}, {o.width})", (0, o.limit)

    return expression


_EXPRESSIONS: Final[dict[str, Callable[[_Operands], _Result]]] = {
    "add": _add,
    "sub": _sub,
    "mul": _mul,
    "div": _div,
    "or": _or,
    "and": _and,
    "lsh": _lsh,
    "rsh": _rsh,
    "mod": _mod,
    "xor": _xor,
    "mov": _mov,
    "arsh": _arsh,
    "neg": _neg,
    "sdiv": _signed("SDIV"),
    "smod": _signed("SMOD"),
}


def extend(width: int, dst: int, src: int, bits: int, ranges: Ranges) -> str:
    """A statement that extends the sign of the low ``bits`` of a register."""
    limit = U64 if width == 64 else U32
    sign, low = 1 << (bits - 1), (1 << bits) - 1
    known = ranges.of[src]
    ranges.of[dst] = (0, limit)
    cut = f"r{src}" if known[1] <= low else f"(r{src} & {low:#x})"
    return f"r{dst} = (({cut} ^ {sign:#x}) - {sign:#x}) & {limit:#x}"


def swap(op: str, bits: int, dst: int, byteorder: str, ranges: Ranges) -> str:
    """A statement for le, be and bswap on a machine of this byte order."""
    low = (1 << bits) - 1
    known = ranges.of[dst]
    ranges.of[dst] = (0, low)
    cut = f"r{dst}" if known[1] <= low else f"(r{dst} & {low:#x})"
    if op == {"little": "le", "big": "be"}[byteorder]:
        return f"r{dst} = {cut}"
    if bits == 16:
        return f"r{dst} = (r{dst} & 0xff) << 8 | r{dst} >> 8 & 0xff"
    return f"r{dst} = FROM({cut}.to_bytes({bits // 8}, 'little'), 'big')"


def condition(name: str, dst: int, src: int | None, imm: int, ranges: Ranges) -> tuple[str, str]:
    """A conditional jump's condition, and its opposite, as expressions.

    Args:
        name: the opcode's name, such as ``jsgt32_imm``.
        dst: left register.
        src: right register, or None for the immediate.
        imm: the immediate.
        ranges: what is known.
    """
    op = name.split("_", maxsplit=1)[0]
    is_narrow = op.endswith("32")
    op = op.removesuffix("32")
    limit, top = (U32, S32) if is_narrow else (U64, S64)
    left = _side(dst, limit, ranges)
    right = f"{imm & limit:#x}" if src is None else _side(src, limit, ranges)
    if op == "jset":
        test = f"{left} & {right}"
        return test, f"not {test}"
    sign, opposite, is_signed = COMPARISONS[op]
    if is_signed:
        left = f"({left} ^ {top:#x})"
        right = f"{imm & limit ^ top:#x}" if src is None else f"({right} ^ {top:#x})"
    return f"{left} {sign} {right}", f"{left} {opposite} {right}"


def _side(register: int, limit: int, ranges: Ranges) -> str:
    if ranges.of[register][1] <= limit:
        return f"r{register}"
    return f"(r{register} & {limit:#x})"


def divide_signed(left: int, right: int, width: int) -> int:
    """The quotient of two's-complement numbers, rounded to 0; 0 where the divisor is 0."""
    top, mask = 1 << (width - 1), (1 << width) - 1
    a, b = (left ^ top) - top, (right ^ top) - top
    if b == 0:
        return 0
    quotient = abs(a) // abs(b)
    return (quotient if (a < 0) == (b < 0) else -quotient) & mask


def remainder_signed(left: int, right: int, width: int) -> int:
    """What `divide_signed` leaves, with the dividend's sign; all of it where the divisor is 0."""
    top, mask = 1 << (width - 1), (1 << width) - 1
    a, b = (left ^ top) - top, (right ^ top) - top
    if b == 0:
        return left
    remainder = abs(a) % abs(b)
    return (-remainder if a < 0 else remainder) & mask
