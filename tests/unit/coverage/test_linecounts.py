"""How often a source line ran, by the blocks and edges that its instructions are in."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bpfpatch.asm import assemble
from bpfpatch.coverage import BlockCount, Coverage, EdgeCount
from bpfpatch.coverage.linecounts import LineTable, function_lines
from bpfpatch.passes.cover import LineRow, Way
from support.models.countedcode import MAIN


def counts(
    code: str,
    lines: dict[int, tuple[int, int]],
    blocks: dict[int, int | None],
    edges: list[tuple[int, int, int | None]],
) -> dict[int, int | None]:
    """By line, how often it ran.

    Args:
        code: assembly.
        lines: by slot, the line that starts there, and its column.
        blocks: by first slot, how often each ran.
        edges: (source, goal, times) by first slots, -1 for outside.
    """
    insns = assemble(code).insns
    table = LineTable([LineRow(at, "a.c", n, col, "") for at, (n, col) in lines.items()], insns)
    starts = sorted(blocks)
    ends = [*starts[1:], len(insns)]
    number = {start: at for at, start in enumerate(starts)} | {-1: -1}
    function = replace(
        MAIN,
        end=len(insns),
        blocks=tuple(
            BlockCount(start, end, blocks[start]) for start, end in zip(starts, ends, strict=True)
        ),
        edges=tuple(EdgeCount(Way.JUMP, number[a], number[b], n) for a, b, n in edges),
    )
    return {line: count for (_, line), count in function_lines(function, table).items()}


THREE = """
    if r1 == 0 goto L1
    call 7
L1: if r2 == 0 goto L2
    call 7
