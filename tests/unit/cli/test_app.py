"""What becomes of errors, and what the screen shows."""

from __future__ import annotations

import importlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from bpfpatch.cli import app, screen
from bpfpatch.cli.failure import Failure, blame
from bpfpatch.errors import FormatError, SlotError, ValidationError, Where


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        """Yes."""
        return True


def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal as standard output, from here on."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    return stream


def test_table_of_commands_is_true() -> None:
    """Each command says about itself what the list says about it."""
    for name, summary in app.COMMANDS.items():
        found = importlib.import_module(f"bpfpatch.cli.{name.replace('-', '_')}").command
        assert isinstance(found, click.Command)
        assert found.name == name
        assert summary.endswith(".")


def test_run_returns_the_status(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """run() gives the exit status and prints errors in one line."""
    assert app.run(["info", str(demo)]) == 0
    assert app.run(["info", "/nonexistent"]) == 1
    assert app.run(["info"]) == 2
    assert "bpfpatch: /nonexistent: No such file or directory" in capsys.readouterr().err


def test_a_bug_is_one_line(
    demo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An error that is not ours is called a bug, exits with 3, and has no traceback by default."""
    info = importlib.import_module("bpfpatch.cli.info")
    monkeypatch.setattr(info, "info_json", lambda *_, **__: 1 // 0)
    monkeypatch.delenv("BPFPATCH_DEBUG", raising=False)
    assert app.run(["info", str(demo)]) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert "internal error" in line
    assert "ZeroDivisionError" in line


def test_a_bug_shows_where_on_request(
    demo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With BPFPATCH_DEBUG there is a traceback."""
    info = importlib.import_module("bpfpatch.cli.info")
    monkeypatch.setattr(info, "info_json", lambda *_: 1 // 0)
    monkeypatch.setenv("BPFPATCH_DEBUG", "1")
    assert app.run(["info", str(demo)]) == 3
    assert "Traceback" in capsys.readouterr().err


def test_interrupt(
    demo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C exits with 130."""
    info = importlib.import_module("bpfpatch.cli.info")

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(info, "info_json", interrupt)
    assert app.run(["info", str(demo)]) == 130
    assert capsys.readouterr().err.strip() == "bpfpatch: interrupted"


def test_violations_are_one_line_each() -> None:
    """Several violations are several lines, each with the file; very many are cut short."""
    many = [SlotError(Where(slot), "is wrong") for slot in range(30)]
    with pytest.raises(Failure) as caught, blame("x.o"):
        raise ValidationError(many)
    lines = caught.value.lines
    assert lines[0] == "bpfpatch: x.o: insn 0: is wrong"
    assert (len(lines), lines[-1]) == (21, "bpfpatch: x.o: and 10 more violations")


def test_message_is_one_line() -> None:
    """A message with line breaks in it is printed in one line."""
    with pytest.raises(Failure) as caught, blame("x.o"):
        raise FormatError("bad\nname", 3)
    assert caught.value.lines == ["bpfpatch: x.o: at byte 0x3: bad name"]


def test_diff_is_coloured_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal added and removed lines are coloured."""
    stream = terminal(monkeypatch)
    screen.echo_diff(iter([("added", "+ x"), ("same", "  y")]))
    assert stream.getvalue() == "\x1b[32m+ x\x1b[0m\n  y\n"


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    """With NO_COLOR set there is no colour."""
    stream = terminal(monkeypatch)
    monkeypatch.setenv("NO_COLOR", "1")
    screen.echo_diff(iter([("added", "+ x")]))
    assert stream.getvalue() == "+ x\n"


def test_table_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal a table has all its cells, markup characters included."""
    stream = terminal(monkeypatch)
    screen.echo_table("things", ["name", "size#"], [["a[b]", 12]])
    assert "a[b]" in stream.getvalue()
    assert "12" in stream.getvalue()


def test_table_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    """In a pipe a table is plain columns, numbers to the right."""
    screen.echo_table("things", ["name", "size#"], [["a", 1], ["bcde", 234]])
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["things:", "NAME  SIZE", "a        1", "bcde   234"]


def test_quick_work_shows_no_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done at once leaves the terminal alone."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with screen.patience("working"):
        pass
    assert stream.getvalue() == ""


def test_long_work_shows_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes longer than the patience lasts says what it is."""
    import time

    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(screen, "PATIENCE", 0.01)
    with screen.patience("working"):
        time.sleep(0.3)
    assert "working" in stream.getvalue()


def test_json_is_valid(capsys: pytest.CaptureFixture[str]) -> None:
    """What is printed as JSON parses."""
    screen.echo_json({"a": [1, None, True]})
    assert json.loads(capsys.readouterr().out) == {"a": [1, None, True]}


def test_control_characters_are_made_visible(capsys: pytest.CaptureFixture[str]) -> None:
    """A name in an object cannot move the cursor, and need not be UTF-8."""
    screen.echo("a\x1b[2Jb\x9bc\td\udcff")
    assert capsys.readouterr().out == "a\\x1b[2Jb\\x9bc\td\\xff\n"
