"""What the package shows of itself: names, and a line for what it makes."""

from __future__ import annotations

import pytest

import bpfpatch as bp
from bpfpatch import passes
from bpfpatch.asm import assemble
from support.inputs.bpfobjects import fixture_path
from support.models.countedcode import counted


@pytest.mark.parametrize("module", [bp, passes], ids=lambda one: one.__name__)
def test_every_public_name_is_there(module: object) -> None:
    """What ``__all__`` lists can be got, and dir() lists it."""
    names = module.__all__
    assert sorted(set(names)) == sorted(names)
    for name in names:
        assert getattr(module, name) is not None
        assert name in dir(module)


@pytest.mark.parametrize(
    ("module", "name"), [(bp, "Pipeline"), (bp, "diff"), (bp, "passes"), (passes, "FixupCalls")]
)
def test_a_lazy_name_is_stored_once_resolved(
    module: object, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the first use, a name is an attribute like any other: help() finds it."""
    monkeypatch.delitem(vars(module), name, raising=False)
    found = getattr(module, name)
    assert vars(module)[name] is found


def test_passes_lists_every_built_in_pass() -> None:
    """The class of each pass that comes with the package is a public name."""
    classes = {path.rpartition(".")[2] for path in passes.CLASSES.values()}
    assert classes <= set(passes.__all__)


def test_reprs_are_one_line() -> None:
    """What the library returns says in one line what it is."""
    obj = bp.ElfObject.read(fixture_path("xdp_count.clang-19.v3.el.g.o"))
    linked = obj.link(obj.programs[0].name)
    result = bp.Pipeline.parse("sprinkle").run(linked.program)
    diff = bp.diff(linked.program, result.program, result.remap)
    same = bp.diff(linked.program, linked.program)
    for one in (linked.program, linked, result, diff, same, counted(), bp.PatchList(obj.code)):
        shown = repr(one)
        assert shown.startswith(f"<{type(one).__name__}")
        assert "\n" not in shown
        assert len(shown) < 250
    assert repr(same).endswith("all equal>")
    assert repr(bp.diff(assemble("exit"), assemble("r0 = 0; exit"))) == (
        "<Diff of 1 functions, 1 not equal: +1 -0 ~0>"
    )


def test_pictures_for_notebooks() -> None:
    """A diff and a coverage are shown as their page, in a frame that keeps its styles apart."""
    for one in (bp.diff(assemble("exit"), assemble("r0 = 0; exit")), counted()):
        html = one._repr_html_()
        assert html.startswith('<iframe srcdoc="&lt;!DOCTYPE html&gt;')
        assert html.endswith("</iframe>")
