"""What the benchmarks compare with does the same work, and what they print is what they found."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2]))

from benchmarks import growth, pages, peers
from benchmarks.kinds import KINDS, with_map_column
from benchmarks.report import Table, number, shown
from benchmarks.rescan import moves, patch_and_rescan

from bpfpatch import kernel
from bpfpatch.asm import assemble
from bpfpatch.patch import Body, PatchList

JUMPS = """
r0 = 0
again: r0 += 1
if r0 > 9 goto out
r1 = 2
goto again
r2 = 3
if r1 == 2 goto again
out: r3 = 1
if r3 != 1 goto last
r0 = 5
last: exit
"""


@pytest.mark.parametrize("n_insns", [0, 1, 2, 5])
@pytest.mark.parametrize("sites", [[1], [3, 5], [1, 3, 5, 7, 9], [0, 1]])
def test_model_patches_as_the_list_does(sites, n_insns):
    """One site after the other, each with a rescan, gives what one linearize gives."""
    program = assemble(JUMPS)
    body = moves(n_insns)
    patches = PatchList(program)
    at = np.array(sites, np.int32)
    if n_insns:
        patches.replace(at, Body(body))
    else:
        patches.delete(at)
    expected = patches.linearize().program
    found = patch_and_rescan(program.insns, at, body)
    assert found is not None
    assert found.tolist() == expected.insns.tolist()


def test_model_gives_up_when_its_time_is_over():
    """A budget of nothing gives no program."""
    program = assemble(JUMPS)
    assert patch_and_rescan(program.insns, np.array([1], np.int32), moves(2), 0.0) is None


@pytest.mark.parametrize("name", KINDS)
def test_sites_grow_as_the_model_has_it(name):
    """Each site grows by as many slots in ours as in the model, and there are so many sites."""
    kind = KINDS[name]
    types = None
    if kind.needs_types:
        if kernel.available() is not None:
            pytest.skip(f"not on this kernel: {kernel.available()}")
        types = kernel.vmlinux_btf()
    few, many = (with_map_column(kind.make(n)[0]) for n in (20, 50))
    grown = [len(growth.patched(one, kind, types)) - len(one) for one in (few, many)]
    assert grown[1] - grown[0] == 30 * sum(kind.rounds)
    assert (len(many) - kind.n_head - 1) % 50 == 0
    assert len(kind.make(20)[1]) == len(few)


def test_list_of_objects_gives_the_same_program():
    """The other design, in both its forms, makes what the patch list makes."""
    assert peers.agree(400)


def test_exponents_of_known_growth():
    """The exponent of n squared is 2, whatever the constant, and of one point there is none."""
    points = {n: 3e-9 * n**2 for n in (1_000, 5_000, 20_000)}
    assert growth.exponent(points, 0) == pytest.approx(2)
    assert growth.exponent(points, 20_000) is None


def test_cells_show_median_and_spread():
    """Of several runs the median is shown with the least and the most, of one the number."""
    assert shown([3.0, 1.0, 200.0]) == "3 (1 to 200)"
    assert shown([0.01234]) == "0.012"
    assert shown(None) == shown([]) == "-"
    assert number(12345.6) == "12,346"


def test_tables_have_their_cells_in_every_form():
    """What a terminal shows and what a document shows have the same cells."""
    table = Table("Speed", ("what", "ms"), [("edit", [1.0, 2.0, 3.0])], ("A note.",))
    assert table.text() == ["Speed", "what          ms", "edit  2 (1 to 3)", "A note."]
    assert "| edit | 2 (1 to 3) |" in table.markdown()
    assert "A note.  " in table.markdown()


def test_only_what_is_between_the_markers_changes():
    """New figures go between the markers of their name, and leave all else."""
    text = "a\n<!-- bench:x:begin -->\nold\n<!-- bench:x:end -->\nb\n"
    assert pages.replaced(text, "x", ["new \\1"]) == text.replace("old", "new \\1")
    assert pages.replaced(text, "y", ["new"]) is None
