"""What changed between two programs, instruction by instruction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch.program import LOST, Program, Remap
from bpfpatch.program.types import Slots
from bpfpatch.text import framed

from .align import align
from .keys import Keys, keys_of

NO_SLOT: Final = -1

Positions = NDArray[np.int64]
Match = tuple[Positions, Positions]
"""Positions of instructions in the old and the new program that are a pair."""


class Op(IntEnum):
    """What happened to one instruction."""

    EQUAL = 0
    REMOVED = 1
    ADDED = 2
    CHANGED = 3


@dataclass(frozen=True, slots=True, eq=False)
class FunctionDiff:
    """One function in both programs, or in one of them.

    Attributes:
        name: its name, or ``sub_<slot>`` where it has none.
        section: the section that it is in.
        old: first slot and end in the old program, or None where it is new.
        new: first slot and end in the new program, or None where it is gone.
        op: (r,) uint8 of `Op`; rows in the order in which they are shown.
        old_slot: (r,) int32 slot of the old instruction, NO_SLOT for an added one.
        new_slot: (r,) int32 slot of the new instruction, NO_SLOT for a removed one.
    """

    name: str
    section: str
    old: tuple[int, int] | None
    new: tuple[int, int] | None
    op: NDArray[np.uint8]
    old_slot: Slots
    new_slot: Slots

    @property
    def is_equal(self) -> bool:
        """Whether nothing in it changed."""
        return self.old is not None and self.new is not None and not self.op.any()

    @property
    def status(self) -> str:
        """``same``, ``changed``, ``added`` or ``removed``."""
        if self.old is None:
            return "added"
        if self.new is None:
            return "removed"
        return "changed" if self.op.any() else "same"

    def count(self, op: Op) -> int:
        """How many rows are of this kind."""
        return int((self.op == op).sum())


@dataclass(frozen=True, slots=True, eq=False)
class Diff:
    """What changed between two programs.

    Jumps and calls count as equal where they lead to the same place, however
    far that is away now.

    Attributes:
        old: one program.
        new: the other.
        functions: all functions: those of the old program in its order, then the added ones.
        remap: the way from one to the other, where that is known.
        old_names: by slot, what relocations of the old program refer to.
        new_names: by slot, what relocations of the new program refer to.
    """

    old: Program
    new: Program
    functions: tuple[FunctionDiff, ...]
    remap: Remap | None = None
    old_names: Mapping[int, str] = field(default_factory=dict)
    new_names: Mapping[int, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        if self.is_equal:
            return f"<Diff of {len(self.functions)} functions, all equal>"
        n_other = sum(not function.is_equal for function in self.functions)
        counts = f"+{self.count(Op.ADDED)} -{self.count(Op.REMOVED)} ~{self.count(Op.CHANGED)}"
        return f"<Diff of {len(self.functions)} functions, {n_other} not equal: {counts}>"

    def _repr_html_(self) -> str:
        return framed(self.html())

    @property
    def is_equal(self) -> bool:
        """Whether all functions are the same."""
        return all(function.is_equal for function in self.functions)

    def count(self, op: Op) -> int:
        """How many instructions are of this kind."""
        return sum(function.count(op) for function in self.functions)

    def lines(self, context: int = 3, *, show_all: bool = False) -> Iterator[tuple[str, str]]:
        """The diff as text, a line at a time: (kind, line).

        Args:
            context: how many equal instructions to show around a change.
            show_all: show all instructions.

        Yields:
            The kind is ``head``, ``hunk``, ``source``, ``same``, ``removed`` or ``added``.
        """
        from .diff_text import diff_lines  # noqa: PLC0415 - it needs this module

        return diff_lines(self, context, show_all=show_all)

    def text(self, context: int = 3, *, show_all: bool = False) -> str:
        """The diff as text; "" where nothing changed.

        Args:
            context: how many equal instructions to show around a change.
            show_all: show all instructions, also where nothing changed.
        """
        from .diff_text import diff_portions  # noqa: PLC0415 - see lines()

        portions = diff_portions(self, context, show_all=show_all)
        return "".join("\n".join([*texts, ""]) for _, texts in portions)

    def to_json(self) -> dict[str, Any]:
        """The diff as what ``json.dumps`` takes; its keys are part of the interface."""
        from .diff_json import diff_json  # noqa: PLC0415 - see lines()

        return diff_json(self)

    def html(self, title: str = "bpfpatch diff", context: int = 6) -> str:
        """The diff as one self-contained HTML page, for a light and a dark screen."""
        from .diff_html import diff_html  # noqa: PLC0415 - see lines()

        return diff_html(self, title, context)

    def write_html(self, path: str | Path, title: str = "bpfpatch diff", context: int = 6) -> None:
        """Write the page that `html` makes.

        Args:
            path: where to; an existing file is replaced once the page is complete.
            title: the page's title.
            context: how many equal instructions to show around a change.
        """
        from bpfpatch.elf.files import write_all  # noqa: PLC0415 - see lines()

        write_all(path, self.html(title, context).encode(errors="backslashreplace"))


def diff_programs(
    old: Program,
    new: Program,
    remap: Remap | None = None,
    *,
    old_names: Mapping[int, str] | None = None,
    new_names: Mapping[int, str] | None = None,
) -> Diff:
    """Compare two programs.

    With a remap, every instruction is compared with what became of it. Without
    one, functions are matched by section and name, and their instructions by
    content.

    Args:
        old: one program.
        new: the other.
        remap: what linearizing ``old`` into ``new`` returned.
        old_names: by slot, what relocations of the old program refer to; where two
            instructions differ in that only, it takes the names to see it.
        new_names: by slot, what relocations of the new program refer to.

    Returns:
        The difference, with all functions of both.

    Raises:
        ValueError: the remap is not between these two.
    """
    if remap is not None and (remap.own.size, remap.orig.size) != (len(old), len(new)):
        raise ValueError(
            f"the remap leads from {remap.own.size} slots to {remap.orig.size}, "
            f"the programs have {len(old)} and {len(new)}"
        )
    names = dict(old_names or {}), dict(new_names or {})
    pairs = _functions_by_name(old, new) if remap is None else _functions_by_remap(old, new, remap)
    ids = _function_ids(old, new, pairs)
    keys = keys_of(old, names[0], ids[0]), keys_of(new, names[1], ids[1])
    functions = tuple(_function_diff(keys, pair, _match(keys, pair, remap)) for pair in pairs)
    return Diff(old, new, functions, remap, *names)


Named = dict[tuple[str, str, int], int]
"""Functions by section, name, and how many of that name came before."""


@dataclass(frozen=True, slots=True)
class _Pair:
    """A function's index in the old program and in the new one, -1 where it has none."""

    old: int
    new: int


