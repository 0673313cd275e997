"""What the benchmarks compare with does the same work, and what they print is what they found."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2]))

from benchmarks import growth, pages, peers, summary
from benchmarks.__main__ import NAMES
from benchmarks.kinds import KINDS, with_map_column
from benchmarks.loops import SCALED, scaled
from benchmarks.plots import draw
from benchmarks.report import Line, Outcome, Plot, Table, number, shown
from benchmarks.rescan import moves, patch_and_rescan

from bpfpatch import kernel
from bpfpatch.asm import assemble
from bpfpatch.errors import BpfPatchError
from bpfpatch.interp import Machine
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
        try:
            types = kernel.vmlinux_btf()
        except BpfPatchError as error:
            pytest.skip(f"not on this kernel: no types ({error})")
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


def test_documents_get_what_is_between_their_markers(tmp_path, monkeypatch):
    """Each document that has a name's markers is given anew, and no other."""
    pages_ = [tmp_path / name for name in ("one.md", "two.md", "missing.md")]
    pages_[0].write_text("<!-- bench:x:begin -->\nold\n<!-- bench:x:end -->\n")
    pages_[1].write_text("nothing of it\n")
    monkeypatch.setattr(pages, "_PAGES", tuple(pages_))
    given = pages.filled("x", ["new"])
    assert given == {pages_[0]: b"<!-- bench:x:begin -->\nnew\n<!-- bench:x:end -->\n"}


def test_documents_have_a_place_for_each_measurement():
    """The page of benchmarks has the markers of every name."""
    text = (pages.ROOT / "docs" / "benchmarks.md").read_text()
    assert [name for name in NAMES if pages.replaced(text, name, []) is None] == []


def test_writing_that_fails_leaves_all_as_it_was(tmp_path):
    """Where one file of several cannot be written, no file is changed and none is left over."""
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    first.write_bytes(b"old")
    with pytest.raises(TypeError):
        pages.write({first: b"new", second: None})
    assert first.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_writing_leaves_nothing_but_the_files(tmp_path):
    """Files are written under their names, in a folder that is made where it is missing."""
    pages.write({tmp_path / "new" / "a.json": b"1", tmp_path / "new" / "b.svg": b"2"})
    found = {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()}
    assert found == {"a.json": b"1", "b.svg": b"2"}


def test_time_that_was_measured_is_called_so():
    """At the size asked for, what was measured is given as it is."""
    asked = growth.at_asked({5_000: 1.0, 95_000: 20.0, growth.ASKED: 123.0})
    assert (asked.seconds, asked.how) == (123.0, "measured")


def test_time_that_was_not_measured_is_called_so():
    """Below that size the exponent says the time, and the words that it is no measurement."""
    asked = growth.at_asked({n: 1e-9 * n**2 for n in (5_000, 15_000, 95_000)})
    assert asked.seconds == pytest.approx(1e-9 * growth.ASKED**2)
    assert "extrapolated from 95,000" in asked.how
    assert "not measured" in asked.how
    assert growth.at_asked({1_000: 1.0}) is None


def test_goal_says_measured_only_where_it_was():
    """The goals' row of blinding says which of the two it is, and shows the most measured."""
    own = dict.fromkeys(growth.SIZES, 0.01)
    below = {5_000: [0.1], 95_000: [40.0]}
    rows = list(summary._blinding(own, growth.middle(below)))
    assert "extrapolated" in rows[0][0]
    assert rows[1][0].startswith("95,000")
    assert rows[1][2] == "40 s there, 10 ms here: 4,000 times"
    rows = list(summary._blinding(own, growth.middle(below | {growth.ASKED: [160.0]})))
    assert [row[0] for row in rows] == ["195,000 immediates blinded; the kernel's time: measured"]
    assert rows[0][2] == "160 s there, 10 ms here: 16,000 times"


