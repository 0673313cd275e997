"""Expressions on the constants of a rule: evaluated on numbers, or made into terms of z3.

Numbers are of 64 bits, signed, and wrap around. Conditions are comparisons, also of several
together with ``and``, ``or`` and ``not``.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeGuard

from bpfpatch.errors import OptionError
from bpfpatch.isa.semantics import signed
from bpfpatch.prove import Term

_BINARY: Final[dict[type[ast.operator], Callable[[Any, Any], Any]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
    ast.LShift: operator.lshift,
}
_UNARY: Final[dict[type[ast.unaryop], Callable[[Any], Any]]] = {
    ast.USub: operator.neg,
    ast.Invert: operator.invert,
}
_COMPARED: Final[dict[type[ast.cmpop], Callable[[Any, Any], Any]]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_MOST_SHIFT: Final = 63


def is_power2(value: int) -> bool:
    """Whether a number is a power of two that an immediate holds as a positive number."""
    return value > 0 and not value & (value - 1)


_CALLS: Final[dict[str, Callable[[int], Any]]] = {
    "fits": lambda value: -(1 << 31) <= value < 1 << 31,
    "u32": lambda value: value & 0xFFFFFFFF,
    "s32": lambda value: signed(value, 32),
    "power2": is_power2,
    "log2": lambda value: value.bit_length() - 1,
}
"""Functions of a number.

