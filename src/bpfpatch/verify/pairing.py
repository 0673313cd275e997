"""Which instruction of the original each one of the rewritten program is."""

from __future__ import annotations

from typing import Protocol, TypeAlias

import numpy as np

from bpfpatch.elf import LinkedProgram
from bpfpatch.program import Program, Remap
from bpfpatch.program.types import Slots
from bpfpatch.report import diff_programs

Code: TypeAlias = LinkedProgram | Program


class RewrittenCode(Protocol):
    """What a pipeline or a patch list's linearizing gave."""

    @property
    def remap(self) -> Remap:
        """Where things went."""


Provenance: TypeAlias = Remap | RewrittenCode | None


def pair(before: Code, after: Code, provenance: Provenance = None) -> Slots:
    """For each slot of the rewritten program the slot in the original, or -1.

    Args:
        before: the original.
        after: the rewritten program.
        provenance: of the rewriting: of these programs, or, where they are linked, of the
            objects that they are linked from. Without, it is told by comparing the code.
    """
    old, new = _flat(before), _flat(after)
    remap = provenance if isinstance(provenance, Remap) or provenance is None else provenance.remap
    if remap is None:
        return _by_diff(old, new)
    if remap.own.size == len(old) and remap.orig.size == len(new):
        return np.where(remap.orig >= 0, remap.orig, -1).astype(np.int32)
    if isinstance(before, LinkedProgram) and isinstance(after, LinkedProgram):
        return _through_objects(before, after, remap)
    return _by_diff(old, new)


def _flat(code: Code) -> Program:
    return code.program if isinstance(code, LinkedProgram) else code


def _by_diff(old: Program, new: Program) -> Slots:
    out = np.full(len(new), -1, np.int32)
    for function in diff_programs(old, new).functions:
        both = (function.old_slot >= 0) & (function.new_slot >= 0)
        out[function.new_slot[both]] = function.old_slot[both]
    return out


def _through_objects(before: LinkedProgram, after: LinkedProgram, remap: Remap) -> Slots:
    """From the new flat program to the new object, to the old object, to the old flat program."""
    inside = (after.origin >= 0) & (after.origin < remap.orig.size)
    old_object = np.full(after.origin.size, -1, np.int64)
    old_object[inside] = remap.orig[after.origin[inside]]
    place = np.full(max(remap.own.size, int(before.origin.max(initial=-1)) + 1), -1, np.int32)
    known = before.origin >= 0
    place[before.origin[known]] = np.flatnonzero(known)
    return np.where(old_object >= 0, place[np.maximum(old_object, 0)], -1).astype(np.int32)
