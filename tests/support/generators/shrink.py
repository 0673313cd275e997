"""Make a program that shows a difference small."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from bpfpatch.errors import BpfPatchError
from support.cases.paritycase import ParityCase


def shrink(case: ParityCase, still: Callable[[ParityCase], bool]) -> ParityCase:
    """The case with as many lines left out as can be.

    Args:
        case: one that shows it.
        still: whether another one does; a `BpfPatchError` (the kernel refuses it) is a no.
    """
    lines = case.text.splitlines()
    size = max(len(lines) // 2, 1)
    while size:
        at = 0
        while at < len(lines):
            fewer = lines[:at] + lines[at + size :]
            if _is_still(replace(case, text="\n".join(fewer)), still):
                lines = fewer
            else:
                at += size
        size //= 2
    return replace(case, text="\n".join(lines))


def _is_still(case: ParityCase, still: Callable[[ParityCase], bool]) -> bool:
    try:
        return still(case)
    except (BpfPatchError, ValueError):
        return False
