"""A small instrumented object's coverage, worked out by hand.

::

    a.c                                         b.h
     3  10  int main(int a, int b)               2  0  (no text)
     4  10      if (!a)          3 jump, 7 on
     5   7          if (b > 5)   0 jump, 7 on
     6   7              puts("<b>&");
     8   3      a = 2;
     9  10      return a;
    13   0  }

``main`` is lines 3 to 9 of a.c, ``never`` starts in b.h and ends in line 13 of a.c,
``bare`` has no lines.
"""

from __future__ import annotations

from dataclasses import replace

from bpfpatch.asm import assemble
from bpfpatch.coverage import (
    BlockCount,
    Branch,
    Coverage,
    EdgeCount,
    FileCoverage,
    FunctionCoverage,
)
from bpfpatch.passes.cover import CoverMap, LineRow, Way

A, B = "./src/x/../a.c", "/usr/include/b.h"

CODE = """
main:
    r0 = 0
    if r1 == 0 goto L5
    if r2 > 5 goto L6
    r0 = 1
    goto L6
L5: r0 = 2
L6: exit
.globl never
never:
    r0 = 9
    exit
.globl bare
bare:
    r0 = 0
    exit
"""
TEXT = {
    3: "int main(int a, int b)",
    4: "\tif (!a)",
    5: "\t\tif (b > 5)",
    6: '\t\t\tputs("<b>&\x1b");',
    8: "\ta = 2;",
    9: "\treturn a;",
    13: "}",
}
ROWS = ((0, A, 3), (1, A, 4), (2, A, 5), (3, A, 6), (5, A, 8), (6, A, 9), (7, B, 2), (8, A, 13))

TAKEN = Branch(1, 3, 7)
NEVER_TAKEN = Branch(2, 0, 7)
MAIN = FunctionCoverage(
    "main",
    "xdp",
    0,
    7,
    A,
    3,
    10,
    blocks=(
        BlockCount(0, 2, 10),
        BlockCount(2, 3, 7),
        BlockCount(3, 5, 7),
        BlockCount(5, 6, 3),
        BlockCount(6, 7, 10),
    ),
    edges=(
        EdgeCount(Way.ENTER, -1, 0, 10),
        EdgeCount(Way.JUMP, 0, 3, 3),
        EdgeCount(Way.FALL, 0, 1, 7),
        EdgeCount(Way.JUMP, 1, 4, 0),
        EdgeCount(Way.FALL, 1, 2, 7),
        EdgeCount(Way.JUMP, 2, 4, 7),
        EdgeCount(Way.FALL, 3, 4, 3),
        EdgeCount(Way.LEAVE, 4, -1, 10),
    ),
    branches=(TAKEN, NEVER_TAKEN),
)
NEVER = FunctionCoverage("never", ".text", 7, 9, B, 2, 0, (BlockCount(7, 9, 0),), (), ())
BARE = FunctionCoverage("bare", ".text", 9, 11, "", 0, 4, (BlockCount(9, 11, 4),), (), ())


def counted(
    *, notices: tuple[str, ...] = (), branches: dict[int, tuple[Branch, ...]] | None = None
) -> Coverage:
    """The coverage in this module's docstring.

    Args:
        notices: what it says of itself.
        branches: of a.c by line, in place of its own.
    """
    code = assemble(CODE).insns
    cover = replace(_EMPTY, code=code.tobytes(), lines=_lines())
    mine = {4: (TAKEN,), 5: (NEVER_TAKEN,)} if branches is None else branches
    lines = {3: 10, 4: 10, 5: 7, 6: 7, 8: 3, 9: 10, 13: 0}
    files = {
        A: FileCoverage(A, lines, mine, (MAIN,), TEXT),
        B: FileCoverage(B, {2: 0}, {}, (NEVER,), {}),
    }
    return Coverage(cover, (), (MAIN, NEVER, BARE), files, notices)


def without_lines() -> Coverage:
    """Of the same code, what is known without line info."""
    functions = tuple(replace(one, file="", line=0) for one in (MAIN, NEVER, BARE))
    return Coverage(replace(counted().cover, lines=()), (), functions, {})


def many_lines(n_lines: int) -> Coverage:
    """One function of so many lines, each of six instructions; every tenth did not run."""
    code = assemble("r0 += 1\n" * (6 * n_lines - 1) + "exit").insns
    lines = tuple(LineRow(6 * at, A, at + 1, 1, "") for at in range(n_lines))
    cover = replace(_EMPTY, code=code.tobytes(), lines=lines)
    counts = {at + 1: 0 if at % 10 == 9 else 1234 + at for at in range(n_lines)}
    blocks = tuple(
        BlockCount(6 * at, 6 * at + 6, count) for at, count in enumerate(counts.values())
    )
    long = replace(MAIN, end=6 * n_lines, blocks=blocks, edges=(), branches=())
    text = {line: f"\tsum += values[{line}] * weights[{line}];" for line in counts}
    return Coverage(cover, (), (long,), {A: FileCoverage(A, counts, {}, (long,), text)})


_EMPTY = CoverMap("atomic", "little", n_counters=0, functions=(), lines=(), code=b"")


def _lines() -> tuple[LineRow, ...]:
    return tuple(
        LineRow(slot, file, line, 1, TEXT.get(line, "") if file == A else "")
        for slot, file, line in ROWS
    )
