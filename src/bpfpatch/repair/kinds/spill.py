"""A pointer that is spilled, or loaded again, in fewer than 8 bytes.

Fields such as ``skb->data`` have 32 bits for a program, and compilers spill 32 of them; the
verifier keeps a pointer in 8 aligned bytes only. Compilers share a slot among values that never
live at the same time, so the slot itself is not widened: the stores that reach the same loads, and
these, get 8 bytes of their own.
"""

from __future__ import annotations

from typing import Final

from bpfpatch import isa
from bpfpatch.linux.log.messages import Flaw
from bpfpatch.patch import Body

from ..report import Order
from ..site import Fields, RepairSite
from ..uppers import zero_uppers
from ..webs import Web, web_of
from .base import Mended, Tools

KINDS: Final = (Flaw.SPILL, Flaw.FILL)
_FP: Final = 10
_WORD: Final = 8
_STX, _ST, _LDX = 3, 2, 1
_MODE: Final = 0xE0
_MEM: Final = 0x60
_WHY: Final = (
    "the value that the loads see is the same: what is stored has 0 above its 32 bits, or is cut "
    "to them first; only the place in the frame is another"
)


def mend(site: RepairSite, tools: Tools) -> Mended | None:
    """Give the web of a store 8 bytes of its own."""
    if not site.steps or "spill" in tools.tried:
        return None
    slot = _store(site)
    if slot is None:
        return None
    web = web_of(site.code, slot)
    access = site.code.fields(slot)
    if web.is_open or not all(_is_part(site.code.fields(load), access) for load in web.loads):
        return None
    own = _own_place(site, slot, web, access)
    is_tight = site.code.room(site.code.subprog(slot)) < 2 * _WORD
    home = own if own is not None and is_tight else site.fresh(slot) or own
    if home is None:
        return None
    _move(site, web, access, home)
    return Mended("spill", Order.SAME, _WHY, "dataflow")


def _own_place(site: RepairSite, slot: int, web: Web, access: Fields) -> int | None:
    """The 8 aligned bytes around a slot, if nothing else is there: for frames that are full."""
    code = site.code
    home = access.off // _WORD * _WORD
    subprog = code.subprog(slot)
    if home + _WORD > code.lowest_taken(subprog):
        return None
    mine = {*web.stores, *web.loads}
    begin, end = code.span(subprog)
    for at in range(begin, end):
        fields = code.fields(at)
        kind = fields.code & 7
        base = fields.src if kind == _LDX else fields.dst
        if kind not in (_ST, _STX, _LDX) or base != _FP or at in mine:
            continue
        if fields.off < home + _WORD and fields.off + fields.size > home:
            return None
    return home


def _store(site: RepairSite) -> int | None:
    """The store that is refused, or that the load which is refused sees."""
    fields = site.fields(site.last)
    if fields.code & 7 == _STX:
        return site.slot(site.last) if fields.dst == _FP and fields.size < 8 else None
    if fields.code & 7 != _LDX or fields.src != _FP:
        return None
    for index in site.backward(site.last, site.steps[site.last].frame):
        other = site.fields(index)
        is_store = other.code & 7 in (_ST, _STX) and other.dst == _FP
        if is_store and other.off <= fields.off < other.off + other.size:
            return site.slot(index)
    return None


def _is_part(load: Fields, store: Fields) -> bool:
    """Whether a load reads no more than the 32 bits of a store."""
    is_plain = load.code & _MODE == _MEM
    return is_plain and store.off <= load.off and load.off + load.size <= store.off + 4


def _move(site: RepairSite, web: Web, access: Fields, home: int) -> None:
    code = site.code
    uppers = zero_uppers(code, code.subprog(web.stores[0]))
    n_bytes = access.size
    for slot in web.stores:
        fields = code.fields(slot)
        node = int(code.view.node[slot])
        body = _wide_store(site, slot, fields, home, bool(uppers.get(slot, 0) >> fields.src & 1))
        # What others see of a store that is not this web's alone stays.
        if fields.size > n_bytes and fields.size == 8 and fields.code & 7 == _ST:
            site.patches.insert_after(node, body)
        else:
            site.patches.replace(node, body)
    for slot in web.loads:
        fields = code.fields(slot)
        size = "u64" if fields.size == 4 else f"u{8 * fields.size}"
        at = home + fields.off - access.off
        site.patches.replace(int(code.view.node[slot]), Body(isa.load(size, fields.dst, _FP, at)))


def _wide_store(
    site: RepairSite, slot: int, fields: Fields, home: int, is_zero_above: bool
) -> Body:
    """A store of 8 bytes of what a store of 4 stored, with 0 above it."""
    if fields.code & 7 == _ST:
        return Body.of(isa.store("u32", _FP, home, fields.imm), isa.store("u32", _FP, home + 4, 0))
    if is_zero_above:
        return Body(isa.store("u64", _FP, home, isa.Reg(fields.src)))
    free = site.free(slot, 1, avoid=1 << fields.src)
    if free is None:
        return Body.of(
            isa.store("u32", _FP, home, isa.Reg(fields.src)), isa.store("u32", _FP, home + 4, 0)
        )
    return Body.of(
        isa.mov32(free[0], isa.Reg(fields.src)), isa.store("u64", _FP, home, isa.Reg(free[0]))
    )
