"""A size that the verifier cannot bound, or that may be 0, of memory that goes to a helper.

The guard compares the very register that is passed, in front of the call, with what is left of the
memory that it goes with.
"""

from __future__ import annotations

from typing import Final

from bpfpatch.linux.log.messages import Flaw
from bpfpatch.linux.log.regstate import RegState

from ..report import Order
from ..site import RepairSite
from .base import GUARD_WHY, Mended, Tools, guard

KINDS: Final = (Flaw.UNBOUNDED, Flaw.ZERO_SIZE, Flaw.REGION, Flaw.PACKET, Flaw.STACK_ACCESS)
_CALL: Final = 0x85
_MOST: Final = (1 << 29) - 1
"""Source: linux v6.18, include/linux/bpf_verifier.h, BPF_MAX_VAR_SIZ."""


def mend(site: RepairSite, tools: Tools) -> Mended | None:
    """Bound the size in front of the call."""
    register = site.refusal.register
    if register is None or not site.steps or site.steps[site.last].code != _CALL:
        return None
    kind = site.refusal.kind
    is_size = kind in (Flaw.UNBOUNDED, Flaw.ZERO_SIZE)
    size_reg = register if is_size else register + 1
    memory = site.state(site.last, f"R{size_reg - 1}")
    size = site.state(site.last, f"R{size_reg}")
    if size is None or not size.is_scalar or (size.value is not None and size.value > 0):
        return None
    if kind is Flaw.ZERO_SIZE:
        text = f"if r{size_reg} == 0 goto leave"
    else:
        most = _room(memory)
        if most is None or size.bounds[3] <= most:
            return None
        text = f"if r{size_reg} > {most} goto leave"
    key = f"guard-size {text}"
    if key in tools.tried or not guard(site, tools, site.slot(site.last), text):
        return None
    return Mended("guard-size", Order.GUARD, GUARD_WHY, key=key)


def _room(memory: RegState | None) -> int | None:
    """Bytes from a pointer on that may be accessed, whatever varies in it."""
    if memory is None:
        return None
    if memory.is_scalar:
        return _MOST
    reach = memory.off + max(memory.bounds[1], 0)
    if memory.kind == "fp":
        return -reach if reach < 0 else None
    if memory.kind == "pkt":
        return memory.range - memory.off if memory.range > memory.off else None
    if memory.size is None:
        return _MOST
    return memory.size - reach if memory.size > reach else None
