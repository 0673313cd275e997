"""``bpfpatch profile``: where an instrumented object spends its instructions."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

import click

from bpfpatch.coverage import Coverage, cover_map
from bpfpatch.coverage.heat import to_dot
from bpfpatch.coverage.profile import Cost, Profile
from bpfpatch.coverage.run import instrumented
from bpfpatch.elf import ElfObject, Setup
from bpfpatch.elf.files import write_all
from bpfpatch.report.dottext import picture
from bpfpatch.text import plural

from .counters import counter_options, read_counters
from .counting import AskedRun, run_counting
from .cover_show import echo_notices
from .exec_inputs import run_options
from .failure import Command, Failure, blame
from .inputs import read_object
from .loaded import list_folders
from .options import picture_name
from .screen import echo, echo_json, echo_table, patience
from .setup import setup_options

_BY: Final = ("function", "line", "block")

EPILOG: Final = """\b
Examples:
  bpfpatch profile lb.cover.o counters.json
  bpfpatch profile lb.cover.o --prog-id 42 --by line --top 20
  bpfpatch profile lb.o --pcap traffic.pcap --set is_strict=1 --by line
  bpfpatch profile lb.cover.o counters.json --function balance -o balance.svg

\b
OBJ is an object that `bpfpatch cover` made, COUNTERS what `bpfpatch cover run`
saved or `bpftool map dump -j` printed; those of several runs are added up. With
--pcap or other input in their place, OBJ is any object: it is run, as by `cover run`.
Instructions of what a function calls are the callee's. A picture is of one
function: its blocks and how often each ran; OUT ends in .dot, or in .svg where
graphviz is installed.
"""


@click.command("profile", cls=Command, epilog=EPILOG)
@click.argument("obj", metavar="OBJ")
@counter_options
@run_options
@setup_options
@click.option(
    "--by", type=click.Choice(_BY), default="function", show_default=True, help="A row for each."
)
@click.option("--top", type=click.IntRange(min=1), default=30, show_default=True, help="Rows.")
@click.option("--function", metavar="NAME", help="Which to draw; else the most expensive.")
@click.option("-o", "--output", metavar="OUT", help="Draw a picture instead.")
@click.option("--json", "as_json", is_flag=True, help="Print all rows as JSON.")
def command(
    *,
    obj: str,
    counters: tuple[str, ...],
    pins: tuple[str, ...],
    map_ids: tuple[int, ...],
    prog_ids: tuple[int, ...],
    by: str,
    top: int,
    function: str | None,
    output: str | None,
    as_json: bool,
    setup: Setup,
    **options: Any,
) -> None:
    """Say in which functions, lines or blocks of OBJ instructions ran, the most first."""
    if function is not None and output is None:
        raise click.UsageError("--function is of the picture; say where to, with -o OUT")
    if output is not None:
        picture_name(output)
    asked = AskedRun(**options)
    if (obj, asked.path, *counters, *asked.pcaps).count("-") > 1:
        raise click.UsageError("only one of OBJ, COUNTERS and the input can come from stdin")
    is_to_run = asked.has_input or bool(setup)
    if is_to_run and (counters or pins or map_ids or prog_ids):
        raise click.UsageError("counters say what ran already: give them, or what to run, not both")
    if list_folders(pins, as_json=as_json):
        return
    where, found = read_object(obj)
    if is_to_run:
        coverage = _ran(where, found, asked, setup)
    else:
        with blame(where):
            cover = cover_map(found)
        coverage = read_counters(cover, counters, pins, map_ids, prog_ids)
    echo_notices(where, coverage.notices)
    profile = Profile.of(coverage)
    if output is not None:
        _draw(where, coverage, profile, function, output)
    elif as_json:
        echo_json(_json(profile))
    else:
        _show(profile, by, top)


def _ran(where: str, obj: ElfObject, asked: AskedRun, setup: Setup) -> Coverage:
    """What runs of OBJ on the input that is asked for."""
    asked.check_mode()
    with blame(where):
        counting = instrumented(obj)
    return run_counting(where, counting, asked, setup).coverage


def _draw(
    where: str, coverage: Coverage, profile: Profile, function: str | None, output: str
) -> None:
    if function is None:
        if not profile.functions:
            raise Failure(where, "nothing ran; say with --function what to draw")
        function = profile.functions[0].name
    with blame(where), patience("drawing"):
        data = picture(to_dot(coverage, function), output)
    with blame("<stdout>" if output == "-" else output):
        write_all(output, data)


def _show(profile: Profile, by: str, top: int) -> None:
    costs = {"function": profile.functions, "line": profile.lines, "block": profile.blocks}[by]
    rows = [
        (cost.n_insns, f"{100 * cost.share:.1f}", cost.times, cost.name, cost.text)
        for cost in costs[:top]
    ]
    columns = ["insns#", "%#", "times#", by, "source"]
    if by != "line":
        columns, rows = columns[:-1], [row[:-1] for row in rows]  # type: ignore[misc]
    echo_table("", columns, rows)
    echo(f"{plural(profile.n_insns, 'instruction')} ran")
    if len(costs) > top:
        echo(f"{len(costs) - top} more rows: see --top")


def _json(profile: Profile) -> dict[str, Any]:
    def rows(costs: tuple[Cost, ...]) -> list[dict[str, Any]]:
        return [asdict(cost) for cost in costs]

    return {
        "insns": profile.n_insns,
        "functions": rows(profile.functions),
        "lines": rows(profile.lines),
        "blocks": rows(profile.blocks),
    }