def _functions_by_name(old: Program, new: Program) -> list[_Pair]:
    names_old, names_new = _keyed_names(old), _keyed_names(new)
    found = {index: names_new[key] for key, index in names_old.items() if key in names_new}
    _match_moved(found, names_old, names_new)
    _match_nameless(found, names_old, names_new)
    pairs = [_Pair(index, found.get(index, -1)) for index in range(len(old.subprogs))]
    taken = set(found.values())
    return pairs + [_Pair(-1, index) for index in range(len(new.subprogs)) if index not in taken]


def _keyed_names(program: Program) -> Named:
    """Functions by section, name, and how many of that name came before."""
    seen: dict[tuple[str, str], int] = {}
    out: Named = {}
    subprogs = program.subprogs
    for index, (name, section) in enumerate(
        zip(subprogs.names, subprogs.section.tolist(), strict=True)
    ):
        key = program.sections[section], name
        out[*key, seen.get(key, 0)] = index
        seen[key] = seen.get(key, 0) + 1
    return out


def _match_moved(found: dict[int, int], old: Named, new: Named) -> None:
    """Match functions that have moved to another section, if their name is clear."""
    left_old = _by_name(old, set(found))
    left_new = _by_name(new, set(found.values()))
    for name, indices in left_old.items():
        if name and len(indices) == len(left_new.get(name, ())) == 1:
            found[indices[0]] = left_new[name][0]


def _match_nameless(found: dict[int, int], old: Named, new: Named) -> None:
    """Match functions of which one has no name by their place among what is left."""
    taken = set(found.values())
    left_old = [(name, index) for (_, name, _), index in old.items() if index not in found]
    left_new = [(name, index) for (_, name, _), index in new.items() if index not in taken]
    if len(left_old) != len(left_new):
        return
    for (name, index), (other, there) in zip(left_old, left_new, strict=True):
        if not name or not other:
            found[index] = there


