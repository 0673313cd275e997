"""Arithmetic on a pointer that the verifier does not take, or cannot bound."""

from __future__ import annotations

from typing import Final

from bpfpatch import isa
from bpfpatch.linux.log.messages import Flaw
from bpfpatch.patch import Body

from ..report import Order
from ..site import Fields, RepairSite
from ..uppers import zero_uppers
from .base import GUARD_WHY, Mended, Tools, guard

KINDS: Final = (Flaw.POINTER_MATH, Flaw.POINTER_OP, Flaw.NULL_MATH, Flaw.OFFSET)
_ADD_REG, _ADD_IMM, _OR_IMM = 0x0F, 0x07, 0x47
_FAR: Final = (1 << 29) - 1
"""Source: linux v6.18, include/linux/bpf_verifier.h, BPF_MAX_VAR_OFF."""
_FP: Final = 10
_FRAME: Final = 512


def mend(site: RepairSite, tools: Tools) -> Mended | None:
    """Mend one operation."""
    if not site.steps:
        return None
    fields = site.fields(site.last)
    if site.refusal.kind in (Flaw.POINTER_MATH, Flaw.OFFSET):
        return _bound(site, tools, fields)
    if site.refusal.kind is Flaw.NULL_MATH:
        return _null(site, tools, fields)
    return _or(site, tools, fields) if fields.code == _OR_IMM else None


def _bound(site: RepairSite, tools: Tools, fields: Fields) -> Mended | None:
    """Bound what is added, on both sides."""
    if fields.code != _ADD_REG:
        return None
    left, right = site.state(site.last, f"R{fields.dst}"), site.state(site.last, f"R{fields.src}")
    if left is None or right is None or left.is_pointer == right.is_pointer:
        return None
    pointer, index = (left, fields.src) if left.is_pointer else (right, fields.dst)
    slot = site.slot(site.last)
    use = _next_use(site, slot, fields.dst)
    most, fixed = _FAR, 0
    if use is not None:
        off, size = use
        region = 0 if pointer.kind == "fp" else pointer.size
        if region is not None and region - pointer.off - off - size >= 0:
            most = region - pointer.off - off - size
            fixed = 0 if pointer.kind == "fp" else pointer.off + off
    uppers = zero_uppers(site.code, site.code.subprog(slot)).get(slot, 0)
    free = site.free(slot, 1, avoid=1 << fields.dst | 1 << fields.src)
    key = f"guard-index r{index} {-fixed}..{most}"
    if fixed > 0 and not uppers >> index & 1 and free is not None and key not in tools.tried:
        # The index may be negative, as long as the access does not begin before the region.
        work = free[0]
        text = f"r{work} = r{index}; r{work} += {fixed}; if r{work} > {most + fixed} goto leave"
        if guard(site, tools, slot, text):
            return Mended("guard-index", Order.GUARD, GUARD_WHY, key=key)
    key = f"guard-index r{index} <= {most}"
    if key in tools.tried:
        key, most = f"guard-index r{index} <= {_FAR}", _FAR
    if key in tools.tried or not guard(site, tools, slot, f"if r{index} > {most} goto leave"):
        return None
    return Mended("guard-index", Order.GUARD, GUARD_WHY, key=key)


def _next_use(site: RepairSite, slot: int, register: int) -> tuple[int, int] | None:
    """Distance and size of the access through a register that follows straight from a slot."""
    code = site.code
    last = int(code.blocks.last[code.block(slot)])
    at, moved = slot + 1, 0
    while at <= last:
        fields = code.fields(at)
        kind = fields.code & 7
        base = fields.src if kind == 1 else fields.dst
        if kind in (1, 2, 3) and base == register:
            return moved + fields.off, fields.size
        if fields.code == 0x85:
            return None
        if int(isa.writes(code.view.insns[at : at + 1])[0]) >> register & 1:
            if fields.code != _ADD_IMM:
                return None
            moved += fields.imm
        at += 1
    return None


def _null(site: RepairSite, tools: Tools, fields: Fields) -> Mended | None:
    """Add to NULL as to a number: the sum is the same."""
    if fields.code not in (_ADD_IMM,) or "null-math" in tools.tried:
        return None
    reg = fields.dst
    text = (
        f"if r{reg} == 0 goto null; r{reg} += {fields.imm}; goto @end; null: r{reg} = {fields.imm}"
    )
    site.patches.replace(site.node(site.last), Body.asm(text))
    why = "on both sides the sum is what it was; the verifier sees on which one the pointer is NULL"
    return Mended("null-math", Order.SAME, why, "rule")


def _or(site: RepairSite, tools: Tools, fields: Fields) -> Mended | None:
    """Set bits that are 0 by adding them."""
    state = site.state(site.last, f"R{fields.dst}")
    if state is None or state.kind != "fp" or fields.imm <= 0 or "or" in tools.tried:
        return None
    slot = site.slot(site.last)
    if state.frame is not None:
        return None
    free = site.free(slot, 1, avoid=1 << fields.dst)
    add = Body(isa.alu("add", fields.dst, fields.imm))
    if free is None:
        return None
    work = free[0]
    # Frames are aligned to 8 bytes, so low bits of the distance from R10 are those of the address.
    text = f"r{work} = r{fields.dst}; r{work} -= r10; r{work} &= {fields.imm}; "
    node = site.node(site.last)
    if fields.imm >= 8 or not guard(site, tools, slot, f"{text}if r{work} != 0 goto leave"):
        return None
    site.patches.replace(node, add)
    why = "to set bits that are 0 is to add them; a check in front sees that they are"
    return Mended("or", Order.GUARD, why, key="or")