``fits`` is whether 32 bits hold it, sign-extended; ``u32`` and ``s32`` are its lower 32 bits,
extended. ``power2`` is `is_power2`; a rule that asks for it is proved for each power by itself.
"""

SPLITS: Final[dict[str, tuple[int, ...]]] = {"power2": tuple(1 << at for at in range(31))}
"""Numbers for which a function holds, where they are proved one by one."""


@dataclass(frozen=True, slots=True)
class RuleExpr:
    """One expression.

    Attributes:
        text: as written.
        names: constants in it.
        tree: what it is made of.
        splits: (constant, function) where a rule is proved for each number by itself.
        run: its value by those of its constants.
    """

    text: str
    names: frozenset[str]
    tree: ast.expr
    splits: frozenset[tuple[str, str]]
    run: Callable[[Mapping[str, int]], Any]

    @classmethod
    def parse(cls, text: str) -> RuleExpr:
        """Read one.

        Raises:
            OptionError: it is none, or uses what there is not.
        """
        try:
            tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError) as error:
            raise OptionError(f"{text!r} is no expression: {error}") from None
        names: set[str] = set()
        splits: set[tuple[str, str]] = set()
        run = _compiled(tree, names, splits)
        return cls(text.strip(), frozenset(names), tree, frozenset(splits), run)

    @property
    def fitting(self) -> frozenset[str]:
        """Constants of which it says that 32 bits hold them, whatever else it says."""
        parts = self.tree.values if _is_and(self.tree) else [self.tree]
        return frozenset(
            part.args[0].id
            for part in parts
            if isinstance(part, ast.Call)
            and isinstance(part.func, ast.Name)
            and part.func.id == "fits"
            and isinstance(part.args[0], ast.Name)
        )

    def term(self, z3: Any, values: Mapping[str, Term]) -> Term:
        """The same of terms of 64 bits; constants may be numbers, too."""
        return _Terms(z3, values).of(self.tree)


def _is_and(tree: ast.expr) -> TypeGuard[ast.BoolOp]:
    return isinstance(tree, ast.BoolOp) and isinstance(tree.op, ast.And)


def _compiled(  # noqa: PLR0911 - one way out for each kind
    tree: ast.expr, names: set[str], splits: set[tuple[str, str]]
) -> Callable[[Mapping[str, int]], Any]:
    """A function that evaluates; what it uses is added to the sets."""
    if isinstance(tree, ast.Constant) and type(tree.value) is int:
        value = signed(tree.value, 64)
        return lambda _: value
    if isinstance(tree, ast.Name):
        name = tree.id
        names.add(name)
        return lambda values: values[name]
    if isinstance(tree, ast.BinOp) and type(tree.op) in _BINARY:
        function = _BINARY[type(tree.op)]
        left, right = (_compiled(one, names, splits) for one in (tree.left, tree.right))
        if isinstance(tree.op, ast.LShift):
            return lambda values: signed(left(values) << (right(values) & _MOST_SHIFT), 64)
        return lambda values: signed(function(left(values), right(values)), 64)
    if isinstance(tree, ast.UnaryOp) and type(tree.op) in _UNARY:
        change, only = _UNARY[type(tree.op)], _compiled(tree.operand, names, splits)
        return lambda values: signed(change(only(values)), 64)
    if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.Not):
        only = _compiled(tree.operand, names, splits)
        return lambda values: not only(values)
    if isinstance(tree, ast.BoolOp):
        parts = [_compiled(one, names, splits) for one in tree.values]
        if isinstance(tree.op, ast.And):
            return lambda values: all(part(values) for part in parts)
        return lambda values: any(part(values) for part in parts)
    if isinstance(tree, ast.Compare) and len(tree.ops) == 1 and type(tree.ops[0]) in _COMPARED:
        compare = _COMPARED[type(tree.ops[0])]
        left, right = (_compiled(one, names, splits) for one in (tree.left, tree.comparators[0]))
        return lambda values: compare(left(values), right(values))
    if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and len(tree.args) == 1:
        return _called(tree.func.id, tree.args[0], names, splits)
    raise OptionError(
        f"{ast.unparse(tree)!r} cannot be in a rule: there are + - * & | ^ ~ <<, one comparison "
        f"at a time, and, or, not, {', '.join(_CALLS)}"
    )


def _called(
    name: str, argument: ast.expr, names: set[str], splits: set[tuple[str, str]]
) -> Callable[[Mapping[str, int]], Any]:
    if name not in _CALLS:
        raise OptionError(f"no function {name!r} for rules; there are {', '.join(_CALLS)}")
    if name in (*SPLITS, "log2"):
        if not isinstance(argument, ast.Name):
            raise OptionError(f"{name} takes a constant of the rule, not {ast.unparse(argument)!r}")
        splits.add((argument.id, "power2" if name == "log2" else name))
    function, only = _CALLS[name], _compiled(argument, names, splits)
    return lambda values: function(only(values))


class _Terms:
    """Makes terms of expressions."""

    def __init__(self, z3: Any, values: Mapping[str, Term]) -> None:
        self.z3 = z3
        self.values = values

    def of(self, tree: ast.expr) -> Term:  # noqa: PLR0911 - one way out for each kind
        z3 = self.z3
        if isinstance(tree, ast.Constant):
            return z3.BitVecVal(tree.value, 64)
        if isinstance(tree, ast.Name):
            value = self.values[tree.id]
            return z3.BitVecVal(value, 64) if isinstance(value, int) else value
        if isinstance(tree, ast.BinOp):
            left, right = self.of(tree.left), self.of(tree.right)
            if isinstance(tree.op, ast.LShift):
                return left << (right & _MOST_SHIFT)
            return _BINARY[type(tree.op)](left, right)
        if isinstance(tree, ast.UnaryOp):
            if isinstance(tree.op, ast.Not):
                return z3.Not(self.of(tree.operand))
            return _UNARY[type(tree.op)](self.of(tree.operand))
        if isinstance(tree, ast.BoolOp):
            parts = [self.of(one) for one in tree.values]
            return z3.And(*parts) if isinstance(tree.op, ast.And) else z3.Or(*parts)
        if isinstance(tree, ast.Compare):
            # Of bit vectors z3 compares signed numbers.
            left, right = self.of(tree.left), self.of(tree.comparators[0])
            return _COMPARED[type(tree.ops[0])](left, right)
        assert isinstance(tree, ast.Call)
        assert isinstance(tree.func, ast.Name)
        return self._call(tree.func.id, tree.args[0])

    def _call(self, name: str, argument: ast.expr) -> Term:
        z3 = self.z3
        if name in (*SPLITS, "log2"):
            assert isinstance(argument, ast.Name)
            known = self.values[argument.id]
            assert isinstance(known, int), "each number is proved by itself"
            value = _CALLS[name](known)
            return z3.BitVecVal(value, 64) if name == "log2" else z3.BoolVal(value)
        value = self.of(argument)
        low = z3.Extract(31, 0, value)
        if name == "fits":
            return value == z3.SignExt(32, low)
        return z3.ZeroExt(32, low) if name == "u32" else z3.SignExt(32, low)
