"""``bpfpatch load``: load programs, and say what the verifier made of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click

from bpfpatch.bpf.pinned import pin
from bpfpatch.elf.files import read_all
from bpfpatch.errors import BpfPatchError, FormatError, OptionError
from bpfpatch.facts.kinds import ProgType
from bpfpatch.isa import ByteOrder
from bpfpatch.linux.log.judge import LoadVerdict, judge_flat, judge_linked
from bpfpatch.loader.guess import Guess, guess_types, named_type
from bpfpatch.loader.object import KernelObject
from bpfpatch.text import plural

from .failure import Command, Failure, blame
from .inputs import CliInput, endian_option, format_option, read_input
from .options import Real
from .screen import echo, echo_json, echo_table, patience

EPILOG: Final = """\b
Examples:
  bpfpatch load lb.o
  bpfpatch load --why lb.o
  bpfpatch load --type classifier bpf_lxc.o --json > before.json
  bpfpatch load --type classifier bpf_lxc.o --baseline before.json --tolerance 5
  bpfpatch load /usr/lib/x86_64-linux-gnu/bpf

\b
Needs the right to call bpf(2). A program that loads is unloaded again, unless it is pinned.
Exit status: 0 all loaded, 1 some did not, or are worse than the baseline, 2 wrong arguments.
With --baseline, what was refused then may be refused now.
"""


@dataclass
class LoadRow:
    """One input, and what became of its programs.

    Attributes:
        file: as given, or found in a folder.
        verdicts: a program each.
        error: why there are none.
    """

    file: str
    verdicts: list[LoadVerdict] = field(default_factory=list)
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        """In JSON's types."""
        programs = [_verdict_json(verdict) for verdict in self.verdicts]
        return {"file": self.file, "error": self.error, "programs": programs}


@click.command("load", cls=Command, epilog=EPILOG)
@click.argument("objects", metavar="OBJ...", nargs=-1, required=True)
@click.option("--prog", "progs", metavar="NAME", multiple=True, help="Only this program.")
@click.option("--type", "kind", metavar="TYPE", help="Kind of all programs: xdp, classifier, ...")
@click.option("--why", is_flag=True, help="Say of each refused program how that came about.")
@click.option("--log", "with_log", is_flag=True, help="Print the verifier's log of those.")
@click.option("--pin", "folder", metavar="DIR", help="Pin the programs there, if all load.")
@click.option("--baseline", metavar="FILE", help="What --json printed before, to compare with.")
@click.option(
    "--tolerance",
    type=Real(min=0),
    default=10.0,
    show_default=True,
    help="By how many percent more instructions may be processed than in the baseline.",
)
@format_option
@endian_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    *,
    objects: tuple[str, ...],
    progs: tuple[str, ...],
    kind: str | None,
    why: bool,
    with_log: bool,
    folder: str | None,
    baseline: str | None,
    tolerance: float,
    wanted: str,
    endian: ByteOrder,
    as_json: bool,
) -> None:
    """Load every program of OBJ..., which are objects, folders, instructions or assembly."""
    before = None if baseline is None else _baseline(baseline)
    prog_type = _type(kind)
    files = [file for given in objects for file in _files(given)]
    with ExitStack() as stack:
        rows = []
        for number, file in enumerate(files):
            with patience(f"loading {file} ({number + 1} of {len(files)})"):
                rows.append(_load(file, progs, prog_type, wanted, endian, stack, folder))
            # What is to be pinned stays loaded until it is known whether all do.
            if folder is None:
                stack.pop_all().close()
        _check_found(rows, progs)
        is_whole = all(not row.error and all(v.is_loaded for v in row.verdicts) for row in rows)
        if folder is not None and is_whole:
            _pin(rows, folder)
    changes = None if before is None else list(_worse(before, rows, tolerance))
    if as_json:
        echo_json(_json(rows, changes))
    else:
        _show(rows, why=why, with_log=with_log, changes=changes)
        if folder is not None and not is_whole:
            echo("nothing is pinned, since not all programs load", err=True)
    if (not is_whole) if changes is None else bool(changes):
        raise click.exceptions.Exit(1)


def _type(kind: str | None) -> ProgType | None:
    try:
        return None if kind is None else named_type(kind)
    except OptionError as error:
        raise click.BadParameter(str(error), param_hint="--type") from error


def _files(given: str) -> list[str]:
    path = Path(given)
    if given == "-" or not path.is_dir():
        return [given]
    found = sorted(str(one) for one in path.rglob("*.o"))
    if not found:
        raise Failure(given, "there is no *.o in this folder")
    return found


def _load(
    file: str,
    progs: Sequence[str],
    prog_type: ProgType | None,
    wanted: str,
    endian: ByteOrder,
    stack: ExitStack,
    folder: str | None,
) -> LoadRow:
    try:
        source = read_input(file, wanted, endian)
        with blame(source.shown):
            return LoadRow(file, list(_verdicts(source, progs, prog_type, stack)))
    except Failure as failure:
        return LoadRow(file, error="; ".join(failure.messages))


def _verdicts(
    source: CliInput, progs: Sequence[str], prog_type: ProgType | None, stack: ExitStack
) -> Iterator[LoadVerdict]:
    obj = source.obj
    if obj is None:
        verdict = judge_flat(source.program, Guess(prog_type or ProgType.SOCKET_FILTER))
        if verdict.loaded is not None:
            stack.enter_context(verdict.loaded)
        yield verdict
        return
    if not obj.programs:
        raise FormatError("it has no programs")
    opened = stack.enter_context(KernelObject(obj, Path(source.shown).name.split(".")[0], None))
    guesses = guess_types(obj, prog_type)
    names = progs or opened.autoloaded()
    for name in names:
        if name not in guesses:
            continue
        try:
            linked = obj.link(name)
        except BpfPatchError as error:
            yield LoadVerdict(name, "", "", None, None, None, error, 0.0)
            continue
        yield judge_linked(opened, linked, guesses[name])


