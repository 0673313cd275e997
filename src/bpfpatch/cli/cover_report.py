"""``bpfpatch cover report``: what ran, as a table, a page, or for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from bpfpatch.coverage import Coverage
from bpfpatch.coverage.formats import BY_NAME, ReportFormat, format_of, report
from bpfpatch.coverage.scope import Scope, narrowed
from bpfpatch.coverage.sources import PathMap, Sources, placed
from bpfpatch.coverage.terminal import file_table, function_table, source_listing
from bpfpatch.coverage.totals import CoverTally, of_object
from bpfpatch.coverage.writesources import write_known_lines
from bpfpatch.elf.files import write_all
from bpfpatch.errors import OptionError

from .counters import live_options
from .cover_config import ReportCommand, command_line, config_option
from .cover_inputs import Live, Subject
from .cover_show import echo_coverage, echo_listing, echo_notices
from .failure import Failure, blame
from .loaded import list_folders
from .options import Real
from .screen import patience

_TERMINAL: Final = "terminal"
_FORMATS: Final = (_TERMINAL, *BY_NAME)

EPILOG: Final = """\b
Examples:
  bpfpatch cover report lb.cover.o monday.json tuesday.json
  bpfpatch cover report lb.cover.o --pin /sys/fs/bpf/lb --lines
  bpfpatch cover report build/ -o cover.html -o cover.xml --fail-under 80
  bpfpatch cover report lb.cover.o run.json --write-sources src -o lb.info && genhtml lb.info
  bpfpatch cover report build/ --format markdown >> "$GITHUB_STEP_SUMMARY"

