"""Pipelines: passes in a row, over one list, linearized once."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.elf import Dwarf, ElfObject
from bpfpatch.elf.prune import prune
from bpfpatch.errors import OptionError, SlotError, UnsupportedError, ValidationError
from bpfpatch.facts import AUX_COLUMNS, STACK_DEPTH, ProgFlag, Subject
from bpfpatch.linux.versions import check_modelled, parse_version, text
from bpfpatch.patch import How, Linearized, PatchList
from bpfpatch.program import LANDING_PAD, Program, Remap, violations
from bpfpatch.text import plural, unknown

from .base import Pass, registered
from .setting import ObjectEdit, Setting
from .target import Target

_KERNEL: Final = "fastcall,inline-loop,dce{aux=true},nops{once=true},ctx-access,fixup-calls"
_GOTOL_SINCE: Final = isa.BY_NAME["gotol"].cpu
_JUMP_CLASSES: Final = (5, 6)
_PASS: Final = re.compile(r"\s*([A-Za-z0-9_-]+)\s*(?:\{([^{}]*)\})?\s*")


@dataclass(frozen=True, slots=True)
class PassReport:
    """What one pass did to the list.

    Attributes:
        text: the pass with its options.
        inserted: instructions that it put in and that were there when it ended.
        deleted: instructions that it took out.
        modified: instructions that it changed in place.
        milliseconds: how long it took.
        counts: how often it did what, such as each of its rules; empty for most passes.
    """

    text: str
    inserted: int
    deleted: int
    modified: int
    milliseconds: float
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Report:
    """What a pipeline did.

    Attributes:
        passes: one report a pass, in order.
        n_before: instructions before; an ld_imm64 counts as one.
        n_after: instructions after.
        jumps_moved: references whose distance changed, of those that stayed.
        rows_moved: table rows that are still there, on another slot.
        rows_gone: table rows that went with their instruction, or gave way to one that
            slid to where they were.
        milliseconds: the whole, linearizing and validation included.
    """

    passes: tuple[PassReport, ...]
    n_before: int
    n_after: int
    jumps_moved: int
    rows_moved: int
    rows_gone: int
    milliseconds: float

    def __str__(self) -> str:
        """One line."""
        return (
            f"{self.n_before} -> {plural(self.n_after, 'instruction')}, {self.jumps_moved} jumps "
            f"and calls adjusted, {plural(self.rows_moved, 'record')} moved, "
            f"{self.rows_gone} removed, {self.milliseconds:.1f} ms"
        )


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """A rewritten program, the way to it, and what was done. Goes into ``ElfObject.with_code``.

    Attributes:
        program: the new one.
        remap: where the old one's instructions went.
        report: what each pass did.
        notices: what was done unasked, or left out, as sentences for the user.
    """

    program: Program
    remap: Remap
    report: Report
    notices: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Result {self.report}>"


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Passes in a row.

    Attributes:
        passes: run in this order, each on what the ones before it left.
        target: for whom, where `run` is not told.
    """

    passes: tuple[Pass, ...]
    target: Target = field(default_factory=Target)

    @classmethod
    def parse(cls, text: str) -> Self:
        """A pipeline from its text form, such as ``dce,sprinkle{every=2,seed=7},nops``.

        An empty text is the pipeline that does nothing.

        Raises:
            OptionError: an unknown pass or option, or text that is no pipeline.
        """
        return cls(tuple(_parse(text)))

    @classmethod
    def kernel(cls, version: str = "6.18", harden: bool = False, flags: int = 0) -> Self:
        """What a kernel makes of a program between BPF_PROG_LOAD and its JIT, for x86-64.

        The passes need the columns that an analysis or the kernel's log gives, see
        `bpfpatch.facts.columns`, the program's `Subject`, and the kernel's types in
        ``target.btf``.

        Args:
            version: of the kernel; `bpfpatch.linux.versions` lists those that are modelled.
            harden: whether constants are blinded, as with net.core.bpf_jit_harden.
            flags: those that the program is loaded with, `ProgFlag` bits.

        Raises:
            OptionError: the version is none, or one that is not modelled.

        Source: linux v6.18, kernel/bpf/verifier.c, bpf_check().
        """
        zext = "zext{random=true}" if flags & ProgFlag.TEST_RND_HI32 else "zext"
        check_modelled(parse_version(version))
        text = f"{_KERNEL},{zext},blind" if harden else f"{_KERNEL},{zext}"
        return cls(tuple(_parse(text)), Target.internal(version))

    def __str__(self) -> str:
        return ",".join(str(one) for one in self.passes)

    def run(
        self,
        program: Program,
        target: Target | None = None,
        subject: Subject | None = None,
        edit: ObjectEdit | None = None,
        progress: Callable[[Pass], None] | None = None,
        relax: How | None = "auto",
    ) -> Result:
        """Run all passes over one list of a program, and linearize it once.

        Args:
            program: stays as it is.
            target: for whom; by default the pipeline's own, which is a program that bpf(2)
                accepts unless the pipeline is a kernel's.
            subject: the program's kind and maps, for passes that need to know.
            edit: the object that the program is the code of, for passes that add to it.
            progress: called with each pass before it runs.
            relax: what to do with jumps that have become too far, see `PatchList.linearize`:
                ``auto`` is ``gotol`` for a target of cpu v4, ``islands`` for an older one. The
                kernel relaxes nothing, so neither does a pipeline that makes its own form.

        Raises:
            OptionError: a pass's result is not for this target, or a column is missing that our
                own analysis does not fill.
            UnsupportedError: the result needs more than the target's cpu version, or a pass
                made what only the kernel itself may make.
            ValidationError: the result is structurally wrong where the input was not.
            SlotError: an edit that cannot be made, with its place.
        """
        target = target or self.target
        setting = Setting(target, subject, edit)
        began = time.perf_counter()
        _check_registers(program, target)
        program = self._prepared(program, setting)
        patches = PatchList(program, edit)
        reports = []
        for one in self.passes:
            if progress is not None:
                progress(one)
            reports.append(_run_pass(one, patches, setting))
        done = patches.linearize(_relax_for(target, relax))
        _check_result(program, done, target)
        spent = 1000 * (time.perf_counter() - began)
        report = _report(tuple(reports), program, done, spent)
        relaxed = () if done.relaxed is None else (str(done.relaxed),)
        return Result(done.program, done.remap, report, (*setting.notices, *relaxed))

    def run_object(
        self,
        obj: ElfObject,
        target: Target | None = None,
        dwarf: Dwarf = "update",
        progress: Callable[[Pass], None] | None = None,
        relax: How | None = "auto",
    ) -> tuple[ElfObject, Result]:
        """Run all passes over an object's code, and put it back with what they added.

        Args:
            obj: stays as it is.
            target: see `run`.
            dwarf: see `ElfObject.with_code`.
            progress: see `run`.
            relax: see `run`.

        Raises:
            BpfPatchError: see `run` and `ElfObject.with_code`.
        """
        edit = ObjectEdit(obj)
        result = self.run(obj.code, target, edit=edit, progress=progress, relax=relax)
        changed = edit.obj.with_code(result, dwarf)
        return prune(obj, changed) if edit.prunes else changed, result

    def _prepared(self, program: Program, setting: Setting) -> Program:
        """The program with all columns and tables that the passes need.

        Aux data that is missing is what our own analysis finds out; what is there stays. That
        takes a flat program: in an object's code, the functions of several programs stand side by
        side.
        """
        pads = program.tables.get(LANDING_PAD)
        for one in self.passes:
            if pads is not None and len(pads) and not one.knows_landing_pads:
                raise UnsupportedError(
                    f"{program.where(int(pads.insn[0]))} is a landing pad, which control comes to "
                    f"without a jump; pass {one.name} would not know what is needed there"
                )
            if one.is_internal and setting.target.is_loadable:
                raise OptionError(
                    f"pass {one.name} makes the kernel's own form, which bpf(2) refuses; to see "
                    "it, kernel-diff compares it with the kernel's, exec and conform run it with "
                    "--internal, and Target.internal() asks for it in Python"
                )
        have = program.columns.keys() | program.tables.keys()
        needed = [(one, one.needed(program, setting.target)) for one in self.passes]
        missing = [(name, one) for one, names in needed for name in names if name not in have]
        if not missing:
            return program
        name, one = missing[0]
        if setting.edit is not None:
            raise OptionError(
                f"pass {one.name} needs the column {name!r}, which is for flat programs; run it on "
                "what ElfObject.link() gives"
            )
        strange = [(name, one) for name, one in missing if name not in (*AUX_COLUMNS, STACK_DEPTH)]
        if not strange:
            # Twenty modules, which a pipeline of our own passes does not need.
            from bpfpatch.linux.verifier.auxdata import aux_data  # noqa: PLC0415

            found = aux_data(program, setting.subject or Subject(), setting.target.btf)
            return found.with_columns(**program.columns).with_tables(**program.tables)
        name, one = strange[0]
        raise OptionError(f"pass {one.name} needs the column {name!r}")


