"""Shrink an object."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bpfpatch import kernel
from bpfpatch.elf import ElfObject
from bpfpatch.errors import BpfPatchError
from bpfpatch.facts.kinds import ProgType
from bpfpatch.passes import Result

from .judge import KernelJudge
from .report import ShrinkReport
from .search import Search, Wish


@dataclass(frozen=True, slots=True, eq=False)
class Shrunk:
    """What shrinking gave.

    Attributes:
        obj: the smaller object.
        result: the pass's, with its remap from the original.
        report: what was done.
    """

    obj: ElfObject
    result: Result
    report: ShrinkReport


def shrink_object(
    obj: ElfObject,
    *,
    name: str = "",
    prog_type: ProgType | None = None,
    asks_kernel: bool = True,
    wish: Wish | None = None,
    progress: Callable[[str], None] | None = None,
) -> Shrunk:
    """Make an object smaller; where there is a kernel, no program that loads gets worse.

    Worse is one that does not load any more, or costs the verifier more than 1 % more
    instructions. Functions of programs that do not load here, and all where there is no kernel to
    ask, are shrunk by safe steps only.

    Args:
        obj: stays as it is.
        name: of it, for its maps' names in the kernel.
        prog_type: kind of all programs; by default what the sections say.
        asks_kernel: whether to ask the running kernel, if that can be done.
        wish: how to shrink.
        progress: told what goes on.

    Raises:
        BpfPatchError: the object is broken, or cannot be rewritten.
    """
    judge: KernelJudge | None = None
    notices: tuple[str, ...] = ()
    if asks_kernel:
        judge, notices = _open(obj, name, prog_type)
    search = Search(obj, judge, wish or Wish(), progress)
    try:
        made, result = search.run()
    finally:
        if judge is not None:
            judge.close()
    return Shrunk(made, result, ShrinkReport.of(obj, result, search, notices))


def _open(
    obj: ElfObject, name: str, prog_type: ProgType | None
) -> tuple[KernelJudge | None, tuple[str, ...]]:
    """Who judges, and why it is not the kernel if it is not."""
    reason = kernel.available()
    if reason is None:
        try:
            return KernelJudge(obj, name, prog_type), ()
        except BpfPatchError as error:
            reason = str(error)
    return None, (f"the kernel was not asked, so that only safe steps were taken: {reason}",)
