"""The table of verbs: where the instruction, a jump to it and a call to it go, a test a cell."""

from __future__ import annotations

import numpy as np
import pytest

from bpfpatch import isa
from bpfpatch.errors import OptionError
from bpfpatch.patch import Body, PatchList
from bpfpatch.program import (
    DELETED,
    INSERTED,
    REPLACED,
    Anchor,
    AnchoredTable,
    Program,
)
from support.cases.rewrite import assert_rewrite, program

# The site is f, slot 3: a jump comes back to it, a call enters it, control falls into slot 4.
BEFORE = """
        call f
        exit
        exit
    f:  r1 -= 1
        if r1 != 0 goto f
        exit
"""
SITE = 3
BODY = Body.asm("r6 = 1; r7 = 2")
KEEPING = Body.asm("r6 = 1; @orig; r7 = 2")
CODES = {"r6 = 1": (0xB7, 6), "r7 = 2": (0xB7, 7), "site": (0x17, 1), "next": (0x55, 1)}


def after(verb: str, body: Body | None) -> tuple[PatchList, dict[str, str]]:
    """The names of what `own`, `land`, `entry`, the jump and the call reach after one edit."""
    patches = PatchList(program(BEFORE))
    getattr(patches, verb)(SITE, *([] if body is None else [body]))
    new, remap = patches.linearize()
    names = {}
    for slot in range(len(new)):
        key = (int(new.insns["code"][slot]), int(new.insns["regs"][slot]) & 15)
        names[slot] = next((name for name, code in CODES.items() if code == key), str(slot))
    targets = dict(zip(new.refs.kind.tolist(), new.refs.target.tolist(), strict=True))
    own = int(remap.own[SITE])
    return patches, {
        "own": {DELETED: "DELETED", REPLACED: "REPLACED"}.get(own) or names[own],
        "land": names[int(remap.land[SITE])],
        "entry": names[int(remap.entry[SITE])],
        "jump": names[targets[1]],
        "call": names[targets[3]],
        "start": names[int(new.subprogs.start[1])],
    }


TABLE = [
    # verb, body, own, land, entry
    ("replace", BODY, "REPLACED", "r6 = 1", "r6 = 1"),
    ("replace", KEEPING, "site", "r6 = 1", "r6 = 1"),
    ("insert_before", BODY, "site", "r6 = 1", "r6 = 1"),
    ("prepend", BODY, "site", "site", "r6 = 1"),
    ("insert_after", BODY, "site", "site", "site"),
    ("delete", None, "DELETED", "next", "next"),
]
IDS = ["replace", "replace, keeping", "insert_before", "prepend", "insert_after", "delete"]


@pytest.mark.parametrize(("verb", "body", "own", "land", "entry"), TABLE, ids=IDS)
class TestTable:
    def test_own(self, verb, body, own, land, entry):
        """The instruction itself, and what follows it, is there."""
        assert after(verb, body)[1]["own"] == own

    def test_land(self, verb, body, own, land, entry):
        """A jump to the site, and what follows jumps, arrives there."""
        found = after(verb, body)[1]
        assert found["land"] == found["jump"] == land

    def test_entry(self, verb, body, own, land, entry):
        """A call to the site, its subprog's start and what follows calls, arrives there."""
        found = after(verb, body)[1]
        assert found["entry"] == found["call"] == found["start"] == entry

    def test_nodes(self, verb, body, own, land, entry):
        """What is live afterwards, in order."""
        wanted = {
            "replace": [0, 1, 2, 6, 7, 4, 5],
            "insert_before": [0, 1, 2, 6, 7, 3, 4, 5],
            "prepend": [0, 1, 2, 6, 7, 3, 4, 5],
            "insert_after": [0, 1, 2, 3, 6, 7, 4, 5],
            "delete": [0, 1, 2, 4, 5],
        }[verb]
        if body is KEEPING:
            wanted = [0, 1, 2, 6, 3, 7, 4, 5]
        patches, _ = after(verb, body)
        assert patches.nodes().tolist() == wanted


# ---- what a verb returns ---------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["insert_before", "prepend", "insert_after", "replace"])
def test_returns_the_bodys_first_node(verb):
    """A verb returns its body's first node; the others follow by slot."""
    patches = PatchList(program(BEFORE))
    first = getattr(patches, verb)(SITE, Body.asm("r6 = 1 ll; r7 = 2"))
    assert first == 6
    assert patches[first].is_ld_imm64
    assert patches[first + 2].dst == 7


@pytest.mark.parametrize("verb", ["insert_before", "prepend", "insert_after", "replace"])
def test_returns_an_array_for_an_array(verb):
    """For an array of sites a verb returns an array, in the same order."""
    patches = PatchList(program(BEFORE))
    first = getattr(patches, verb)(np.array([4, 3]), BODY)
    assert first.dtype == np.int32
    assert first.tolist() == [6, 8]
    order = patches.nodes().tolist()
    assert order.index(8) < order.index(6)


