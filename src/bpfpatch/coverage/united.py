"""What ran of several instrumented objects, as of one."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from bpfpatch import isa
from bpfpatch.errors import OptionError
from bpfpatch.passes.cover import CoverMap, FunctionMap, LineRow

from .model import U64, Coverage


def united(given: Sequence[Coverage]) -> Coverage:
    """The coverage of all objects together.

    Counters of one object that was loaded several times are added up; so are those of a function
    that several objects have a copy of, as programs of one source have of what they call. Of
    what is counted in several ways all is only as sure as the least of it.

    Args:
        given: at least one.

    Raises:
        OptionError: there is none.
    """
    if not given:
        raise OptionError("nothing was instrumented, so there is nothing to report on")
    first = given[0].cover
    ways = {one.cover.counting for one in given}
    by_identity: dict[int, list[Coverage]] = {}
    for one in given:
        by_identity.setdefault(one.cover.identity, []).append(one)
    merged = [group[0].merged(*group[1:]) for group in by_identity.values()]
    if len(merged) == 1:
        return merged[0]
    work = _Work()
    for one in merged:
        work.add(one)
    cover = CoverMap(
        counting="plain" if "plain" in ways else first.counting,
        byteorder=first.byteorder,
        n_counters=len(work.hits),
        functions=tuple(work.functions),
        lines=tuple(work.lines),
        code=bytes(work.code),
        names=work.names,
    )
    out = Coverage.of(cover, work.hits, list(dict.fromkeys(work.notices)))
    return replace(out, objects=tuple(one.cover.identity for one in merged))


_Key = tuple[object, ...]


@dataclass(slots=True)
class _Work:
    """Functions one after the other, each with its own code, lines and counters."""

    functions: list[FunctionMap] = field(default_factory=list)
    lines: list[LineRow] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)
    code: bytearray = field(default_factory=bytearray)
    hits: list[int] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    known: dict[_Key, list[int]] = field(default_factory=dict)

    def add(self, one: Coverage) -> None:
        self.notices += one.notices
        slots = [row.slot for row in one.cover.lines]
        for function in one.cover.functions:
            first, last = bisect_left(slots, function.start), bisect_left(slots, function.end)
            self._add(one, function, one.cover.lines[first:last])

    def _add(self, one: Coverage, function: FunctionMap, lines: Sequence[LineRow]) -> None:
        counters = [at for _, _, at in function.arcs if at >= 0]
        key = (*_key(function, lines), _code(one.cover, function))
        there = self.known.get(key)
        if there is not None:
            for mine, its in zip(there, counters, strict=True):
                self.hits[mine] = (self.hits[mine] + one.hits[its]) % U64
            return
        shift = len(self.code) // isa.INSN.itemsize - function.start
        new = range(len(self.hits), len(self.hits) + len(counters))
        self.known[key] = list(new)
        self.hits += [one.hits[at] for at in counters]
        number = iter(new)
        arcs = tuple(
            (tail, head, next(number) if at >= 0 else at) for tail, head, at in function.arcs
        )
        self.functions.append(
            replace(
                function,
                start=function.start + shift,
                end=function.end + shift,
                blocks=tuple((start + shift, end + shift) for start, end in function.blocks),
                arcs=arcs,
            )
        )
        self.lines += [replace(row, slot=row.slot + shift) for row in lines]
        self.names |= {
            slot + shift: name
            for slot, name in one.cover.names.items()
            if function.start <= slot < function.end
        }
        size = isa.INSN.itemsize
        self.code += one.cover.code[function.start * size : function.end * size]


def _key(function: FunctionMap, lines: Sequence[LineRow]) -> _Key:
    """What two copies of one function have in common, wherever they are."""
    start = function.start
    return (
        function.name,
        function.section,
        tuple((a - start, b - start) for a, b in function.blocks),
        function.edges,
        tuple((tail, head, at >= 0) for tail, head, at in function.arcs),
        tuple((row.slot - start, row.file, row.line, row.column) for row in lines),
    )


def _code(cover: CoverMap, function: FunctionMap) -> bytes:
    """A function's instructions, without the distances to other functions."""
    insns = cover.insns[function.start : function.end].copy()
    is_far = isa.is_subprog_call(insns) | isa.is_pseudo(insns, isa.Pseudo.FUNC)
    insns["imm"][is_far] = 0
    return insns.tobytes()
