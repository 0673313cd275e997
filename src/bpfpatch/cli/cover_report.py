"""``bpfpatch cover report``: what ran, as a table, a page, or for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from bpfpatch.coverage import Coverage, cover_map
from bpfpatch.coverage.formats import BY_NAME, format_of, report
from bpfpatch.coverage.sources import Sources
from bpfpatch.coverage.terminal import file_table, function_table, source_listing
from bpfpatch.coverage.totals import of_object
from bpfpatch.coverage.writesources import write_known_lines
from bpfpatch.elf.files import write_all
from bpfpatch.errors import OptionError

from .counters import counter_options, read_counters
from .cover_show import echo_coverage, echo_listing, echo_notices
from .failure import Command, Failure, blame
from .inputs import read_object
from .loaded import list_folders
from .options import Real
from .screen import patience

_TERMINAL: Final = "terminal"
_FORMATS: Final = (_TERMINAL, *BY_NAME)

EPILOG: Final = """\b
Examples:
  bpfpatch cover report lb.cover.o monday.json tuesday.json
  bpfpatch cover report lb.cover.o --pin /sys/fs/bpf/lb --lines
  bpfpatch cover report lb.cover.o run.json --source-root src -o lb.html
  bpfpatch cover report lb.cover.o run.json --write-sources src -o lb.info && genhtml lb.info
  bpfpatch cover report lb.cover.o run.json --fail-under 80

\b
OBJ is the instrumented object. COUNTERS are what `bpfpatch cover run` saved or
what `bpftool map dump -j` printed; those of several runs are added up. Without
--format, OUT's name decides: .html, .info, .xml or .json.
Exit status: 0 done, 1 failed or less than --fail-under, 2 wrong arguments.
"""


@click.command("report", cls=Command, epilog=EPILOG)
@click.argument("obj", metavar="OBJ")
@counter_options
@click.option("--format", "wanted", type=click.Choice(_FORMATS), help="What to make.")
@click.option("-o", "--output", metavar="OUT", default="-", help="Where to; - for stdout.")
@click.option("--lines", is_flag=True, help="Show the source with counts (terminal).")
@click.option("--functions", is_flag=True, help="Show a row for each function (terminal).")
@click.option(
    "--source-root",
    "roots",
    metavar="DIR",
    multiple=True,
    help="Look for source files here; without, only the lines that the object has are shown.",
)
@click.option(
    "--write-sources",
    metavar="DIR",
    help="Write the known lines of files not found here, for tools that show them.",
)
@click.option("--force", is_flag=True, help="Let --write-sources replace files that differ.")
@click.option(
    "--fail-under",
    metavar="PERCENT",
    type=Real(0, 100),
    help="Exit with 1 if less of the lines ran; of the blocks, where no lines are known.",
)
def command(
    *,
    obj: str,
    counters: tuple[str, ...],
    pins: tuple[str, ...],
    map_ids: tuple[int, ...],
    prog_ids: tuple[int, ...],
    wanted: str | None,
    output: str,
    lines: bool,
    functions: bool,
    roots: tuple[str, ...],
    write_sources: str | None,
    force: bool,
    fail_under: float | None,
) -> None:
    """Say which lines, branches and functions of OBJ ran."""
    form = BY_NAME.get(wanted) if wanted else format_of(output)
    if form is None and output != "-":
        raise click.UsageError(f"what to write to {output}? Say so with --format, or by its name")
    if form is not None and (lines or functions):
        raise click.UsageError("--lines and --functions are for --format terminal")
    if (obj, *counters).count("-") > 1:
        raise click.UsageError("only one of OBJ and COUNTERS can come from stdin")
    if list_folders(pins):
        return
    where, found = read_object(obj)
    with blame(where):
        cover = cover_map(found)
    coverage = read_counters(cover, counters, pins, map_ids, prog_ids)
    sources = _sources(coverage, roots, write_sources, force=force)
    title = Path(where).name
    echo_notices(where, (*coverage.notices, *sources.notices))
    if form is None:
        _show(coverage, sources, lines=lines, functions=functions)
    else:
        with patience("writing"), blame(where):
            data = report(form, coverage, sources, title)
        with blame("<stdout>" if output == "-" else output):
            write_all(output, data)
    if fail_under is not None:
        _check(where, coverage, fail_under)


def _sources(
    coverage: Coverage, roots: tuple[str, ...], folder: str | None, *, force: bool
) -> Sources:
    for root in roots:
        if not Path(root).is_dir():
            raise Failure(root, "is no folder to look for source files in")
    sources = Sources.find(coverage, roots)
    if folder is None:
        return sources
    with blame(folder):
        return write_known_lines(coverage, sources, folder, force=force)


def _show(coverage: Coverage, sources: Sources, *, lines: bool, functions: bool) -> None:
    if lines:
        echo_listing(source_listing(coverage, sources))
    if functions or not coverage.files:
        echo_coverage(function_table(coverage))
    echo_coverage(file_table(coverage))


def _check(where: str, coverage: Coverage, least: float) -> None:
    name, tally = of_object(coverage).main
    if not tally.total:
        raise OptionError("there is no code whose coverage could be enough")
    if 100 * tally.share < least:
        raise Failure(where, f"{tally.percent} of the {name} ran, --fail-under wants {least:g} %")
