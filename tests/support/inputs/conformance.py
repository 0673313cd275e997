"""The bpf_conformance vectors in every mode and after every pass, as a table."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from bpfpatch import isa, kernel
from bpfpatch.errors import BpfPatchError
from bpfpatch.facts import MapDefinition
from bpfpatch.facts.kinds import MapType
from bpfpatch.passes import Pipeline, Target, base
from bpfpatch.program import Program
from bpfpatch.runs import MODES, Input, available, open_runner
from support.inputs.ubpfasm import Case, read_case

ROOT = Path(__file__).parents[3]
VARIABLE = "BPFPATCH_CONFORMANCE"


@dataclass(frozen=True, slots=True)
class Form:
    """A way to rewrite the vectors.

    Attributes:
        name: as the table shows it.
        pipeline: the passes.
        target: for whom they rewrite.
    """

    name: str
    pipeline: str = ""
    target: Target = field(default_factory=Target.loadable)

    @property
    def missing(self) -> list[str]:
        """Passes that it needs and that there are not."""
        names = [name.partition("{")[0] for name in self.pipeline.split(",") if name]
        return [name for name in names if name not in base.registered()]


FORMS = (
    Form("plain"),
    Form("sprinkle", "sprinkle"),
    Form("dce,nops", "dce,nops"),
    Form("shrink", "shrink{safe=false}"),
    Form("blind", "blind"),
    Form("blind, internal", "blind", Target.internal()),
    Form("zext", "zext{force=true}"),
    Form("zext, internal", "zext", Target.internal(arch="riscv64")),
    *(
        Form(f"lower {cpu}", f"lower{{cpu={cpu}}}", Target.loadable(cpu))
        for cpu in ("v1", "v2", "v3")
    ),
)


@dataclass(slots=True)
class Cell:
    """What became of all vectors in one mode and form.

    Attributes:
        n_passed: how many gave what they must.
        refused: why the mode could not run one, by vector.
        wrong: what was given instead, by vector.
        why_none: why there is nothing in this cell, or "".
    """

    n_passed: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)
    why_none: str = ""


def folder() -> Path:
    """Where the vectors are: the environment says it, or they are beside the project."""
    return Path(os.environ.get(VARIABLE) or ROOT.parent / "shared" / "conformance")


def cases() -> list[Case]:
    """All vectors that can be read, none where the folder is absent."""
    return [case for _, case in _read() if isinstance(case, Case)]


def unreadable() -> dict[str, str]:
    """Why the other vectors cannot be read, by name."""
    return {name: why for name, why in _read() if isinstance(why, str)}


def _read() -> Iterator[tuple[str, Case | str]]:
    for path in sorted(folder().glob("*.data")):
        try:
            yield path.stem, read_case(path)
        except ValueError as error:
            yield path.stem, str(error)


def absent() -> str:
    """Why there are no vectors."""
    return f"no conformance vectors in {folder()}; {VARIABLE} says where they are"


def run_mode(
    mode: str, vectors: Sequence[Case], forms: Sequence[Form] = FORMS
) -> Iterator[tuple[Form, Cell]]:
    """One cell a form; blinding is switched on once for all of a mode."""
    reason = available(mode)
    if reason is not None:
        yield from ((form, Cell(why_none=reason)) for form in forms)
        return
    hardened: AbstractContextManager[None] = nullcontext()
    if mode == "jit+harden":
        hardened = kernel.harden(2)
    with hardened:
        for form in forms:
            yield form, _cell(mode, form, vectors)


def _cell(mode: str, form: Form, vectors: Sequence[Case]) -> Cell:
    if form.missing:
        return Cell(why_none=f"there is no pass {form.missing[0]}")
    if mode != "interp" and not form.target.is_loadable:
        return Cell(why_none="bpf(2) refuses the kernel's own form")
    cell = Cell()
    for case in vectors:
        _run(cell, mode, form, case)
    return cell


def _run(cell: Cell, mode: str, form: Form, case: Case) -> None:
    name = case.name.removesuffix(".data")
    try:
        with _with_maps(mode, case) as (program, options):
            made = program
            if form.pipeline:
                made = Pipeline.parse(form.pipeline).run(program, target=form.target).program
            with open_runner(made, mode, **options) as runner:
                outcome = runner.run(Input(mem=case.mem), with_maps=False)
        if outcome.error is not None:
            raise outcome.error
    except BpfPatchError as error:
        if case.result is None:
            cell.n_passed += 1
        else:
            cell.refused[name] = _reason(error)
        return
    if outcome.r0 == case.result:
        cell.n_passed += 1
    else:
        wanted = "a refusal" if case.result is None else hex(case.result)
        cell.wrong[name] = f"{outcome.r0:#x} where {wanted} is right"


@contextmanager
def _with_maps(mode: str, case: Case) -> Iterator[tuple[Program, dict[str, Any]]]:
    """The program with its maps, and what the interpreter has to know of them."""
    program = Program.from_bytes(case.code)
    if mode == "interp":
        specs = {
            fd: MapDefinition("", MapType(one.type), *astuple(one)[1:])
            for fd, one in enumerate(case.maps, 1)
        }
        yield program, {"maps": specs}
        return
    with ExitStack() as stack:
        fds = [
            stack.enter_context(kernel.Map.create(MapType(one.type), *astuple(one)[1:])).fd
            for one in case.maps
        ]
        insns = program.insns.copy()
        by_fd = isa.is_ld_imm64(insns) & np.isin(isa.src(insns), (1, 2))
        insns["imm"][by_fd] = [fds[number - 1] for number in insns["imm"][by_fd]]
        yield replace(program, insns=insns), {}


def _reason(error: BpfPatchError) -> str:
    """Why, without the place: that is another one in each form."""
    if not isinstance(error, kernel.VerifierError) or error.where is None:
        return str(error)
    return f"`{error.where.text}`: {error.message}: {error.name}"


def table(vectors: Sequence[Case]) -> dict[str, dict[str, Cell]]:
    """All cells, by mode and form's name."""
    return {mode: {form.name: cell for form, cell in run_mode(mode, vectors)} for mode in MODES}


