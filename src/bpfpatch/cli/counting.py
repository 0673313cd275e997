"""Run an object that counts what runs of it: for ``cover run`` and ``profile``."""

from __future__ import annotations

from dataclasses import dataclass

from bpfpatch.coverage.run import Ran, run
from bpfpatch.elf import ElfObject, Setup
from bpfpatch.errors import OptionError
from bpfpatch.facts.kinds import ProgType
from bpfpatch.facts.sections import section_kind
from bpfpatch.runs import available

from .exec_inputs import given_inputs, read_btf, tell_limits_of
from .failure import Failure, blame
from .screen import patience


@dataclass(frozen=True)
class AskedRun:
    """What to run, and how: `run_options`, with texts as they were given."""

    prog: str | None
    mode: str
    type_name: str | None
    hex_text: str | None
    path: str | None
    pcaps: tuple[str, ...]
    ctx_text: str | None
    btf_path: str | None
    repeat: int
    budget: int

    @property
    def has_input(self) -> bool:
        """Whether a program or what it runs on is named."""
        return bool(self.prog or self.hex_text or self.path or self.pcaps or self.ctx_text)

    def check_mode(self) -> None:
        """Refuse a mode that cannot be had here.

        Raises:
            Failure: it cannot.
        """
        reason = available(self.mode)
        if reason is not None:
            raise Failure(f"mode {self.mode}", reason)


def run_counting(
    where: str, counting: ElfObject, asked: AskedRun, setup: Setup, *, quiet: bool = False
) -> Ran:
    """Run a program of an instrumented object on all inputs.

    Outcomes are not kept. What the interpreter could not do of what they asked for is told,
    unless ``quiet``.

    Raises:
        Failure: it cannot be run, or the setup does not fit.
    """
    with blame(where):
        name = _program(counting, asked.prog)
        kind = section_kind(counting.link(name).section).type
        kind = kind if asked.type_name is None else ProgType.of(asked.type_name)
    given = given_inputs(asked.hex_text, asked.path, asked.pcaps, asked.ctx_text, kind)
    types = read_btf(asked.btf_path, asked.mode)
    inputs = (one for one in given.inputs for _ in range(asked.repeat))
    called: dict[str, None] = {}
    with blame(where), patience("running"):
        ran = run(
            counting,
            name,
            inputs,
            asked.mode,
            prog_type=kind,
            budget=asked.budget,
            btf=types,
            setup=setup,
            each=lambda outcome: called.update(
                dict.fromkeys(call.name for call in outcome.helpers or ())
            ),
        )
    if not quiet:
        tell_limits_of(where, called)
    return ran


def _program(obj: ElfObject, wanted: str | None) -> str:
    names = [info.name for info in obj.programs]
    if wanted is None and len(names) != 1:
        found = ", ".join(names) or "none"
        raise OptionError(f"it has {len(names)} programs; choose one with --prog: {found}")
    return wanted or names[0]
