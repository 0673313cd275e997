"""Rewrite compiled eBPF programs to any length, with everything in them consistent.

::

    import bpfpatch as bp

    obj = bp.ElfObject.read("lb.o")
    patches = bp.PatchList(obj.code)
    calls = patches.find(bp.isa.is_helper_call)
    patches.insert_before(calls, bp.Body.asm("r6 += 1"))
    obj.with_code(patches.linearize()).write("lb.patched.o")
"""

from __future__ import annotations

from importlib import import_module

from ._version import __version__

TYPE_CHECKING = False  # that of typing, whose import takes as long as all else here

if TYPE_CHECKING:
    from typing import Any

    from . import (
        asm,
        btf,
        coverage,
        errors,
        facts,
        interp,
        isa,
        kernel,
        passes,
        repair,
        report,
        runs,
        verify,
    )
    from .elf import ElfObject, Setup, SetupEntry
    from .errors import BpfPatchError
    from .linux import parity
    from .linux.log.refusal import Refusal
    from .passes import Pass, Pipeline, Target, register
    from .patch import Body, Insn, Linearized, PatchList
    from .program import Anchor, AnchoredTable, Column, Program, Remap, Subprogs
    from .program.validate import validate as validate
    from .report import diff_programs as diff

_HOMES = {
    "BpfPatchError": "errors",
    **dict.fromkeys(("ElfObject", "Setup", "SetupEntry"), "elf"),
    "Refusal": "linux.log.refusal",
    **dict.fromkeys(("Pass", "Pipeline", "Target", "register"), "passes"),
    **dict.fromkeys(("Body", "Insn", "Linearized", "PatchList"), "patch"),
    **dict.fromkeys(
        ("Anchor", "AnchoredTable", "Column", "Program", "Remap", "Subprogs", "validate"),
        "program",
    ),
}
_MODULES = {
    **{
        name: name
        for name in (
            *("asm", "btf", "coverage", "errors", "facts", "interp", "isa", "kernel", "passes"),
            *("repair", "report", "runs", "verify"),
        )
    },
    "parity": "linux.parity",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: a command line starts faster so."""
    if name in _MODULES:
        found = import_module(f"{__name__}.{_MODULES[name]}")
    elif name == "diff":
        found = import_module(f"{__name__}.report").diff_programs
    elif name in _HOMES:
        found = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found  # found at once from now on, also by who looks into the module
    return found


def __dir__() -> list[str]:
    return sorted(__all__)


__all__ = [
    "Anchor",
    "AnchoredTable",
    "Body",
    "BpfPatchError",
    "Column",
    "ElfObject",
    "Insn",
    "Linearized",
    "Pass",
    "PatchList",
    "Pipeline",
    "Program",
    "Refusal",
    "Remap",
    "Setup",
    "SetupEntry",
    "Subprogs",
    "Target",
    "__version__",
    "asm",
    "btf",
    "coverage",
    "diff",
    "errors",
    "facts",
    "interp",
    "isa",
    "kernel",
    "parity",
    "passes",
    "register",
    "repair",
    "report",
    "runs",
    "validate",
    "verify",
]
