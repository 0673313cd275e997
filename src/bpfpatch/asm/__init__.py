"""Assembly text in and out, in the syntaxes of clang, llvm-objdump and the kernel."""

from bpfpatch.isa import Syntax

from .assemble import assemble
from .fragment import Fragment, FragmentRef
from .listing import format_program
from .parser import parse
from .text import format_insn, format_insns, format_xlated

__all__ = [
    "Fragment",
    "FragmentRef",
    "Syntax",
    "assemble",
    "format_insn",
    "format_insns",
    "format_program",
    "format_xlated",
    "parse",
]
