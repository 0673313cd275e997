"""Every error that bpfpatch raises on purpose, in one tree.

::

    BpfPatchError
    |-- FormatError            bytes that are not what they should be: has byte_off
    |   `-- AsmError           text that is not what it should be: has line and column
    |-- OptionError            a pipeline, pass option or argument that makes no sense
    |-- UnsupportedError       well-formed input that this project cannot handle safely
    |   |-- StaleDebugError    DWARF would go stale and the caller asked to refuse that
    |   `-- LinkError          the flat program that a loader would submit cannot be made
    |-- SlotError              something about one instruction: has slot, subprog, source
    |   |-- OpcodeError        an opcode that the table does not have
    |   |-- EditError          an edit of a node that is deleted, or was never there
    |   |-- ReachError         a jump or call whose distance does not fit its field
    |   |-- LostTargetError    a jump or call whose target is gone
    |   `-- LostRowError       a table row that must not lose its instruction has lost it
    `-- ValidationError        all structural violations of one program: has violations

A message says what is wrong, where, which limit was broken and what to do
about it. The numbers in it are attributes too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self


class BpfPatchError(Exception):
    """Base of all errors that this package raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Errors cross processes whole, whatever their constructors take."""
        return _restored, (type(self), self.args, vars(self))


def _restored(
    cls: type[BpfPatchError], args: tuple[Any, ...], attributes: dict[str, Any]
) -> BpfPatchError:
    error = cls.__new__(cls, *args)
    vars(error).update(attributes)
    return error


class FormatError(BpfPatchError):
    """Bytes that break the format they claim to be in.

    Attributes:
        byte_off: where, in bytes from the start of the input; None where no
            single place is to blame.
        what: the sentence without the place.
    """

    def __init__(self, what: str, byte_off: int | None = None) -> None:
        self.what = what
        self.byte_off = byte_off
        super().__init__(what if byte_off is None else f"at byte {byte_off:#x}: {what}")


class AsmError(FormatError):
    """Assembly text that cannot be read.

    Attributes:
        line: 1-based line.
        column: 1-based column.
    """

    def __init__(self, what: str, line: int, column: int) -> None:
        super().__init__(what)
        self.line = line
        self.column = column
        self.args = (f"line {line}, column {column}: {what}",)


class OptionError(BpfPatchError):
    """An option, pipeline or argument that makes no sense."""


class UnsupportedError(BpfPatchError):
    """Well-formed input that cannot be handled without risking a wrong result."""


class StaleDebugError(UnsupportedError):
    """Moving code would make DWARF stale, and the caller asked to refuse that."""


class LinkError(UnsupportedError):
    """The flat program that a loader would submit cannot be made."""


@dataclass(frozen=True, slots=True)
class Where:
    """One instruction's place, as far as it is known.

    Attributes:
        slot: index into the instruction array.
        subprog: name of the function, or "".
        source: ``file:line``, or "".
        text: the instruction as assembly, or "".
    """

    slot: int
    subprog: str = ""
    source: str = ""
    text: str = ""

    def __str__(self) -> str:
        out = f"insn {self.slot}"
        if self.subprog:
            out += f" in subprog {self.subprog}"
        if self.source:
            out += f" ({self.source})"
        if self.text:
            out += f" `{self.text}`"
        return out


class SlotError(BpfPatchError):
    """Something is wrong with one instruction.

    Attributes:
        where: the instruction's place.
        what: the sentence without the place.
        others: further errors of the same kind, found in the same go; the first hundred.
    """

    def __init__(self, where: Where, what: str) -> None:
        self.where = where
        self.what = what
        self.others: tuple[SlotError, ...] = ()
        super().__init__(f"{where}: {what}")

    def with_others(self, others: Sequence[SlotError], n_others: int) -> Self:
        """This error, as the first of several: ``n_others``, of which some are at hand."""
        self.others = tuple(others)
        if n_others:
            self.args = (f"{self.args[0]} (and {n_others} more of this kind)",)
        return self

    @property
    def slot(self) -> int:
        """The instruction's slot."""
        return self.where.slot


class OpcodeError(SlotError):
    """An opcode that the table does not have, so that it might hide a reference."""


class EditError(SlotError):
    """An edit of a node that is deleted or was never there, or with a body that cannot go there."""


class ReachError(SlotError):
    """A jump or call whose distance does not fit its field.

    Attributes:
        target: slot that the reference names.
        distance: slots from the next instruction to the target.
        limit: the farthest that the field holds in that direction.
    """

    def __init__(self, where: Where, target: Where, distance: int, limit: int, hint: str) -> None:
        self.target = target
        self.distance = distance
        self.limit = limit
        super().__init__(
            where,
            f"the reference to {target} spans {distance} slots, its field holds {limit}; {hint}",
        )


class LostTargetError(SlotError):
    """A jump or call whose target was deleted with nothing after it to land on."""


class LostRowError(SlotError):
    """A table row that must not lose its instruction has lost it.

    Attributes:
        table: the table's name.
        row: the row's index in it.
    """

    def __init__(self, where: Where, table: str, row: int, what: str) -> None:
        self.table = table
        self.row = row
        super().__init__(where, what)


class ValidationError(BpfPatchError):
    """All structural violations of one program, reported together.

    Attributes:
        violations: one SlotError each, in slot order.
    """

    def __init__(self, violations: Sequence[SlotError]) -> None:
        self.violations = tuple(violations)
        lines = [str(violation) for violation in self.violations]
        super().__init__(
            lines[0]
            if len(lines) == 1
            else f"{len(lines)} violations:\n" + "\n".join(f"  {line}" for line in lines)
        )
