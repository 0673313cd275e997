"""Text to show: that of a file made safe, numbers of things, names that may have been meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from html import escape
from typing import Final

_HIDDEN: Final = re.compile(
    r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
    "\ud800-\udfff\ufffe\uffff]"
)
"""Control characters but the tab, marks that turn the direction of writing round, which can make
a line look like another one, broken UTF-8, and what no XML file may hold."""


def visible(text: str) -> str:
    """Text of an object, which may hold anything, on one line and with nothing hidden in it."""
    return _HIDDEN.sub(_escaped, text)


def visible_lines(lines: list[str]) -> list[str]:
    """The same of each line; where none has anything hidden, one look tells."""
    if _HIDDEN.search("".join(lines)) is None:
        return lines
    return [visible(line) for line in lines]


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8
        code &= 0xFF
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def plural(count: int, thing: str, things: str = "") -> str:
    """A number of things, such as ``1 run`` or ``12 runs``.

    Args:
        count: how many.
        thing: one of them.
        things: several of them; by default the same with an s.
    """
    return f"{count} {thing if count == 1 else things or f'{thing}s'}"


def unknown(what: str, name: str, known: Iterable[str], also: Iterable[str] = ()) -> str:
    """The sentence for a name that means nothing, with those that may have been meant.

    Args:
        what: it should be, such as ``pass``.
        name: that was given.
        known: all names that there are.
        also: more of them, too many to list.
    """
    names, others = list(dict.fromkeys(known)), list(also)
    near = difflib.get_close_matches(name, [*names, *others], 3, _ALIKE)
    out = f"there is no {what} {visible(name)!r}"
    if near:
        out += f" (did you mean {' or '.join(visible(one) for one in near)}?)"
    if (near and len(names) > _MOST_NAMES) or (others and not names):
        return out
    shown = ", ".join(visible(one) for one in names[:_MOST_NAMES]) or "none"
    more = f", and {len(names) - _MOST_NAMES:,} more" if len(names) > _MOST_NAMES else ""
    return f"{out}; there are: {shown}{more}"


_ALIKE: Final = 0.6
_MOST_NAMES: Final = 24


def framed(page: str) -> str:
    """A whole HTML page as a notebook shows it: in a frame, so that its styles stay its own."""
    return f'<iframe srcdoc="{escape(page)}" style="border: 0; height: 40em; width: 100%"></iframe>'