def _check_registers(program: Program, target: Target) -> None:
    """Refuse stack arguments where a kernel is to keep their base for itself.

    Raises:
        UnsupportedError: the program has some.
    """
    if target.is_loadable or target.hidden != isa.PARAMS or not isa.has_stack_args(program.insns):
        return
    slot = int(np.flatnonzero(isa.stack_args(program.insns))[0])
    raise UnsupportedError(
        f"{program.where(slot)} passes an argument by R11, which is Linux {text(target.kernel)}'s "
        "own register; give a target from 7.2 on"
    )


def _relax_for(target: Target, relax: How | None) -> How | None:
    if not target.is_loadable:
        return None
    if relax != "auto" or target.cpu is None:
        return relax
    return "gotol" if target.cpu >= _GOTOL_SINCE else "islands"


def _parse(text: str) -> Iterator[Pass]:
    if not text.strip():
        return
    passes = registered()
    at = 0
    while True:
        match = _PASS.match(text, at)
        if match is None:
            raise OptionError(f"column {at + 1} of pipeline {text!r}: expected the name of a pass")
        name, options = match[1], match[2]
        if name not in passes:
            raise OptionError(unknown("pass", name, passes))
        yield passes[name].from_options(_options(name, options or ""))
        at = match.end()
        if at == len(text):
            return
        if text[at] != ",":
            raise OptionError(f"column {at + 1} of pipeline {text!r}: expected `,` or the end")
        at += 1


