"""What was mended, and why that is sound."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from bpfpatch.errors import Where
from bpfpatch.text import plural


class Order(Enum):
    """How sure a mending is."""

    SAME = "nothing changes"
    """No input of the program sees a difference; ``shown_by`` says how that was shown."""
    GUARD = "guard"
    """A check in front of the use: it ends the run only where the use would have been wrong."""


@dataclass(frozen=True, slots=True)
class Mending:
    """One piece that was put in.

    Attributes:
        kind: of mending: ``unset``, ``spill``, ``guard-scalar`` and so on.
        order: how sure it is.
        shown_by: by what a mending of the first order is known to change nothing: ``rule`` for
            what follows from the instruction set, ``dataflow``, or ``z3``; "" for a guard.
        program: whose refusal it answers.
        where: the refused instruction, in the original; or, where that was inserted, as it was.
        refusal: the verifier's sentence.
        why: the rule by which it is sound, in a sentence.
        inserted: instructions that were added.
        round: of this program, from 1 on.
    """

    kind: str
    order: Order
    shown_by: str
    program: str
    where: Where
    refusal: str
    why: str
    inserted: int
    round: int

    def __str__(self) -> str:
        shown = f", shown by {self.shown_by}" if self.shown_by else ""
        return (
            f"{self.kind} ({self.order.value}{shown}) at {self.where}: {self.refusal}; "
            f"{plural(self.inserted, 'instruction')}: {self.why}"
        )

    def to_json(self) -> dict[str, Any]:
        """In JSON's types."""
        return {
            "kind": self.kind,
            "order": self.order.name.lower(),
            "shown_by": self.shown_by,
            "program": self.program,
            "slot": self.where.slot,
            "subprog": self.where.subprog,
            "source": self.where.source,
            "insn": self.where.text,
            "refusal": self.refusal,
            "why": self.why,
            "inserted": self.inserted,
            "round": self.round,
        }


@dataclass
class ProgramReport:
    """What became of one program.

    Attributes:
        name: the program's.
        was_loaded: whether it loaded as it was.
        is_loaded: whether it loads now.
        rounds: how often something was mended for it.
        reason: why it does not load, or "".
    """

    name: str
    was_loaded: bool = False
    is_loaded: bool = False
    rounds: int = 0
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """In JSON's types."""
        return {
            "program": self.name,
            "was_loaded": self.was_loaded,
            "is_loaded": self.is_loaded,
            "rounds": self.rounds,
            "reason": self.reason,
        }


@dataclass
class RepairReport:
    """What a repair did.

    Attributes:
        programs: of the object.
        mendings: what was put in, in order.
        insns_before: slots of the code as it was.
        insns_after: and as it is.
        seconds: that it took.
        seconds_in_kernel: of these, loading.
    """

    programs: list[ProgramReport] = field(default_factory=list)
    mendings: list[Mending] = field(default_factory=list)
    insns_before: int = 0
    insns_after: int = 0
    seconds: float = 0.0
    seconds_in_kernel: float = 0.0

    @property
    def is_whole(self) -> bool:
        """Whether all programs load."""
        return all(program.is_loaded for program in self.programs)

    @property
    def n_first_order(self) -> int:
        """How many mendings change nothing for any input."""
        return sum(mending.order is Order.SAME for mending in self.mendings)

    def lines(self) -> Iterator[str]:
        """The report as text."""
        for program in self.programs:
            if program.was_loaded and program.is_loaded:
                continue
            word = "loads now" if program.is_loaded else "is still refused"
            yield f"{program.name} {word}, after {plural(program.rounds, 'mending')}"
            yield from (
                f"  {mending}" for mending in self.mendings if mending.program == program.name
            )
            if program.reason:
                yield f"  {program.reason}"
        n_loaded = sum(program.is_loaded for program in self.programs)
        added = self.insns_after - self.insns_before
        yield (
            f"{n_loaded} of {plural(len(self.programs), 'program')} load; "
            f"{plural(len(self.mendings), 'mending')}, "
            f"{self.n_first_order} of which change nothing; {added} slots added to "
            f"{self.insns_before}; {self.seconds:.1f} s, {self.seconds_in_kernel:.1f} s of them "
            "loading"
        )

    def to_json(self) -> dict[str, Any]:
        """In JSON's types."""
        return {
            "programs": [program.to_json() for program in self.programs],
            "mendings": [mending.to_json() for mending in self.mendings],
            "insns_before": self.insns_before,
            "insns_after": self.insns_after,
            "seconds": round(self.seconds, 3),
            "seconds_in_kernel": round(self.seconds_in_kernel, 3),
        }
