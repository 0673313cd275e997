"""Load programs to see what the verifier says of them: figures, or a refusal."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any, Final

from bpfpatch.bpf.errors import KernelError, VerifierError
from bpfpatch.bpf.loaded import LoadedProgram
from bpfpatch.elf import LinkedProgram
from bpfpatch.errors import BpfPatchError
from bpfpatch.loader.guess import Guess, require_type
from bpfpatch.loader.load import load
from bpfpatch.loader.object import KernelObject
from bpfpatch.program import Program

from .refusal import LinkedFrom, Refusal, Rewriting
from .stats import VerifierStats

_FIGURES: Final = 4
_PATH: Final = 1


@dataclass(frozen=True, slots=True)
class LoadVerdict:
    """What loading one program gave.

    Attributes:
        name: the program's.
        section: the section that it is in, or "".
        type: the kind that it was loaded as, or "".
        loaded: the program in the kernel; None where it was refused.
        stats: what the verifier counted; None where it did not get as far.
        refusal: what the verifier complained about; None where it did not.
        error: what went wrong; None where nothing did.
        seconds: time that it took, ours included.
    """

    name: str
    section: str
    type: str
    loaded: LoadedProgram | None
    stats: VerifierStats | None
    refusal: Refusal | None
    error: BpfPatchError | None
    seconds: float

    @property
    def is_loaded(self) -> bool:
        """Whether the kernel took it."""
        return self.loaded is not None

    @property
    def reason(self) -> str:
        """Why it was not loaded, in a line; "" where it was."""
        if self.error is None:
            return ""
        if self.refusal is None or not self.refusal.message:
            return str(self.error)
        place = self.refusal.original or self.refusal.where
        return self.refusal.message if place is None else f"{place}: {self.refusal.message}"


def judge_linked(
    opened: KernelObject,
    linked: LinkedProgram,
    guess: Guess,
    rewriting: Rewriting | None = None,
    original: Program | None = None,
) -> LoadVerdict:
    """Load one program of an open object, which keeps it until it is closed.

    Args:
        opened: the object.
        linked: the program, as it is or rewritten.
        guess: how to load it.
        rewriting: where the object's code comes from, if it was rewritten: its `Remap`.
        original: the code that it was; places are told in that.
    """

    def attempt(**options: Any) -> LoadedProgram:
        prog_type = require_type(linked.name, linked.section, guess)
        return opened.load(
            linked, prog_type=prog_type, attach_type=guess.attach_type, keep_log=True, **options
        )

    kind = "" if guess.type is None else guess.type.text
    came_from = None if rewriting is None else LinkedFrom.of(rewriting, linked.origin)
    verdict = _judge(attempt, linked.program, linked.name, linked.section, kind)
    if verdict.refusal is None or came_from is None:
        return verdict
    refusal = Refusal.from_log(verdict.refusal.log, linked.program, came_from, original)
    return replace(verdict, refusal=refusal)


def judge_flat(program: Program, guess: Guess, name: str = "") -> LoadVerdict:
    """Load a flat program; close its ``loaded`` in the end.

    Args:
        program: the program; its maps are descriptors.
        guess: how to load it.
        name: what to call it.
    """

    def attempt(**options: Any) -> LoadedProgram:
        return load(program, prog_type=guess.type, name=name, keep_log=True, **options)

    kind = "" if guess.type is None else guess.type.text
    return _judge(attempt, program, name, "", kind)


def _judge(attempt: Any, program: Program, name: str, section: str, kind: str) -> LoadVerdict:
    """Load for the figures alone; what is refused, once more for the path that it is refused on."""
    start = time.monotonic()
    loaded: LoadedProgram | None = None
    refusal: Refusal | None = None
    error: BpfPatchError | None = None
    stats = None
    try:
        loaded = attempt(log_level=_FIGURES)
    except KernelError:
        try:
            loaded = attempt(log_level=_PATH)
        except VerifierError as caught:
            refusal, error = Refusal.of(caught, program), caught
            stats = refusal.stats
        except BpfPatchError as caught:
            error = caught
    except BpfPatchError as caught:
        error = caught
    if loaded is not None:
        stats = VerifierStats.from_log(loaded.log)
    seconds = time.monotonic() - start
    return LoadVerdict(name, section, kind, loaded, stats, refusal, error, seconds)
