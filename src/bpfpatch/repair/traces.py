"""Copy the code along a path, so that what is known on it is known in the copy.

A copy changes nothing: it does what the original does, and goes back to it wherever the path is
left. But in the copy the verifier sees one path where the original has several that meet, and what
no run does in the end of it can be cut off there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import numpy as np

from bpfpatch import isa
from bpfpatch.patch import Body
from bpfpatch.program.types import LOST

from .site import RepairSite

MOST: Final = 400
"""Instructions that are copied at most."""
_JA, _GOTOL, _CALL, _EXIT, _LD_IMM64 = 0x05, 0x06, 0x85, 0x95, 0x18
_MAY_GOTO: Final = 0xE5
_CARRIED: Final = ("reloc", "core_relo")


@dataclass
class _Copy:
    """A body in the making."""

    parts: list[isa.Insns] = field(default_factory=list)
    labels: dict[int, int] = field(default_factory=dict)
    locals_: dict[int, int] = field(default_factory=dict)
    rows: list[tuple[int, int]] = field(default_factory=list)
    size: int = 0

    def add(self, insns: isa.Insns, label: int | None = None, local: int | None = None) -> None:
        """Append one instruction, with what it refers to."""
        if label is not None:
            self.labels[self.size] = label
        if local is not None:
            self.locals_[self.size] = local
        self.parts.append(insns)
        self.size += len(insns)


def first_join(site: RepairSite, start: int) -> int | None:
    """Index of the first step after one at which another path joins the path; None for no such."""
    frame = site.steps[site.last].frame
    previous = start
    for index in range(start + 1, site.last + 1):
        if site.steps[index].frame != frame:
            continue
        if _is_join(site, site.slot(previous), site.slot(index)):
            return index
        previous = index
    return None


def cut(site: RepairSite, join: int, end: int, leave: int) -> bool:
    """Copy the path from a join up to a step, and go elsewhere instead of taking that.

    Args:
        site: the refusal.
        join: index of a step, from `first_join`.
        end: index of the step that is not copied any more.
        leave: the node to go to in its place.
    """
    frame = site.steps[site.last].frame
    indices = [at for at in range(join, end + 1) if site.steps[at].frame == frame]
    if len(indices) > MOST:
        return False
    copy = _Copy()
    for at, following in pairwise(indices):
        if not _append(site, copy, site.slot(at), site.slot(following)):
            return False
    copy.add(isa.ja(0), label=leave)
    body = Body(np.concatenate(copy.parts), labels=dict(copy.labels), locals_=copy.locals_)
    _, stop = site.code.span(site.code.subprog(site.slot(site.last)))
    nodes = site.code.view.node
    last = stop - 1 if nodes[stop - 1] >= 0 else stop - 2
    edge = _edge(site, join)
    if edge is None:
        return False
    first = int(site.patches.insert_after(int(nodes[last]), body))
    _carry(site, copy, first)
    _redirect(site, *edge, first)
    return True


def _is_join(site: RepairSite, before: int, slot: int) -> bool:
    """Whether a slot is reached from elsewhere, too."""
    view = site.code.view
    sources = view.ref_slot[(view.ref_target == slot) & ~view.ref_is_entry].tolist()
    above = slot - 1 if view.node[slot - 1] >= 0 else slot - 2
    falls = slot > 0 and bool(isa.falls_through(view.insns[above : above + 1])[0])
    others = [one for one in sources if one != before]
    return bool(others) or (falls and above != before)


def _append(site: RepairSite, copy: _Copy, slot: int, following: int) -> bool:
    """Copy one instruction; where the path is left, the copy goes back to the original."""
    view = site.code.view
    fields = site.code.fields(slot)
    width = 2 if fields.code == _LD_IMM64 else 1
    insn = view.insns[slot : slot + width]
    target = _target(site, slot)
    after = slot + width
    if fields.code in (_JA, _GOTOL):
        return target is not None
    if fields.code in (_MAY_GOTO, _EXIT):
        return False
    if bool(isa.is_cond_jump(insn)[0]):
        if target is None:
            return False
        if following == target and following != after:
            copy.add(insn, local=copy.size + 2)
            copy.add(isa.ja(0), label=int(view.node[after]))
        else:
            copy.add(insn, label=int(view.node[target]))
        return True
    if following != after:
        return False
    node = int(view.node[slot])
    copy.rows.append((copy.size, node))
    copy.add(insn, label=None if target is None else int(view.node[target]))
    return True


def _target(site: RepairSite, slot: int) -> int | None:
    view = site.code.view
    at = int(np.searchsorted(view.ref_slot, slot))
    if at >= len(view.ref_slot) or int(view.ref_slot[at]) != slot:
        return None
    target = int(view.ref_target[at])
    return None if target == LOST else target


def _edge(site: RepairSite, join: int) -> tuple[int, bool] | None:
    """The slot from which the path comes to a join, and whether by a jump."""
    frame = site.steps[site.last].frame
    before = next(at for at in range(join - 1, -1, -1) if site.steps[at].frame == frame)
    slot, goal = site.slot(before), site.slot(join)
    fields = site.code.fields(slot)
    width = 2 if fields.code == _LD_IMM64 else 1
    if goal == slot + width and _target(site, slot) != goal:
        return slot, False
    return (slot, True) if _target(site, slot) == goal else None


def other_way(site: RepairSite, branch: int) -> int:
    """The node where a conditional jump on the path does not go."""
    frame = site.steps[site.last].frame
    following = next(at for at in range(branch + 1, site.last + 1) if site.steps[at].frame == frame)
    slot = site.slot(branch)
    goal = site.slot(following)
    target = _target(site, slot)
    return int(site.code.view.node[slot + 1 if goal == target or target is None else target])


def _redirect(site: RepairSite, slot: int, is_jump: bool, first: int) -> None:
    """Send the path into the copy."""
    view = site.code.view
    node = int(view.node[slot])
    if not is_jump:
        site.patches.insert_after(node, Body(isa.ja(0), labels={0: first}))
        return
    site.patches.replace(node, Body(view.insns[slot : slot + 1], labels={0: first}))


def _carry(site: RepairSite, copy: _Copy, first: int) -> None:
    """Give copies the relocations of their originals."""
    program = site.patches.program
    for name in _CARRIED:
        table = program.tables.get(name)
        if table is None:
            continue
        rows: dict[int, Any] = dict(zip(table.insn.tolist(), table.rows, strict=True))
        for at, node in copy.rows:
            if node in rows:
                site.patches.attach(name, first + at, rows[node])
