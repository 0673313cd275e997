"""What kind of programs an object has, where not every section says so."""

from __future__ import annotations

from dataclasses import dataclass

from bpfpatch.elf import ElfObject
from bpfpatch.errors import OptionError
from bpfpatch.facts.kinds import AttachType, ProgType
from bpfpatch.facts.sections import section_kind


@dataclass(frozen=True, slots=True)
class Guess:
    """How to load a program.

    Attributes:
        type: kind of program; None where nothing tells.
        attach_type: for `bpfpatch.loader.load`; None where the section tells.
        is_guessed: whether the section does not tell, and other programs of the object do.
    """

    type: ProgType | None
    attach_type: AttachType | None = None
    is_guessed: bool = False


def named_type(text: str) -> ProgType:
    """A kind of program by its name, or by that of a section: ``sched_cls`` or ``classifier``.

    Raises:
        OptionError: there is none.
    """
    found = section_kind(text).type
    return ProgType.of(text) if found is None or text.upper() in ProgType.__members__ else found


def guess_types(obj: ElfObject, given: ProgType | None = None) -> dict[str, Guess]:
    """How to load each program of an object.

    A section that says nothing, such as ``2/1`` for a place in a map of tail calls, goes with the
    rest of the object, if that is of one kind: the programs of such a map must have the same.

    Args:
        obj: the object.
        given: kind of all programs, whatever their sections say.

    Raises:
        FormatError: the object is broken.
    """
    if given is not None:
        return {info.name: Guess(given) for info in obj.programs}
    kinds = {info.name: section_kind(info.section) for info in obj.programs}
    told = {(kind.type, kind.attach_type) for kind in kinds.values() if kind.type is not None}
    types = {prog_type for prog_type, _ in told}
    attach = {attach_type for _, attach_type in told}
    other = Guess(None)
    if len(types) == 1:
        other = Guess(types.pop(), attach.pop() if len(attach) == 1 else AttachType(0), True)
    return {name: other if kind.type is None else Guess(kind.type) for name, kind in kinds.items()}


def require_type(name: str, section: str, guess: Guess) -> ProgType:
    """The kind of a program.

    Raises:
        OptionError: nothing tells.
    """
    if guess.type is None:
        raise OptionError(
            f"section {section!r} of program {name!r} does not tell its type, and the object's "
            "other programs do not agree on one; give --type"
        )
    return guess.type
