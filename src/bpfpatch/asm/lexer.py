"""Assembly text to statements of tokens, in one linear scan.

Comments are ``//`` and ``#`` to the line's end and ``/* */``; statements end
at a newline or ``;``. All as clang's assembler has it for BPF.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import IntEnum
from typing import Final, NamedTuple

from bpfpatch.errors import AsmError


class TokenKind(IntEnum):
    """What a token is."""

    WORD = 0
    NUMBER = 1
    LOCAL = 2
    """A reference to a numeric label: ``1f`` or ``1b``."""
    PUNCT = 3


class Token(NamedTuple):
    """One token.

    Attributes:
        kind: what it is.
        text: as written, in lower case for a number.
        value: of a number, sign included; else 0.
        line: 1-based.
        column: 1-based.
    """

    kind: TokenKind
    text: str
    value: int
    line: int
    column: int


# In the order of trial; each alternative is linear and none overlaps the next's start in vain.
_TOKEN: Final = re.compile(
    r"""
    (?P<space>[ \t\r\f\v]+)
  | (?P<newline>\n)
  | (?P<comment>//[^\n]*|\#[^\n]*)
  | (?P<block>/\*.*?\*/)
  | (?P<open>/\*)
  | (?P<end>;)
  | (?P<opcode>\([0-9a-f]{2}\)(?=[ \t]))
  | (?P<number>(?:0[xX][0-9a-fA-F]+|0[bB][01]+|[0-9]+)(?!\w))
  | (?P<local>[0-9]+[fb](?!\w))
  | (?P<glued>[0-9]\w*)
  | (?P<symbol><[A-Za-z_.$][\w.$+@-]*>)
  | (?P<operator>s?\s?(?:>>=|/=|%=|>=|<=|[<>])|<<=|>>=|[-+*/%|&^=!]=|[-+*/%|&^=()\[\],:])
  | (?P<string>"[^"\n]*")
  | (?P<word>@?[A-Za-z_.$][\w.$@]*)
  | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,
)

_MOST_DIGITS: Final = 70
"""Enough for 64 bits in binary; what is longer fits no field."""

_MOST_TOKENS: Final = 4096
"""Far more than an instruction has; a statement that is longer is garbage."""


def statements(text: str) -> Iterator[list[Token]]:
    """Cut text into statements.

    Args:
        text: assembly.

    Yields:
        The tokens of each statement that has any. Signs are part of their
        number, ``<symbol>`` notes of a disassembler and the ``(b7)`` of the
        kernel's dumps are left out.

    Raises:
        AsmError: a character or number that cannot be in assembly, or a
            comment without its end.
    """
    tokens: list[Token] = []
    line, line_start = 1, 0
    for match in _TOKEN.finditer(text):
        group = match.lastgroup
        column = match.start() - line_start + 1
        if group in {"space", "comment"}:
            continue
        if group in {"newline", "end"}:
            if tokens:
                yield tokens
                tokens = []
            if group == "newline":
                line, line_start = line + 1, match.end()
            continue
        if group == "block":
            inside = match[0]
            line += inside.count("\n")
            if "\n" in inside:
                line_start = match.start() + inside.rindex("\n") + 1
            continue
        if group == "symbol" and tokens and tokens[-1].kind is TokenKind.NUMBER:
            continue
        if group == "opcode" and (not tokens or tokens[-1].text == ":"):
            continue
        if len(tokens) == _MOST_TOKENS:
            raise AsmError(f"this statement has over {_MOST_TOKENS} tokens", line, column)
        _append(tokens, str(group), match[0], line, column)
    if tokens:
        yield tokens


def _append(tokens: list[Token], group: str, text: str, line: int, column: int) -> None:
    if group == "number":
        value = _number(text, line, column)
        if tokens and tokens[-1].text in {"-", "+"}:
            sign = tokens.pop()
            tokens.append(
                Token(
                    TokenKind.NUMBER,
                    sign.text + text,
                    -value if sign.text == "-" else value,
                    sign.line,
                    sign.column,
                )
            )
            return
        tokens.append(Token(TokenKind.NUMBER, text, value, line, column))
    elif group == "word":
        tokens.append(Token(TokenKind.WORD, text, 0, line, column))
    elif group == "local":
        tokens.append(Token(TokenKind.LOCAL, text, 0, line, column))
    elif group in {"operator", "string", "symbol", "opcode"}:
        tokens.append(Token(TokenKind.PUNCT, "".join(text.split()), 0, line, column))
    elif group == "glued":
        hint = "; a 64-bit load has a space before its ll" if text.endswith("ll") else ""
        raise AsmError(f"{text[:20]!r} is not a number{hint}", line, column)
    elif group == "open":
        raise AsmError("this comment has no end; close it with */", line, column)
    else:
        raise AsmError(f"{text[:20]!r} cannot be in assembly", line, column)


def _number(text: str, line: int, column: int) -> int:
    if len(text) > _MOST_DIGITS:
        raise AsmError(f"a number of {len(text)} digits fits no field", line, column)
    if text[:1] == "0" and text[1:].isdigit():
        return _octal(text, line, column)
    return int(text, 0)


def _octal(text: str, line: int, column: int) -> int:
    if set(text) & {"8", "9"}:
        raise AsmError(
            f"{text} starts with 0 and so is octal, where 8 and 9 cannot be", line, column
        )
    return int(text, 8)
