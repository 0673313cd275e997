"""No test passes without having compared anything: what can be told from the tests' text."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
FILES = sorted(TESTS.rglob("test_*.py"))
SURE_CALLS = {"enumerate", "sorted", "reversed", "list", "tuple", "set", "product", "chain"}
PYTEST = {"raises", "warns", "fail", "skip"}
"""What makes a test fail, or is told in the summary."""


@cache
def tree(path: Path) -> ast.Module:
    """A file's syntax."""
    return ast.parse(path.read_text())


def called(node: ast.AST) -> str:
    """The name of what is called, "" where nothing is."""
    if not isinstance(node, ast.Call):
        return ""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


@cache
def checkers() -> frozenset[str]:
    """The functions of all tests that assert, themselves or through another."""
    bodies: dict[str, list[ast.AST]] = {}
    for path in TESTS.rglob("*.py"):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("test_"):
                bodies.setdefault(node.name, []).append(node)
    names = {name for name, some in bodies.items() if any(map(asserts, some))}
    calls = {
        name: {called(node) for one in some for node in ast.walk(one)}
        for name, some in bodies.items()
    }
    while more := {name for name in calls.keys() - names if calls[name] & names}:
        names |= more
    return frozenset(names)


def asserts(node: ast.AST) -> bool:
    """Whether there is an assertion in a node, a function that makes one left out."""
    return any(isinstance(one, ast.Assert) or called(one) in PYTEST for one in ast.walk(node))


def is_filled(node: ast.AST, arguments: set[str]) -> bool:  # noqa: PLR0911 - one return a kind
    """Whether what is gone through has elements for sure: a literal, constant or argument."""
    match node:
        case ast.Tuple() | ast.List() | ast.Set():
            return bool(node.elts)
        case ast.Name():
            return node.id in arguments or node.id.isupper()
        case ast.Attribute():
            return node.attr.isupper()
        case ast.Subscript():
            return is_filled(node.value, arguments)
        case ast.BinOp():
            return is_filled(node.left, arguments) or is_filled(node.right, arguments)
        case ast.Call(func=ast.Attribute(value=value, attr="items" | "values" | "keys")):
            return is_filled(value, arguments)
        case ast.Call() if called(node) == "zip":
            return any(is_filled(one, arguments) for one in node.args)
        case ast.Call() if called(node) in SURE_CALLS:
            return all(is_filled(one, arguments) for one in node.args)
        case ast.Call() if called(node) == "range":
            return not any(isinstance(one, ast.Call) for one in node.args)
    return isinstance(node, ast.Constant | ast.Dict)


def is_vacuous(test: ast.expr, arguments: set[str]) -> bool:
    """Whether ``all`` or ``not any`` may go through nothing."""
    match test:
        case ast.Call(func=ast.Name("all"), args=[found]):
            pass
        case ast.UnaryOp(operand=ast.Call(func=ast.Name("any"), args=[found])):
            pass
        case _:
            return False
    if not isinstance(found, ast.GeneratorExp | ast.ListComp):
        return False
    return not is_filled(found.generators[0].iter, arguments)


def compares(body: list[ast.stmt], arguments: set[str]) -> bool:
    """Whether an assertion runs for sure."""
    return any(_compares(one, arguments) for one in body)


def _compares(stmt: ast.stmt, arguments: set[str]) -> bool:  # noqa: PLR0911 - one return a kind
    match stmt:
        case ast.FunctionDef() | ast.ClassDef():
            return False
        case ast.Assert():
            return not is_vacuous(stmt.test, arguments)
        case ast.With():
            opened = [item.context_expr for item in stmt.items]
            return any(map(_calls_checker, opened)) or compares(stmt.body, arguments)
        case ast.For():
            return is_filled(stmt.iter, arguments) and compares(stmt.body, arguments)
        case ast.While():
            return compares(stmt.body, arguments)
        case ast.If():
            return _skips(stmt) or (
                compares(stmt.body, arguments) and compares(stmt.orelse, arguments)
            )
        case ast.Match():
            return all(compares(case.body, arguments) for case in stmt.cases)
        case ast.Try():
            return compares(stmt.body, arguments) or compares(stmt.finalbody, arguments)
    return _calls_checker(stmt)


def _calls_checker(node: ast.AST) -> bool:
    names = {called(one) for one in ast.walk(node)}
    return bool(names & (checkers() | PYTEST)) or any(n.startswith("assert_") for n in names)


def _skips(stmt: ast.If) -> bool:
    """``if not n_compared: pytest.skip(...)``: that nothing was compared is told."""
    is_not = isinstance(stmt.test, ast.UnaryOp) and isinstance(stmt.test.op, ast.Not)
    return is_not and any(called(node) == "skip" for node in ast.walk(stmt))


def functions_of(path: Path) -> Iterator[ast.FunctionDef]:
    """The test functions of a file."""
    for node in tree(path).body:
        for one in node.body if isinstance(node, ast.ClassDef) else [node]:
            if isinstance(one, ast.FunctionDef) and one.name.startswith("test_"):
                yield one


def faults(test: ast.FunctionDef) -> Iterator[str]:
    """What is wrong with a test."""
    arguments = {argument.arg for argument in test.args.args}
    if not compares(test.body, arguments):
        yield "may pass without having compared anything: assert a least number"
    nested = [one for one in ast.walk(test) if isinstance(one, ast.FunctionDef | ast.Lambda)][1:]
    inside = {id(node) for one in nested for node in ast.walk(one)}
    if any(isinstance(node, ast.Return) and id(node) not in inside for node in ast.walk(test)):
        yield "returns: a case that it leaves out is skipped, assumed away or not a parameter"


def test_every_test_compares() -> None:
    """Each test asserts something whatever its loops go through, and does not return early."""
    tests = [(path, test) for path in FILES for test in functions_of(path)]
    assert len(tests) > 2000
    assert [f"{path}: {test.name}: {why}" for path, test in tests for why in faults(test)] == []


@pytest.mark.parametrize(
    ("text", "n_faults"),
    [
        ("assert f()", 0),
        ("f()", 1),
        ("for a in f(): assert a", 1),
        ("for a in (1, 2): assert a", 0),
        ("assert all(a for a in f())", 1),
        ("assert not any(a for a in f())", 1),
        ("with pytest.raises(E): f()", 0),
        ("if f(): return\n    assert g()", 1),
        ("if f(): assert g()", 1),
        ("def g(): assert f()", 1),
    ],
)
def test_faults_are_seen(text: str, n_faults: int) -> None:
    """What passes with nothing compared is named, and what surely compares is not."""
    (test,) = ast.parse(f"def test_one():\n    {text}").body
    assert isinstance(test, ast.FunctionDef)
    assert len(list(faults(test))) == n_faults
