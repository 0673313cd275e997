"""Loads that the verifier refuses: why, and what mends them."""

from __future__ import annotations

import os

import numpy as np

from bpfpatch.bpf.errors import KernelError, VerifierError
from bpfpatch.bpf.loaded import LoadedProgram
from bpfpatch.bpf.loadrequest import Attempt, LoadRequest
from bpfpatch.bpf.log import summarize
from bpfpatch.errors import BpfPatchError
from bpfpatch.facts.kinds import ProgType
from bpfpatch.linux.log.judge import LoadVerdict
from bpfpatch.linux.log.refusal import Refusal
from bpfpatch.linux.log.stats import VerifierStats
from bpfpatch.passes.setting import ObjectEdit
from bpfpatch.patch import Linearized
from bpfpatch.program import Program
from bpfpatch.program.types import Slots
from bpfpatch.repair import Limits, RepairReport
from bpfpatch.repair.rounds import Rounds


def refusal_of(request: LoadRequest) -> Refusal | None:
    """Why the verifier refuses a load; None where it is not the verifier that does."""
    tried = request.attempt(log_level=1)
    if tried.verdict.handle is not None:
        tried.verdict.handle.close()
        return None
    error = _error(request, tried, request.program)
    return Refusal.of(error, request.program) if isinstance(error, VerifierError) else None


def repaired(
    request: LoadRequest, limits: Limits | None = None
) -> tuple[Program | None, RepairReport]:
    """Mend a load that the verifier refuses: the program that loads, or None; and how.

    Raises:
        BpfPatchError: the program cannot be worked on.
    """
    rounds = Rounds(_Source(request), limits or Limits())
    rounds.run()
    is_whole = all(program.is_loaded for program in rounds.report.programs)
    return (rounds.code.program if is_whole else None), rounds.report


def _error(request: LoadRequest, tried: Attempt, program: Program) -> BpfPatchError:
    verdict = tried.verdict
    summary = summarize(verdict.text)
    if not summary.message:
        return KernelError(verdict.errno, f"loading {request.name or 'a program'}")
    where = None if summary.slot is None else program.where(summary.slot)
    return VerifierError(verdict.errno, summary.message, verdict.text, where)


class _Source:
    """One load, for `Rounds`: tried with all that the process has given."""

    edit: ObjectEdit | None = None

    def __init__(self, request: LoadRequest) -> None:
        self._request = request

    @property
    def program(self) -> Program:
        return self._request.program

    def names(self) -> list[str]:
        return [self._request.name]

    def type_of(self, name: str) -> ProgType | None:
        del name
        return self._request.type

    def load(self, name: str, code: Linearized) -> tuple[LoadVerdict, Slots]:
        request = self._request
        tried = request.attempt(code.program, log_level=1)
        verdict = tried.verdict
        slots = np.arange(len(code.program), dtype=np.int32)
        loaded: LoadedProgram | None = None
        error: BpfPatchError | None = None
        if verdict.handle is not None:
            with verdict.handle as handle:
                loaded = LoadedProgram(os.dup(handle.fd), name, request.type, code.program)
            loaded.close()
        else:
            error = _error(request, tried, code.program)
        refusal = Refusal.of(error, code.program) if isinstance(error, VerifierError) else None
        stats = VerifierStats.from_log(verdict.text)
        kind = request.type.text
        told = LoadVerdict(name, "", kind, loaded, stats, refusal, error, verdict.seconds)
        return told, slots

    def close(self) -> None:
        """Nothing is open."""
