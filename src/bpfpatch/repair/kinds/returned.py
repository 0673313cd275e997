"""A value that is returned, and that the verifier cannot bound to what may be returned."""

from __future__ import annotations

import re
from typing import Final

from bpfpatch.linux.log.messages import Flaw
from bpfpatch.patch import Body

from ..report import Order
from ..site import RepairSite
from .base import Mended, Tools

KINDS: Final = (Flaw.RETURN,)
_EXIT: Final = 0x95
_RANGE: Final = re.compile(r"should have been in [\[(](-?\w+)[,;] (-?\w+)[\])]")
_WHY: Final = "the check stands in front of the exit: where it fires, the value may not be returned"


def mend(site: RepairSite, tools: Tools) -> Mended | None:
    """Put the nearest value that may be returned in the place of one that may not."""
    found = _RANGE.search(site.refusal.message)
    if found is None or not site.steps or site.steps[site.last].code != _EXIT:
        return None
    low, high = (int(text, 0) for text in found.groups())
    if "(" in found[0]:  # known bits, before 6.8: (0x0; 0x1)
        high |= low
    key = f"guard-return {low}..{high}"
    if key in tools.tried or not -(1 << 31) <= low <= high < 1 << 31:
        return None
    if low == 0:
        text = f"if r0 <= {high} goto @end; r0 = {low}"
    else:
        text = f"if r0 s< {low} goto bad; if r0 s<= {high} goto @end; bad: r0 = {low}"
    site.patches.insert_before(site.node(site.last), Body.asm(text))
    return Mended("guard-return", Order.GUARD, _WHY, key=key)
