"""Values as text: JSON, and the shorter form that one types on a command line.

::

    {limit=10, mode=DROP, ports=[80, 443]}      {"limit": 10, "mode": "DROP", "ports": [80, 443]}

Between braces and brackets a name need not be quoted, ``=`` is as good as ``:``, and a word stays
the text that it is: the type of the value says whether it is a number or an enumerator.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from bpfpatch.errors import OptionError

HEX: Final = "hex:"
"""What bytes in hex digits begin with, in memory's order."""

_WORD: Final = re.compile(r'[^\s,=:{}\[\]"]+')
_SPACE: Final = re.compile(r"\s*")
_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_DEEPEST: Final = 32


def read_literal(text: str) -> Any:
    """A value as text.

    Returns:
        A dict, a list, or text; numbers and names in them are text, too.

    Raises:
        OptionError: it starts as an object, a list or a string, and does not go on so.
    """
    stripped = text.strip()
    if stripped[:1] not in ("{", "[", '"'):
        return text
    reader = _Reader(stripped)
    value = reader.value(0)
    reader.expect_end()
    return value


def hex_bytes(text: str, what: str) -> bytes:
    """The bytes that ``hex:`` is followed by.

    Args:
        text: with ``hex:``; blanks and colons between bytes are fine.
        what: how errors call it.

    Raises:
        OptionError: something else is in it, or half a byte.
    """
    try:
        return bytes.fromhex(text.strip().removeprefix(HEX).replace(":", " "))
    except ValueError as error:
        raise OptionError(f"{what}: {text!r} is not {HEX} and pairs of hex digits") from error


class _Reader:
    """Reads one text from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def value(self, depth: int) -> Any:
        if depth > _DEEPEST:
            raise self._wrong(f"at most {_DEEPEST} levels can be nested")
        self._skip()
        first = self._text[self._at : self._at + 1]
        if first == "{":
            return self._object(depth)
        if first == "[":
            return self._list(depth)
        return self._word("a value")

    def _object(self, depth: int) -> dict[str, Any]:
        out: dict[str, Any] = {}
        self._at += 1
        while not self._takes("}"):
            name = self._word("a member's name")
            if name in out:
                raise self._wrong(f"member {name!r} is given twice")
            if not (self._takes("=") or self._takes(":")):
                raise self._wrong(f"'=' or ':' has to follow member {name!r}")
            out[name] = self.value(depth + 1)
            if not self._takes(",") and not self._is_next("}"):
                raise self._wrong("',' or '}' has to follow")
        return out

    def _list(self, depth: int) -> list[Any]:
        out: list[Any] = []
        self._at += 1
        while not self._takes("]"):
            out.append(self.value(depth + 1))
            if not self._takes(",") and not self._is_next("]"):
                raise self._wrong("',' or ']' has to follow")
        return out

    def _word(self, what: str) -> str:
        self._skip()
        found = _STRING.match(self._text, self._at) or _WORD.match(self._text, self._at)
        if found is None:
            raise self._wrong(f"{what} is expected here")
        self._at = found.end()
        if not found[0].startswith('"'):
            return found[0]
        try:
            return str(json.loads(found[0]))
        except ValueError as error:
            raise self._wrong(f"{found[0]} is not a string") from error

    def _skip(self) -> None:
        space = _SPACE.match(self._text, self._at)
        assert space is not None
        self._at = space.end()

    def _is_next(self, sign: str) -> bool:
        self._skip()
        return self._text.startswith(sign, self._at)

    def _takes(self, sign: str) -> bool:
        if not self._is_next(sign):
            return False
        self._at += len(sign)
        return True

    def expect_end(self) -> None:
        self._skip()
        if self._at < len(self._text):
            raise self._wrong("the value ends before this")

    def _wrong(self, what: str) -> OptionError:
        return OptionError(f"{self._text!r}, character {self._at + 1}: {what}")
