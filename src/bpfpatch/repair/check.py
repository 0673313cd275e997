"""Run the original against what was repaired, on inputs that aim at every branch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bpfpatch.elf import ElfObject
from bpfpatch.facts.kinds import ProgType
from bpfpatch.verify import Bounds, Verdict, verify_objects

from .api import Repaired
from .counting import NAME


def changed_programs(obj: ElfObject, done: Repaired) -> list[str]:
    """Programs in which something was mended, themselves or in a function that they call."""
    assert done.obj is not None
    remap = done.code.remap
    is_new = remap.orig < 0
    touched = np.zeros(remap.orig.size, bool)
    kept = remap.own[remap.modified]
    touched[kept[kept >= 0]] = True
    out = []
    for info in obj.programs:
        origin = done.obj.link(info.name).origin
        if bool((is_new | touched)[origin].any()):
            out.append(info.name)
    return out


def check(
    obj: ElfObject, done: Repaired, prog_type: ProgType | None = None, seconds: float = 2.0
) -> Iterator[Verdict]:
    """Compare each program that was mended with what it was, in the interpreter.

    Args:
        obj: the original, which need not load.
        done: what `repair` gave.
        prog_type: kind of all programs; by default what the sections say.
        seconds: most time for each.

    Yields:
        A verdict for each. One that `differs` may be a guard that fired where the original ends
        in an error: see `is_fired`.
    """
    assert done.obj is not None
    names = changed_programs(obj, done)
    if not names:
        return
    yield from verify_objects(
        obj,
        done.obj,
        names,
        bounds=Bounds(seconds=seconds),
        kind=None if prog_type is None else prog_type.text,
        provenance=done.code,
        ignore=(f"maps:.bss.{NAME}",),
    )


def is_fired(verdict: Verdict) -> bool:
    """Whether a difference is no more than a guard that fired where the original has an error."""
    found = verdict.counterexample
    if found is None:
        return False
    return all(
        one.what == "error" and one.before != "none" and one.after == "none"
        for one in found.differences
    )
