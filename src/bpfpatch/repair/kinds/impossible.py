"""A refusal on a path that provably no run takes.

The branches of the path contradict each other: what one of them finds, another rules out. The path
is copied from where another one joins it, and the branch in it that contradicts goes the only way
that it ever goes. Nothing else changes, so this does where nothing may be left: with references or
locks held, too.
"""

from __future__ import annotations

from typing import Final

from bpfpatch.linux.log.messages import Flaw
from bpfpatch.prove import is_available

from ..prove.trace import impossible_branch
from ..report import Order
from ..site import RepairSite
from ..traces import cut, first_join, other_way
from .base import Mended, Tools

_NEVER: Final = (Flaw.COMPLEX, Flaw.LOOP, Flaw.STACK_DEPTH, Flaw.UNSET)
KINDS: Final = tuple(kind for kind in Flaw if kind not in _NEVER)
_WHY: Final = (
    "the path is copied, which changes nothing, and a branch in the copy goes the only way that "
    "it can go there"
)


def mend(site: RepairSite, tools: Tools) -> Mended | None:
    """Take the contradiction out of a copy of the path."""
    if not site.steps or not is_available():
        return None
    found = impossible_branch(site)
    if found is None:
        return None
    start, branch = found
    join = first_join(site, start)
    key = f"impossible {site.node(start)} {site.node(branch)}"
    if join is None or join > branch or key in tools.tried:
        return None
    if not cut(site, join, branch, other_way(site, branch)):
        return None
    return Mended("impossible", Order.SAME, _WHY, "z3", key)
