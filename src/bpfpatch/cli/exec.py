"""``bpfpatch exec``: run a program."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import click

from bpfpatch.btf import Btf
from bpfpatch.elf import LinkedProgram, Setup
from bpfpatch.errors import OptionError
from bpfpatch.facts.kinds import ProgType
from bpfpatch.interp import MachineOptions
from bpfpatch.isa import ByteOrder
from bpfpatch.passes import Pass, Pipeline, Target
from bpfpatch.program import Program
from bpfpatch.runs import Input, Outcome, Runner, available, open_runner
from bpfpatch.text import plural

from .exec_inputs import Given, given_inputs, read_btf, run_options, tell_limits
from .exec_show import Shown, Tracer, show_many, show_one, to_json
from .failure import Command, Failure, blame
from .inputs import CliInput as Source
from .inputs import endian_option, format_option, read_input
from .plugins import blame_pass, load_plugins, plugin_option
from .screen import echo_json
from .setup import check_is_object, setup_options

EPILOG: Final = """\b
Examples:
  bpfpatch exec lb.o --pcap traffic.pcap --maps
  bpfpatch exec lb.o --prog balance --hex 'ff ff ...' --trace
  bpfpatch exec lb.o --set is_strict=1 --map 'ports[80]={mode=DROP}' --hex 'ff ff ...'
  bpfpatch exec lb.o -p 'dce,nops' --pcap traffic.pcap --mode jit+harden
  echo 'r0 = *(u8 *)(r1 + 1); exit' | bpfpatch exec - --hex 0102

