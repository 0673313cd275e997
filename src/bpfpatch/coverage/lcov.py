"""Coverage as an lcov tracefile, for genhtml and what else reads them.

Source: geninfo(1) of lcov 1.16 and 2.0, section TRACEFILE FORMAT.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePath
from typing import Final

from bpfpatch.errors import OptionError
from bpfpatch.text import visible

from .counts import Branch
from .model import Coverage, FileCoverage
from .sources import Sources
from .totals import of_file

_NOT_IN_TEST_NAME: Final = re.compile(r"\W", re.ASCII)


def to_lcov(coverage: Coverage, sources: Sources, title: str = "", command: str = "") -> str:
    """The tracefile.

    A branch's way, a line and a function are left out where their counts are not known. A jump
    that never ran has ``-`` for its ways, as the format asks.

    Args:
        coverage: what ran.
        sources: how files are called: below the folder that they were found in, or as the
            object knows them.
        title: a name for the run; of a file's name what stands before its suffix.
        command: what made it; this form does not say so.

    Raises:
        OptionError: the object knows no source lines.
    """
    del command
    need_lines(coverage, "lcov tracefile")
    test = _NOT_IN_TEST_NAME.sub("_", PurePath(title).stem)
    out = []
    for file in coverage.files.values():
        out += [f"TN:{test}", f"SF:{visible(sources.of(file).name)}"]
        out += [*_functions(file), *_branches(file), *_lines(file), "end_of_record"]
    return "".join(f"{line}\n" for line in out)


def need_lines(coverage: Coverage, what: str) -> None:
    """Refuse to make a report by lines for an object that has none.

    Raises:
        OptionError: it has none.
    """
    if not any(file.lines for file in coverage.files.values()):
        raise OptionError(
            f"the object has no line info, and without it there is nothing to put into a {what}; "
            "the formats terminal, html and json show its blocks"
        )


def _functions(file: FileCoverage) -> Iterator[str]:
    # A name with a comma would be read as two fields.
    # Two objects may have a function each of one source, made in different ways.
    calls: dict[tuple[str, int], int] = {}
    for one in file.functions:
        if one.line and one.calls is not None:
            named = visible(one.name).replace(",", ";"), one.line
            calls[named] = calls.get(named, 0) + one.calls
    yield from (f"FN:{line},{name}" for name, line in calls)
    yield from (f"FNDA:{count},{name}" for (name, _), count in calls.items())
    yield f"FNF:{len(calls)}"
    yield f"FNH:{sum(count > 0 for count in calls.values())}"


def _branches(file: FileCoverage) -> Iterator[str]:
    for line, branches in file.branches.items():
        for block, branch in enumerate(branches):
            for way, count in enumerate(_ways(branch)):
                if count:
                    yield f"BRDA:{line},{block},{way},{count}"
    tally = of_file(file).branches
    yield f"BRF:{tally.total}"
    yield f"BRH:{tally.hit}"


def _ways(branch: Branch) -> tuple[str, str]:
    """The counts of both ways as text, "" for one that is not known."""
    if branch.taken == 0 and branch.not_taken == 0:
        return "-", "-"
    taken, not_taken = ("" if way is None else str(way) for way in branch[1:])
    return taken, not_taken


def _lines(file: FileCoverage) -> Iterator[str]:
    yield from (f"DA:{line},{count}" for line, count in file.lines.items() if count is not None)
    tally = of_file(file).lines
    yield f"LF:{tally.total}"
    yield f"LH:{tally.hit}"
