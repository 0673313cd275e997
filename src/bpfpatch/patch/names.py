"""What bodies know by name only, and who says what it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bpfpatch.errors import OptionError
from bpfpatch.isa import HELPER_IDS
from bpfpatch.program import Program
from bpfpatch.program.types import Slots
from bpfpatch.text import unknown

from .attached import AttachedRows
from .body import Body
from .view import CodeView


class SymbolSource(Protocol):
    """Knows the symbols beside a program: an object."""

    def check_symbol(self, name: str, *, is_call: bool) -> None:
        """Raise `OptionError` unless a call, or an ld_imm64, can be against this symbol."""

    def symbol_row(self, section: str, name: str, *, is_call: bool) -> tuple[str, NDArray[Any]]:
        """(table, row) that makes an instruction of a code section refer to a symbol."""


class ListNames:
    """The calls and addresses by name in a list.

    A name of a function of the program is a reference like any other. All
    others are symbols, and become rows of a table when the list is linearized.

    Args:
        program: that of the list.
        source: knows the symbols; None where nothing does.
    """

    __slots__ = ("_calls", "_functions", "_linked", "_open", "_program", "_source")

    def __init__(self, program: Program, source: SymbolSource | None) -> None:
        self._program = program
        self._source = source
        self._functions: dict[str, int] | None = None
        self._linked: dict[tuple[int, tuple[int, ...]], tuple[Body, Body]] = {}
        self._open: list[tuple[Slots, str, bool, int]] = []
        self._calls: list[Slots] = []

    def link(self, body: Body, entry: Callable[[int], int]) -> Body:
        """The body with references to functions in place of their names.

        Args:
            body: any.
            entry: gives the node that a call to a subprog enters now, by its original start.

        Raises:
            OptionError: something in it is neither a function nor a symbol.
        """
        if self._functions is None:
            self._functions = _functions(self._program)
        starts = {one.name: self._functions.get(one.name) for one in body.names}
        nodes = {name: entry(start) for name, start in starts.items() if start is not None}
        key = id(body), tuple(nodes.values())
        if key not in self._linked:
            linked = body.linked(nodes)
            for one in linked.names:
                self._check(one.name, is_call=one.is_call)
            self._linked[key] = body, linked  # the body is kept, so that its id stays its own
        return self._linked[key][1]

    def add(self, firsts: Slots, body: Body, now: int) -> None:
        """Note the copies of a linked body, by the nodes of their first slots.

        Args:
            firsts: (e,) nodes.
            body: which.
            now: counts the changes in place up to here.
        """
        for one in body.names:
            nodes = firsts + np.int32(one.slot)
            self._open.append((nodes, one.name, one.is_call, now))
            if one.is_call:
                self._calls.append(nodes)

    def nodes(self) -> Slots:
        """(k,) nodes whose symbols are not rows yet."""
        return _joined([nodes for nodes, *_ in self._open])

    def calls(self) -> Slots:
        """(k,) nodes of all calls of symbols: their distance is a loader's to fill in."""
        return _joined(self._calls)

    def settle(self, view: CodeView, rows: AttachedRows) -> None:
        """Make rows of all symbols.

        Args:
            view: the code as it is now.
            rows: where they go.
        """
        assert self._source is not None  # what nothing knows, `link` refuses
        slot_of = {node: slot for slot, node in enumerate(view.node.tolist()) if node >= 0}
        found: dict[tuple[str, str, bool], tuple[str, NDArray[Any]]] = {}
        for nodes, name, is_call, since in self._open:
            for node in nodes.tolist():
                # Of what was taken out the row is never written, but its loss is to be noticed.
                section = self._section(view, slot_of.get(node, 0))
                key = section, name, is_call
                if key not in found:
                    found[key] = self._source.symbol_row(section, name, is_call=is_call)
                table, row = found[key]
                rows.add(table, np.array([node], np.int32), row, since)
        self._open.clear()

    def _section(self, view: CodeView, slot: int) -> str:
        subprogs = self._program.subprogs
        row = view.subprog[int(view.subprog_of(np.array([slot], np.int32))[0])]
        return self._program.sections[int(subprogs.section[row])]

    def _check(self, name: str, *, is_call: bool) -> None:
        if self._source is not None:
            self._source.check_symbol(name, is_call=is_call)
            return
        known = [one for one in self._program.subprogs.names if one]
        helpers = (f"bpf_{helper}" for helper in HELPER_IDS) if is_call else ()
        raise OptionError(
            f"{unknown('function', name, known, helpers)}; a map, a variable or a kfunc can be "
            "named in a list that knows its object: that of a pass, or PatchList(obj.code, obj)"
        )


def _functions(program: Program) -> dict[str, int]:
    """The slot that each subprog starts at, of those with a name of their own."""
    names = program.subprogs.names
    times = Counter(names)
    pairs = zip(names, program.subprogs.start.tolist(), strict=True)
    return {name: start for name, start in pairs if name and times[name] == 1}


def _joined(parts: list[Slots]) -> Slots:
    return np.concatenate(parts) if parts else np.zeros(0, np.int32)
