"""The cover pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from bpfpatch.elf import ElfObject
from bpfpatch.errors import OptionError, UnsupportedError
from bpfpatch.patch import PatchList
from bpfpatch.program import LINE_INFO, Program
from bpfpatch.program.types import Mask, Slots
from bpfpatch.text import visible

from ..base import Pass, register
from ..kfuncs import arguments_taken, checked_alone
from ..locks import held
from ..scratch import Scratch
from ..setting import Setting
from ..sites import UNWOUND, copyable_slots, opaque_slots, unwound
from .counters import WORD
from .flow import flows
from .insert import Inserter, add_storage
from .lookups import LookupPlace, LookupPlaces
from .mapping import COUNTING, PERCPU_MOST, SECTION, CoverMap, FunctionMap, LineRow
from .plan import CoveredCode, CoverPlanner


@register
@dataclass(frozen=True)
class Cover(Pass):
    """Count how often each block runs, with as few counters as possible.

    Attributes:
        edges: whether counters tell both sides of every branch apart, too.
        count: "plain" (quick; loses counts where two processors meet), "atomic", or
            "percpu" (one counter a processor, exact and quick, takes 16 bytes of stack).
        tree: whether to leave out counters that follow from others; else each block,
            or edge, has one.
        strict: whether it is an error that something has no place for a counter; else that
            alone is left out, and its count is not known.
    """

    name = "cover"
    knows_landing_pads = True
    edges: bool = False
    count: str = "atomic"
    tree: bool = True
    strict: bool = False

    def __post_init__(self) -> None:
        """Check the options."""
        if self.count not in COUNTING:
            raise OptionError(f"pass cover: count is {', '.join(COUNTING)}, not {self.count!r}")

    def run_for(self, patches: PatchList, setting: Setting) -> None:
        """Add the counters to the object, and count into them.

        Raises:
            OptionError: the code is of no object, or is instrumented already.
            UnsupportedError: something has no place for a counter, and ``strict`` is set.
        """
        edit = setting.edit
        if edit is None:
            raise OptionError("pass cover adds a map to an object, and this code is of none")
        if edit.obj.raw.find(SECTION) is not None:
            raise OptionError(f"the object is instrumented already: it has a section {SECTION}")
        is_percpu = self.count == "percpu"
        view = patches.view()
        blocks, functions = flows(view, patches, _calling(edit.obj, patches.program, _THROW))
        scratch = Scratch(
            view,
            blocks,
            2 * WORD if is_percpu else 0,
            opaque_slots(patches, view),
            copyable_slots(patches, view),
            arguments_taken(view, patches.program, edit.obj.btf),
            checked_alone(view, patches.program, edit.obj.btf),
        )
        code = CoveredCode(patches, view, blocks, scratch)
        lookups = _lookups(code) if is_percpu else {}
        refused = _no_lookup(edit.obj, code, lookups) if is_percpu else {}
        odd = np.flatnonzero(unwound(patches.program, view))
        refused |= dict.fromkeys(odd.tolist(), UNWOUND)
        planner = CoverPlanner(
            code,
            of_edges=self.edges,
            has_tree=self.tree,
            n_in_entry=PERCPU_MOST if is_percpu else 0,
            refused=refused,
            begins={
                int(view.starts[subprog]): place.slot
                for subprog, place in lookups.items()
                if isinstance(place, LookupPlace)
            },
        )
        plans = [planner.plan(flow) for flow in functions]
        if self.strict:
            _refuse([function for function, _ in plans])
        setting.notices.extend(_notices([function for function, _ in plans]))
        cover = CoverMap(
            counting=self.count,
            byteorder=edit.obj.byteorder,
            n_counters=planner.n_counters,
            functions=tuple(function for function, _ in plans),
            lines=tuple(_lines(patches.program)),
            code=patches.program.insns.tobytes(),
            names=_names(edit.obj, patches.program),
        )
        add_storage(edit, cover)
        edit.add_section(SECTION, cover.to_bytes())
        inserter = Inserter(patches, edit, code, cover)
        if is_percpu:
            inserter.put_lookups(
                {
                    flow.subprog: (place, works[0].counter)
                    for flow, (_, works) in zip(functions, plans, strict=True)
                    if works and isinstance(place := lookups[flow.subprog], LookupPlace)
                }
            )
        inserter.put([work for _, works in plans for work in works])


def _notices(functions: list[FunctionMap]) -> Iterator[str]:
    """A line for each function of which something is not counted, and one for all."""
    total = 0
    for one in functions:
        left = len(one.left_out()) if one.why else 0
        total += left
        if one.why:
            what = f"{left} of {len(one.blocks)} blocks" if left else "some edges"
            yield visible(f"{one.name}: {what} are not counted: {one.why}")
    if total:
        yield f"{total} blocks are not counted, and have ? for how often they ran"


def _refuse(functions: list[FunctionMap]) -> None:
    """Make an error of what is left out.

    Raises:
        UnsupportedError: something is.
    """
    found = [one for one in functions if one.why]
    if found:
        n_left = sum(len(one.left_out()) for one in found)
        raise UnsupportedError(
            f"{found[0].why}; {n_left} blocks of {len(found)} functions cannot be counted in all, "
            "leave out strict to go without"
        )


def _lookups(code: CoveredCode) -> dict[int, LookupPlace | str]:
    """Where each subprog of the view looks its counters up, or why it cannot."""
    places = LookupPlaces(code)
    return {subprog: places.of(subprog) for subprog in range(len(code.view.starts))}


def _no_lookup(
    obj: ElfObject, code: CoveredCode, lookups: dict[int, LookupPlace | str]
) -> dict[int, str]:
    """Subprogs of the view that cannot find their processor's counters, and why."""
    out = {}
    has_lock = _may_be_locked(obj, code)
    stack = code.scratch.stack
    for subprog in range(len(code.view.starts)):
        if has_lock[subprog]:
            out[subprog] = "it may be called with a lock held, where no map can be looked up"
        elif isinstance(why := lookups[subprog], str):
            out[subprog] = why
        elif code.scratch.home(subprog, 0) is not None:
            continue
        elif not stack.is_known[subprog]:
            out[subprog] = "which bytes of its stack frame are free cannot be told"
        else:
            out[subprog] = f"its stack frame has no {2 * WORD} bytes left"
    return {
        subprog: f"{why}, as count=percpu needs; use count=atomic" for subprog, why in out.items()
    }


