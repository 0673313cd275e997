"""What a report is about: files by their names, and lines that their source leaves out.

Source: geninfo(1) of lcov 1.16 and 2.0, section Exclusion markers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Final, NamedTuple

from bpfpatch.errors import OptionError

from .counts import BlockCount, FunctionCoverage
from .model import Coverage, FileCoverage
from .pieces import LinePiece, Pieces
from .sources import Sources

_MARKER: Final = re.compile(r"\bLCOV_EXCL_(?:(BR)_)?(LINE|START|STOP)\b")


@dataclass(frozen=True, slots=True)
class Scope:
    """Which files a report is about.

    A pattern is a shell's, and is compared with a file's whole name; ``*`` stands for folders,
    too. One without a ``/`` is compared with the last part as well.

    Attributes:
        include: patterns of files, of which one has to fit; none for all.
        exclude: patterns of files that are left out.
        has_markers: whether markers in the source leave lines out.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    has_markers: bool = True

    def has(self, name: str) -> bool:
        """Whether a file is in it."""
        is_in = not self.include or any(_fits(one, name) for one in self.include)
        return is_in and not any(_fits(one, name) for one in self.exclude)


def _fits(pattern: str, name: str) -> bool:
    if fnmatchcase(name, pattern):
        return True
    return "/" not in pattern and fnmatchcase(name.rpartition("/")[2], pattern)


class Excluded(NamedTuple):
    """What markers leave out of a file.

    Attributes:
        lines: of line and function coverage, and of branch coverage.
        branches: of branch coverage alone.
        notices: markers without a counterpart.
    """

    lines: frozenset[int]
    branches: frozenset[int]
    notices: tuple[str, ...]


def excluded(name: str, text: Mapping[int, str]) -> Excluded:
    """What markers in a file's text leave out.

    From a line with START on, up to the one before STOP; and a line with LINE.

    Args:
        name: of the file.
        text: by line number.
    """
    out: dict[bool, set[int]] = {False: set(), True: set()}
    since: dict[bool, int] = {}
    notices = []
    for number in sorted(text):
        line = text[number]
        found = _MARKER.findall(line) if "LCOV_EXCL_" in line else []
        for of_branches, verb in found:
            kind = bool(of_branches)
            marker = f"LCOV_EXCL_{'BR_' if kind else ''}{verb}"
            if verb == "LINE":
                out[kind].add(number)
            elif verb == "STOP" and since.pop(kind, None) is None:
                notices.append(f"{name}:{number}: {marker} ends nothing")
            elif verb == "START":
                since.setdefault(kind, number)
        for kind in since:
            out[kind].add(number)
    notices += [
        f"{name}:{line}: LCOV_EXCL_{'BR_' if kind else ''}START has no STOP, so all after it "
        "is left out"
        for kind, line in since.items()
    ]
    return Excluded(frozenset(out[False]), frozenset(out[True]), tuple(notices))


def narrowed(coverage: Coverage, sources: Sources, scope: Scope) -> Coverage:
    """What ran of a report's subject.

    Functions of which nothing is left are left out, and so is code without lines where files are
    asked for by name. Blocks all of whose lines are left out do not count.

    Args:
        coverage: what ran.
        sources: of its files.
        scope: what to keep.

    Raises:
        OptionError: nothing is left.
    """
    kept = {path for path, file in coverage.files.items() if scope.has(sources.of(file).name)}
    if coverage.files and not kept and (scope.include or scope.exclude):
        names = sorted(sources.of(file).name for file in coverage.files.values())
        raise OptionError(
            f"no file is left to report on: {_patterns(scope)}; there are {', '.join(names[:10])}"
            + (", ..." if len(names) > 10 else "")
        )
    work = _Narrowing(coverage, kept, keep_bare=not scope.include)
    if scope.has_markers:
        for path in kept:
            text = sources.of(coverage.files[path])
            if any("LCOV_EXCL_" in line for line in text.lines.values()):
                work.exclude(path, excluded(text.name, text.lines))
    return work.done()


def _patterns(scope: Scope) -> str:
    parts = [f"include {one}" for one in scope.include] + [
        f"exclude {one}" for one in scope.exclude
    ]
    return ", ".join(parts)


@dataclass(slots=True)
class _Narrowing:
    coverage: Coverage
    kept: set[str]
    keep_bare: bool
    lines: dict[str, Excluded] = field(default_factory=dict)

    def exclude(self, path: str, found: Excluded) -> None:
        self.lines[path] = found

    def done(self) -> Coverage:
        coverage = self.coverage
        if not self.lines and len(self.kept) == len(coverage.files) and self.keep_bare:
            return coverage
        pieces = Pieces(coverage)
        functions = tuple(self._functions(pieces))
        starting: dict[str, list[FunctionCoverage]] = {}
        for one in functions:
            if one.is_counted:
                starting.setdefault(one.file, []).append(one)
        files = {
            path: self._file(file, tuple(starting.get(path, ())))
            for path, file in coverage.files.items()
            if path in self.kept
        }
        said = [notice for one in self.lines.values() for notice in one.notices]
        return replace(
            coverage, functions=functions, files=files, notices=(*coverage.notices, *said)
        )

    def _is_left_out(self, path: str, line: int) -> bool:
        if path not in self.kept:
            return True
        found = self.lines.get(path)
        return found is not None and line in found.lines

    def _has_no_branches(self, path: str, line: int) -> bool:
        found = self.lines.get(path)
        is_marked = found is not None and line in found.branches
        return is_marked or self._is_left_out(path, line)

    def _functions(self, pieces: Pieces) -> Iterator[FunctionCoverage]:
        for mine, one in zip(pieces.of_function, self.coverage.functions, strict=True):
            in_lines = [piece for piece in mine if piece.line]
            if not in_lines:
                if self.keep_bare:
                    yield one
                continue
            left = [piece for piece in in_lines if not self._is_left_out(piece.file, piece.line)]
            if left:
                yield self._function(one, mine)

    def _function(self, one: FunctionCoverage, mine: Sequence[LinePiece]) -> FunctionCoverage:
        left_out = {
            piece.start: piece.end
            for piece in mine
            if piece.line and self._is_left_out(piece.file, piece.line)
        }
        gone = [
            (piece.start, piece.end)
            for piece in mine
            if piece.line and self._has_no_branches(piece.file, piece.line)
        ]
        slots = {slot for start, end in gone for slot in range(start, end)}
        return replace(
            one,
            branches=tuple(branch for branch in one.branches if branch.slot not in slots),
            is_counted=not one.line or not self._is_left_out(one.file, one.line),
            left_out=frozenset(
                at for at, block in enumerate(one.blocks) if _is_gone(block, left_out)
            ),
        )

    def _file(self, file: FileCoverage, functions: tuple[FunctionCoverage, ...]) -> FileCoverage:
        return replace(
            file,
            lines={
                n: count for n, count in file.lines.items() if not self._is_left_out(file.path, n)
            },
            branches={
                n: found
                for n, found in file.branches.items()
                if not self._has_no_branches(file.path, n)
            },
            functions=functions,
        )


def _is_gone(block: BlockCount, left_out: Mapping[int, int]) -> bool:
    """Whether all of a block is left out: by first slot, the slot after the last of what is."""
    at = block.start
    while at < block.end and at in left_out:
        at = left_out[at]
    return at >= block.end > block.start
