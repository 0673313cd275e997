"""Numbers that mean nothing are wrong arguments."""

from __future__ import annotations

from pathlib import Path

import pytest

from bpfpatch.cli import app


@pytest.mark.parametrize(
    "args",
    [
        ["cover", "report", "OBJ", "x.json", "--fail-under", "nan"],
        ["cover", "report", "OBJ", "--id", "-1"],
        ["cover", "report", "OBJ", "--id", "0"],
        ["cover", "report", "OBJ", "--prog-id", str(1 << 32)],
        ["verify", "OBJ", "OBJ", "--seconds", "nan"],
        ["verify", "OBJ", "OBJ", "--seconds", "inf"],
        ["apply", "OBJ", "-o", "-", "--verify", "--verify-seconds", "nan"],
        ["repair", "OBJ", "--dry-run", "--seconds", "nan"],
        ["load", "OBJ", "--tolerance", "nan"],
        ["trace", "read", "OBJ", "--id", str(1 << 32)],
        ["trace", "read", "OBJ", "--prog-id", "-1"],
    ],
    ids=" ".join,
)
def test_wrong_numbers_are_refused(
    args: list[str], demo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """NaN, infinities, and ids that the kernel cannot have exit with 2, and name the option."""
    assert app.run([str(demo) if word == "OBJ" else word for word in args]) == 2
    assert args[-2] in capsys.readouterr().err
