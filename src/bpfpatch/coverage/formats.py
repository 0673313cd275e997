"""The forms of a coverage report that go into a file: the one table of them.

A writer takes what ran, where the source files are, and what the report calls itself, and gives
the whole text. Each is imported when it is first asked for.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final, Protocol

from .model import Coverage
from .sources import Sources


class Writer(Protocol):
    """Makes a report of one form."""

    def __call__(self, coverage: Coverage, sources: Sources, title: str, command: str = "") -> str:
        """The whole report.

        Args:
            coverage: what ran.
            sources: where the source files are.
            title: what was measured.
            command: what the report is made by, where its form has room for that.

        Raises:
            OptionError: the form needs something that the object does not have.
        """


@dataclass(frozen=True, slots=True)
class ReportFormat:
    """A form of report.

    Attributes:
        name: as ``--format`` has it.
        suffixes: names of files that end so are taken to be of this form.
        writer: what makes it, once it is called.
    """

    name: str
    suffixes: tuple[str, ...]
    writer: Callable[[], Writer]


def _html() -> Writer:
    from .html import to_html  # noqa: PLC0415 - see the module's docstring

    return to_html


def _lcov() -> Writer:
    from .lcov import to_lcov  # noqa: PLC0415

    return to_lcov


def _cobertura() -> Writer:
    from .cobertura import to_cobertura  # noqa: PLC0415

    return to_cobertura


def _markdown() -> Writer:
    from .markdown import to_markdown  # noqa: PLC0415

    return to_markdown


def _json() -> Writer:
    from .data import to_data  # noqa: PLC0415

    def write(coverage: Coverage, sources: Sources, title: str, command: str = "") -> str:
        del sources, title, command
        return f"{json.dumps(to_data(coverage), indent=2)}\n"

    return write


FORMATS: Final = (
    ReportFormat("lcov", (".info", ".lcov"), _lcov),
    ReportFormat("cobertura", (".xml",), _cobertura),
    ReportFormat("html", (".html", ".htm"), _html),
    ReportFormat("markdown", (".md", ".markdown"), _markdown),
    ReportFormat("json", (".json",), _json),
)
BY_NAME: Final = {one.name: one for one in FORMATS}


def format_of(path: str) -> ReportFormat | None:
    """The form that a file's name asks for; None where it does not say."""
    suffix = PurePath(path).suffix.lower()
    return next((one for one in FORMATS if suffix in one.suffixes), None)


def report(
    form: ReportFormat, coverage: Coverage, sources: Sources, title: str, command: str = ""
) -> bytes:
    """A report as the bytes of a file; broken UTF-8 in names of the object is escaped."""
    text = form.writer()(coverage, sources, title, command)
    return text.encode("utf-8", "backslashreplace")
