"""A use of a pointer that the verifier takes for a number on this path.

Correlated branches do that: ``p`` is 0 unless the protocol is TCP, and is used only if it is TCP;
the verifier forgets the first when it sees the second. On the path that it complains about, which
no run takes, the register holds the constant that it sees there. The guard compares the register
itself with that; a pointer is never so small.
"""

from __future__ import annotations

from typing import Final

from bpfpatch.linux.log.messages import Flaw
from bpfpatch.linux.log.regstate import RegState

from ..report import Order
from ..site import RepairSite
from .base import GUARD_WHY, Mended, Tools, guard

KINDS: Final = (
    Flaw.SCALAR_ACCESS,
    Flaw.NULL_ACCESS,
    Flaw.ARG_TYPE,
    Flaw.ARG_NULL,
)
_SMALL: Final = 1 << 31
"""Numbers below this are not pointers: the kernel's addresses have their upper bits set."""


def mend(site: RepairSite, tools: Tools) -> Mended | None:
    """Leave in front of the use if the register holds what the verifier sees in it."""
    register, known = site.refusal.register, site.refusal.known
    if register is None or known is None or not site.steps:
        return None
    test = _test(register, known)
    if test is None:
        return None
    key = f"guard-scalar {test}"
    if key in tools.tried:
        return None
    if not guard(site, tools, site.slot(site.last), f"{test} goto leave"):
        return None
    return Mended("guard-scalar", Order.GUARD, GUARD_WHY, key=key)


def _test(register: int, known: RegState) -> str | None:
    """A comparison that holds for what the verifier knows, and for no pointer."""
    if known.is_or_null:
        return f"if r{register} == 0"
    if not known.is_scalar:
        return None
    if known.value is not None and -_SMALL <= known.value < _SMALL:
        return f"if r{register} == {known.value}"
    if known.bounds[3] < _SMALL:
        return f"if r{register} <= {known.bounds[3]}"
    return None