def test_what_would_take_too_long_is_not_begun():
    """Sizes are measured until the estimate is over the budget, and the reason is given."""
    asked = []

    def once(n_sites):
        asked.append(n_sites)
        return 1e-8 * n_sites**2

    found, why = growth._while_it_lasts(60.0, 3, once)
    assert list(found) == [1_000, 5_000, 15_000, 45_000]
    assert [len(found[n]) for n in found] == [3, 3, 1, 1]
    assert why == "95,000 would take about 90.2 s, and 60 are allowed"
    assert max(asked) == 45_000


def test_refusal_ends_a_measurement_with_its_reason():
    """Where the kernel refuses a size, what it said is the reason."""
    found, why = growth._while_it_lasts(60.0, 1, lambda n: 0.1 if n < 5_000 else "no: EPERM")
    assert (list(found), why) == ([1_000], "no: EPERM")


def test_figures_of_another_version_are_named(tmp_path, monkeypatch):
    """Saved figures without what is asked for say what to measure again, and lose no other's."""
    monkeypatch.setattr(pages, "FOLDER", tmp_path)
    (tmp_path / "limit.json").write_text(json.dumps({"figures": {"replace": {}}}))
    (table,) = summary.measure(1).tables
    assert [row[0] for row in table.rows] == ["limit, saved by another version"]
    assert "python -m benchmarks limit" in table.rows[0][2]


@pytest.mark.parametrize("style", ["line", "points"])
def test_plots_have_logarithmic_axes_and_both_forms(style):
    """Lines and points are drawn as SVG and PNG, and the same figures give the same SVG."""
    pytest.importorskip("matplotlib", reason="matplotlib, which draws plots, is not installed")
    pairs = [(10.0, 1.0), (10.0, 2.0), (1000.0, 50.0)]
    plot = Plot("of", "Of it", "sites", "ms", (Line("one", pairs, style), Line("two", pairs)))
    files = draw(plot)
    assert list(files) == ["of.svg", "of.png"]
    assert ElementTree.fromstring(files["of.svg"]).tag.endswith("svg")
    assert files["of.png"].startswith(b"\x89PNG")
    assert draw(plot)["of.svg"] == files["of.svg"]


@pytest.mark.parametrize("name", SCALED)
def test_loops_are_as_long_as_they_are_asked_to_be(name):
    """A loop of any length runs for about so many instructions."""
    for n_insns in (100, 1_000, 10_000):
        outcome = Machine(assemble(scaled(name, n_insns))).run()
        assert outcome.n_insns == pytest.approx(n_insns, rel=0.1)


def test_saved_figures_stand_in_brackets() -> None:
    """A table is printed beside an earlier one of the same columns; a new row has nothing there."""
    old = Table("t", ("what", "ms", "ratio"), [("a", [1.0, 2.0, 9.0], None)])
    new = Table("t", ("what", "ms", "ratio"), [("a", 3, 1.5), ("b", 4, "-")])
    assert [line.split() for line in new.text(beside=old)[2:]] == [
        ["a", "3", "[2]", "1.5", "[-]"],
        ["b", "4", "-"],
    ]
    other = Table("t", ("what", "s", "ratio"), old.rows)
    assert new.text(beside=other) == new.text()


def test_saved_tables_are_read_back() -> None:
    """What was saved are tables again, by title."""
    saved = [item for name in NAMES for item in pages.saved_tables(name).items()]
    assert len(saved) > len(NAMES)
    for title, table in saved:
        assert table.title == title
        assert len(table.text(beside=table)) >= len(table.rows)


@pytest.mark.parametrize("save", [False, True])
def test_only_a_whole_run_is_summed_up(
    save: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is written without --save, and the README's summary only after all was measured."""
    from benchmarks import __main__ as command

    saved: list[str] = []
    monkeypatch.setattr(command, "_save", lambda name, *_: saved.append(name))
    monkeypatch.setattr("benchmarks.limit.measure", lambda _: Outcome())
    monkeypatch.setattr("sys.argv", ["benchmarks", *["--save"] * save, "limit", "summary"])
    command.main()
    assert saved == ["limit"] * save
    assert ("Only a whole run" in capsys.readouterr().out) is save
