"""Text from a file, made safe to show: on a terminal, in a page, in XML."""

from __future__ import annotations

import re
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


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8
        code &= 0xFF
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def framed(page: str) -> str:
    """A whole HTML page as a notebook shows it: in a frame, so that its styles stay its own."""
    return f'<iframe srcdoc="{escape(page)}" style="border: 0; height: 40em; width: 100%"></iframe>'