def _calling(obj: ElfObject, program: Program, names: frozenset[str]) -> Slots:
    """(k,) slots of the original code that refer to one of these symbols, as kfunc calls do."""
    table = program.tables["reloc"]
    wanted = [symbol.index for symbol in obj.symbols if symbol.name in names]
    found: Slots = table.insn[np.isin(table.rows["sym"], wanted)]
    return found


_THROW: Final = frozenset({"bpf_throw"})


def _may_be_locked(obj: ElfObject, code: CoveredCode) -> Mask:
    """(m,) functions of the view that might be called with a lock held."""
    names, view = _names(obj, code.program), code.view
    at = {slot: names[node] for slot, node in enumerate(view.node.tolist()) if node in names}
    return held(view, code.blocks, at)[view.starts]


def _names(obj: ElfObject, program: Program) -> dict[int, str]:
    """What relocations refer to, by slot."""
    table, symbols = program.tables["reloc"], obj.symbols
    rows = zip(table.insn.tolist(), table.rows["sym"].tolist(), strict=True)
    return {slot: symbols[sym].name for slot, sym in rows if symbols[sym].name}


def _lines(program: Program) -> Iterator[LineRow]:
    table = program.tables.get(LINE_INFO)
    if table is None:
        return
    found = program.source_rows(table.insn)
    has_line = np.flatnonzero(found >= 0)
    slots, offs = table.insn[has_line].tolist(), table.rows["line_off"][has_line].tolist()
    text_of = {off: _text(program.strings, off) for off in set(offs)}
    for slot, off, source in zip(slots, offs, program.source_lines(found[has_line]), strict=True):
        yield LineRow(slot, source.file, source.line, source.column, text_of[off])


def _text(strings: bytes, str_off: int) -> str:
    """A line of source as it is in its file, with what it is indented by."""
    end = strings.find(b"\0", str_off)
    return strings[str_off:end].decode("utf-8", "replace").rstrip() if end >= 0 else ""
