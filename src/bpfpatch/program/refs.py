"""References: what a jump, call or function address in the code points at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa

from .types import Insns, Slots, frozen

FIELD_LIMITS: Final = {
    isa.RefKind.JUMP16: (-(1 << 15), (1 << 15) - 1),
    isa.RefKind.JUMP32: (-(1 << 31), (1 << 31) - 1),
    isa.RefKind.CALL: (-(1 << 31), (1 << 31) - 1),
    isa.RefKind.FUNC: (-(1 << 31), (1 << 31) - 1),
}
"""Least and greatest distance, in slots from the next slot, that a field holds."""


@dataclass(frozen=True, slots=True, eq=False)
class References:
    """The references of one program, in slot order.

    Attributes:
        slot: (r,) int32, the referring instruction.
        kind: (r,) uint8 of `isa.RefKind`.
        target: (r,) int32 slot that it refers to; not checked to exist.
    """

    slot: Slots
    kind: NDArray[np.uint8]
    target: Slots

    def __post_init__(self) -> None:
        for name in ("slot", "kind", "target"):
            object.__setattr__(self, name, frozen(getattr(self, name)))

    @property
    def is_entry(self) -> NDArray[np.bool_]:
        """(r,) whether the reference is a call or function address, not a jump."""
        return self.kind >= isa.RefKind.CALL


def read_references(insns: Insns, external: Slots) -> References:
    """Decode all references; those at ``external`` slots belong to a relocation and are none.

    Distances are relative to the slot after the instruction's first one.

    Source: RFC 9669 sections 4.3 and 5.4; linux v6.1, kernel/bpf/core.c,
    bpf_adj_branches(), and kernel/bpf/verifier.c, add_subprog_and_kfunc().
    """
    kinds = isa.ref_kinds(insns)
    kinds[external] = isa.RefKind.NONE
    slots, targets = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)]
    for part in isa.portions(len(insns)):
        here = np.flatnonzero(kinds[part] != isa.RefKind.NONE)
        if not here.size:
            continue
        kind, sites = kinds[part][here], insns[part][here]
        distance = np.where(kind == isa.RefKind.JUMP16, sites["off"].astype(np.int64), sites["imm"])
        slot = here + part.start
        slots.append(slot.astype(np.int32))
        # A distance of 32 bits can name a slot beyond int32: clip, it is out of range anyhow.
        targets.append(np.clip(slot + 1 + distance, -1, len(insns) + 1).astype(np.int32))
    slot = np.concatenate(slots)
    return References(slot, kinds[slot], np.concatenate(targets))


def distances(refs: References, reach: int = 1 << 15) -> tuple[Slots, NDArray[np.intp]]:
    """What the fields of references have to hold.

    Args:
        refs: whose.
        reach: what a field of 16 bits is taken to hold: -reach to reach - 1.

    Returns:
        (r,) distances in slots from the next slot, and the rows of those that do not fit.
    """
    limits = [FIELD_LIMITS.get(kind, (0, 0)) for kind in isa.RefKind]
    limits[isa.RefKind.JUMP16] = -reach, reach - 1
    least, most = np.array(limits, np.int64).T
    out = np.empty(refs.slot.size, np.int32)
    far = [np.zeros(0, np.intp)]
    for part in isa.portions(refs.slot.size):
        kind = refs.kind[part]
        distance = refs.target[part].astype(np.int64) - refs.slot[part] - 1
        fits = (distance >= least[kind]) & (distance <= most[kind])
        if not fits.all():
            far.append(np.flatnonzero(~fits) + part.start)
        out[part] = distance
    return out, np.concatenate(far)


def write_distances(insns: Insns, slot: Slots, kind: NDArray[np.uint8], distance: Slots) -> None:
    """Put distances, which must fit, into the reference fields of ``insns``, in place."""
    for part in isa.portions(slot.size):
        is_short = kind[part] == isa.RefKind.JUMP16
        insns["off"][slot[part][is_short]] = distance[part][is_short]
        insns["imm"][slot[part][~is_short]] = distance[part][~is_short]
