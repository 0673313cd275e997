"""Runners: a program, ready to be run any number of times in one mode."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from bpfpatch import kernel
from bpfpatch.elf import ElfObject, LinkedProgram
from bpfpatch.elf.setup import Prepared, Setup
from bpfpatch.errors import OptionError
from bpfpatch.facts.kinds import ProgType
from bpfpatch.program import Program
from bpfpatch.text import unknown

from .model import MODES, Input, Maps, Mode, Outcome

if TYPE_CHECKING:
    from bpfpatch.btf import Btf
    from bpfpatch.facts import MapDefinition
    from bpfpatch.interp import MachineOptions

_JIT: Final = Path("/proc/sys/net/core/bpf_jit_enable")
_HARDEN: Final = Path("/proc/sys/net/core/bpf_jit_harden")


class Runner(ABC):
    """A program in one mode. Maps keep their contents from run to run, until `reset`.

    Attributes:
        mode: one of `MODES`.
        prog_type: the kind of program, or None for flat code of unknown kind.
    """

    def __init__(self, mode: Mode, prog_type: ProgType | None) -> None:
        self.mode = mode
        self.prog_type = prog_type

    @abstractmethod
    def run(self, one: Input, *, with_maps: bool = True) -> Outcome:
        """Run the program once.

        Args:
            one: what it gets.
            with_maps: read the maps afterwards; without, ``LoadOutcome.maps`` is empty.

        Returns:
            What it gave. A trap, a spent budget or the kernel's refusal is in its ``error``.

        Raises:
            OptionError: such input makes no sense for the program.
        """

    @abstractmethod
    def maps(self) -> Maps:
        """What is in the maps now, as in `LoadOutcome`."""

    @abstractmethod
    def put(self, name: str, key: bytes, value: bytes) -> None:
        """Set an entry of a map, for the runs up to the next `reset`.

        Args:
            name: the map, or a section of data, whose only key is four zero bytes.
            key: the key.
            value: the value; of a per-CPU map what each CPU gets.

        Raises:
            OptionError: there is no such map, or it has other sizes.
            BpfPatchError: the map does not take it.
        """

    @abstractmethod
    def reset(self) -> None:
        """Put the maps back to what they were when the runner was opened."""

    @abstractmethod
    def close(self) -> None:
        """Give back what the runner holds; a second time is fine."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def no_such_map(name: str, names: Iterable[str]) -> OptionError:
    """The error for a map that is not there."""
    return OptionError(unknown("map", name, names))


def available(mode: str) -> str | None:
    """Why programs cannot be run in a mode here, or None.

    Raises:
        OptionError: there is no such mode.
    """
    if _checked(mode) == "interp":
        return None
    reason = kernel.available()
    if reason is not None:
        return reason
    if _read(_JIT) == "0":
        return f"the kernel's JIT is switched off ({_JIT})"
    if mode == "jit+harden" and _read(_HARDEN) is None:
        return f"the kernel has no {_HARDEN}"
    return None


def open_runner(
    program: LinkedProgram | Program,
    mode: str = "interp",
    *,
    obj: ElfObject | None = None,
    prog_type: ProgType | str | None = None,
    on_memory: bool = False,
    whole_r0: bool = False,
    machine: MachineOptions | None = None,
    btf: Btf | None = None,
    maps: Mapping[int, MapDefinition] | None = None,
    setup: Setup | Prepared | None = None,
) -> Runner:
    """Make a program ready to run; close the runner, or use it in a ``with`` block.

    Args:
        program: what ``obj.link(name)`` gave, perhaps with other code; or flat code.
        mode: one of `MODES`.
        obj: the object that a linked program is of; its maps are made for the runner alone.
        prog_type: the kind of program; a linked program's section tells it otherwise. Flat code
            of no kind runs on whatever it is given: plain memory, a packet as a socket filter,
            a context as a syscall program.
        on_memory: the program runs on plain memory, whatever kind its section says.
        whole_r0: have the kernel store all 64 bits of R0, of which it gives 32 otherwise; the
            program gets code for that before each exit.
        machine: what the interpreter's machine is like.
        btf: the types that the interpreter applies an object's CO-RE records with; by default the
            running kernel's, where it tells them. The kernel's modes always use the kernel's.
        maps: in the interpreter those of flat code, by the number in its ld_imm64.
        setup: values of the object's variables and entries of its maps, to start with, and
            again after each `Runner.reset`.

    Raises:
        OptionError: the arguments make no sense, or the setup does not fit the object.
        KernelError: the kernel refused the program or its maps (`VerifierError`).
        UnsupportedError: the program has what cannot be run in this mode.
    """
    checked = _checked(mode)
    if isinstance(program, LinkedProgram) and obj is None:
        raise OptionError("a linked program runs with its object's maps: give obj=")
    if setup and not isinstance(program, LinkedProgram):
        raise OptionError("a setup is of an object's variables and maps, and this is flat code")
    prepared = _prepared(obj, setup)
    entries = prepared.entries if prepared is not None else ()
    obj = prepared.obj if prepared is not None else obj
    kind = None if on_memory else _type_of(program, prog_type)
    if checked == "interp":
        from bpfpatch.interp import MachineOptions  # noqa: PLC0415 - the kernel's modes need none

        from .interpreted import InterpRunner  # noqa: PLC0415 - it is a Runner

        options = machine or MachineOptions()
        return InterpRunner(program, obj, kind, options, maps=maps, btf=btf, entries=entries)
    from .inkernel import KernelRunner  # noqa: PLC0415 - the same

    return KernelRunner(program, obj, kind, checked, whole_r0=whole_r0, entries=entries)


def _prepared(obj: ElfObject | None, setup: Setup | Prepared | None) -> Prepared | None:
    if isinstance(setup, Prepared):
        return setup
    return setup.prepare(obj) if setup and obj is not None else None


def _checked(mode: str) -> Mode:
    for known in MODES:
        if mode == known:
            return known
    raise OptionError(f"there is no mode {mode!r}; choose one of {', '.join(MODES)}")


def _type_of(program: LinkedProgram | Program, prog_type: ProgType | str | None) -> ProgType | None:
    if prog_type is not None:
        return ProgType.of(prog_type)
    if isinstance(program, LinkedProgram):
        return kernel.section_kind(program.section).type
    return None


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except PermissionError:
        return ""  # it is there, and whoever loads will see
    except OSError:
        return None
