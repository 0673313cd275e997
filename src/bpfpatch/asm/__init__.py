"""Assembly text in and out, in the syntaxes of clang, llvm-objdump and the kernel."""

from bpfpatch.asm.assemble import assemble
from bpfpatch.asm.fragment import Fragment, FragmentRef
from bpfpatch.asm.listing import format_program
from bpfpatch.asm.parser import parse
from bpfpatch.asm.text import format_insn, format_insns, format_xlated
from bpfpatch.isa import Syntax

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