def _by_name(keyed: Named, taken: set[int]) -> dict[str, list[int]]:
    out: dict[str, list[int]] = {}
    for (_, name, _), index in keyed.items():
        if index not in taken:
            out.setdefault(name, []).append(index)
    return out


def _functions_by_remap(old: Program, new: Program, remap: Remap) -> list[_Pair]:
    if not len(old.subprogs):
        return []
    entry = remap.entry[old.subprogs.start]
    index = np.where(entry == LOST, -1, new.subprogs.of(np.maximum(entry, 0)))
    return [_Pair(i, there) for i, there in enumerate(index.tolist())]


def _function_ids(old: Program, new: Program, pairs: list[_Pair]) -> tuple[Positions, Positions]:
    """Numbers for the functions of both: equal for those that are a pair."""
    n_old = len(old.subprogs)
    ids_new = np.arange(len(new.subprogs), dtype=np.int64) + n_old + 1
    for pair in pairs:
        if pair.old >= 0 and pair.new >= 0:
            ids_new[pair.new] = pair.old + 1
    return np.arange(n_old, dtype=np.int64) + 1, ids_new


def _match(keys: tuple[Keys, Keys], pair: _Pair, remap: Remap | None) -> Match:
    """Pair up the instructions of a function in both programs."""
    if pair.old < 0 or pair.new < 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    old, new = keys
    a, b = old.span(pair.old), new.span(pair.new)
    if remap is not None:
        place = remap.own[old.slot[slice(*a)]]
        stayed = place >= 0
        return np.arange(*a)[stayed], new.index_of(place[stayed])
    first, second = align(old.ids[slice(*a)], new.ids[slice(*b)])
    first, second = first + a[0], second + b[0]
    same = old.same_as(new, first, second)  # equal hashes might deceive
    return first[same], second[same]


def _leads_elsewhere(keys: tuple[Keys, Keys], match: Match) -> NDArray[np.bool_]:
    """(k,) whether the jumps of matched instructions lead to different places.

    They lead to the same one if as many matched instructions lie before it:
    what was put in right before an instruction, and a jump now goes through,
    makes no other place.
    """
    (old, new), (first, second) = keys, match
    to_old, to_new = old.jump_to[first], new.jump_to[second]
    differs: NDArray[np.bool_] = np.searchsorted(first, to_old) != np.searchsorted(second, to_new)
    return differs & ((to_old >= 0) | (to_new >= 0))


def _function_diff(keys: tuple[Keys, Keys], pair: _Pair, match: Match) -> FunctionDiff:
    (old, new), (first, second) = keys, match
    gone, come = _others(old.span(pair.old), first), _others(new.span(pair.new), second)
    changed = ~old.same_as(new, first, second) | _leads_elsewhere(keys, match)
    # What is gone or has come belongs before the next pair; the gone before the come.
    group = np.concatenate(
        [
            3 * np.searchsorted(first, gone),
            3 * np.searchsorted(second, come) + 1,
            3 * np.arange(first.size) + 2,
        ]
    )
    order = np.argsort(group, kind="stable")
    op = np.concatenate(
        [
            np.full(gone.size, Op.REMOVED),
            np.full(come.size, Op.ADDED),
            np.where(changed, Op.CHANGED, Op.EQUAL),
        ]
    )
    no_old, no_new = np.full(come.size, NO_SLOT), np.full(gone.size, NO_SLOT)
    old_slot = np.concatenate([old.slot[gone], no_old, old.slot[first]])
    new_slot = np.concatenate([no_new, new.slot[come], new.slot[second]])
    side, index = (old, pair.old) if pair.old >= 0 else (new, pair.new)
    return FunctionDiff(
        name=side.name(index),
        section=side.section(index),
        old=old.slots(pair.old),
        new=new.slots(pair.new),
        op=op[order].astype(np.uint8),
        old_slot=old_slot[order].astype(np.int32),
        new_slot=new_slot[order].astype(np.int32),
    )


def _others(span: tuple[int, int], taken: Positions) -> Positions:
    """Positions of a span that are not among those taken."""
    is_free = np.ones(span[1] - span[0], bool)
    is_free[taken - span[0]] = False
    return np.flatnonzero(is_free) + span[0]
