"""Docstrings as Markdown: what a colon too many announces is a code block there, too."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

_ANNOUNCED = re.compile(r"(\w)::\n\n(?= )")
_ALONE = re.compile(r"(?m)^::\n\n(?= )")


class MarkdownBlocks(Extension):
    """Reads ``example::`` and an indented block as Markdown has them."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite one docstring."""
        if obj.docstring:
            text = _ALONE.sub("", obj.docstring.value)
            obj.docstring.value = _ANNOUNCED.sub(r"\1:\n\n", text)