def _options(name: str, text: str) -> dict[str, str]:
    out: dict[str, str] = {}
    for part in text.split(",") if text.strip() else ():
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not key or not value:
            raise OptionError(f"options of pass {name} are key=value, not {part.strip()!r}")
        if key in out:
            raise OptionError(f"pass {name} is given {key!r} twice")
        out[key] = value
    return out


def _run_pass(one: Pass, patches: PatchList, setting: Setting) -> PassReport:
    began = time.perf_counter()
    before, n_modified = patches.nodes(), patches.n_modified
    setting.counts.clear()
    with patches.as_pass(one.name):
        one.run_for(patches, setting)
    after = patches.nodes()
    # What was there before has smaller nodes than what came in: no need to compare sets.
    first = patches.first_node_of_pass
    n_kept = sum(int(np.count_nonzero(after[part] < first)) for part in isa.portions(after.size))
    return PassReport(
        text=str(one),
        inserted=after.size - n_kept,
        deleted=before.size - n_kept,
        modified=patches.n_modified - n_modified,
        milliseconds=1000 * (time.perf_counter() - began),
        counts=dict(sorted(setting.counts.items())),
    )


def _check_result(before: Program, done: Linearized, target: Target) -> None:
    """A pass must not break what was whole, nor make what its target cannot run."""
    if target.cpu is not None or target.is_loadable:
        needed = isa.min_cpu(done.program.insns)
        if target.cpu is not None:
            _check_cpu(done, needed, target.cpu)
        if target.is_loadable:
            _check_loadable(done, needed)
    found = _violations(done.program, target)
    if found:
        new = _new_violations(before, found, target) or _in_the_way(before, done, found, target)
        if new:
            raise ValidationError(new)


