"""The page as a whole."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib import resources
from typing import Any, Final

from jinja2 import Environment, FunctionLoader, Template
from markupsafe import Markup

from bpfpatch._version import __version__
from bpfpatch.text import visible

from ..made import made_at
from ..model import Coverage
from ..sources import Sources
from ..totals import of_object
from .blocks import blocks_view, function_rows
from .content import JUMPED, WENT_ON, Content, Share
from .highlight import Highlighter
from .source import file_view

_MANY_LINES: Final = 4_000
"""With more lines than these, only the first file is open at first."""


def to_html(coverage: Coverage, sources: Sources, title: str, command: str = "") -> str:
    """The page: no other file is needed to show it, and nothing is fetched.

    It says when it was made, which SOURCE_DATE_EPOCH fixes.

    Args:
        coverage: what ran.
        sources: texts of the source files.
        title: what was measured.
        command: what the page was made by, for its foot.
    """
    content = Content.of(coverage, sources)
    return _template().render(
        title=title,
        command=command,
        made_at=made_at(),
        version=__version__,
        counting=coverage.cover.counting,
        objects=[f"{one:016x}" for one in coverage.objects or (coverage.cover.identity,)],
        policy=_policy(),
        style=Markup(_asset("page.css")),
        script=Markup(_asset("page.js")),
        notices=[*coverage.notices, *sources.notices],
        cards=_cards(coverage),
        files=_files(content),
        functions=function_rows(content),
        bare=_bare(content),
        jumped=JUMPED,
        went_on=WENT_ON,
    )


@cache
def _template() -> Template:
    """The page's template. What is put into it is escaped, and nothing is hidden in it."""
    env = Environment(
        autoescape=True,
        loader=FunctionLoader(_asset),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_finalized,
    )
    return env.get_template("page.html")


def _finalized(value: Any) -> Any:
    return visible(value) if type(value) is str else value


def _policy() -> str:
    """Nothing may run but our script: an object's text cannot, were it to get through."""
    digest = base64.b64encode(hashlib.sha256(_asset("page.js").encode()).digest()).decode()
    return f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


@cache
def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def _cards(coverage: Coverage) -> list[tuple[str, Share, str]]:
    totals = of_object(coverage)
    named = (
        ("lines", totals.lines),
        ("branches", totals.branches),
        ("functions", totals.functions),
        ("blocks", totals.blocks),
    )
    return [
        (name, Share.of(tally), f"{tally.hit:,} of {tally.total:,} {name}")
        for name, tally in named
        if tally.total
    ]


def _files(content: Content) -> list[Any]:
    files = content.coverage.files.values()
    is_small = sum(len(content.sources.of(file).lines) for file in files) <= _MANY_LINES
    highlighter = Highlighter()
    return [
        file_view(content, number, file, highlighter, is_open=is_small or not number)
        for number, file in enumerate(files)
    ]


def _bare(content: Content) -> list[Any]:
    """Functions that have code without a source line."""
    mine = [
        one
        for pieces, one in zip(content.pieces.of_function, content.coverage.functions, strict=True)
        if any(not piece.line for piece in pieces) or not pieces
    ]
    is_small = sum(one.end - one.start for one in mine) <= _MANY_LINES
    return [blocks_view(content, one, is_open=is_small or not at) for at, one in enumerate(mine)]
