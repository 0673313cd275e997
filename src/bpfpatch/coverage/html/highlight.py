"""Colours of source text, by pygments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from markupsafe import Markup, escape

from bpfpatch.text import visible

if TYPE_CHECKING:
    from pygments.lexer import Lexer
    from pygments.token import _TokenType

MOST_LINES: Final = 8_000
"""Lines of one page that are coloured; pygments takes 50 microseconds for each."""
_LONGEST: Final = 2_000
"""Characters of a line; a file with longer ones is made by a program, and stays plain."""


class Highlighter:
    """Colours the lines of files, until there were too many.

    Args:
        n_left: how many lines it takes.
    """

    def __init__(self, n_left: int = MOST_LINES) -> None:
        self._n_left = n_left

    def lines(
        self, name: str, text: Mapping[int, str], shown: Sequence[int]
    ) -> dict[int, str | Markup]:
        """The known lines of a file as markup; as text where it is not coloured.

        Args:
            name: of the file, which tells its language.
            text: by line number.
            shown: which of them are wanted, ascending.
        """
        wanted = [line for line in shown if line in text]
        plain: dict[int, str | Markup] = {line: text[line] for line in wanted}
        if (
            not wanted
            or len(wanted) > self._n_left
            or any(len(text[line]) > _LONGEST for line in wanted)
        ):
            return plain
        lexer = _lexer(name)
        if lexer is None:
            return plain
        self._n_left -= len(wanted)
        # Between lines that do not follow on one another nothing goes on: a comment may.
        marked = _marked(lexer, [visible(text[line]) for line in wanted])
        return dict(zip(wanted, marked, strict=True)) if len(marked) == len(wanted) else plain


def _lexer(name: str) -> Lexer | None:
    """What reads a file; headers of BPF programs are C."""
    from pygments.lexers import get_lexer_for_filename  # noqa: PLC0415 - it takes a while
    from pygments.util import ClassNotFound  # noqa: PLC0415

    try:
        return get_lexer_for_filename(name, stripnl=False, ensurenl=True)
    except ClassNotFound:
        return None


def _marked(lexer: Lexer, lines: Sequence[str]) -> list[Markup]:
    out: list[Markup] = []
    parts: list[str] = []
    whole = "\n".join(lines) + "\n"
    for kind, text in _merged(
        (_class(kind), text) for _, kind, text in lexer.get_tokens_unprocessed(whole)
    ):
        for at, piece in enumerate(text.split("\n")):
            if at:
                out.append(Markup("".join(parts)))
                parts = []
            if piece:
                safe = str(escape(piece))
                parts.append(f'<i class="{kind}">{safe}</i>' if kind else safe)
    return out


def _merged(tokens: Iterable[tuple[str, str]]) -> Iterable[tuple[str, str]]:
    """Neighbours of one class as one; a page has many."""
    last = ""
    parts: list[str] = []
    for kind, text in tokens:
        if kind != last and parts:
            yield last, "".join(parts)
            parts = []
        last = kind
        parts.append(text)
    if parts:
        yield last, "".join(parts)


def _class(kind: _TokenType) -> str:
    """The class of a token: comment, keyword, text, number, preprocessor; "" for what is plain."""
    found = _KNOWN.get(kind)
    if found is None:
        found = _KNOWN[kind] = _looked_up(str(kind))
    return found


_KNOWN: Final[dict[_TokenType, str]] = {}


def _looked_up(name: str) -> str:
    for prefix, kind in _CLASSES:
        if name.startswith(prefix):
            return kind
    return ""


_CLASSES: Final = (
    ("Token.Comment.Preproc", "kp"),
    ("Token.Comment", "kc"),
    ("Token.Keyword.Type", "kt"),
    ("Token.Keyword", "kk"),
    ("Token.Literal.String", "ks"),
    ("Token.Literal.Number", "kn"),
)