def lines(
    cells: dict[str, dict[str, Cell]], n_vectors: int, skipped: Mapping[str, str] | None = None
) -> Iterator[str]:
    """The table, and below it each vector that a mode cannot run, with the reason.

    Args:
        cells: the table.
        n_vectors: of how many vectors it is.
        skipped: why others are not in it, by name.
    """
    width = max(len(form.name) for form in FORMS)
    yield f"{'':{width}}" + "".join(f"{mode:>14}" for mode in cells)
    for form in FORMS:
        row = [cells[mode][form.name] for mode in cells]
        shown = ["-" if one.why_none else f"{one.n_passed}/{n_vectors}" for one in row]
        yield f"{form.name:{width}}" + "".join(f"{text:>14}" for text in shown)
    yield ""
    yield from _notes(cells)
    for name, why in (skipped or {}).items():
        yield f"{name}: not in the table, its file cannot be read: {why}"


def _notes(cells: dict[str, dict[str, Cell]]) -> Iterator[str]:
    """What did not run, with the cells that it is true of."""
    where: dict[tuple[str, str], list[str]] = {}
    for mode, by_form in cells.items():
        for form, cell in by_form.items():
            at = f"{mode} {form}"
            if cell.why_none:
                where.setdefault(("-", cell.why_none), []).append(at)
            for name, what in cell.wrong.items():
                where.setdefault((name, f"WRONG: {what}"), []).append(at)
            for name, what in cell.refused.items():
                where.setdefault((name, f"cannot run: {what}"), []).append(at)
    for (name, what), places in sorted(where.items()):
        yield f"{name}: {what}  [{'; '.join(places)}]"
