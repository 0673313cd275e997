"""An access through a pointer that must be as it was given, and was moved.

Compilers fold a field's distance into the pointer. Here it goes back into the access: the pointer
is moved back before it, and forth after it if it is used again.
"""

from __future__ import annotations

from typing import Final

from bpfpatch import isa
from bpfpatch.linux.log.messages import Flaw
from bpfpatch.patch import Body

from ..report import Order
from ..site import RepairSite
from .base import Mended, Tools

KINDS: Final = (Flaw.CTX_MOVED,)
_LDX: Final = 1
_WHY: Final = "the access is to the same address: the distance goes from the pointer to the access"


def mend(site: RepairSite, tools: Tools) -> Mended | None:
    """Move the pointer back in front of the access."""
    register, known = site.refusal.register, site.refusal.known
    if register is None or known is None or known.has_variable_part or not known.off:
        return None
    fields = site.fields(site.last)
    kind = fields.code & 7
    base = fields.src if kind == _LDX else fields.dst
    off = fields.off + known.off
    if kind not in (1, 2, 3) or base != register or not -(1 << 15) <= off < 1 << 15:
        return None
    key = f"move r{register} {known.off}"
    if key in tools.tried:
        return None
    slot = site.slot(site.last)
    if int(site.code.view.insns["code"][slot]) & 0xE0 in (0xC0, 0x20, 0x40):
        return None
    insn = site.code.view.insns[slot : slot + 1].copy()
    insn["off"] = off
    is_gone = kind == _LDX and fields.dst == register
    after = int(site.code.liveness.after[slot]) >> register & 1 and not is_gone
    parts = [isa.alu("add", register, -known.off), insn]
    if after:
        parts.append(isa.alu("add", register, known.off))
    site.patches.replace(int(site.code.view.node[slot]), Body.of(*parts))
    return Mended("move", Order.SAME, _WHY, "rule", key)
