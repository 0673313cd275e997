"""What kinds of mending have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from bpfpatch.facts.kinds import ProgType
from bpfpatch.patch import Body

from ..exits import Exits
from ..report import Order
from ..site import RepairSite


@dataclass(frozen=True, slots=True)
class Mended:
    """What a kind of mending did.

    Attributes:
        kind: of mending.
        order: how sure it is.
        why: the rule by which it is sound.
        shown_by: see `bpfpatch.repair.report.Mending`.
        key: what tells this mending from others of its kind at the same place.
    """

    kind: str
    order: Order
    why: str
    shown_by: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class Tools:
    """What a kind of mending may use beside the site.

    Attributes:
        exits: where guards go.
        prog_type: the kind of the program that is refused.
        tried: keys of mendings that were tried at this very place before.
        leaves: nodes that this mending's checks go to, where they fire.
    """

    exits: Exits
    prog_type: ProgType | None
    tried: frozenset[str]
    leaves: list[int] = field(default_factory=list)


Mend = Callable[[RepairSite, Tools], Mended | None]
"""A kind of mending: it edits the list and says what it did, or None where it has nothing."""

GUARD_WHY = (
    "the check stands at the access itself: where it fires, the access would have been wrong"
)


def guard(site: RepairSite, tools: Tools, slot: int, text: str) -> bool:
    """Put a check in front of an instruction; ``leave`` in its text is where it goes if it fires.

    False where the program may not leave there.
    """
    leave = tools.exits.leave(site, slot, tools.prog_type)
    if leave is None:
        return False
    tools.leaves.append(leave)
    node = int(site.code.view.node[slot])
    site.patches.insert_before(node, Body.asm(text, leave=leave))
    return True
