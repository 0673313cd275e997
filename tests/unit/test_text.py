"""Numbers of things, and names that may have been meant."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import bpfpatch.cli
from bpfpatch.text import plural, unknown


@pytest.mark.parametrize(
    ("count", "words", "text"),
    [
        (0, ("run",), "0 runs"),
        (1, ("run",), "1 run"),
        (2, ("run",), "2 runs"),
        (1, ("entry", "entries"), "1 entry"),
        (3, ("entry", "entries"), "3 entries"),
    ],
)
def test_one_is_not_several(count: int, words: tuple[str, ...], text: str) -> None:
    """One thing is called otherwise than none or several."""
    assert plural(count, *words) == text


def test_unknown_names_are_told_with_those_alike() -> None:
    """Up to three that are alike, and all there are if they are few."""
    assert unknown("pass", "dec", ["dce", "nops"]) == (
        "there is no pass 'dec' (did you mean dce?); there are: dce, nops"
    )
    assert unknown("map", "x", []) == "there is no map 'x'; there are: none"


def test_many_names_are_not_all_told() -> None:
    """Of many, those that are alike are enough; where none is, some of them, and how many more."""
    many = [f"name_{number:03}" for number in range(100)]
    told = unknown("map", "name_0001", many)
    assert told.startswith("there is no map 'name_0001' (did you mean name_001 or ")
    assert "there are" not in told
    assert unknown("map", "???", many).endswith("name_023, and 76 more")


def test_names_from_a_file_are_made_visible() -> None:
    """Neither what was asked for nor what there is can hide something on a terminal."""
    assert "\x1b" not in unknown("map", "\x1b[2J", ["\x1b[2K"])


COUNTED = re.compile(
    r"(?<!of )\{[^{}]*(?:len\(|\bn_)[^{}]*\} "
    r"(?:runs|programs|inputs|packets|notes|mendings|records|loads|instructions)\b"
)


def test_commands_inflect_what_they_count() -> None:
    """What the command line counts is said by `plural`: no "1 runs"."""
    commands = Path(bpfpatch.cli.__file__).parent
    found = [
        f"{path.name}: {one}"
        for path in sorted(commands.glob("*.py"))
        for one in COUNTED.findall(path.read_text())
    ]
    assert found == ["counting.py: {len(names)} programs"]
