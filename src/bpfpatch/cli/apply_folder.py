"""``bpfpatch apply FOLDER -o FOLDER``: one line for each object."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bpfpatch.elf.files import write_all
from bpfpatch.text import plural

from .failure import Failure, blame
from .folders import Folder, one_line, read_folder
from .inputs import read_input
from .rewriting import Rewriting, rewrite_json, tell_rewrite
from .screen import echo, echo_json, progress


def check_folder(path: str, output: str | None, wanted: str, *, with_diff: bool) -> None:
    """Refuse options that make no sense for a folder.

    Raises:
        UsageError: some were given.
    """
    if output == "-" or (output is not None and Path(output).is_file()):
        raise click.UsageError("a folder is rewritten into a folder: -o names one")
    if output is not None and Path(path).resolve() in Path(output).resolve().parents:
        raise click.UsageError(f"{output} is within {path}: next time it would be rewritten, too")
    if with_diff:
        raise click.UsageError("--diff is of one object; see `bpfpatch diff` for those of a folder")
    if wanted not in ("auto", "elf"):
        raise click.UsageError("of a folder, objects are rewritten; --format is of one file")


def rewrite_folder(
    asked: Rewriting, path: str, output: str | None, *, with_report: bool, as_json: bool
) -> None:
    """Rewrite all objects of a folder; one that fails stops none of the others.

    Raises:
        Exit: one failed.
    """
    folder = read_folder(path)
    rows = []
    with progress("rewriting") as tell:
        for number, name in enumerate(folder.objects):
            tell(f"{name} ({number + 1} of {len(folder.objects)})")
            rows.append(_one(asked, folder, name, output, with_report=with_report))
    for note in () if asked.quiet else folder.notes():
        echo(f"{path}: note: {note}", err=True)
    if as_json:
        echo_json({"folder": path, "output": output, "objects": rows, "skipped": folder.skipped})
    failed = sum("error" in row for row in rows)
    if failed:
        echo(f"{path}: {failed} of {len(rows)} objects failed, and are not written", err=True)
        raise click.exceptions.Exit(1)


def _one(
    asked: Rewriting, folder: Folder, name: str, output: str | None, *, with_report: bool
) -> dict[str, Any]:
    """Rewrite one object, and say so; what its JSON is."""
    target = None if output is None else Path(output) / name
    try:
        done, verdicts = asked.of(read_input(folder.file(name), "elf"))
        if target is not None:
            with blame(str(target)):
                target.parent.mkdir(parents=True, exist_ok=True)
                write_all(target, done.data)
    except Failure as failure:
        reason = one_line(failure)
        echo(f"{name}: failed: {reason}", err=True)
        return {"file": name, "error": reason}
    if with_report and not asked.quiet:
        tell_rewrite(name, done, with_report=True)
    elif not asked.quiet:
        n_notes = len(done.notices)
        notes = f"; {plural(n_notes, 'note')}, see --report" if n_notes else ""
        checked = "" if verdicts is None else f"; verified {plural(len(verdicts), 'program')}"
        echo(f"{name}: {done.result.report}{checked}{notes}", err=True)
    return rewrite_json(name, None if target is None else str(target), done, verdicts)
