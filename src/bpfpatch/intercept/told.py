"""Loads as lines of text."""

from __future__ import annotations

import errno

from bpfpatch.bpf.intercept import LoadOutcome


def told_load(outcome: LoadOutcome) -> str:
    """One line: who loads what, how large it is, and what the kernel said."""
    request = outcome.request
    if request is None:
        return f"[{outcome.tid}] a program that was not read: {_ending(outcome)}"
    return (
        f"{request.comm}[{outcome.tid}] {request.name or '-':<24} {request.type.text:<16} "
        f"{request.n_slots:>6} insns {len(request.map_fds):>3} maps  {_ending(outcome)}"
    )


def _ending(outcome: LoadOutcome) -> str:
    verdict = outcome.verdict
    if verdict is None:
        return outcome.ending
    said: str = outcome.ending
    if verdict.errno:
        said += f" ({errno.errorcode.get(verdict.errno, verdict.errno)})"
    if outcome.is_rewritten:
        said += ", rewritten"
    return f"{said}, {1000 * verdict.seconds:.2f} ms"
