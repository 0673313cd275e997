"""``bpfpatch verify FOLDER FOLDER``: one line for each object."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bpfpatch.errors import BpfPatchError
from bpfpatch.text import plural
from bpfpatch.verify import Verdict, verify_objects

from .failure import Failure
from .folders import Folder, one_line, read_folder
from .inputs import read_object
from .screen import echo, progress

_LOST = "lost"


@dataclass(frozen=True)
class ObjectVerdict:
    """What came of one object.

    Attributes:
        name: its name in both folders.
        verdicts: of its programs.
        error: why it could not be compared at all, or "".
        is_lost: whether the second folder has no object of this name.
    """

    name: str
    verdicts: tuple[Verdict, ...] = ()
    error: str = ""
    is_lost: bool = False

    @property
    def word(self) -> str:
        """``lost``, ``different``, ``unchecked`` or ``same``, the first that holds."""
        if self.is_lost:
            return _LOST
        if any(one.differs for one in self.verdicts):
            return "different"
        checked = bool(self.verdicts) and all(one.is_wholly_checked for one in self.verdicts)
        return "same" if checked and not self.error else "unchecked"

    def lines(self, *, brief: bool) -> Iterator[str]:
        """One line, and below it the programs that differ or were not checked."""
        yield f"{self.name}: {self._summary()}"
        if brief:
            return
        for one in self.verdicts:
            if one.differs or not one.is_wholly_checked:
                yield from (f"  {line}" for line in one.lines())

    def _summary(self) -> str:
        if self.is_lost:
            return "LOST (the second folder has no such object)"
        if self.error:
            return f"not checked: {self.error}"
        n_inputs = sum(sum(one.runs.values()) for one in self.verdicts)
        seconds = sum(one.seconds for one in self.verdicts)
        word = {"different": "DIFFERENT", "unchecked": "not checked"}.get(self.word, self.word)
        bad = [one.name for one in self.verdicts if one.differs or not one.is_wholly_checked]
        n_programs = len(self.verdicts)
        parts = [
            plural(n_programs, "program"),
            *([] if self.word == "same" else [f"of these {', '.join(bad)}"]),
            plural(n_inputs, "input"),
            f"{seconds:.1f} s",
        ]
        return f"{word} ({'; '.join(parts)})"

    def to_json(self) -> dict[str, Any]:
        """In JSON's types."""
        return {
            "file": self.name,
            "verdict": self.word,
            "error": self.error or None,
            "programs": [one.to_json() for one in self.verdicts],
        }


def verify_folders(
    a: str, b: str, options: dict[str, Any], *, brief: bool, quiet: bool
) -> list[ObjectVerdict]:
    """Compare the objects of two folders by name, and print a line for each as soon as it is done.

    Raises:
        Failure: a folder cannot be read, or holds no objects.
    """
    before, after = read_folder(a), read_folder(b)
    out = []
    with progress("verifying") as tell:
        for number, name in enumerate(before.objects):
            tell(f"{name} ({number + 1} of {len(before.objects)})")
            out.append(_compared(before, after, name, options))
            for line in () if quiet else out[-1].lines(brief=brief):
                echo(line)
    more = sorted(set(after.objects) - set(before.objects))
    if more and not quiet:
        echo(f"{b}: note: only here, and compared with nothing: {', '.join(more)}", err=True)
    return out


def _compared(before: Folder, after: Folder, name: str, options: dict[str, Any]) -> ObjectVerdict:
    if name not in after.objects:
        return ObjectVerdict(name, is_lost=True)
    try:
        _, old = read_object(before.file(name))
        _, new = read_object(after.file(name))
        return ObjectVerdict(name, tuple(verify_objects(old, new, **options)))
    except (Failure, BpfPatchError) as error:
        return ObjectVerdict(name, error=one_line(error))
