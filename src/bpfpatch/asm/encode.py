"""One statement's tokens to one instruction's fields."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from bpfpatch.errors import AsmError
from bpfpatch.isa import Opcode, RefKind, Reg

from .grammar import END, Leaf, Node
from .lexer import Token, TokenKind

REGISTERS: Final = {
    f"{letter}{number}": (letter.upper(), number)
    for letter in "rw"
    for number in range(Reg.R12 + 1)
}

_KEY_NAMES: Final = {
    "R": "a 64-bit register",
    "W": "a 32-bit register",
    "N": "a number",
    "I": "a label",
    "L": "",
    END: "the end of the instruction",
}

_LIMITS: Final = {
    "off": (-(1 << 15), (1 << 15) - 1, "16 bits, signed"),
    "imm": (-(1 << 31), (1 << 32) - 1, "32 bits; a 64-bit constant is loaded with `r1 = ... ll`"),
    "high": (-(1 << 31), (1 << 32) - 1, "32 bits"),
    "imm64": (-(1 << 63), (1 << 64) - 1, "64 bits"),
    "kind": (1, 6, "1 (map fd) to 6 (value of a map by index)"),
    "space_to": (0, 0xFFFF, "16 bits, unsigned"),
    "space_from": (0, 0xFFFF, "16 bits, unsigned"),
    "zero": (0, 0, "0, and nothing else here"),
}
_JUMP_LIMITS: Final = {
    RefKind.JUMP16: (-(1 << 15), (1 << 15) - 1, "16 bits, signed; use gotol to jump farther"),
    RefKind.JUMP32: (-(1 << 31), (1 << 31) - 1, "32 bits, signed"),
    RefKind.CALL: (-(1 << 31), (1 << 31) - 1, "32 bits, signed"),
}

_LIKE_REGISTER: Final = re.compile(r"[rw][0-9]+", re.ASCII | re.IGNORECASE)
_SHOWN: Final = 8


@dataclass(frozen=True, slots=True)
class Encoded:
    """One instruction.

    Attributes:
        opcode: its row.
        regs: dst and src as the second byte.
        off: 16 bits, signed.
        imm: 32 bits, signed or not.
        high: imm of an ld_imm64's second slot.
        label: the name that it refers to, or None.
    """

    opcode: Opcode
    regs: int
    off: int
    imm: int
    high: int
    label: Token | None


def encode(root: Node, tokens: list[Token]) -> Encoded:
    """Find what a statement means.

    Args:
        root: see `bpfpatch.asm.grammar.tree`.
        tokens: one statement without labels, not empty.

    Raises:
        AsmError: no instruction looks like this, or a number does not fit.
    """
    leaf, operands = _match(root, tokens)
    opcode = leaf.opcode
    read: dict[str, int] = {}
    label = None
    for field, (token, value) in zip(leaf.operands, operands, strict=True):
        if field == "label":
            label = token
            continue
        _check(token, value, _JUMP_LIMITS[opcode.ref] if field == "jump" else _LIMITS.get(field))
        if read.setdefault(field, value) != value:
            raise error(token, f"{token.text} must be the same register as the one before")
    return _fields(opcode, read, label)


def _fields(opcode: Opcode, read: dict[str, int], label: Token | None) -> Encoded:
    dst = read.get("dst", 0)
    src = read.get("src", read.get("kind", opcode.src or 0))
    off = read.get("off", opcode.off or 0)
    imm = read.get("imm", opcode.imm or 0)
    high = read.get("high", 0)
    if "jump" in read:
        off, imm = (read["jump"], imm) if opcode.ref is RefKind.JUMP16 else (off, read["jump"])
    if "imm64" in read:
        imm, high = read["imm64"] & 0xFFFFFFFF, read["imm64"] >> 32
    if "space_to" in read:
        imm = read["space_to"] << 16 | read["space_from"]
    return Encoded(opcode, dst | src << 4, off, imm, high, label)


def _match(root: Node, tokens: list[Token]) -> tuple[Leaf, list[tuple[Token, int]]]:
    node = root
    operands: list[tuple[Token, int]] = []
    for token in tokens:
        key, value = _key(node, token)
        child = node.get(key)
        if not isinstance(child, dict):
            raise _unexpected(root, node, token, tokens)
        if value is not None:
            operands.append((token, value))
        node = child
    leaf = node.get(END)
    if not isinstance(leaf, Leaf):
        last = tokens[-1]
        _refuse_registers(tokens)
        raise AsmError(
            f"the instruction stops after {last.text[:40]!r}; expected {_expected(node)}",
            last.line,
            last.column + len(last.text),
        )
    return leaf, operands


def _key(node: Node, token: Token) -> tuple[str, int | None]:
    """The child to go to, and the operand that the token is, if it is one."""
    if token.kind is TokenKind.NUMBER:
        return "N", token.value
    if token.kind is TokenKind.LOCAL:
        return "L", 0
    if token.kind is TokenKind.PUNCT:
        return token.text, None
    word = token.text.lower()
    register = REGISTERS.get(word)
    if register is not None:
        return register
    return (word, None) if word in node else ("I", 0)


def _check(token: Token, value: int, limits: tuple[int, int, str] | None) -> None:
    if limits is None:
        return
    low, high, what = limits
    if not low <= value <= high:
        raise error(token, f"{token.text} does not fit: its field holds {what}")


def error(token: Token, what: str) -> AsmError:
    """An error at a token."""
    return AsmError(what, token.line, token.column)


def _unexpected(root: Node, node: Node, token: Token, tokens: list[Token]) -> AsmError:
    _refuse_registers(tokens[: tokens.index(token) + 1])
    text = token.text[:40]
    if node is root:
        return error(token, f"no instruction starts with {text!r}")
    return error(token, f"unexpected {text!r}; expected {_expected(node)}")


def _refuse_registers(tokens: list[Token]) -> None:
    """Blame a register that does not exist, which would else pass for a name."""
    for token in tokens:
        if _LIKE_REGISTER.fullmatch(token.text) and token.text.lower() not in REGISTERS:
            last = f"{token.text[0]}{Reg.R10.value}"
            raise error(token, f"there is no register {token.text[:40]}; the last is {last}")


def _expected(node: Node) -> str:
    names = [_KEY_NAMES.get(key, f"`{key}`") for key in node]
    shown = [name for name in names if name]
    more = f" or {len(shown) - _SHOWN} others" if len(shown) > _SHOWN else ""
    return ", ".join(shown[:_SHOWN]) + more
