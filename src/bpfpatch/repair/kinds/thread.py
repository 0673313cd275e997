"""A use on a path that no run takes, where the register itself does not tell.

Where a register holds a number of which the verifier knows nothing, no comparison tells the path
on which it complains from others. But the path itself does: it is copied from where another one
joins it, after the instruction that made the number, and left in the copy instead of the use.
"""

from __future__ import annotations

from typing import Final

from bpfpatch import isa
from bpfpatch.linux.log.messages import Flaw

from ..report import Order
from ..site import RepairSite
from ..traces import cut, first_join
from .base import Mended, Tools

KINDS: Final = (Flaw.SCALAR_ACCESS, Flaw.ARG_TYPE, Flaw.TYPE_ACCESS, Flaw.NULL_ACCESS)
_MOV_REG, _LDX_DW, _STX_DW, _CALL = 0xBF, 0x79, 0x7B, 0x85
_FP: Final = 10
_WHY: Final = (
    "the path is copied, which changes nothing, and ends in the copy where the use would have "
    "been of what is not a pointer"
)


def mend(site: RepairSite, tools: Tools) -> Mended | None:
    """Cut the path off where it comes to the use."""
    register = site.refusal.register
    if register is None or not site.steps:
        return None
    root = root_of(site, register)
    if root is None:
        return None
    join = first_join(site, root)
    if join is None:
        return None
    key = f"thread {site.node(root)} {site.node(join)} {site.last - join}"
    leave = (
        None
        if key in tools.tried
        else tools.exits.leave(site, site.slot(site.last), tools.prog_type)
    )
    if leave is None or not cut(site, join, site.last, leave):
        return None
    tools.leaves.append(leave)
    return Mended("thread", Order.GUARD, _WHY, key=key)


def root_of(site: RepairSite, register: int) -> int | None:
    """Index of the step that made the value of a register, through all copies of it."""
    at = f"R{register}"
    frame = site.steps[site.last].frame
    for step in site.backward(site.last, frame):
        fields = site.fields(step)
        slot = site.slot(step)
        if at.startswith("fp"):
            if fields.code & 7 in (2, 3) and fields.dst == _FP and f"fp{fields.off}" == at:
                if fields.code != _STX_DW:
                    return step
                at = f"R{fields.src}"
            continue
        if fields.code == _CALL:
            writes = isa.CALLER_SAVED
        else:
            writes = int(isa.writes(site.code.view.insns[slot : slot + 1])[0])
        if not int(writes) >> int(at[1:]) & 1:
            continue
        if fields.code == _MOV_REG and fields.off == 0:
            at = f"R{fields.src}"
        elif fields.code == _LDX_DW and fields.src == _FP:
            held = site.state(step, f"fp{fields.off}")
            if held is None or not held.kind:
                return step
            at = f"fp{fields.off}"
        else:
            return step
    return None
