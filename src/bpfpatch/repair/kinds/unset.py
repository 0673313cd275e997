"""A register that is read on a path on which it is not set.

Compilers merge paths on which a value matters with some on which it does not. A register that a
call clobbers, or that a function does not get, holds nothing that any program may rely on; so it
may as well hold 0. It is set where it becomes undefined, not where it is read: there, other paths
have a value that counts.
"""

from __future__ import annotations

from typing import Final

from bpfpatch import isa
from bpfpatch.linux.log.messages import Flaw
from bpfpatch.patch import Body

from ..report import Order
from ..site import RepairSite
from .base import Mended, Tools

KINDS: Final = (Flaw.UNSET, Flaw.STACK_UNSET)
_CALL: Final = 0x85
_PACKET_LOADS: Final = (0x20, 0x28, 0x30, 0x40, 0x48, 0x50)
_ARGS: Final = range(1, 6)
_WHY: Final = (
    "no program relies on what a register holds that was never set, or that a call clobbers"
)


def mend(site: RepairSite, tools: Tools) -> Mended | None:
    """Set the register where it became undefined on the path."""
    register = site.refusal.register
    if site.refusal.kind is Flaw.STACK_UNSET:
        return _stack(site, tools)
    if register is None or not site.steps:
        return None
    start, frame = site.last, site.steps[site.last].frame
    while True:
        for index in site.backward(start, frame):
            if _undefines(site, index, register):
                return _set(site, tools, register, site.node(index), is_head=False)
            if _defines(site, index, register):
                return None  # it was set: the log is not understood
        first = site.entry(start, frame)
        if frame == 0 or register not in _ARGS:
            return _set(site, tools, register, _head(site, first), is_head=True)
        # An argument that the caller does not give: it is undefined there already.
        start, frame = first - 1, frame - 1


def _set(
    site: RepairSite, tools: Tools, register: int, node: int, *, is_head: bool
) -> Mended | None:
    """Set a register after the call that clobbers it, or where its function starts."""
    key = f"unset r{register} at {node}"
    if key in tools.tried:
        return None
    body = Body(isa.mov(register, 0))
    if is_head:
        site.patches.prepend(node, body)
    else:
        site.patches.insert_after(node, body)
    return Mended("unset", Order.SAME, _WHY, "rule", key)


def _stack(site: RepairSite, tools: Tools) -> Mended | None:
    """Write bytes of the frame where its function starts: there, all of them are unset."""
    off = site.refusal.stack_off
    if off is None or not -512 <= off < 0 or not site.steps:
        return None
    place = off // 8 * 8
    node = _head(site, site.last)
    key = f"unset {place} at {node}"
    known = site.state(site.last, f"R{site.refusal.register}")
    if key in tools.tried or (known is not None and known.frame is not None):
        return None
    site.patches.prepend(node, Body(isa.store("u64", isa.R10, place, 0)))
    return Mended("unset", Order.SAME, _WHY, "rule", key)


def _head(site: RepairSite, index: int) -> int:
    """The first instruction of the function that a step is in."""
    begin, _ = site.code.span(site.code.subprog(site.slot(index)))
    return int(site.code.view.node[begin])


def _undefines(site: RepairSite, index: int, register: int) -> bool:
    code = site.steps[index].code
    return (code == _CALL and register <= 5) or (code in _PACKET_LOADS and register in _ARGS)


def _defines(site: RepairSite, index: int, register: int) -> bool:
    slot = site.slot(index)
    return bool(int(isa.writes(site.code.view.insns[slot : slot + 1])[0]) >> register & 1)