@pytest.mark.parametrize("verb", ["insert_before", "prepend", "insert_after", "replace"])
def test_one_body_a_site(verb):
    """A sequence of bodies gives each site its own."""
    patches = PatchList(program(BEFORE))
    bodies = [Body.asm("r6 = 1; r6 = 2; r6 = 3"), Body.asm("r7 = 1")]
    assert getattr(patches, verb)([3, 4], bodies).tolist() == [6, 9]


@pytest.mark.parametrize("verb", ["insert_before", "prepend", "insert_after", "replace"])
def test_no_sites(verb):
    """No sites are no edits."""
    patches = PatchList(program(BEFORE))
    assert getattr(patches, verb)(np.zeros(0, np.int32), BODY).size == 0
    assert getattr(patches, verb)([], KEEPING if verb == "replace" else BODY).size == 0
    assert getattr(patches, verb)([], []).size == 0
    patches.delete([])
    assert patches.linearize().remap.is_identity


def test_sites_may_be_handles():
    """A handle, a list of handles and a NumPy integer name sites as numbers do."""
    patches = PatchList(program(BEFORE))
    insns = list(patches)
    patches.insert_before(insns[4], BODY)
    patches.insert_before(insns[:2], BODY)
    patches.insert_before(tuple(insns[2:4]), BODY)
    patches.insert_before(np.int64(5), BODY)
    patches.insert_before(np.array([5], np.uint8), BODY)
    assert len(patches) == 6 + 14


# ---- several edits of one site ---------------------------------------------------------------


def test_second_insert_before_goes_next_to_the_site():
    """A later body in front of one site stands between the earlier one and the site."""
    assert_rewrite(
        BEFORE,
        lambda p, at: [p.insert_before(3, Body.asm(f"r6 = {n}")) for n in (1, 2)],
        """
            call f
            exit
            exit
        f:  r6 = 1
        back:
            r6 = 2
            r1 -= 1
            if r1 != 0 goto f
            exit
        """,
    )


def test_jump_goes_to_the_first_of_two_bodies():
    """A body captures what reaches the site when it goes in: the second one nothing more."""
    patches = PatchList(program(BEFORE))
    first = patches.insert_before(3, Body.asm("r6 = 1"))
    patches.insert_before(3, Body.asm("r6 = 2"))
    assert patches[4].target.node == first


def test_later_jump_to_a_site_with_a_body_is_to_the_site():
    """A body that jumps to a node goes to that instruction, not to what stands in front of it."""
    patches = PatchList(program(BEFORE))
    patches.insert_before(3, Body.asm("r6 = 1"))
    late = patches.insert_before(5, Body.asm("goto top", top=3))
    assert patches[late].target.node == 3


def test_prepend_then_insert_before():
    """A body in front captures jumps also where a prologue stands already; it comes behind it."""
    assert_rewrite(
        BEFORE,
        lambda p, at: (p.prepend(3, Body.asm("r8 = 8")), p.insert_before(3, Body.asm("r9 = 9"))),
        """
            call f
            exit
            exit
        f:  r8 = 8
        loop:
            r9 = 9
            r1 -= 1
            if r1 != 0 goto loop
            exit
        """,
    )


def test_insert_before_then_prepend():
    """A later prologue stands next to the site: the body in front of it is not part of the site."""
    assert_rewrite(
        BEFORE,
        lambda p, at: (p.insert_before(3, Body.asm("r9 = 9")), p.prepend(3, Body.asm("r8 = 8"))),
        """
            call f
            exit
            exit
        f:  r9 = 9
            r8 = 8
            r1 -= 1
            if r1 != 0 goto f
            exit
        """,
    )


def test_insert_after_twice():
    """The later body stands next to the site."""
    patches = PatchList(program(BEFORE))
    first, second = (patches.insert_after(3, Body.asm(f"r6 = {n}")) for n in (1, 2))
    assert patches.nodes().tolist() == [0, 1, 2, 3, second, first, 4, 5]


def test_edit_of_an_inserted_instruction():
    """What one edit put in, the next one may edit in every way."""

    def edit(p, at):
        first = p.insert_before(5, Body.asm("r6 = 1; r7 = 2; r8 = 3"))
        p.replace(first, Body.asm("r6 = 9"))
        p.insert_after(first + 1, Body.asm("r9 = 4"))
        p.delete(first + 2)

    assert_rewrite(
        BEFORE,
        edit,
        """
            call f
            exit
            exit
        f:  r1 -= 1
            if r1 != 0 goto f
            r6 = 9
            r7 = 2
            r9 = 4
            exit
        """,
    )


def test_replace_by_nothing_deletes():
    """An empty body in an instruction's place is a deletion."""
    patches = PatchList(program(BEFORE))
    patches.replace(3, Body.of())
    _, remap = patches.linearize()
    assert remap.own[3] == DELETED
    assert remap.land[3] == 3


