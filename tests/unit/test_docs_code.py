"""Python in the documents runs as it stands."""

from __future__ import annotations

import ast
import builtins
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from support.session.plugins import own_registry

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python(?: shown)?\n(.*?)^```", re.S | re.M)
SHARED = re.compile(r"\bkernel\.|\bregister_context\b")
"""What runs for all that run at the same time."""
SHOWN = [
    pytest.param(code, id=f"{page.relative_to(ROOT)}-{number}")
    for page in sorted((ROOT / "docs").rglob("*.md"))
    for number, code in enumerate(BLOCK.findall(page.read_text()), 1)
]


def missing(tree: ast.Module) -> set[str]:
    """Names that a piece of code reads and does not define: those of the text around it."""
    nodes = list(ast.walk(tree))
    names = [node for node in nodes if isinstance(node, ast.Name)]
    defined = {node.id for node in names if not isinstance(node.ctx, ast.Load)}
    defined |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    defined |= {
        node.name
        for node in nodes
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.ExceptHandler) and node.name
    }
    defined |= {
        (one.asname or one.name).partition(".")[0]
        for node in nodes
        if isinstance(node, ast.Import | ast.ImportFrom)
        for one in node.names
    }
    return {node.id for node in names} - defined - set(dir(builtins))


@pytest.mark.parametrize("code", SHOWN)
def test_it_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block that defines all it uses runs beside an object lb.o; of others the imports do."""
    tree = ast.parse(code)
    if missing(tree) or SHARED.search(code):
        tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    if not tree.body:
        pytest.skip("no such case: it goes on from another block, and imports nothing")
    own_registry(monkeypatch)
    (tmp_path / "lb.o").write_bytes((ROOT / "src/bpfpatch/data/demo.o").read_bytes())
    monkeypatch.chdir(tmp_path)
    module = ModuleType("_block_of_a_page")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(tree, "block", "exec"), vars(module))


def test_links_lead_to_files() -> None:
    """No relative link in the manual leads nowhere; `make docs` looks at anchors, too."""
    links = [
        (page, target)
        for page in (ROOT / "docs").rglob("*.md")
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text())
        if "://" not in target
    ]
    assert len(links) > 50
    assert [(str(p), target) for p, target in links if not (p.parent / target).exists()] == []
