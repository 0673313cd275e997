"""An access whose place the verifier cannot bound: in a map's value, in memory, in the frame.

The bounds were checked on another copy of the index, or before it was changed. The guard takes the
index apart from the pointer (their difference to where the pointer started), compares it with what
the region allows, and makes the pointer again from the base and the index that passed. So it fires
only where the access would have been outside, also if the pointer is made long before it is used.
Where the addition stands in the same block as the access, the index itself is compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bpfpatch import isa
from bpfpatch.linux.log.messages import Flaw
from bpfpatch.linux.log.regstate import RegState
from bpfpatch.patch import Body

from ..report import Order
from ..site import RepairSite
from ..uppers import zero_uppers
from .base import GUARD_WHY, Mended, Tools, guard
from .bases import Base, base_of

KINDS: Final = (Flaw.REGION, Flaw.STACK_ACCESS)
_CALL, _ADD_REG = 0x85, 0x0F
_FP: Final = 10
_FRAME: Final = 512
_IMM_MAX: Final = (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class Room:
    """What may be added to a pointer for an access to stay in its region.

    Attributes:
        low: the least; may be negative.
        high: the most.
    """

    low: int
    high: int


def mend(site: RepairSite, tools: Tools) -> Mended | None:
    """Bound what was added to the pointer."""
    register = site.refusal.register
    if register is None or not site.steps:
        return None
    state = site.state(site.last, f"R{register}")
    room = None if state is None else room_of(site, state)
    if state is None or room is None or not state.has_variable_part:
        return None
    base = base_of(site, register)
    if base is None or room.high < room.low:
        return None
    key = f"guard-index r{register} {room.low}..{room.high} from {site.node(base.index)}"
    if key in tools.tried:
        return None
    if not (_near(site, tools, base, room) or _apart(site, tools, register, base, room)):
        return None
    return Mended("guard-index", Order.GUARD, GUARD_WHY, key=key)


def room_of(site: RepairSite, state: RegState) -> Room | None:
    """What may be added to a pointer in front of the last step's access."""
    access = _access(site)
    if access is None:
        return None
    off, size = access
    fixed = state.off + off
    if state.kind == "fp":
        smin = state.bounds[0]
        low = max(smin, -_FRAME - fixed) if -_FRAME < smin < 0 else 0
        return Room(low, -fixed - size)
    region = state.size if state.size is not None else site.refusal.numbers.get("region")
    if region is None:
        return None
    return Room(min(-fixed, 0), region - size - fixed)


def _access(site: RepairSite) -> tuple[int, int] | None:
    """Distance from the register and size of what the last step accesses."""
    fields = site.fields(site.last)
    if fields.code != _CALL:
        return fields.off, fields.size
    size = site.state(site.last, f"R{(site.refusal.register or 0) + 1}")
    told = site.refusal.numbers.get("size")
    if size is not None and size.value is not None and size.value > 0:
        return 0, size.value
    return None if told is None or size is None or size.is_scalar else (0, told)


def _near(site: RepairSite, tools: Tools, base: Base, room: Room) -> bool:
    """Compare the index in front of the addition, where the access follows straight from there."""
    first, last = site.slot(base.index), site.slot(site.last)
    if len(base.adds) != 1 or base.operand is None or not site.code.steps_between(first, last):
        return False
    if site.fields(base.index).code != _ADD_REG or room.high > _IMM_MAX:
        return False
    insns = site.code.view.insns[first:last]
    if bool((isa.is_call(insns) | isa.is_store(insns) | isa.is_atomic(insns)).any()):
        return False
    index = base.operand
    uppers = zero_uppers(site.code, site.code.subprog(first)).get(first, 0)
    if room.low < 0 and not uppers >> index & 1:
        return False  # it may be negative on another path
    return guard(site, tools, first, f"if r{index} > {room.high} goto leave")


def _apart(site: RepairSite, tools: Tools, register: int, base: Base, room: Room) -> bool:
    """Take the index apart from the pointer in front of the access, and make the pointer again."""
    slot = site.slot(site.last)
    free = site.free(slot, 1, avoid=1 << register)
    keep = None if free is not None else site.fresh(slot)
    if free is None and keep is None:
        return False
    work = free[0] if free is not None else _spare(site, register)
    if work is None or room.high - room.low > _IMM_MAX:
        return False
    if base.state.kind == "fp" and base.state.frame is None:
        again = f"r{register} = r10; r{register} += {base.state.off}; "
        start = f"r{work} = r{register}; r{work} -= r10; r{work} += {-base.state.off}; "
    else:
        home = site.fresh(slot)
        if home is None:
            return False
        save = Body(isa.store("u64", _FP, home, isa.Reg(base.register)))
        site.patches.insert_before(site.node(base.index), save)
        again = f"r{register} = *(u64 *)(r10 {home:+d}); "
        start = f"r{work} = r{register}; r{register} = *(u64 *)(r10 {home:+d}); "
        start += f"r{work} -= r{register}; "
        again = ""
    moved = _constant_after(site, base, register)
    # The difference has what is constant after the base in it, too; room is without.
    start += f"r{work} += {-room.low - moved}; " if room.low + moved else ""
    text = start + f"if r{work} > {room.high - room.low} goto leave; "
    text += _aligned(site, register, work)
    # What varies in a pointer must not be negative for the verifier: what is, goes to the base.
    text += again + (f"r{register} += {room.low + moved}; " if room.low + moved else "")
    text += f"r{register} += r{work}; "
    if keep is not None:
        text = f"*(u64 *)(r10 {keep:+d}) = r{work}; {text}r{work} = *(u64 *)(r10 {keep:+d})"
    return guard(site, tools, slot, text.rstrip("; "))


def _aligned(site: RepairSite, register: int, work: int) -> str:
    """Keep that an index into the frame is aligned, which the difference of pointers is not."""
    state = site.state(site.last, f"R{register}")
    if state is None or state.kind != "fp":
        return ""
    known = state.var_off[0] | state.var_off[1]
    low_bits = (known & -known) - 1 if known else 0
    low_bits = min(low_bits, 7)
    return f"if r{work} & {low_bits} goto leave; " if low_bits > 0 else ""


def _constant_after(site: RepairSite, base: Base, register: int) -> int:
    """What was added for certain between the base and the access."""
    state = site.state(site.last, f"R{register}")
    return 0 if state is None else state.off - base.state.off


def _spare(site: RepairSite, register: int) -> int | None:
    """A register to spill: set on the path, and no part of the access."""
    fields = site.fields(site.last)
    taken = {register, fields.dst, fields.src, _FP}
    if fields.code == _CALL:
        taken |= set(range(1, 6))
    for reg in (9, 8, 7, 6, 5, 4, 3, 2, 1, 0):
        if reg not in taken and site.state(site.last, f"R{reg}") is not None:
            return reg
    return None
