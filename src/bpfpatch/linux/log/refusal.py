"""A refusal, understood: what the verifier complained about, where, and why, as data.

::

    try:
        kernel.load(program)
    except kernel.VerifierError as error:
        print(bp.Refusal.of(error, program))
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.bpf.errors import VerifierError
from bpfpatch.bpf.log import EXPLANATION, summarize
from bpfpatch.errors import Where
from bpfpatch.program import Program
from bpfpatch.program.types import INSERTED, Slots

from .blame import Cause, slice_of
from .failpath import FailPath, PathStep, read_path
from .messages import Family, Flaw, figures, find_rule
from .regstate import RegState
from .stats import VerifierStats

_REASON: Final = re.compile(r"^Reason:\n((?:  .*\n)+)", re.MULTILINE)
_TITLE: Final = re.compile(r"^Verification failed: (.*)$", re.MULTILINE)
_ARG_REGS: Final = range(1, 6)


class Rewriting(Protocol):
    """Where a rewritten program comes from: a `Remap`, or what of it went into one program."""

    @property
    def orig(self) -> Slots:
        """(n,) slot of the original, or INSERTED."""

    @property
    def origin(self) -> NDArray[np.uint16]:
        """(n,) index into ``passes`` of the pass that inserted it."""

    @property
    def passes(self) -> tuple[str, ...]:
        """Names of passes; the first stands for the input."""


@dataclass(frozen=True, slots=True, eq=False)
class LinkedFrom:
    """Where the slots of a program come from that was linked from a rewritten object.

    Attributes:
        orig: see `Rewriting`.
        origin: the same.
        passes: the same.
    """

    orig: Slots
    origin: NDArray[np.uint16]
    passes: tuple[str, ...]

    @classmethod
    def of(cls, remap: Rewriting, slots: Slots) -> Self:
        """That of a program whose slots are these of the rewritten object, or INSERTED."""
        known = np.maximum(slots, 0)
        orig = np.where(slots >= 0, remap.orig[known], INSERTED).astype(np.int32)
        origin = np.where(slots >= 0, remap.origin[known], 0).astype(np.uint16)
        return cls(orig, origin, remap.passes)


@dataclass(frozen=True, slots=True)
class SliceStep:
    """One instruction that had a part in making a value what it is.

    Attributes:
        where: the instruction, in the program that was submitted.
        original: the same in the original; None where it was inserted, or nothing is known.
        frame: depth of its function.
        before: what was known of the registers that it reads.
        branch: for a conditional jump whether it was taken; None for what is none.
    """

    where: Where
    original: Where | None
    frame: int
    before: tuple[tuple[str, RegState], ...]
    branch: bool | None

    def __str__(self) -> str:
        place = self.original or self.where
        known = ", ".join(f"{name}={state}" for name, state in self.before)
        decision = {None: "", True: ", taken", False: ", not taken"}[self.branch]
        source = f" ({place.source})" if place.source else ""
        return f"{place.slot}: {place.text}{source}{decision}" + (f"; {known}" if known else "")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the verifier refused a program.

    Attributes:
        message: its sentence.
        kind: what it is about.
        family: who has to do something about it.
        where: the instruction, in the program that was submitted; None where there is none.
        original: the same in the original program; None where a pass inserted it.
        inserted_by: the pass that inserted it, or "".
        register: the register that it is about; None where the verifier names none.
        stack_off: bytes from the frame's top, where it is about the stack; None otherwise.
        known: what was known of the register.
        needs: what was needed, in words.
        numbers: what the sentence and the line above name: ``off``, ``size``, ``region``, ...
        words: the same for words: ``got``, ``want``, ...
        steps: the instructions that made the register what it is, oldest first.
        path: the whole path.
        advice: what usually helps, or "".
        explained: what newer kernels say of the reason, or "".
        stats: how far the verifier got; None where it did not start.
        log: all of it.
    """

    message: str
    kind: Flaw
    family: Family
    where: Where | None
    original: Where | None
    inserted_by: str
    register: int | None
    stack_off: int | None
    known: RegState | None
    needs: str
    numbers: Mapping[str, int]
    words: Mapping[str, str]
    steps: tuple[SliceStep, ...]
    path: FailPath
    advice: str
    explained: str
    stats: VerifierStats | None
    log: str

    @classmethod
    def of(
        cls,
        error: VerifierError,
        program: Program,
        remap: Rewriting | None = None,
        original: Program | None = None,
    ) -> Self:
        """Read what the verifier said of a program.

        Args:
            error: the refusal.
            program: what was submitted.
            remap: from the original to that, where it was rewritten.
            original: the original.
        """
        return cls.from_log(error.log, program, remap, original)

    @classmethod
    def from_log(
        cls,
        log: str,
        program: Program,
        remap: Rewriting | None = None,
        original: Program | None = None,
    ) -> Self:
        """Read a log of level 1; of level 2 it shows what came before the failing path, too."""
        names = _Names(program, remap, original)
        text = log.split(EXPLANATION, 1)[0]
        summary = summarize(log)
        rule, words = find_rule(summary.message)
        path = read_path(text)
        step = path.last
        slot = summary.slot if summary.slot is not None else (step.slot if step else None)
        register = _register(words, step, program)
        known = None if step is None or register is None else step.before.get(f"R{register}")
        causes = slice_of(path, program.insns, register)
        explained = _REASON.search(log)
        title = _TITLE.search(log)
        reason = "" if explained is None else " ".join(explained[1].split())
        return cls(
            message=summary.message,
            kind=rule.kind,
            family=rule.family,
            where=None if slot is None else program.where(slot),
            original=None if slot is None else names.original(slot),
            inserted_by="" if slot is None else names.inserted_by(slot),
            register=register,
            stack_off=_stack_off(words, step, known, program),
            known=known,
            needs=rule.needs.format(**{"reg": "?", "arg": "?", "want": "?", **words}),
            numbers=figures(_tail(text)),
            words=words,
            steps=tuple(names.step(path, cause) for cause in causes),
            path=path,
            advice=rule.advice,
            explained=f"{title[1]}: {reason}" if title and reason else reason,
            stats=VerifierStats.from_log(log),
            log=log,
        )

    def lines(self) -> Iterator[str]:
        """The refusal as a report of a screen."""
        place = self.original or self.where
        yield f"refused: {self.message}" if self.message else "refused"
        if place is not None:
            yield f"  at {place}"
        if self.inserted_by:
            yield f"  which {self.inserted_by} inserted; in the rewritten program {self.where}"
        if self.path.function:
            yield f"  in {self.path.function}(), which is global and looked at by itself"
        if self.explained:
            yield f"  {self.explained}"
        if self.needs:
            yield f"  the verifier needs {self.needs}"
        if self.register is not None:
            known = "nothing: it was not set" if self.known is None else str(self.known)
            yield f"  it knows of R{self.register}: {known}"
        if self.steps:
            yield "  how that came about, oldest first:"
            yield from (f"    {step}" for step in self.steps)
        if self.advice:
            yield f"  what usually helps: {self.advice}"
        if self.kind is Flaw.UNKNOWN:
            yield "  this sentence is not understood; the log has all"

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def to_json(self) -> dict[str, Any]:
        """In JSON's types, without the log."""
        return {
            "message": self.message,
            "kind": self.kind.name.lower(),
            "family": self.family.value,
            "slot": None if self.where is None else self.where.slot,
            "original_slot": None if self.original is None else self.original.slot,
            "subprog": "" if self.where is None else self.where.subprog,
            "source": "" if self.where is None else self.where.source,
            "insn": "" if self.where is None else self.where.text,
            "inserted_by": self.inserted_by,
            "register": self.register,
            "stack_off": self.stack_off,
            "known": None if self.known is None else self.known.text,
            "needs": self.needs,
            "numbers": dict(self.numbers),
            "slice": [str(step) for step in self.steps],
            "advice": self.advice,
            "explained": self.explained,
        }


