"""``bpfpatch kernel-diff``: what the running kernel makes of programs, and what we make of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click

from bpfpatch.elf import ElfObject
from bpfpatch.elf.files import read_all
from bpfpatch.linux import versions
from bpfpatch.text import unknown

from .diff import DIFFERENT, DiffCommand, Trouble
from .failure import Failure, blame
from .options import context_option
from .screen import echo, echo_diff, echo_json, echo_table, patience

EPILOG: Final = """\b
Examples:
  bpfpatch kernel-diff lb.o
  bpfpatch kernel-diff lb.o --prog balance --aux offline
  bpfpatch kernel-diff /usr/lib/x86_64-linux-gnu/bpf --aux both

\b
Each program is loaded, and its code read back from the kernel. Needs the right to call bpf(2).
Exit status: 0 all equal, 1 some are not, 2 failed, wrong arguments, or nothing to compare.
"""

_MAX_CAUSES: Final = 40


@click.command("kernel-diff", cls=DiffCommand, epilog=EPILOG)
@click.argument("objects", metavar="OBJ...", nargs=-1, required=True)
@click.option("--prog", metavar="NAME", multiple=True, help="Only this program; may be repeated.")
@click.option(
    "--aux",
    type=click.Choice(["kernel", "offline", "both"]),
    default="kernel",
    show_default=True,
    help="Who says what each instruction does: the verifier's log, or our own analysis.",
)
@click.option(
    "--harden", is_flag=True, help="Blind constants: sets net.core.bpf_jit_harden a while."
)
@click.option(
    "--kernel",
    "version",
    metavar="VERSION",
    help="Compare with what this kernel makes of programs.  [default: the running one]",
)
@context_option("difference")
@click.option(
    "--all", "show_all", is_flag=True, help="Show all instructions, also where all is equal."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    *,
    objects: tuple[str, ...],
    prog: tuple[str, ...],
    aux: str,
    harden: bool,
    version: str | None,
    context: int,
    show_all: bool,
    as_json: bool,
) -> None:
    """Compare what the kernel makes of each program in OBJ, an object or a folder, with our own."""
    from bpfpatch.linux.parity.sweep import SOURCES, Status, compare_object  # noqa: PLC0415 - slow

    wanted_kernel = _kernel(version)
    sources = SOURCES if aux == "both" else tuple(one for one in SOURCES if one == aux)
    paths = [path for given in objects for path in _files(given)]
    is_one = len(paths) == 1
    rows = []
    for number, path in enumerate(paths, 1):
        if not is_one:
            echo(f"[{number}/{len(paths)}] {path}", err=True)
        obj = _read(path, is_required=is_one)
        if obj is None:
            continue
        with blame(str(path)), patience("loading and comparing"):
            _check_names(obj, prog, is_required=is_one)
            wanted = [info.name for info in obj.programs if info.name in prog] if prog else None
            if is_one and wanted is None:
                _say_optional(obj)
            rows += list(
                compare_object(
                    obj,
                    path.name,
                    programs=wanted,
                    sources=sources,
                    harden=harden,
                    version=wanted_kernel,
                )
            )
    if as_json:
        echo_json(_json(rows, sources))
    elif is_one:
        _show_programs(rows, context, show_all=show_all)
    else:
        _show_table(rows, sources)
    if not rows and is_one:
        raise Trouble(objects[0], "no program to compare: name one with --prog")
    if all(row.status is Status.REFUSED for row in rows):
        raise Trouble(objects[0], "no program to compare: the kernel loads none")
    if any(row.status in (Status.DIFFERENT, Status.FAILED) for row in rows):
        raise click.exceptions.Exit(DIFFERENT)


def _kernel(given: str | None) -> str:
    """The version whose passes are compared with: what was asked for, or the running kernel's."""
    if given is not None:
        with blame("--kernel"):
            versions.check_modelled(versions.parse_version(given))
        return given
    here = versions.running()
    if here not in versions.MODELLED:
        modelled = ", ".join(map(versions.text, versions.MODELLED))
        raise Trouble(
            "kernel-diff",
            f"this machine runs Linux {versions.text(here)}, which is not modelled; choose one "
            f"that is with --kernel: {modelled}. What they do otherwise shows as differences",
        )
    return versions.text(here)


def _files(given: str) -> list[Path]:
    path = Path(given)
    if not path.is_dir():
        return [path]
    found = sorted(path.glob("*.o"))
    if not found:
        raise Trouble(given, "there is no *.o in this folder")
    return found


def _read(path: Path, *, is_required: bool) -> ElfObject | None:
    """An object; None for one of many that cannot be read, which is said."""
    try:
        with blame(str(path)):
            return ElfObject.parse(read_all(str(path)))
    except Failure as failure:
        if is_required:
            raise
        failure.show()
        return None


def _check_names(obj: ElfObject, names: Sequence[str], *, is_required: bool) -> None:
    known = [info.name for info in obj.programs]
    for name in names:
        if is_required and name not in known:
            raise click.UsageError(unknown("program", name, known))


def _say_optional(obj: ElfObject) -> None:
    """Name the programs that a loader leaves out unless it is told otherwise."""
    names = [info.name for info in obj.programs if info.section.startswith("?")]
    if names:
        echo(
            f'left out, as their sections start with "?": {", ".join(names)}; '
            "compare them with --prog",
            err=True,
        )


def _show_programs(rows: Sequence[Any], context: int, *, show_all: bool) -> None:
    for row in rows:
        head = f"{row.program or row.object}, aux from {row.source}: {row.status}"
        echo(f"{head}: {row.text}" if row.text else head)
        if row.parity is not None and (show_all or not row.parity.is_equal):
            echo("--- bpfpatch")
            echo("+++ kernel")
            echo_diff(row.parity.diff().lines(context, show_all=show_all))


def _show_table(rows: Sequence[Any], sources: Sequence[Any]) -> None:
    from bpfpatch.linux.parity.sweep import SweepTally  # noqa: PLC0415 - see command()

    names = list(dict.fromkeys(row.object for row in rows))
    for source in sources:
        table = []
        for name in [*names, ""]:
            tally = SweepTally.of((row for row in rows if not name or row.object == name), source)
            shown = [name or "all", tally.total, tally.equal, tally.refused]
            table.append(
                [*shown, "; ".join(cause for cause, _ in tally.causes[:3]) if name else ""]
            )
        title = f"Aux from {source}"
        echo_table(title, ["object", "programs#", "equal#", "refused#", "different by"], table)
        causes = SweepTally.of(rows, source).causes
        if causes:
            echo_table("Causes", ["cause", "programs#"], causes[:_MAX_CAUSES])


def _json(rows: Sequence[Any], sources: Sequence[Any]) -> dict[str, Any]:
    from bpfpatch.linux.parity.sweep import SweepTally  # noqa: PLC0415 - see command()

    tallies = [SweepTally.of(rows, source) for source in sources]
    return {
        "programs": [
            {
                "object": row.object,
                "program": row.program,
                "aux": row.source,
                "status": str(row.status),
                "cause": row.cause,
                "text": row.text,
                "differences": [
                    {"part": str(one.part), "slot": one.slot, "cause": one.cause, "text": one.text}
                    for one in (row.parity.differences if row.parity else ())
                ],
            }
            for row in rows
        ],
        "totals": [
            {
                "aux": tally.source,
                "total": tally.total,
                "equal": tally.equal,
                "refused": tally.refused,
                "causes": [{"cause": cause, "count": count} for cause, count in tally.causes],
            }
            for tally in tallies
        ],
    }
