"""Examples in docstrings name what there is."""

from __future__ import annotations

import ast
import builtins
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType

import pytest

import bpfpatch

MODULES = [
    import_module(f"bpfpatch.{name}")
    for name in (
        *("asm", "btf", "coverage", "elf", "errors", "facts", "interp", "isa", "kernel"),
        *("linux.parity", "passes", "patch", "program", "repair", "report", "runs", "verify"),
    )
]
EXAMPLE = re.compile(r"::\n\n((?:(?:    .*)?\n)+)")


def documented(module: ModuleType) -> Iterator[tuple[str, str]]:
    """(name, docstring) of a module, what it makes public, and its public methods."""
    yield module.__name__, inspect.getdoc(module) or ""
    for name in getattr(module, "__all__", ()):
        thing = getattr(module, name)
        yield f"{module.__name__}.{name}", inspect.getdoc(thing) or ""
        if inspect.isclass(thing):
            for method, value in vars(thing).items():
                if not method.startswith("_") and callable(getattr(value, "__func__", value)):
                    yield f"{module.__name__}.{name}.{method}", inspect.getdoc(value) or ""


def examples() -> Iterator[tuple[str, str]]:
    """(where, Python) of what is an example in Python."""
    for module in [bpfpatch, *MODULES]:
        for where, text in documented(module):
            for block in EXAMPLE.findall(f"{text}\n"):
                code = inspect.cleandoc(block)
                try:
                    ast.parse(code)
                except SyntaxError:
                    continue
                yield where, code


FOUND = sorted(set(examples()))


def public(where: str) -> dict[str, object]:
    """What an example may use without importing it; its own module's names before others."""
    names: dict[str, object] = {"bp": bpfpatch, "np": import_module("numpy")}
    names["Path"] = import_module("pathlib").Path
    for module in sorted(MODULES, key=lambda one: where.startswith(one.__name__)):
        names |= {name: getattr(module, name) for name in getattr(module, "__all__", ())}
    return names | {module.__name__.rpartition(".")[2]: module for module in MODULES}


def test_there_are_examples() -> None:
    """Examples are found at all."""
    assert len(FOUND) >= 10


@pytest.mark.parametrize(("where", "code"), FOUND, ids=[where for where, _ in FOUND])
def test_an_example_names_what_there_is(where: str, code: str) -> None:
    """Classes, functions and their attributes in an example are public ones."""
    nodes = list(ast.walk(ast.parse(code)))
    own = {
        node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    known = {**vars(builtins), **public(where), **dict.fromkeys(own)}
    assert nodes
    for node in nodes:
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            assert node.id in known or node.id[0].islower() or node.id.isupper(), node.id
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner = known.get(node.value.id)
            if inspect.isclass(owner) or inspect.ismodule(owner):
                assert hasattr(owner, node.attr), f"{node.value.id}.{node.attr}"