def _check_found(rows: Sequence[LoadRow], progs: Sequence[str]) -> None:
    found = {verdict.name for row in rows for verdict in row.verdicts}
    for name in progs:
        if name not in found and not any(row.error for row in rows):
            raise click.BadParameter(f"no object has a program {name!r}", param_hint="--prog")


def _pin(rows: Sequence[LoadRow], folder: str) -> None:
    with blame(folder):
        Path(folder).mkdir(parents=True, exist_ok=True)
        for row in rows:
            for verdict in row.verdicts:
                if verdict.loaded is not None:
                    pin(verdict.loaded, str(Path(folder) / (verdict.name or "program")))


def _show(rows: Sequence[LoadRow], *, why: bool, with_log: bool, changes: list[str] | None) -> None:
    cells = []
    for row in rows:
        for verdict in row.verdicts:
            stats = verdict.stats
            counts: list[object] = ["-"] * 5
            if stats is not None:
                depth = "+".join(map(str, stats.stack)) or "-"
                time = "-" if stats.microseconds is None else stats.microseconds
                counts = [stats.processed, stats.states, stats.peak_states, depth, time]
            word = "loaded" if verdict.is_loaded else "refused"
            cells.append([Path(row.file).name, verdict.name, verdict.type, word, *counts])
    columns = ["object", "program", "type", "verdict"]
    columns += ["insns#", "states#", "peak#", "stack#", "us#"]
    if cells:
        echo_table("", columns, cells)
    for row in rows:
        if row.error:
            echo(f"{row.file}: {row.error}")
        for verdict in row.verdicts:
            if not verdict.is_loaded:
                _explain(row.file, verdict, why=why, with_log=with_log)
    n_loaded = sum(verdict.is_loaded for row in rows for verdict in row.verdicts)
    n_all = sum(len(row.verdicts) for row in rows)
    processed = sum(v.stats.processed for row in rows for v in row.verdicts if v.stats)
    loaded = f"{n_loaded} of {plural(n_all, 'program')} loaded"
    echo(f"{loaded}, {plural(processed, 'instruction')} processed")
    for change in changes or ():
        echo(change)


def _explain(file: str, verdict: LoadVerdict, *, why: bool, with_log: bool) -> None:
    shown = ": ".join(part for part in (Path(file).name, verdict.name) if part)
    if not why or verdict.refusal is None:
        echo(f"{shown}: {verdict.reason}")
    else:
        echo(f"{shown}:")
        for line in verdict.refusal.lines():
            echo(f"  {line}")
    if with_log and verdict.refusal is not None:
        for line in verdict.refusal.log.splitlines():
            echo(line)


def _verdict_json(verdict: LoadVerdict) -> dict[str, Any]:
    stats = verdict.stats
    out: dict[str, Any] = {
        "program": verdict.name,
        "section": verdict.section,
        "type": verdict.type,
        "verdict": "loaded" if verdict.is_loaded else "refused",
        "processed": None if stats is None else stats.processed,
        "states": None if stats is None else stats.states,
        "peak_states": None if stats is None else stats.peak_states,
        "states_per_insn": None if stats is None else stats.states_per_insn,
        "stack": [] if stats is None else list(stats.stack),
        "microseconds": None if stats is None else stats.microseconds,
        "reason": verdict.reason,
        "refusal": None if verdict.refusal is None else verdict.refusal.to_json(),
    }
    return out


def _json(rows: Sequence[LoadRow], changes: list[str] | None) -> dict[str, Any]:
    verdicts = [verdict for row in rows for verdict in row.verdicts]
    out: dict[str, Any] = {
        "objects": [row.to_json() for row in rows],
        "programs": len(verdicts),
        "loaded": sum(verdict.is_loaded for verdict in verdicts),
        "processed": sum(verdict.stats.processed for verdict in verdicts if verdict.stats),
    }
    if changes is not None:
        out["worse"] = changes
    return out


def _baseline(file: str) -> dict[tuple[str, str], dict[str, Any]]:
    """By the names of object and program, what an earlier run said."""
    with blame(file):
        try:
            value = json.loads(read_all(file))
            return {
                (Path(row["file"]).name, program["program"]): program
                for row in value["objects"]
                for program in row["programs"]
            }
        except (ValueError, KeyError, TypeError) as error:
            raise FormatError("this is not what `bpfpatch load --json` prints") from error


def _worse(
    before: dict[tuple[str, str], dict[str, Any]], rows: Sequence[LoadRow], tolerance: float
) -> Iterator[str]:
    """What got worse, a sentence each."""
    seen = set()
    for row in rows:
        for verdict in row.verdicts:
            key = (Path(row.file).name, verdict.name)
            seen.add(key)
            old = before.get(key)
            if old is None or old["verdict"] != "loaded":
                continue
            shown = f"{key[0]}: {key[1]}"
            if not verdict.is_loaded:
                yield f"{shown}: worse: was loaded, and is refused: {verdict.reason}"
                continue
            was, now = old["processed"], verdict.stats.processed if verdict.stats else None
            if was and now and now > was * (1 + tolerance / 100):
                percent = 100 * (now - was) / was
                yield f"{shown}: worse: {now} instructions processed, were {was} (+{percent:.1f} %)"
    for key in sorted(set(before) - seen):
        if before[key]["verdict"] == "loaded":
            yield f"{key[0]}: {key[1]}: worse: was loaded, and is not there"
