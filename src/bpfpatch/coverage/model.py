"""What ran, in terms of functions, source files, lines and branches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Self

from bpfpatch import isa
from bpfpatch.elf import ElfObject
from bpfpatch.errors import OptionError
from bpfpatch.passes.cover import SECTION, CoverMap, FunctionMap, Way
from bpfpatch.text import framed

from .counts import BlockCount, Branch, EdgeCount, FunctionCoverage
from .linecounts import LineTable, function_lines

U64: Final = 1 << 64


@dataclass(frozen=True, slots=True)
class FileCoverage:
    """One source file.

    Attributes:
        path: as the object has it, or as `bpfpatch.coverage.sources.placed` calls it.
        lines: by line number, how often it ran, in all functions that have code of it (see
            `bpfpatch.coverage.linecounts`); None where one of its blocks' counts is not known.
        branches: by line number, the conditional jumps that belong to it.
        functions: those that start in the file.
        text: by line number, what the object knows of the source.
    """

    path: str
    lines: dict[int, int | None]
    branches: dict[int, tuple[Branch, ...]]
    functions: tuple[FunctionCoverage, ...]
    text: dict[int, str]


@dataclass(frozen=True, slots=True)
class Coverage:
    """What ran, in terms of the source; see `Coverage.of`.

    Attributes:
        cover: what the counters mean.
        hits: the counters.
        functions: all functions of the object, in order of their slots.
        files: source files by path; none without line info.
        notices: what to know of the numbers.
        objects: identities of the objects that were counted; none for that of ``cover`` alone.
    """

    cover: CoverMap
    hits: tuple[int, ...]
    functions: tuple[FunctionCoverage, ...]
    files: dict[str, FileCoverage]
    notices: tuple[str, ...] = ()
    objects: tuple[int, ...] = ()

    def __repr__(self) -> str:
        n_lines = sum(len(file.lines) for file in self.files.values())
        n_ran = sum(bool(count) for file in self.files.values() for count in file.lines.values())
        return (
            f"<Coverage of {len(self.functions)} functions, {len(self.files)} files: "
            f"{n_ran} of {n_lines} lines ran>"
        )

    def _repr_html_(self) -> str:
        from .html import to_html  # noqa: PLC0415 - it needs this module
        from .sources import Sources  # noqa: PLC0415 - the same

        return framed(to_html(self, Sources.find(self), "coverage"))

    @classmethod
    def of(cls, cover: CoverMap, hits: Sequence[int], notices: Sequence[str] = ()) -> Self:
        """Work out what counters say.

        Counts that come out below 0, since counters do not fit together, are taken for 0,
        and a notice says so.

        Args:
            cover: what the counters mean.
            hits: the counters; all 0 is what has not run.
            notices: what is known already of the numbers.

        Raises:
            OptionError: there are more or fewer counters than there should be.
        """
        if len(hits) != cover.n_counters:
            raise OptionError(f"{len(hits)} counters are given, the object has {cover.n_counters}")
        lines = LineTable(cover.lines, cover.insns)
        jumps = isa.is_cond_jump(cover.insns).tolist()
        work = _Work(lines, jumps)
        functions = tuple(work.function(one, hits) for one in cover.functions)
        said = (*notices, *work.notices(cover.counting), *_left_out(functions))
        return cls(
            cover, tuple(hits), functions, _files(lines, functions), tuple(dict.fromkeys(said))
        )

    def merged(self, *others: Coverage) -> Coverage:
        """What ran in this run and in others, taken together.

        Raises:
            OptionError: one is of another object, or of one that was instrumented otherwise.
        """
        for other in others:
            if other.cover.identity != self.cover.identity:
                raise OptionError(
                    f"counters of object {other.cover.identity:016x} cannot be added to those of "
                    f"{self.cover.identity:016x}: merge counters of one instrumented object"
                )
        rows = zip(self.hits, *(other.hits for other in others), strict=True)
        notices = [*self.notices, *(text for other in others for text in other.notices)]
        return Coverage.of(self.cover, [sum(row) % U64 for row in rows], notices)


def cover_map(obj: ElfObject) -> CoverMap:
    """What the counters of an object mean.

    Raises:
        OptionError: the object is not instrumented.
        FormatError: its section is broken.
    """
    for section in obj.sections:
        if section.name == SECTION:
            return CoverMap.parse(bytes(section.data))
    raise OptionError(
        f"it is not instrumented: it has no section {SECTION}; make an object that counts "
        "with `bpfpatch cover OBJ -o OUT`"
    )


@dataclass(slots=True)
class _Work:
    """Functions, one after the other; and how many counts came out below 0."""

    lines: LineTable
    jumps: list[bool]
    n_clamped: int = field(default=0)

    def function(self, one: FunctionMap, hits: Sequence[int]) -> FunctionCoverage:
        blocks, edges, calls = one.counts(hits)
        counted = tuple(
            BlockCount(start, end, self._clamped(count))
            for (start, end), count in zip(one.blocks, blocks, strict=True)
        )
        gone = tuple(
            EdgeCount(Way(way), source, goal, self._clamped(count))
            for (way, source, goal), count in zip(one.edges, edges, strict=True)
        )
        first = self.lines.at(one.start, one.start)
        return FunctionCoverage(
            one.name,
            one.section,
            one.start,
            one.end,
            file=first.file if first else "",
            line=first.line if first else 0,
            calls=self._clamped(calls),
            blocks=counted,
            edges=gone,
            branches=self._branches(counted, gone),
        )

    def notices(self, counting: str) -> list[str]:
        if not self.n_clamped:
            return []
        why = (
            "plain counting loses counts where processors meet, count=atomic does not"
            if counting == "plain"
            else "programs were running while they were read"
        )
        return [
            f"{self.n_clamped} counts came out below 0 and are shown as 0: the counters do not fit "
            f"together; {why}"
        ]

    def _branches(
        self, blocks: tuple[BlockCount, ...], edges: tuple[EdgeCount, ...]
    ) -> tuple[Branch, ...]:
        """Blocks that end in a conditional jump and go two ways from there."""
        ways: dict[int, dict[Way, int | None]] = {}
        for edge in edges:
            if edge.source >= 0 and edge.way in (Way.JUMP, Way.FALL):
                ways.setdefault(edge.source, {})[edge.way] = edge.times
        out = []
        for block, counts in sorted(ways.items()):
            start, end, _ = blocks[block]
            if len(counts) == 2 and end > start and self.jumps[end - 1]:
                out.append(Branch(end - 1, counts[Way.JUMP], counts[Way.FALL]))
        return tuple(out)

    def _clamped(self, count: int | None) -> int | None:
        if count is None:
            return None
        self.n_clamped += count < 0
        return max(count, 0)


def added(one: int | None, other: int | None) -> int | None:
    """Both counts together; None if one of them is not known."""
    return None if one is None or other is None else one + other


def _left_out(functions: tuple[FunctionCoverage, ...]) -> list[str]:
    """What is not known, and where."""
    found = []
    for one in functions:
        n_left = sum(block.times is None and block.end > block.start for block in one.blocks)
        if n_left:
            found.append(f"{one.name} ({n_left} of {len(one.blocks)})")
    if not found:
        return []
    shown = ", ".join(found[:_MOST_NAMED]) + (", ..." if len(found) > _MOST_NAMED else "")
    return [f"some blocks have no place for a counter, and their counts are not known: {shown}"]


_MOST_NAMED: Final = 10


def _files(lines: LineTable, functions: tuple[FunctionCoverage, ...]) -> dict[str, FileCoverage]:
    """Lines and branches by file. Line 0 is what compilers call code of no line."""
    counts: dict[str, dict[int, int | None]] = {}
    branches: dict[str, dict[int, list[Branch]]] = {}
    for function in functions:
        for row in lines.within(function.start, function.end):
            counts.setdefault(row.file, {})
        for (path, number), count in function_lines(function, lines).items():
            mine = counts.setdefault(path, {})
            mine[number] = added(count, mine.get(number, 0))
        for branch in function.branches:
            found = lines.at(branch.slot, function.start)
            if found is not None and found.line:
                rows = branches.setdefault(found.file, {})
                rows.setdefault(found.line, []).append(branch)
    starting: dict[str, list[FunctionCoverage]] = {}
    for function in functions:
        starting.setdefault(function.file, []).append(function)
    text: dict[str, dict[int, str]] = {}
    for row in lines.rows:
        if row.text and row.line:
            text.setdefault(row.file, {})[row.line] = row.text
    return {
        path: FileCoverage(
            path=path,
            lines=dict(sorted(mine.items())),
            branches={line: tuple(found) for line, found in sorted(branches.get(path, {}).items())},
            functions=tuple(starting.get(path, ())),
            text=dict(sorted(text.get(path, {}).items())),
        )
        for path, mine in sorted(counts.items())
    }
