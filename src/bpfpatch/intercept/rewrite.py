"""Run a pipeline on what a command loads."""

from __future__ import annotations

from bpfpatch.bpf.loadrequest import LoadRequest
from bpfpatch.passes import Pipeline, Result, Target

from .choice import Choice


class Rewriter:
    """A function for `bpfpatch.bpf.intercept` that runs a pipeline.

    Args:
        pipeline: what to run.
        choice: on which programs.
        target: for whom.
    """

    def __init__(self, pipeline: Pipeline, choice: Choice, target: Target | None = None) -> None:
        self._pipeline = pipeline
        self._choice = choice
        self._target = target or pipeline.target

    def __call__(self, request: LoadRequest) -> Result | None:
        """The program to load instead; None for the original."""
        if request not in self._choice:
            return None
        return self._pipeline.run(request.program, self._target, request.subject)
