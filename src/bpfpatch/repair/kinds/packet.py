"""An access to a packet that was not compared with the packet's end on this path.

It was, but on another copy, or in another branch that goes with this one. The guard compares the
pointer that is used. The end is where the state has it: a register, a slot, a slot of a calling
function that a pointer leads to, or the context.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bpfpatch import isa
from bpfpatch.facts.kinds import ProgType
from bpfpatch.linux.log.failpath import States
from bpfpatch.linux.log.messages import Flaw
from bpfpatch.linux.log.regstate import RegState
from bpfpatch.patch import Body

from ..report import Order
from ..site import RepairSite
from .base import GUARD_WHY, Mended, Tools, guard
from .bases import base_of

KINDS: Final = (Flaw.PACKET,)
_CALL: Final = 0x85
_FAR: Final = 0xFFFF
"""Source: linux v6.18, kernel/bpf/verifier.c, MAX_PACKET_OFF."""
_SKB_END, _SKB_DATA, _SKB_META = 80, 76, 140
_ENDS: Final = {
    ("pkt", ProgType.XDP): (4, "u32"),
    ("pkt_meta", ProgType.XDP): (0, "u32"),
    ("pkt", ProgType.SK_MSG): (8, "u64"),
    ("pkt", ProgType.SK_REUSEPORT): (8, "u64"),
}
"""Where the context has what a packet pointer is compared with: linux/bpf.h, struct xdp_md and
others; __sk_buff for all that are not listed."""


def mend(site: RepairSite, tools: Tools) -> Mended | None:
    """Compare the pointer that is used with the end of the packet."""
    register = site.refusal.register
    if register is None or not site.steps:
        return None
    state = site.state(site.last, f"R{register}")
    if state is None or state.kind not in ("pkt", "pkt_meta"):
        return None
    reach = _reach(site)
    key = f"guard-packet r{register} {reach}"
    if reach is None or key in tools.tried:
        return None
    text = _text(site, tools, register, state, reach)
    if text is None or not guard(site, tools, site.slot(site.last), text):
        return None
    return Mended("guard-packet", Order.GUARD, GUARD_WHY, key=key)


def _reach(site: RepairSite) -> int | None:
    """Bytes from the register on that are accessed."""
    fields = site.fields(site.last)
    if fields.code != _CALL:
        return fields.off + fields.size
    size = site.state(site.last, f"R{(site.refusal.register or 0) + 1}")
    if size is not None and size.is_scalar and 0 < size.bounds[3] <= _FAR:
        return size.bounds[3]
    return site.refusal.numbers.get("size")


def _text(site: RepairSite, tools: Tools, register: int, state: RegState, reach: int) -> str | None:
    slot = site.slot(site.last)
    fields = site.fields(site.last)
    taken = 1 << register | 1 << fields.dst | 1 << fields.src
    if fields.code == _CALL:
        taken |= isa.ARGS
    free = site.free(slot, 2, avoid=taken) or site.free(slot, 1, avoid=taken) or []
    spares = [reg for reg in _spares(site) if not taken >> reg & 1 and reg not in free]
    work = [*free, *spares][:2]
    if len(work) < 2:
        return None
    saves, loads = "", ""
    for reg in work:
        if reg in free:
            continue
        home = site.fresh(slot)
        if home is None:
            return None
        saves += f"*(u64 *)(r10 {home:+d}) = r{reg}; "
        loads += f"; r{reg} = *(u64 *)(r10 {home:+d})"
    at, end = work
    end_of = next(ends(site, tools.prog_type, state.kind, end), None)
    if end_of is None:
        return None
    bound = ""
    if state.bounds[3] + max(state.off, 0) + reach > _FAR:
        bounded = _bounded(site, register, state, reach, at)
        if bounded is None:
            return None
        bound = bounded
    # The work registers may hold what the end is read from: it is read first.
    text = f"{saves}{end_of}; {bound}r{at} = r{register}; r{at} += {reach}; "
    return f"{text}if r{at} > r{end} goto leave{loads}"


def _bounded(site: RepairSite, register: int, state: RegState, reach: int, work: int) -> str | None:
    """Make the pointer again from a base and what was added, where that may be too much."""
    base = base_of(site, register)
    home = site.fresh(site.slot(site.last))
    if base is None or home is None:
        return None
    save = Body(isa.store("u64", 10, home, isa.Reg(base.register)))
    site.patches.insert_before(site.node(base.index), save)
    moved = state.off - base.state.off
    most = _FAR - max(state.off, 0) - max(reach, 0)
    load = f"r{work} = r{register}; r{register} = *(u64 *)(r10 {home:+d}); "
    apart = f"r{work} -= r{register}; r{work} += {-moved}; "
    return f"{load}{apart}if r{work} > {most} goto leave; r{register} += r{work}; " + (
        f"r{register} += {moved}; " if moved else ""
    )


def _spares(site: RepairSite) -> list[int]:
    """Registers that are set on the path."""
    return [reg for reg in range(9, -1, -1) if site.state(site.last, f"R{reg}") is not None]


def ends(site: RepairSite, prog_type: ProgType | None, kind: str, into: int) -> Iterator[str]:
    """Assembly that loads into a register what a packet pointer is compared with."""
    wanted = "pkt_end" if kind == "pkt" else "pkt"
    frame = site.steps[site.last].frame
    here = site.steps[site.last].before
    for text, state in _reachable(site, here, frame, into):
        if state.kind == wanted and not state.off and not state.has_variable_part:
            yield text
    is_xdp = prog_type is ProgType.XDP
    off, size = _ENDS.get(
        (kind, prog_type or ProgType.UNSPEC), (_SKB_END if kind == "pkt" else _SKB_DATA, "u32")
    )
    if kind == "pkt_meta" and is_xdp:
        off = 0
    for text, state in _reachable(site, here, frame, into):
        if state.kind == "ctx" and not state.off:
            yield f"{text}; r{into} = *({size} *)(r{into} + {off})"


def _reachable(
    site: RepairSite, here: States, frame: int, into: int
) -> Iterator[tuple[str, RegState]]:
    """Values of all frames that can be loaded, and assembly that does."""
    for name, state in here.items():
        if name.startswith("R"):
            yield f"r{into} = r{name[1:]}", state
    for name, state in here.items():
        if name.startswith("fp"):
            yield f"r{into} = *(u64 *)(r10 {int(name[2:]):+d})", state
    for name, state in here.items():
        if state.kind != "fp" or state.frame is None or state.frame >= frame:
            continue
        if state.has_variable_part:
            continue
        get = (
            f"r{into} = r{name[1:]}"
            if name.startswith("R")
            else f"r{into} = *(u64 *)(r10 {int(name[2:]):+d})"
        )
        for other, value in site.refusal.path.frames[state.frame].items():
            if other.startswith("fp"):
                off = int(other[2:]) - state.off
                yield f"{get}; r{into} = *(u64 *)(r{into} {off:+d})", value
