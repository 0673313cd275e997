"""What the documentation of the passes shows is what happens."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from bpfpatch.passes.builtin import CLASSES
from support.session.plugins import EXAMPLES

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted((ROOT / "docs" / "passes").glob("*.md"))
COMMAND = re.compile(r"```console\n\$ bpfpatch ([^\n]*)\n(.*?)```", re.S)
SHOWING = [page for page in PAGES if COMMAND.search(page.read_text())]


def test_most_pages_show_output() -> None:
    """A page without a command whose output is shown is an exception."""
    assert len(SHOWING) >= len(PAGES) // 2


@pytest.mark.parametrize("page", SHOWING, ids=lambda page: page.stem)
def test_shown_output_is_real(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command on the page, run on the page's own files, prints what the page shows."""
    pytest.importorskip("click")
    from click.testing import CliRunner

    from bpfpatch.cli.app import cli

    monkeypatch.chdir(tmp_path)
    shutil.copy(EXAMPLES / "count_calls.py", tmp_path)
    text = page.read_text()
    assert COMMAND.search(text)
    for name, source in re.findall(r"```asm (\S+)\n(.*?)```", text, re.S):
        (tmp_path / name).write_text(source)
    for command, shown in COMMAND.findall(text):
        done = CliRunner().invoke(cli, command.split())
        assert done.exit_code == 0, done.output
        assert done.stdout == shown


def test_every_pass_has_a_page() -> None:
    """There is a page for each built-in pass, and the overview links to it."""
    overview = (ROOT / "docs" / "passes" / "README.md").read_text()
    for name in (*CLASSES, "your-own"):
        assert f"({name}.md)" in overview
        assert (ROOT / "docs" / "passes" / f"{name}.md").exists()
