"""What a pass may know beside the list: for whom it rewrites, and what."""

from __future__ import annotations

from dataclasses import dataclass

from bpfpatch.facts import Subject

from .target import Target


@dataclass(frozen=True, slots=True)
class Setting:
    """What a pass may know beside the list.

    Attributes:
        target: who is to run the result.
        subject: what a loader knows of the program; None where nobody said.
    """

    target: Target
    subject: Subject | None = None
