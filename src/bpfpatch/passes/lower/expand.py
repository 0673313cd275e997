"""Newer instructions in terms of older ones, as text: one function a family.

All of it takes cpu v1, but for the comparisons of v2 where that is allowed. Registers: ``d`` is
the destination, ``s`` the source, ``t`` and ``u`` are free to work with.

Source: RFC 9669 sections 4.1 to 4.3 and 5.2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bpfpatch.isa.opcodes import ALU_SIGNS, JUMP_SIGNS

_OPPOSITES: Final = {"jlt": "jge", "jle": "jgt", "jslt": "jsge", "jsle": "jsgt"}
_SWAPPED: Final = {"jlt": "jgt", "jle": "jge", "jslt": "jsgt", "jsle": "jsge"}
_SIGNED: Final = frozenset({"jsgt", "jsge", "jslt", "jsle"})
_BITWISE: Final = {"jeq": ("^=", "jeq"), "jne": ("^=", "jne"), "jset": ("&=", "jne")}
"""Comparisons that one register is enough for: an operation, and how its result compares to 0."""
_LOADS: Final = {"b": 8, "h": 16, "w": 32}
_U32: Final = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class Site:
    """What is known of an instruction that is to be lowered.

    Attributes:
        name: its row's name in the opcode table.
        dst: its destination.
        src: its source, where it has one.
        off: its ``off``.
        imm: its immediate, where it has one.
        zero_dst: the destination's upper half is zero before.
        zero_src: so is the source's.
        moves_plainly: the source is a number of 32 bits for certain, and no address.
        is_untidy: the move may leave the upper half as it comes: what follows does not read it.
        is_open: a loader will fill in the immediate or ``off``.
        most: the highest cpu version that is allowed.
        is_little: byte order of who runs it.
    """

    name: str
    dst: int
    src: int
    off: int
    imm: int
    zero_dst: bool
    zero_src: bool
    moves_plainly: bool
    is_untidy: bool
    is_open: bool
    most: int
    is_little: bool


@dataclass(frozen=True, slots=True)
class Expansion:
    """What an instruction becomes.

    Attributes:
        lines: assembly; ``{t}`` and ``{u}`` stand for registers to work with.
        main: index of the line that keeps the field which a loader fills in, or -1.
        n_registers: how many of ``t`` and ``u`` there are.
        test: of a comparison, the condition on which `@target` is next; else "".
        is_negated: ``test`` is that on which it is not.
    """

    lines: tuple[str, ...]
    main: int = -1
    n_registers: int = 0
    test: str = ""
    is_negated: bool = False


def expansion(site: Site) -> Expansion | None:  # noqa: PLR0911 - one a family
    """The older form of an instruction, or None where there is none."""
    family, _, form = site.name.partition("_")
    if family == "gotol":
        return Expansion(("goto @target",))
    if family.startswith("movsx"):
        return _movsx(site, int(form), is_narrow=family.endswith("32"))
    if family == "ldsx":
        return _ldsx(site, _LOADS[form])
    if family.startswith("bswap"):
        order = "be" if site.is_little else "le"
        bits = family.removeprefix("bswap")
        return Expansion((f"r{site.dst} = {order}{bits} r{site.dst}",))
    if family in ("sdiv64", "sdiv32", "smod64", "smod32"):
        return _signed(site, family, form)
    if family.removesuffix("32") in JUMP_SIGNS:
        is_narrow = family.endswith("32")
        op = family.removesuffix("32")
        return _narrow_jump(site, op, form) if is_narrow else _jump(site, op, form)
    if family.endswith("32") and family.removesuffix("32") in _ALU:
        op = family.removesuffix("32")
        return _ALU[op](site, op, form)
    return None


def _zext(register: int | str) -> list[str]:
    return [f"r{register} <<= 32", f"r{register} >>= 32"]


def _sext(register: int | str, bits: int = 32) -> list[str]:
    return [f"r{register} <<= {64 - bits}", f"r{register} s>>= {64 - bits}"]


# ---- arithmetic ------------------------------------------------------------------------------


def _low(site: Site, op: str, form: str) -> Expansion:
    """Operations whose lower half depends on lower halves alone."""
    d, s = site.dst, site.src
    operand = f"r{s}" if form == "reg" else str(site.imm)
    zero_operand = site.zero_src if form == "reg" else site.imm >= 0 and not site.is_open
    is_zero = {
        "and": site.zero_dst or zero_operand,
        "or": site.zero_dst and zero_operand,
        "xor": site.zero_dst and zero_operand,
    }.get(op, False)
    main = f"r{d} {ALU_SIGNS[op]} {operand}"
    return Expansion((main, *([] if is_zero else _zext(d))), main=0)


def _mov(site: Site, op: str, form: str) -> Expansion:
    d = site.dst
    if form == "reg":
        is_whole = site.moves_plainly or site.is_untidy
        return Expansion((f"r{d} = r{site.src}", *([] if is_whole else _zext(d))))
    if site.is_open:
        return Expansion((f"r{d} = {site.imm}", *_zext(d)), main=0)
    if site.imm >= 0:
        return Expansion((f"r{d} = {site.imm}",))
    return Expansion((f"r{d} = {site.imm & _U32} ll",))


def _neg(site: Site, op: str, form: str) -> Expansion:
    return Expansion((f"r{site.dst} = -r{site.dst}", *_zext(site.dst)))


def _shift(site: Site, op: str, form: str) -> Expansion:
    """A count of 32 bits is taken modulo 32, one of 64 bits modulo 64."""
    d, sign = site.dst, ALU_SIGNS[op]
    widen = {
        "lsh": [],
        "rsh": [] if site.zero_dst else _zext(d),
        "arsh": _sext(d),
    }[op]
    after = [] if op == "rsh" else _zext(d)
    if form == "imm":
        count = site.imm if site.is_open else site.imm & 31
        return Expansion((*widen, f"r{d} {sign} {count}", *after), main=len(widen))
    count_lines = ["r{t} = " + f"r{site.src}", "r{t} &= 31"]
    return Expansion((*count_lines, *widen, f"r{d} {sign} " + "r{t}", *after), n_registers=1)


def _divide(site: Site, op: str, form: str) -> Expansion | None:
    d, s, sign = site.dst, site.src, ALU_SIGNS[op]
    widen = [] if site.zero_dst else _zext(d)
    if form == "imm":
        if site.is_open:
            lines = ["r{t} = " + str(site.imm), *_zext("{t}"), *widen, f"r{d} {sign} " + "r{t}"]
            return Expansion(tuple(lines), main=0, n_registers=1)
        if site.imm >= 0:
            return Expansion((*widen, f"r{d} {sign} {site.imm}"))
        divisor = "r{t} = " + f"{site.imm & _U32} ll"
        return Expansion((*widen, divisor, f"r{d} {sign} " + "r{t}"), n_registers=1)
    if site.zero_src or s == d:
        return Expansion((*widen, f"r{d} {sign} r{s}"))
    lines = ["r{t} = " + f"r{s}", *_zext("{t}"), *widen, f"r{d} {sign} " + "r{t}"]
    return Expansion(tuple(lines), n_registers=1)


_ALU: Final[dict[str, Callable[[Site, str, str], Expansion | None]]] = {
    **dict.fromkeys(("add", "sub", "mul", "or", "and", "xor"), _low),
    **dict.fromkeys(("lsh", "rsh", "arsh"), _shift),
    **dict.fromkeys(("div", "mod"), _divide),
    "mov": _mov,
    "neg": _neg,
}


def _signed(site: Site, family: str, form: str) -> Expansion:
    """Divide absolute values, and give the result its sign: as C does, and never by -1."""
    d, is_narrow = site.dst, family.endswith("32")
    lines = ["r{t} = " + (f"r{site.src}" if form == "reg" else str(site.imm))]
    main = 0 if form == "imm" else -1
    if is_narrow:
        lines += [*_sext("{t}"), *_sext(d)]
    if family.startswith("sdiv"):
        lines += [
            f"if r{d} s>= 0 goto positive",
            f"r{d} = -r{d}",
            "if r{t} s>= 0 goto differ",
            "r{t} = -r{t}",
            "goto same",
            "positive:",
            "if r{t} s>= 0 goto same",
            "r{t} = -r{t}",
            "differ:",
            f"r{d} /= " + "r{t}",
            f"r{d} = -r{d}",
            "goto done",
            "same:",
            f"r{d} /= " + "r{t}",
            "done:",
        ]
    else:
        lines += [
            "if r{t} s>= 0 goto divide",
            "r{t} = -r{t}",
            "divide:",
            f"if r{d} s>= 0 goto positive",
            f"r{d} = -r{d}",
            f"r{d} %= " + "r{t}",
            f"r{d} = -r{d}",
            "goto done",
            "positive:",
            f"r{d} %= " + "r{t}",
            "done:",
        ]
    if is_narrow:
        lines += _zext(d)
    return Expansion(tuple(lines), main=main, n_registers=1)


def _movsx(site: Site, bits: int, *, is_narrow: bool) -> Expansion:
    d, s = site.dst, site.src
    copy = [] if s == d else [f"r{d} = r{s}"]
    return Expansion((*copy, *_sext(d, bits), *(_zext(d) if is_narrow else [])))


def _ldsx(site: Site, bits: int) -> Expansion:
    d = site.dst
    load = f"r{d} = *(u{bits} *)(r{site.src} {site.off:+})"
    return Expansion((load, *_sext(d, bits)), main=0)


# ---- jumps -----------------------------------------------------------------------------------


def _compare(
    site: Site, op: str, left: str, right: str, lines: list[str], n: int, main: int = -1
) -> Expansion:
    """A jump on a comparison of 64 bits, after some lines.

    The comparisons of v2 are those of v1 with the sides exchanged; a constant has one side
    only, so that the opposite comparison leads around a goto.
    """
    is_new = op in _OPPOSITES and site.most < 2
    if is_new and right.startswith("r"):
        op, left, right = _SWAPPED[op], right, left
    elif is_new:
        test = f"{left} {JUMP_SIGNS[_OPPOSITES[op]]} {right}"
        return Expansion(tuple(lines), main, n, test, is_negated=True)
    return Expansion(tuple(lines), main, n, f"{left} {JUMP_SIGNS[op]} {right}")


def _jump(site: Site, op: str, form: str) -> Expansion:
    if site.is_open:
        constant = ["r{t} = " + str(site.imm)]
        return _compare(site, op, f"r{site.dst}", "r{t}", constant, 1, main=0)
    right = f"r{site.src}" if form == "reg" else str(site.imm)
    return _compare(site, op, f"r{site.dst}", right, [], 0)


def _narrow_jump(site: Site, op: str, form: str) -> Expansion:
    """Numbers of 32 bits compare as they are; others are compared in copies."""
    d, s = site.dst, site.src
    if site.is_open:
        return _open_jump(site, op)
    is_plain = site.zero_dst and op not in _SIGNED
    if form == "reg":
        if is_plain and site.zero_src:
            return _compare(site, op, f"r{d}", f"r{s}", [], 0)
        if op in _BITWISE:
            sign, test = _BITWISE[op]
            lines = ["r{t} = " + f"r{d}", "r{t} " + f"{sign} r{s}", "r{t} <<= 32"]
            return _compare(site, test, "r{t}", "0", lines, 1)
        # What is shifted to the upper half keeps its order, signed or not.
        lines = ["r{t} = " + f"r{d}", "r{t} <<= 32", "r{u} = " + f"r{s}", "r{u} <<= 32"]
        return _compare(site, op, "r{t}", "r{u}", lines, 2)
    if is_plain and site.imm >= 0:
        return _compare(site, op, f"r{d}", str(site.imm), [], 0)
    # So does what is sign-extended, and so is the constant.
    return _compare(site, op, "r{t}", str(site.imm), ["r{t} = " + f"r{d}", *_sext("{t}")], 1)


def _open_jump(site: Site, op: str) -> Expansion:
    """A loader's constant is in a move, and comes to where the other side is."""
    constant = "r{t} = " + str(site.imm)
    if op in _BITWISE:
        sign, test = _BITWISE[op]
        lines = [constant, "r{t} " + f"{sign} r{site.dst}", "r{t} <<= 32"]
        return _compare(site, test, "r{t}", "0", lines, 1, main=0)
    lines = [constant, "r{t} <<= 32", "r{u} = " + f"r{site.dst}", "r{u} <<= 32"]
    return _compare(site, op, "r{u}", "r{t}", lines, 2, main=0)
