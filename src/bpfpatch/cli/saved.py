"""Inputs that ``bpfpatch verify --json`` printed, to be run again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bpfpatch.elf.files import read_all
from bpfpatch.elf.setup import Setup
from bpfpatch.errors import OptionError
from bpfpatch.runs import MODES
from bpfpatch.verify import Case

from .failure import blame
from .setup import parsed_json


@dataclass(frozen=True)
class Saved:
    """What files of saved inputs hold.

    Attributes:
        setup: what the runs started with.
        cases: for any program.
        by_program: those of one program, in order, by its name.
        modes: in which the differences were found.
    """

    setup: Setup = field(default_factory=Setup)
    cases: tuple[Case, ...] = ()
    by_program: dict[str, tuple[Case, ...]] = field(default_factory=dict)
    modes: tuple[str, ...] = ()

    def of(self, program: str) -> tuple[Case, ...]:
        """The inputs of a program."""
        return (*self.cases, *self.by_program.get(program, ()))


def read_saved(paths: tuple[str, ...]) -> Saved:
    """The inputs in files; - is stdin.

    A file holds what ``verify --json`` printed, one of its counterexamples, or one's ``input``.

    Raises:
        Failure: a file cannot be read, or holds none of these.
    """
    setup, cases = Setup(), []
    by_program: dict[str, tuple[Case, ...]] = {}
    modes: dict[str, None] = {}
    for path in paths:
        with blame("<stdin>" if path == "-" else path):
            found = parsed_json(read_all(path))
            if not isinstance(found, dict):
                raise OptionError("holds no JSON object with inputs")
            if "programs" not in found:
                setup = setup.then(_setup(found))
                cases += _cases(found)
                modes |= dict.fromkeys(_mode(found))
                continue
            for name, row in _rows(found["programs"]):
                setup = setup.then(_setup(row))
                by_program[name] = (*by_program.get(name, ()), *_cases(row))
                modes |= dict.fromkeys(_mode(row))
    return Saved(setup, tuple(cases), by_program, tuple(modes))


def _rows(programs: Any) -> list[tuple[str, dict[str, Any]]]:
    """Program and counterexample of each program that has one."""
    try:
        rows = [(str(row["program"]), row["counterexample"]) for row in programs]
    except (TypeError, KeyError, LookupError) as error:
        raise OptionError(f"is no report as verify --json prints it: {error!r}") from error
    found = [(name, row) for name, row in rows if isinstance(row, dict)]
    if not found:
        raise OptionError("no program in this report differs: it holds no inputs")
    return found


def _setup(found: dict[str, Any]) -> Setup:
    return Setup.from_json(found.get("setup", {}))


def _mode(found: dict[str, Any]) -> list[str]:
    """The mode of a counterexample; an input alone has none."""
    mode = found.get("mode")
    if mode is None:
        return []
    if mode not in MODES:
        raise OptionError(f"there is no mode {mode!r}; choose one of {', '.join(MODES)}")
    return [str(mode)]


def _cases(found: dict[str, Any]) -> list[Case]:
    if "input" not in found:
        return [Case.from_json(found)]
    earlier = found.get("earlier", [])
    if not isinstance(earlier, list):
        raise OptionError("a counterexample's earlier inputs are a list")
    return [Case.from_json(one) for one in (*earlier, found["input"])]