L2: exit
"""


def test_copies_are_added_up() -> None:
    """A line at two places has what both have together, though one path leads through both."""
    found = counts(
        THREE,
        {0: (10, 1), 1: (5, 1), 2: (11, 1), 3: (5, 1), 4: (12, 1)},
        {0: 9, 1: 4, 2: 9, 3: 7, 4: 9},
        [(-1, 0, 9), (0, 1, 4), (0, 2, 5), (1, 2, 4), (2, 3, 7), (2, 4, 2), (3, 4, 7)],
    )
    assert found == {10: 9, 5: 11, 11: 9, 12: 9}


def test_copies_in_a_row_are_added_up() -> None:
    """The same is true of copies in one block: what is done again was done twice."""
    found = counts(
        "call 7\nr1 = 1\ncall 7\nexit",
        {0: (5, 3), 1: (10, 1), 2: (5, 3), 3: (11, 1)},
        {0: 9},
        [(-1, 0, 9)],
    )
    assert found == {5: 18, 10: 9, 11: 9}


def test_mixed_instructions_count_once() -> None:
    """Instructions of two lines that the compiler mixed are one execution of each."""
    found = counts(
        "r6 = *(u8 *)(r1 + 0)\nr7 = *(u8 *)(r1 + 1)\nr6 += r7\ncall 7\nexit",
        {0: (5, 3), 1: (6, 2), 2: (5, 9), 3: (6, 7), 4: (7, 1)},
        {0: 9},
        [(-1, 0, 9)],
    )
    assert found == {5: 9, 6: 9, 7: 9}


def test_a_line_of_several_blocks_counts_once() -> None:
    """The parts of a condition are one line: what goes from one to the next is no second time."""
    found = counts(
        "if r1 == 0 goto L\nif r2 == 0 goto L\nr0 = 1\nL: exit",
        {0: (5, 3), 1: (5, 9), 2: (6, 1), 3: (7, 1)},
        {0: 9, 1: 4, 2: 3, 3: 9},
        [(-1, 0, 9), (0, 1, 4), (0, 3, 5), (1, 2, 3), (1, 3, 1), (2, 3, 3)],
    )
    assert found == {5: 9, 6: 3, 7: 9}


@pytest.mark.parametrize("first", [10, 11])
def test_a_loop_counts_each_round(first: int) -> None:
    """The line of a loop that its end comes back to counts each round, and not twice."""
    found = counts(
        "r0 = 0\nL: r2 += r3\ncall 7\nr0 += r4\nif r0 < 5 goto L\nexit",
        {0: (10, 1), 1: (first, 1), 2: (11, 1), 3: (10, 9), 5: (12, 1)},
        {0: 2, 1: 10, 5: 2},
        [(-1, 0, 2), (0, 1, 2), (1, 1, 8), (1, 5, 2)],
    )
    assert found[10] == 12
    assert found[11] in (10, 12)


def test_a_loop_on_one_line_counts_each_round() -> None:
    """A loop that is all on one line has as many executions as rounds."""
    found = counts(
        "r0 = 0\nL: r0 += 1\nif r0 < 5 goto L\nexit",
        {0: (9, 1), 1: (10, 1), 3: (11, 1)},
        {0: 2, 1: 10, 3: 2},
        [(-1, 0, 2), (0, 1, 2), (1, 1, 8), (1, 3, 2)],
    )
    assert found == {9: 2, 10: 10, 11: 2}


def test_unrolled_rounds_are_added_up() -> None:
    """An unrolled loop goes from one round to the next on one line, and does the same again."""
    found = counts(
        "if r1 > 7 goto L1\ncall 7\nL1: if r2 > 7 goto L2\ncall 7\nL2: exit",
        {0: (5, 3), 1: (6, 1), 2: (5, 3), 3: (6, 1), 4: (7, 1)},
        {0: 9, 1: 4, 2: 9, 3: 7, 4: 9},
        [(-1, 0, 9), (0, 1, 4), (0, 2, 5), (1, 2, 4), (2, 3, 7), (2, 4, 2), (3, 4, 7)],
    )
    assert found == {5: 18, 6: 11, 7: 9}


def test_a_comparison_in_parts_counts_once() -> None:
    """A memcmp of one line does the same again for each part of what it compares."""
    found = counts(
        "r3 = *(u64 *)(r1 + 0)\nif r3 != r4 goto L\nr3 = *(u64 *)(r1 + 8)\nif r3 != r5 goto L\n"
        "r0 = 1\nL: exit",
        {0: (5, 3), 4: (6, 1), 5: (7, 1)},
        {0: 9, 2: 4, 4: 3, 5: 9},
        [(-1, 0, 9), (0, 2, 4), (0, 5, 5), (2, 4, 3), (2, 5, 1), (4, 5, 3)],
    )
    assert found == {5: 9, 6: 3, 7: 9}


def test_a_switch_counts_once() -> None:
    """Comparisons of one line with several constants are one execution."""
    found = counts(
        "if r1 == 1 goto L\nif r1 == 2 goto L\nr0 = 1\nL: exit",
        {0: (5, 3), 2: (6, 1), 3: (7, 1)},
        {0: 9, 1: 4, 2: 3, 3: 9},
        [(-1, 0, 9), (0, 1, 4), (0, 3, 5), (1, 2, 3), (1, 3, 1), (2, 3, 3)],
    )
    assert found == {5: 9, 6: 3, 7: 9}


def test_code_without_a_record_is_of_the_line_control_comes_from() -> None:
    """What stands after a line in the code, and is led to from elsewhere, does not count for it."""
    found = counts(
        "if r1 == 0 goto L\ncall 7\nL: r0 = 0\nexit",
        {0: (5, 3), 1: (6, 1), 3: (7, 1)},
        {0: 9, 1: 4, 2: 9},
        [(-1, 0, 9), (0, 1, 4), (0, 2, 5), (1, 2, 4)],
    )
    assert found == {5: 9, 6: 4, 7: 9}


def test_blocks_without_a_record_pass_a_line_on() -> None:
    """What leads from a line to itself over code without one, in any order, is no second time."""
    found = counts(
        "if r1 == 0 goto L\nM: goto N\nL: if r2 != 0 goto M\nN: if r3 == 0 goto O\ncall 7\nO: exit",
        {0: (5, 3), 3: (5, 7), 4: (6, 1), 5: (7, 1)},
        {0: 9, 1: 6, 2: 5, 3: 9, 4: 4, 5: 9},
        [(-1, 0, 9), (0, 1, 4), (0, 2, 5), (1, 3, 6), (2, 1, 2), (2, 3, 3), (3, 4, 4), (3, 5, 5),
         (4, 5, 4)],
    )  # fmt: skip
    assert found == {5: 9, 6: 4, 7: 9}


def test_a_jump_of_another_line_does_not_count() -> None:
    """Where a line has more, a jump alone is no execution of it."""
    found = counts(
        "if r1 == 0 goto L\ncall 7\ngoto M\nL: call 8\nM: exit",
        {0: (5, 3), 1: (6, 1), 2: (7, 1), 3: (7, 1), 4: (8, 1)},
        {0: 9, 1: 4, 3: 5, 4: 9},
        [(-1, 0, 9), (0, 1, 4), (0, 3, 5), (1, 4, 4), (3, 4, 5)],
    )
    assert found == {5: 9, 6: 4, 7: 5, 8: 9}


def test_unknown_counts() -> None:
    """A block without a count makes its lines unknown; edges without, the highest of a block."""
    shape = {0: (10, 1), 1: (5, 1), 2: (5, 7), 3: (5, 1), 4: (12, 1)}
    edges = [(-1, 0, 9), (0, 1, 4), (0, 2, None), (1, 2, None), (2, 3, 7), (2, 4, 2), (3, 4, 7)]
    assert counts(THREE, shape, {0: 9, 1: None, 2: 9, 3: 7, 4: 9}, edges)[5] is None
    assert counts(THREE, shape, {0: 9, 1: 4, 2: 9, 3: 7, 4: 9}, edges)[5] == 9


def test_all_functions_are_added_up() -> None:
    """A line that two functions have code of ran as often as in both together."""
    from bpfpatch.coverage import cover_map
    from bpfpatch.passes import Pipeline
    from support.models.covering import object_of

    text = ".subprog f\n  r0 = 0\n  call g\n  exit\n.subprog g\n  r0 = 1\n  exit\n"
    cover = cover_map(Pipeline.parse("cover{edges=true}").run_object(object_of(text))[0])
    starts = [one.start for one in cover.functions]
    lines = tuple(LineRow(start, "a.c", 7, 1, "") for start in starts)
    found = Coverage.of(replace(cover, lines=lines), [3] * cover.n_counters)
    calls = [one.calls for one in found.functions]
    assert found.files["a.c"].lines == {7: sum(filter(None, calls))}