\b
FILES are objects that count, and counters: what `bpfpatch cover run` saved or
what `bpftool map dump -j` printed. Of a folder, all that it has of both is taken.
Counters of several runs are added up; an object that none are of has not run.
An OUT's name says what is made: .html, .info, .xml, .md or .json; what the
terminal shows is shown besides.
Exit status: 0 done, 1 failed or less than --fail-under, 2 wrong arguments.
"""


@click.command("report", cls=ReportCommand, epilog=EPILOG)
@click.argument("files", metavar="FILES...", nargs=-1, required=True)
@live_options
@click.option("--format", "wanted", type=click.Choice(_FORMATS), help="What to make.")
@click.option(
    "-o", "--output", "outputs", metavar="OUT", multiple=True, help="Where to; - for stdout."
)
@click.option("--lines", is_flag=True, help="Show the source with counts (terminal).")
@click.option("--functions", is_flag=True, help="Show a row for each function (terminal).")
@click.option("-m", "--missing/--no-missing", help="Show which lines did not run (terminal).")
@click.option(
    "--source-root",
    "roots",
    metavar="DIR",
    multiple=True,
    help="Look for source files here; what is below is called by its path from here.  [default: .]",
)
@click.option(
    "--path-map",
    "maps",
    metavar="OLD=NEW",
    multiple=True,
    help="Where a folder is that was OLD when objects were compiled.",
)
@click.option(
    "--include", metavar="GLOB", multiple=True, help="Report on these files and no others."
)
@click.option("--exclude", metavar="GLOB", multiple=True, help="Leave these files out.")
@click.option(
    "--markers/--no-markers",
    default=True,
    help="Leave out what LCOV_EXCL_LINE, _START and _STOP in the source say.",
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
@click.option(
    "--fail-under-branches",
    metavar="PERCENT",
    type=Real(0, 100),
    help="Exit with 1 if less of the branches ran, both ways of each.",
)
@click.option("-q", "--quiet", is_flag=True, help="Show nothing on the terminal, and no notices.")
@config_option
def command(
    *,
    files: tuple[str, ...],
    pins: tuple[str, ...],
    map_ids: tuple[int, ...],
    prog_ids: tuple[int, ...],
    wanted: str | None,
    outputs: tuple[str, ...],
    lines: bool,
    functions: bool,
    missing: bool,
    roots: tuple[str, ...],
    maps: tuple[str, ...],
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    markers: bool,
    write_sources: str | None,
    force: bool,
    fail_under: float | None,
    fail_under_branches: float | None,
    quiet: bool,
) -> None:
    """Say which lines, branches and functions of objects ran."""
    origin = click.get_current_context().get_parameter_source("outputs")
    if wanted is not None and origin is click.core.ParameterSource.DEFAULT_MAP:
        outputs = ()  # --format asks for something else than what the project has settled on
    made = _made(wanted, outputs)
    is_shown = not quiet and all(output != "-" for output, _ in made)
    if not is_shown and (lines or functions):
        raise click.UsageError("--lines and --functions are for --format terminal")
    path_maps = [_path_map(text) for text in maps]
    if list_folders(pins):
        return
    subject = Subject.read(files)
    coverage = subject.coverage(Live(pins, map_ids, prog_ids))
    where = subject.where
    sources = _sources(coverage, roots or (".",), path_maps, write_sources, force=force)
    coverage, sources = placed(coverage, sources)
    with blame(where):
        coverage = narrowed(coverage, sources, Scope(include, exclude, has_markers=markers))
    if not quiet:
        subject.tell()
        echo_notices(where, (*coverage.notices, *sources.notices))
    for output, form in made:
        with patience("writing"), blame(where):
            data = report(form, coverage, sources, subject.title, command_line())
        with blame("<stdout>" if output == "-" else output):
            write_all(output, data)
    if is_shown:
        _show(coverage, sources, lines=lines, functions=functions, missing=missing)
    _check(where, coverage, fail_under, fail_under_branches)


def _made(wanted: str | None, outputs: tuple[str, ...]) -> list[tuple[str, ReportFormat]]:
    """What to write where.

    Raises:
        UsageError: it cannot be told.
    """
    if outputs.count("-") > 1:
        raise click.UsageError("only one report can go to stdout")
    if wanted == _TERMINAL:
        if set(outputs) - {"-"}:
            raise click.UsageError("--format terminal goes to stdout; an -o has another form")
        return []
    if wanted is not None:
        if len(outputs) > 1:
            raise click.UsageError(
                "--format is of one report; of several, their names say the form"
            )
        return [(outputs[0] if outputs else "-", BY_NAME[wanted])]
    out = []
    for output in outputs:
        form = format_of(output)
        if form is None and output != "-":
            raise click.UsageError(
                f"what to write to {output}? Say so with --format, or by its name"
            )
        if form is not None:
            out.append((output, form))
    return out


def _path_map(text: str) -> PathMap:
    try:
        return PathMap.parse(text)
    except OptionError as error:
        raise click.BadParameter(str(error), param_hint="--path-map") from error


def _sources(
    coverage: Coverage,
    roots: tuple[str, ...],
    maps: list[PathMap],
    folder: str | None,
    *,
    force: bool,
) -> Sources:
    for root in roots:
        if not Path(root).is_dir():
            raise Failure(root, "is no folder to look for source files in")
    sources = Sources.find(coverage, roots, maps)
    if folder is None:
        return sources
    with blame(folder):
        return write_known_lines(coverage, sources, folder, force=force)


def _show(
    coverage: Coverage, sources: Sources, *, lines: bool, functions: bool, missing: bool
) -> None:
    if lines:
        echo_listing(source_listing(coverage, sources))
    if functions or not coverage.files:
        echo_coverage(function_table(coverage))
    echo_coverage(file_table(coverage, has_missing=missing))


def _check(
    where: str, coverage: Coverage, least: float | None, least_branches: float | None
) -> None:
    """Fail where less ran than is asked for; all that is too little is said.

    Raises:
        Failure: it did.
    """
    totals = of_object(coverage)
    wanted = (
        ("--fail-under", least, totals.main),
        ("--fail-under-branches", least_branches, ("branches", totals.branches)),
    )
    said = [
        _shortfall(option, percent, name, tally)
        for option, percent, (name, tally) in wanted
        if percent is not None
    ]
    messages = [message for message in said if message]
    if messages:
        raise Failure(where, *messages)


def _shortfall(option: str, percent: float, name: str, tally: CoverTally) -> str:
    if not tally.total:
        if name == "branches":
            return ""
        raise OptionError("there is no code whose coverage could be enough")
    if 100 * tally.share >= percent:
        return ""
    return f"{tally.percent} of the {name} ran, {option} wants {percent:g} %"