def test_replace_by_the_original_alone_changes_nothing():
    """A body that is the original and nothing else is no edit."""
    patches = PatchList(program(BEFORE))
    patches.replace(3, Body.asm("@orig"))
    assert patches.linearize().remap.is_identity


@pytest.mark.parametrize("verb", ["insert_before", "prepend", "insert_after"])
def test_an_empty_body_changes_nothing(verb):
    """To put in nothing is no edit."""
    patches = PatchList(program(BEFORE))
    getattr(patches, verb)(3, Body.of())
    assert patches.linearize().remap.is_identity


def test_provenance_of_every_instruction():
    """Each output instruction says which original it is, or at which it went in."""
    patches = PatchList(program(BEFORE))
    first = patches.insert_before(4, BODY)
    patches.insert_after(first, Body.asm("r9 = 9"))
    patches.delete(1)
    _, remap = patches.linearize()
    new = INSERTED
    assert remap.orig.tolist() == [0, 2, 3, new, new, new, 4, 5]
    assert remap.site.tolist() == [0, 2, 3, 4, 4, 4, 4, 5]


# ---- the order of edits ----------------------------------------------------------------------

ORDER = """
        if r1 == 0 goto one
        exit
    one:
        r0 = 1
    two:
        r0 = 2
        exit
"""


@pytest.mark.parametrize("is_looked_at", [False, True])
@pytest.mark.parametrize("empty", [None, Body.of()])
@pytest.mark.parametrize(("first", "wanted"), [("delete", 3), ("prepend", 5)])
def test_order_of_a_deletion_and_a_prologue(is_looked_at, empty, first, wanted):
    """A jump that slid to an instruction misses its later prologue, and runs an earlier one."""
    patches = PatchList(program(ORDER))

    def delete():
        if empty is None:
            patches.delete(2)
        else:
            patches.replace(2, empty)

    steps = [delete, lambda: patches.prepend(3, Body.asm("r9 = 9"))]
    for step in steps if first == "delete" else reversed(steps):
        step()
        if is_looked_at:
            patches.nodes()
    assert patches[0].target.node == wanted


@pytest.mark.parametrize("is_looked_at", [False, True])
def test_order_of_a_jump_and_a_capture(is_looked_at):
    """A body that jumps to a node is captured by what goes in front of that node later."""
    patches = PatchList(program(ORDER))
    jump = patches.insert_after(0, Body.asm("if r2 == 0 goto two", two=3))
    if is_looked_at:
        patches.nodes()
    mine = patches.insert_before(3, Body.asm("r9 = 9"))
    late = patches.insert_after(0, Body.asm("if r3 == 0 goto two", two=3))
    assert patches[jump].target.node == mine
    assert patches[late].target.node == 3


def test_bulk_in_any_order_of_sites():
    """An array of sites may be in any order; each site gets its own instance."""
    patches = PatchList(program(ORDER))
    firsts = patches.replace([2, 0, 1], Body.asm("r6 = 6; @orig; r7 = 7")).tolist()
    order = patches.nodes().tolist()
    assert firsts == [5, 7, 9]
    assert order == [7, 0, 8, 9, 1, 10, 5, 2, 6, 3, 4]


def test_a_deleted_run_is_one_place():
    """Jumps to each instruction of a run that one edit deletes go to what follows the run."""
    patches = PatchList(program(ORDER.replace("r0 = 2", "r0 = 2; if r1 == 3 goto two")))
    patches.delete([2, 3, 4])
    assert patches[0].target.node == 5


def test_rows_of_a_table_are_set() -> None:
    """New contents of a table's rows sit where the old ones did, and move with them."""
    table = AnchoredTable(np.array([0], np.int32), np.array([8], np.int32), Anchor.ENTRY)
    program = Program(isa.concat([isa.mov(0, 0), isa.exit_()])).with_tables(depth=table)
    patches = PatchList(program)
    patches.set_rows("depth", np.array([24], np.int32))
    patches.insert_before(0, Body.asm("r1 = 0"))
    after = patches.linearize().program.tables["depth"]
    assert (after.insn.tolist(), after.rows.tolist()) == ([0], [24])
    assert program.tables["depth"].rows.tolist() == [8]


def test_rows_of_another_form_are_refused() -> None:
    """A table keeps the number and the type of its rows."""
    table = AnchoredTable(np.array([0], np.int32), np.array([8], np.int32), Anchor.ENTRY)
    patches = PatchList(Program(isa.exit_()).with_tables(depth=table))
    for rows in (np.array([1, 2], np.int32), np.array([1], np.int64)):
        with pytest.raises(OptionError, match="table 'depth' has rows of int32"):
            patches.set_rows("depth", rows)
    with pytest.raises(OptionError, match="no table 'other'; there are: depth"):
        patches.set_rows("other", table.rows)
