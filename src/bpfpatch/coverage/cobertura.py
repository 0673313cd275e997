"""Coverage as Cobertura's XML, which most CI systems read.

Source: coverage-04.dtd of Cobertura 2.1.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from xml.etree import ElementTree

from bpfpatch._version import __version__
from bpfpatch.text import visible

from .counts import Branch
from .lcov import need_lines
from .made import seconds
from .model import Coverage, FileCoverage
from .pieces import Pieces
from .sources import Sources
from .totals import CoverTally, Totals, of_file, sides

_HEAD: Final = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<!DOCTYPE coverage SYSTEM "http://cobertura.sourceforge.net/xml/coverage-04.dtd">\n'
)


def to_cobertura(
    coverage: Coverage, sources: Sources, title: str = "bpf", command: str = ""
) -> str:
    """The document: one package, and a class for each source file, since C has none.

    Its time is now, or SOURCE_DATE_EPOCH for those who build reproducibly.

    Args:
        coverage: what ran.
        sources: where the source files are.
        title: of the package.
        command: what made it; this form does not say so.

    Raises:
        OptionError: the object knows no source lines.
    """
    del command
    need_lines(coverage, "Cobertura report")
    files = list(coverage.files.values())
    totals = [of_file(file) for file in files]
    lines = sum((one.lines for one in totals), CoverTally())
    branches = sum((one.branches for one in totals), CoverTally())
    rates = {"line-rate": _rate(lines), "branch-rate": _rate(branches), "complexity": "0"}
    counts = {
        "lines-covered": str(lines.hit),
        "lines-valid": str(lines.total),
        "branches-covered": str(branches.hit),
        "branches-valid": str(branches.total),
        "version": f"bpfpatch {__version__}",
        "timestamp": str(1000 * seconds()),
    }
    root = ElementTree.Element("coverage", rates | counts)
    folders = ElementTree.SubElement(root, "sources")
    for folder in sources.roots or (".",):
        ElementTree.SubElement(folders, "source").text = visible(str(folder))
    packages = ElementTree.SubElement(root, "packages")
    package = ElementTree.SubElement(packages, "package", {"name": visible(title)} | rates)
    classes = ElementTree.SubElement(package, "classes")
    pieces = Pieces(coverage)
    for file, total in zip(files, totals, strict=True):
        _class(classes, coverage, file, total, pieces, sources)
    ElementTree.indent(root)
    return f"{_HEAD}{ElementTree.tostring(root, 'unicode')}\n"


def _class(
    parent: ElementTree.Element,
    coverage: Coverage,
    file: FileCoverage,
    total: Totals,
    pieces: Pieces,
    sources: Sources,
) -> None:
    where = visible(sources.of(file).name)
    rates = {
        "line-rate": _rate(total.lines),
        "branch-rate": _rate(total.branches),
        "complexity": "0",
    }
    one = ElementTree.SubElement(parent, "class", {"name": where, "filename": where} | rates)
    methods = ElementTree.SubElement(one, "methods")
    number = {function.start: at for at, function in enumerate(coverage.functions)}
    for function in file.functions:
        mine = pieces.lines_of(number[function.start], file.path)
        ways = [way for branch in function.branches for way in sides(branch)]
        method = ElementTree.SubElement(
            methods,
            "method",
            {
                "name": visible(function.name),
                "signature": "",
                "line-rate": _rate(CoverTally.of(mine.values())),
                "branch-rate": _rate(CoverTally.of(ways)),
                "complexity": "0",
            },
        )
        inside = set(function.branches)
        branches = {
            line: [branch for branch in found if branch in inside]
            for line, found in file.branches.items()
        }
        _lines(method, mine, branches)
    _lines(one, file.lines, file.branches)


def _lines(
    parent: ElementTree.Element,
    counts: dict[int, int | None],
    branches: dict[int, list[Branch]] | dict[int, tuple[Branch, ...]],
) -> None:
    lines = ElementTree.SubElement(parent, "lines")
    for number, count in counts.items():
        if count is None:  # the format has no word for it
            continue
        known = [found for branch in branches.get(number, ()) if (found := sides(branch))]
        is_branch = "true" if known else "false"
        line = ElementTree.SubElement(
            lines, "line", {"number": str(number), "hits": str(count), "branch": is_branch}
        )
        if not known:
            continue
        line.set("condition-coverage", _condition(way for ways in known for way in ways))
        conditions = ElementTree.SubElement(line, "conditions")
        for at, ways in enumerate(known):
            row = {"number": str(at), "type": "jump", "coverage": _condition(ways).split()[0]}
            ElementTree.SubElement(conditions, "condition", row)


def _condition(ways: Iterable[int]) -> str:
    """As Cobertura writes it: ``50% (1/2)``."""
    tally = CoverTally.of(ways)
    return f"{100 * tally.hit // tally.total}% ({tally})"


def _rate(tally: CoverTally) -> str:
    return f"{tally.share:.4f}"
