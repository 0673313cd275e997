"""Where two runs part."""

from __future__ import annotations

import numpy as np

from bpfpatch.asm import assemble
from bpfpatch.patch import Body, PatchList
from bpfpatch.program import Program
from bpfpatch.verify import Case, TraceRow
from bpfpatch.verify.kinds import Shape
from bpfpatch.verify.pairing import pair
from bpfpatch.verify.side import RunSubject
from bpfpatch.verify.trace import SideBySide, record


def rows(before: Program, after: Program, pairs: np.ndarray) -> list[TraceRow]:
    """The trace of both on eight zero bytes."""
    case = Case(ctx=bytes(8))
    runs = [record(RunSubject(one), Shape.MEM, case, 1000) for one in (before, after)]
    return SideBySide(before, after, runs[0], runs[1], pairs).rows()


def parting(found: list[TraceRow]) -> tuple[int | None, int | None]:
    """The slots at which they part."""
    (row,) = [row for row in found if row.is_parting]
    return (row.before and row.before[0], row.after and row.after[0])


def test_parts_at_another_value() -> None:
    """The programs part at the first instruction of both that writes something else."""
    before = assemble("r0 = 1; r1 = 5; r0 += r1; exit")
    patches = PatchList(before)
    patches.insert_before(int(patches.nodes()[2]), Body.asm("r1 = 6"))
    done = patches.linearize()
    assert parting(rows(before, done.program, pair(before, done.program, done))) == (2, 3)


def test_inserted_code_is_no_parting() -> None:
    """What was inserted may write what it likes; rows show it in its column alone."""
    before = assemble("r0 = 1; r1 = 5; exit")
    patches = PatchList(before)
    patches.insert_before(int(patches.nodes()[1]), Body.asm("r8 = 6"))
    done = patches.linearize()
    found = rows(before, done.program, pair(before, done.program, done))
    assert not any(row.is_parting for row in found)
    assert [row.before is None for row in found] == [False, True, False, False]


def test_parts_at_another_way() -> None:
    """The programs part at the first step that is not the same instruction."""
    before = assemble("r0 = 0; if r0 == 0 goto out; r0 = 1; out: exit")
    after = assemble("r0 = 0; if r0 != 0 goto out; r0 = 1; out: exit")
    pairs = np.arange(4, dtype=np.int32)
    assert parting(rows(before, after, pairs)) == (3, 2)


def test_a_register_that_does_not_exist() -> None:
    """Raw code may name one: the trace shows what ran up to there."""
    before = assemble("r0 = 0; if r0 == 0 goto out; r0 = 1; out: exit")
    insns = before.insns.copy()
    insns["regs"][1] = 13
    after = Program.from_bytes(insns.tobytes())
    last = rows(before, after, np.arange(4, dtype=np.int32))[1]
    assert last.after is not None
    assert last.after[2] == "r13=?"


def test_lost_store_is_the_parting() -> None:
    """Where all common steps agree, the store that only one of them has is shown."""
    before = assemble("r0 = 0; *(u8 *)(r1 + 0) = 1; r0 = 2; exit")
    after = assemble("r0 = 0; r0 = 2; exit")
    assert parting(rows(before, after, pair(before, after))) == (1, None)


def test_other_argument_is_the_parting() -> None:
    """A helper call with other arguments is where they part, though it returns the same."""
    text = "r1 = {}; r2 = 0; call bpf_redirect; r0 = 0; exit"
    before, after = assemble(text.format(1)), assemble(text.format(1).replace("r2 = 0", "r1 = 3"))
    pairs = np.array([0, -1, 2, 3, 4], np.int32)
    found = rows(before, after, pairs)
    assert parting(found) == (2, 2)
    (row,) = [row for row in found if row.is_parting]
    assert row.before is not None
    assert row.before[2] == "0x1, 0x0"


def test_pairs_by_remap_and_by_content_agree() -> None:
    """Told by content, instructions pair up as the remap says, where they are all different."""
    before = assemble("r0 = 1; r1 = 2; if r1 == 2 goto out; r2 = 3; out: exit")
    patches = PatchList(before)
    patches.insert_after(int(patches.nodes()[1]), Body.asm("r9 = 9"))
    done = patches.linearize()
    by_remap = pair(before, done.program, done)
    assert by_remap.tolist() == [0, 1, -1, 2, 3, 4]
    assert pair(before, done.program).tolist() == by_remap.tolist()
