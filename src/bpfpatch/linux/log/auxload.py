"""Load a program, and get from its log what the verifier found out."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Final

from bpfpatch import isa
from bpfpatch.bpf.harden import unblinded
from bpfpatch.bpf.loaded import LoadedProgram
from bpfpatch.bpf.loadedbtf import vmlinux_btf
from bpfpatch.bpf.map import Map
from bpfpatch.btf import Btf
from bpfpatch.elf import LinkedProgram
from bpfpatch.loader.load import load
from bpfpatch.loader.object import KernelObject
from bpfpatch.loader.subject import Submitted, submitted, submitted_of
from bpfpatch.program import Program

from .auxlog import aux_from_log

LOG_LEVEL: Final = 2 | 4
"""States, and the stack's depths."""


@dataclass(frozen=True, slots=True, eq=False)
class AuxLoad:
    """A program in the kernel, and what the verifier found out.

    Attributes:
        loaded: the program.
        submitted: what was submitted, with all columns, and its subject.
    """

    loaded: LoadedProgram
    submitted: Submitted

    @property
    def program(self) -> Program:
        """What was submitted, with all columns."""
        return self.submitted.program


def load_with_aux(
    program: Program | LinkedProgram,
    *,
    maps: Iterable[Map] = (),
    map_btf: Btf | None = None,
    **options: Any,
) -> AuxLoad:
    """Load a program with a log, and read that.

    Args:
        program: see `bpfpatch.loader.load`.
        maps: all that it refers to, open.
        map_btf: the types that the maps were made with.
        options: of `bpfpatch.loader.load`.

    Raises:
        VerifierError: the verifier refused it.
        KernelError: the kernel refused it.
    """
    with _unblinded(options):
        loaded = load(program, **options, log_level=LOG_LEVEL, keep_log=True)
    return with_aux(loaded, submitted(loaded, maps, map_btf))


def load_object_with_aux(
    opened: KernelObject, program: str | LinkedProgram, **options: Any
) -> AuxLoad:
    """Load one of an object's programs with a log, and read that.

    Args:
        opened: the object.
        program: see `KernelObject.load`.
        options: of `KernelObject.load`.

    Raises:
        VerifierError: the verifier refused it.
        KernelError: the kernel refused it.
        CoreRelocationError: a CO-RE record does not fit its instruction.
    """
    with _unblinded(options):
        loaded = opened.load(program, **options, log_level=LOG_LEVEL, keep_log=True)
    return with_aux(loaded, submitted_of(opened, loaded))


def _unblinded(options: dict[str, Any]) -> AbstractContextManager[None]:
    """Keep others from having it blinded, unless that is what is wanted."""
    return unblinded() if options.get("mode", "jit") == "jit" else nullcontext()


def with_aux(loaded: LoadedProgram, what: Submitted) -> AuxLoad:
    """Read the log of a program that was loaded with one, of level 2 or 6.

    Args:
        loaded: the program, with its log.
        what: from `submitted` or `submitted_of`.

    Raises:
        FormatError: the log is of another program.
    """
    needs_types = "ptr_" in loaded.log or bool(isa.is_kfunc_call(what.program.insns).any())
    program = aux_from_log(
        loaded.log,
        what.program,
        what.subject,
        map_names=what.map_names,
        kernel_btf=vmlinux_btf() if needs_types else None,
    )
    return AuxLoad(loaded, replace(what, program=program))