A packet program takes the input for its packet, other programs for their
context, instructions without an object for plain memory (R1 its address, R2 its
length). Modes other than interp take root.
"""


@dataclass(frozen=True)
class Asked:
    """What to run, and how.

    Attributes:
        source: the object or code.
        program: the program in it, rewritten.
        prog_type: its kind.
        mode: where it runs.
        budget: of the interpreter.
        seed: of the interpreter's random numbers.
        setup: what the object's variables and maps start with.
        btf: types that the interpreter applies CO-RE with; None for the running kernel's.
    """

    source: Source
    program: LinkedProgram | Program
    prog_type: ProgType | None
    mode: str
    budget: int
    seed: int
    setup: Setup
    btf: Btf | None = None


@click.command("exec", cls=Command, epilog=EPILOG)
@click.argument("obj", metavar="OBJ")
@run_options
@setup_options
@click.option("--maps", is_flag=True, help="Print what changed in the maps.")
@click.option("--trace", is_flag=True, help="Print each instruction as it runs (interp).")
@click.option("-p", "--pipeline", "text", metavar="PIPELINE", default="", help="Rewrite it first.")
@click.option("--internal", is_flag=True, help="Let passes make the kernel's own form (interp).")
@plugin_option
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, help="Seed of random numbers (interp)."
)
@format_option
@endian_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    *,
    obj: str,
    prog: str | None,
    mode: str,
    type_name: str | None,
    hex_text: str | None,
    path: str | None,
    pcaps: tuple[str, ...],
    ctx_text: str | None,
    btf_path: str | None,
    repeat: int,
    setup: Setup,
    maps: bool,
    trace: bool,
    text: str,
    internal: bool,
    plugins: tuple[str, ...],
    budget: int,
    seed: int,
    wanted: str,
    endian: ByteOrder,
    as_json: bool,
) -> int:
    """Run a program of OBJ, an object, raw instructions or assembly, on given input."""
    _check(mode, trace=trace, internal=internal, stdins=(obj, path, *pcaps))
    load_plugins(plugins)
    source = read_input(obj, wanted, endian)
    check_is_object(source, setup)
    with blame(source.shown):
        program = rewritten(pick(source, prog), text, internal=internal)
        asked = Asked(source, program, _type(program, type_name), mode, budget, seed, setup)
    given = given_inputs(hex_text, path, pcaps, ctx_text, asked.prog_type)
    tracer = Tracer(program, to_screen=not as_json) if trace else None
    asked = replace(asked, btf=read_btf(btf_path, mode))
    shown = _run(asked, given, repeat, tracer, with_maps=maps or as_json)
    if as_json:
        echo_json(to_json(source.shown, mode, shown, tracer))
    elif len(shown.runs) == 1:
        show_one(shown, with_maps=maps, with_helpers=trace)
    else:
        show_many(shown, with_maps=maps)
    tell_limits(source.shown, [outcome for _, outcome in shown.runs])
    return _status(source.shown, shown)


def _check(mode: str, *, trace: bool, internal: bool, stdins: tuple[str | None, ...]) -> None:
    if mode != "interp" and (trace or internal):
        what = "--trace" if trace else "--internal"
        raise click.UsageError(f"{what} is for --mode interp: the kernel does not offer it")
    if sum(one == "-" for one in stdins) > 1:
        raise click.UsageError("only one of the program and the input can come from stdin")
    reason = available(mode)
    if reason is not None:
        raise Failure(f"mode {mode}", reason)


def pick(source: Source, prog: str | None) -> LinkedProgram | Program:
    """The program that is meant.

    Raises:
        OptionError: there are several and none is named, or there is none.
        LinkError: there is none of this name.
    """
    if source.obj is None:
        if prog is not None:
            raise OptionError("--prog names a program of an object, and this is none")
        return source.program
    names = [info.name for info in source.obj.programs]
    if prog is None and len(names) != 1:
        among = names or [info.name for info in source.obj.functions]
        found = ", ".join(among) or "none"
        what = "programs" if names or not among else "programs, but functions"
        raise OptionError(f"it has {len(names)} {what}; choose one with --prog: {found}")
    return source.obj.link(prog or names[0])


def rewritten(
    program: LinkedProgram | Program, text: str, *, internal: bool
) -> LinkedProgram | Program:
    """The program after a pipeline.

    Raises:
        BpfPatchError: the pipeline makes no sense, or cannot be applied.
        Failure: a plugin's pass failed.
    """
    if not text:
        return program
    try:
        pipeline = Pipeline.parse(text)
    except OptionError as error:
        raise click.BadParameter(str(error), param_hint="-p") from error
    flat = program.program if isinstance(program, LinkedProgram) else program
    target = Target.internal() if internal else Target.loadable()
    running: list[Pass] = []
    with blame_pass(running):
        result = pipeline.run(flat, target=target, progress=running.append)
    return program.with_code(result) if isinstance(program, LinkedProgram) else result.program


def _type(program: LinkedProgram | Program, name: str | None) -> ProgType | None:
    from bpfpatch.facts.sections import section_kind  # noqa: PLC0415 - it takes a while

    if name is not None:
        return ProgType.of(name)
    return section_kind(program.section).type if isinstance(program, LinkedProgram) else None


def _run(
    asked: Asked, given: Given, repeat: int, tracer: Tracer | None, *, with_maps: bool
) -> Shown:
    """All runs, in one machine or kernel, whose maps keep their contents in between."""
    machine = MachineOptions(
        budget=asked.budget, seed=asked.seed, byteorder=asked.source.byteorder, hook=tracer
    )
    with (
        blame(asked.source.shown),
        open_runner(
            asked.program,
            asked.mode,
            obj=asked.source.obj,
            prog_type=asked.prog_type,
            machine=machine,
            btf=asked.btf,
            setup=asked.setup,
        ) as runner,
    ):
        before = runner.maps() if with_maps else {}
        runs = [_one(runner, one, tracer) for one in given.inputs for _ in range(repeat)]
        after = runner.maps() if with_maps else {}
    return Shown(runs, asked.prog_type, asked.mode, before, after)


def _one(runner: Runner, one: Input, tracer: Tracer | None) -> tuple[Input, Outcome]:
    if tracer is not None:
        tracer.start()
    outcome = runner.run(one, with_maps=False)
    if tracer is not None:
        tracer.finish(None if outcome.error is not None else outcome.r0)
    return one, outcome


def _status(shown_name: str, shown: Shown) -> int:
    failed = [outcome.error for _, outcome in shown.runs if outcome.error is not None]
    if not failed:
        return 0
    if len(shown.runs) == 1:
        raise Failure(shown_name, str(failed[0])) from failed[0]
    raise Failure(
        shown_name, f"{len(failed)} of {plural(len(shown.runs), 'run')} failed: {failed[0]}"
    )