@dataclass(frozen=True, slots=True)
class _Names:
    """Places in the program that was submitted, and in the original."""

    program: Program
    remap: Rewriting | None
    source: Program | None

    def original(self, slot: int) -> Where | None:
        """A slot's place in the original."""
        if self.remap is None or self.source is None or slot >= self.remap.orig.size:
            return None
        old = int(self.remap.orig[slot])
        return self.source.where(old) if old >= 0 else None

    def inserted_by(self, slot: int) -> str:
        """The pass that inserted an instruction."""
        if self.remap is None or slot >= self.remap.origin.size:
            return ""
        return self.remap.passes[int(self.remap.origin[slot])]

    def step(self, path: FailPath, cause: Cause) -> SliceStep:
        """A step of a slice."""
        step = path.steps[cause.index]
        read = int(isa.reads(self.program.insns[step.slot : step.slot + 1])[0])
        names = [f"R{reg}" for reg in range(10) if read >> reg & 1]
        return SliceStep(
            self.program.where(step.slot),
            self.original(step.slot),
            step.frame,
            tuple((name, step.before[name]) for name in names if name in step.before),
            cause.is_taken if cause.is_branch else None,
        )


def _register(words: Mapping[str, str], step: PathStep | None, program: Program) -> int | None:
    """The register that a sentence names, or that its instruction goes through."""
    if "reg" in words:
        return int(words["reg"])
    if "arg" in words and int(words["arg"]) + 1 in _ARG_REGS:  # kfuncs count them from 0
        return int(words["arg"]) + 1
    if step is None or step.slot >= len(program):
        return None
    insn = program.insns[step.slot : step.slot + 1]
    kind = step.code & 7
    if kind in (1, 3):  # where a load is from, and what a store is of
        return int(isa.src(insn)[0])
    return int(isa.dst(insn)[0]) if kind in (4, 7) else None


def _stack_off(
    words: Mapping[str, str], step: PathStep | None, known: RegState | None, program: Program
) -> int | None:
    """The place in the frame that a refusal is about."""
    if "off" in words and "at" in words:
        return int(words["off"]) + int(words["at"])
    if step is None or step.slot >= len(program) or step.code & 7 not in (1, 2, 3):
        return None
    insn = program.insns[step.slot : step.slot + 1]
    base = int(isa.src(insn)[0] if step.code & 7 == 1 else isa.dst(insn)[0])
    state = step.before.get(f"R{base}")
    off = int(insn["off"][0])
    if base == 10:
        return off
    if state is not None and state.kind == "fp" and state.frame is None:
        return state.off + off
    return None if known is None or known.kind != "fp" else known.off + off


def _tail(text: str) -> tuple[str, ...]:
    """The sentence and the two lines in front of it."""
    lines = [line for line in text.rstrip("\n").split("\n") if not line.startswith("processed ")]
    lines = [line for line in lines[-8:] if not re.match(r"(verification time|stack depth)", line)]
    return tuple(lines[-3:])
