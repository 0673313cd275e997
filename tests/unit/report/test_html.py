"""The HTML page."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest

from bpfpatch.asm import assemble
from bpfpatch.report import diff_programs

VOID = {"meta"}


class Checker(HTMLParser):
    """Checks that elements are closed, and collects what refers elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember what is open, and what it links to."""
        if tag not in VOID:
            self.open.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        """Close what was opened last."""
        assert self.open.pop() == tag


@pytest.fixture
def page() -> str:
    """The page of a small difference."""
    old = assemble("a: r1 = 1\n if r1 < 2 goto end\n call b\nend: exit\nb: exit\n")
    new = assemble("a: r1 = 3\n if r1 < 2 goto end\n call b\nend: exit\nb: exit\n")
    return diff_programs(old, new).html("old & <new>")


def test_page_is_well_formed_and_self_contained(page: str) -> None:
    """All elements are closed, and nothing refers to another file."""
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    assert checker.links == []
    assert "@import" not in page
    assert "url(" not in page


def test_page_escapes_text(page: str) -> None:
    """Titles and instructions are text, whatever characters are in them."""
    assert "<title>old &amp; &lt;new&gt;</title>" in page
    assert "if r1 &lt; 0x2" in page


def test_page_is_for_light_and_dark(page: str) -> None:
    """The page follows the reader's colour scheme."""
    assert "prefers-color-scheme: dark" in page


def test_write_html_leaves_nothing_on_failure(tmp_path: Path) -> None:
    """A page that cannot be written leaves no file behind."""
    program = assemble("exit\n")
    target = tmp_path / "taken"
    target.mkdir()
    with pytest.raises(OSError, match="irectory"):
        diff_programs(program, program).write_html(target)
    assert list(tmp_path.iterdir()) == [target]
    assert list(target.iterdir()) == []


def test_write_html_writes_the_page(tmp_path: Path) -> None:
    """The file holds the page."""
    program = assemble("exit\n")
    diff = diff_programs(program, program)
    diff.write_html(tmp_path / "x.html", "t")
    assert (tmp_path / "x.html").read_text() == diff.html("t")
