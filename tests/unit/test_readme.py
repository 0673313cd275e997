"""What the README shows is true."""

from __future__ import annotations

import re
from pathlib import Path

import bpfpatch as bp
from support.inputs.bpfobjects import fixture_path

ROOT = Path(__file__).parents[2]


def test_example_runs(tmp_path, monkeypatch):
    """The README's Python example works as it stands, on an object of that name."""
    (tmp_path / "lb.o").write_bytes((ROOT / "src/bpfpatch/data/demo.o").read_bytes())
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.S)
    assert code is not None
    exec(compile(code[1], "README.md", "exec"), {})
    before = bp.ElfObject.read("lb.o").code
    after = bp.ElfObject.read("lb.patched.o").code
    calls = int(bp.isa.is_helper_call(before.insns).sum())
    exits = int(bp.isa.is_exit(before.insns).sum())
    assert len(after) == len(before) + 5 * calls + 3 * exits
    bp.validate(after)


def test_public_names():
    """Every name that the package lists is there."""
    assert len(bp.__all__) > 20
    for name in bp.__all__:
        assert getattr(bp, name) is not None


def test_documents_link_to_files_that_exist():
    """No relative link in the documents at the top leads nowhere."""
    links = [
        (document.name, target)
        for document in ROOT.glob("*.md")
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text())
    ]
    assert len(links) > 20
    assert [link for link in links if not (ROOT / link[1]).exists()] == []


def test_fixture_path_is_known():
    """The demo's object is one of the fixtures, so that it can be built again."""
    demo = (ROOT / "src/bpfpatch/data/demo.o").read_bytes()
    assert fixture_path("xdp_balancer.clang-19.v3.el.g.o").read_bytes() == demo