def _violations(program: Program, target: Target) -> list[SlotError]:
    return violations(program, allow_internal=not target.is_loadable, hidden=target.hidden)


def _check_cpu(done: Linearized, needed: NDArray[np.uint8], most: int) -> None:
    too_new = np.flatnonzero(needed > most)
    if not too_new.size:
        return
    slot = int(too_new[0])
    maker = done.remap.passes[done.remap.origin[slot]]
    raise UnsupportedError(
        f"{done.program.where(slot)} needs a newer cpu than v{most}; allow that, or "
        + (f"leave out pass {maker}, which made it" if maker else "compile the program for less")
    )


def _check_loadable(done: Linearized, needed: NDArray[np.uint8]) -> None:
    """What the input had is its own affair; no pass may add to it."""
    internal = np.flatnonzero(needed == isa.CPU_INTERNAL)
    if not internal.size:
        return
    origin = done.remap.orig[internal]
    internal = internal[(origin < 0) | np.isin(origin, done.remap.modified)]
    if internal.size:
        raise UnsupportedError(
            f"{done.program.where(int(internal[0]))} is the kernel's own, which bpf(2) refuses; "
            "ask for that with Target.internal(), or leave out the pass that made it"
        )


def _new_violations(before: Program, found: list[SlotError], target: Target) -> list[SlotError]:
    """What is wrong now, of kinds of which less was wrong in the input."""
    old = Counter(violation.what for violation in _violations(before, target))
    new = Counter(violation.what for violation in found)
    return [one for one in found if new[one.what] > old[one.what]]


def _in_the_way(
    before: Program, done: Linearized, wrong: Iterable[SlotError], target: Target
) -> list[SlotError]:
    """What of all that is wrong stands where code was edited, or may hide a reference.

    What such code does is not known, and so not what an edit makes of it.
    """
    remap = done.remap
    if remap.is_identity:
        return []
    starts, ends = before.subprogs.start, before.subprogs.ends(len(before))
    is_modified = np.zeros(len(before), bool)
    is_modified[remap.modified] = True
    insns = done.program.insns
    broken = isa.reserved_violations(
        insns, allow_internal=not target.is_loadable, hidden=target.hidden
    )
    hiding = {slot for slot, _ in broken if int(insns["code"][slot]) & 7 in _JUMP_CLASSES}

    def is_edited(slot: int) -> bool:
        index = int(before.subprogs.of(remap.site[slot : slot + 1])[0])
        start, end = int(starts[index]), int(ends[index])
        now = remap.orig[int(remap.bound[start]) : int(remap.bound[end])]
        is_same = now.size == end - start and bool((now == np.arange(start, end)).all())
        return not is_same or bool(is_modified[start:end].any())

    return [one for one in wrong if one.slot in hiding or is_edited(one.slot)]


def _report(
    passes: tuple[PassReport, ...], program: Program, done: Linearized, ms: float
) -> Report:
    old, new, remap = program.refs, done.program.refs, done.remap
    jumps_moved = moved = gone = 0
    if old.slot.size:
        now = remap.own[old.slot]
        stayed = np.flatnonzero(now >= 0)
        row = np.minimum(np.searchsorted(new.slot, now[stayed]), new.slot.size - 1)
        before = old.target[stayed].astype(np.int64) - old.slot[stayed]
        after = new.target[row].astype(np.int64) - new.slot[row]
        jumps_moved = int(((after != before) | (new.slot[row] != now[stayed])).sum())
    for table in program.tables.values():
        rows = np.arange(len(table))
        kept = remap.apply(table.with_rows(table.insn, rows, table.end))
        gone += len(table) - len(kept)
        moved += int((kept.insn != table.insn[kept.rows]).sum())
    return Report(
        passes=passes,
        n_before=int((~program.second_slots).sum()),
        n_after=int((~done.program.second_slots).sum()),
        jumps_moved=jumps_moved,
        rows_moved=moved,
        rows_gone=gone,
        milliseconds=ms,
    )
