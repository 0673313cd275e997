"""BPF objects: ELF files in, with their code as one program, and out again, consistent.

Example::

    obj = ElfObject.read("lb.o")
    patches = PatchList(obj.code)
    ...
    obj.with_code(patches.linearize()).write("lb.patched.o")
"""

from .contents import MapSymbol, ProgramInfo, Section, Symbol, program_type
from .link import LinkedProgram, LinkReloc, LinkTarget, TargetKind
from .newdata import u64_array
from .object import ElfObject
from .rewrite import Dwarf, RewrittenFile
from .setup import Setup, SetupEntry

__all__ = [
    "Dwarf",
    "ElfObject",
    "LinkReloc",
    "LinkTarget",
    "LinkedProgram",
    "MapSymbol",
    "ProgramInfo",
    "RewrittenFile",
    "Section",
    "Setup",
    "SetupEntry",
    "Symbol",
    "TargetKind",
    "program_type",
    "u64_array",
]
