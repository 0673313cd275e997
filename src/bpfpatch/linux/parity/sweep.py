"""Whole objects: each program loaded, compared, and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, Literal

from bpfpatch.bpf.harden import SETTING
from bpfpatch.bpf.loaded import LoadedProgram
from bpfpatch.bpf.loadedbtf import vmlinux_btf
from bpfpatch.elf import ElfObject
from bpfpatch.errors import BpfPatchError
from bpfpatch.linux.log.auxload import LOG_LEVEL, with_aux
from bpfpatch.linux.verifier.auxdata import aux_data
from bpfpatch.linux.versions import running, text
from bpfpatch.loader.object import KernelObject
from bpfpatch.loader.subject import Submitted, submitted_of
from bpfpatch.passes import Pipeline

from .compare import Parity, compare

Source = Literal["kernel", "offline"]
SOURCES: Final[tuple[Source, ...]] = ("kernel", "offline")


class Status(StrEnum):
    """What came of one program."""

    EQUAL = "equal"
    DIFFERENT = "different"
    FAILED = "failed"
    """Our side cannot handle it, or the kernel does not show its code."""
    REFUSED = "refused"
    """The kernel does not load it: nothing to compare with."""


@dataclass(frozen=True, slots=True, eq=False)
class SweepRow:
    """One program, compared with one source of aux data.

    Attributes:
        object: the object's name.
        program: the program's name; "" for an object that cannot be opened.
        source: of the aux data.
        status: what came of it.
        cause: of a difference or failure, in words by which they can be counted.
        text: the whole message.
        parity: the comparison, where there is one.
    """

    object: str
    program: str
    source: Source
    status: Status
    cause: str = ""
    text: str = ""
    parity: Parity | None = None


@dataclass(frozen=True, slots=True)
class SweepTally:
    """How many programs are equal.

    Attributes:
        source: of the aux data.
        total: programs that were compared: all but those that the kernel refused.
        equal: how many of these are.
        refused: how many the kernel did not load.
        causes: differences and failures by their cause, the most frequent first.
    """

    source: Source
    total: int
    equal: int
    refused: int
    causes: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, rows: Iterable[SweepRow], source: Source) -> SweepTally:
        """Count the rows of one source."""
        mine = [row for row in rows if row.source == source]
        refused = sum(row.status is Status.REFUSED for row in mine)
        equal = sum(row.status is Status.EQUAL for row in mine)
        causes = Counter(row.cause for row in mine if row.status in _COUNTED)
        return cls(source, len(mine) - refused, equal, refused, tuple(causes.most_common()))


_COUNTED: Final = (Status.DIFFERENT, Status.FAILED)


def with_columns(loaded: LoadedProgram, given: Submitted, source: Source) -> Submitted:
    """What was submitted, with all columns that passes need.

    Args:
        loaded: the program in the kernel; for the source "kernel" with its log.
        given: from `submitted` or `submitted_of`.
        source: the verifier's log, or our own analysis.

    Raises:
        FormatError: the log is of another program.
    """
    if source == "kernel":
        return with_aux(loaded, given).submitted
    return replace(given, program=aux_data(given.program, given.subject, vmlinux_btf()))


def _blinds_all() -> bool:
    """Whether this machine blinds everybody's constants."""
    try:
        return SETTING.read_text().strip() == "2"
    except OSError:
        return False


def compare_object(
    obj: ElfObject,
    name: str,
    *,
    programs: Collection[str] | None = None,
    sources: Collection[Source] = SOURCES,
    harden: bool = False,
    version: str = "",
) -> Iterator[SweepRow]:
    """Load an object's programs one by one, and compare each.

    Args:
        obj: the object.
        name: of it, for its maps and for the rows.
        programs: names of those to compare; by default all that load by themselves.
        sources: of aux data; one row for each.
        harden: load with constants blinded, and blind them, too.
        version: the kernel's passes to compare with; by default the running one's.

    Yields:
        A row for each program and source; if the object cannot be opened, one for each source.
    """
    try:
        opened = KernelObject(obj, name.partition(".")[0], None)
    except BpfPatchError as error:
        for source in sources:
            yield SweepRow(name, "", source, Status.REFUSED, "object", str(error))
        return
    with opened:
        for program in opened.autoloaded() if programs is None else programs:
            yield from _compare_program(
                opened, name, program, sources, harden=harden, version=version
            )


def _compare_program(
    opened: KernelObject,
    name: str,
    program: str,
    sources: Collection[Source],
    *,
    harden: bool,
    version: str,
) -> Iterator[SweepRow]:
    needs_log = "kernel" in sources
    try:
        if needs_log:
            # Whoever is refused need not write down all states first, which takes long.
            opened.load(program, mode="jit+harden" if harden else "jit").close()
        loaded = opened.load(
            program,
            log_level=LOG_LEVEL if needs_log else 0,
            keep_log=needs_log,
            mode="jit+harden" if harden else "jit",
        )
    except BpfPatchError as error:
        for source in sources:
            yield SweepRow(name, program, source, Status.REFUSED, type(error).__name__, str(error))
        return
    with loaded:
        harden = harden or _blinds_all()
        flags = loaded.options.flags if loaded.options else 0
        pipeline = Pipeline.kernel(version or text(running()), harden, flags)
        given = submitted_of(opened, loaded)
        for source in sources:
            try:
                found = compare(loaded, with_columns(loaded, given, source), pipeline)
            except BpfPatchError as error:
                cause = f"{type(error).__name__}: {error}".split("; ")[0]
                yield SweepRow(name, program, source, Status.FAILED, cause, str(error))
                continue
            shown = "; ".join(map(str, found.differences))
            status = Status.EQUAL if found.is_equal else Status.DIFFERENT
            yield SweepRow(name, program, source, status, found.cause, shown, found)
