"""One instruction as text, from its row's template.

Three syntaxes share the table. They differ in how a constant looks and, for
some rows, in the template:

========= ===================================== =========================
syntax    is                                     a constant, a place, a jump
========= ===================================== =========================
ASM       what our assembler reads back exactly  ``0x7``, ``r1 - 0x8``, ``+0x3``
OBJDUMP   llvm-objdump's                         the same
XLATED    the kernel's and bpftool's             ``7``, ``r1 -8``, ``pc+3``
========= ===================================== =========================

Placeholders of a template: ``dst`` and ``src`` (register numbers), ``n`` (``r``
or, on request, ``w`` for a register of which 32 bits or less count), ``imm``,
``hex`` (the same, unsigned hex), ``mem`` (displacement after a base register),
``plus`` (the same, absent if 0), ``jump`` (distance), ``imm64``, ``low`` and
``high`` (halves of an ld_imm64), ``kind`` (what an ld_imm64 loads), ``fd`` (a
kfunc call's fd index, absent if 0), ``callee`` (a helper's name, or ``imm``),
``delta`` (a subprog call's distance), ``helper``, ``space_to`` and ``space_from``.

Source for XLATED: linux v6.18, kernel/bpf/disasm.c, print_bpf_insn(), and
tools/bpf/bpftool/xlated_dumper.c, print_imm(); for OBJDUMP the tool of LLVM 19.
"""

from __future__ import annotations

from enum import Enum

from .decode import SECOND, UNKNOWN, rows
from .encoding import Insns
from .helpers import HELPERS
from .opcodes import LD_IMM64, OPCODES, Opcode, RefKind


class Syntax(Enum):
    """How instructions look as text."""

    ASM = "asm"
    OBJDUMP = "objdump"
    XLATED = "xlated"


def describe(insns: Insns, slot: int) -> str:
    """One instruction in assembly, for messages; never an error.

    Args:
        insns: (n,) `INSN`, well-formed or not.
        slot: which; that of a second slot gives its ld_imm64.

    Returns:
        The text; "" where there is no such slot.
    """
    if not 0 <= slot < len(insns):
        return ""
    # An ld_imm64 code before this slot may itself be a second slot: count the run.
    first = slot
    while first and insns["code"][first - 1] == LD_IMM64:
        first -= 1
    some = insns[first : slot + 2]
    found = rows(some)
    at = slot - first
    if found[at] == SECOND:
        at -= 1
    high = int(some["imm"][at + 1]) if at + 1 < len(some) else 0
    return render(int(found[at]), fields_of(some, at), high)


def fields_of(insns: Insns, slot: int) -> tuple[int, int, int, int, int]:
    """One slot's code, dst, src, off and imm as plain numbers."""
    code, regs, off, imm = insns[slot].item()
    return code, regs & 0xF, regs >> 4, off, imm


def render(
    row: int,
    fields: tuple[int, int, int, int, int],
    high: int,
    syntax: Syntax = Syntax.ASM,
    *,
    alu32: bool = False,
) -> str:
    """One instruction's text from its parts.

    Args:
        row: index into `OPCODES`, or `UNKNOWN`.
        fields: see `fields_of`.
        high: imm of the next slot; only an ld_imm64 looks at it.
        syntax: which.
        alu32: name a register of which at most 32 bits count ``w``, as
            llvm-objdump does with ``--mcpu=v3`` and up.

    Returns:
        The text. An unknown opcode is ``.8byte`` and its word, ``<unknown>``
        for OBJDUMP, ``BUG_`` and its code for XLATED.
    """
    if row == UNKNOWN:
        return _unknown(fields, syntax)
    opcode = OPCODES[row]
    if syntax is Syntax.XLATED:
        return (opcode.xlated or opcode.text).format_map(_xlated(opcode, fields, high))
    template = opcode.asm if syntax is Syntax.ASM and opcode.asm else opcode.text
    return template.format_map(_hexed(opcode, fields, high, alu32))


def readable(
    row: int, fields: tuple[int, int, int, int, int], high: int, goal: str = "", name: str = ""
) -> str:
    """One instruction for a reader, with names in place of distances.

    Args:
        row: index into `OPCODES`, or `UNKNOWN`.
        fields: see `fields_of`.
        high: imm of the next slot; only an ld_imm64 looks at it.
        goal: where a jump or call leads, or of which function an address is; "" for the distance.
        name: what any other instruction refers to.
    """
    opcode = OPCODES[row] if row != UNKNOWN else None
    if goal and opcode is not None and opcode.ref is RefKind.FUNC:
        return f"r{fields[1]} = &{goal}"
    if goal and opcode is not None and opcode.ref is not RefKind.NONE:
        parts = _hexed(opcode, fields, high, alu32=False) | {"jump": goal}
        template = opcode.asm or opcode.text
        return template.replace("pc{jump}", "{jump}").format_map(parts)
    text = render(row, fields, high)
    return f"{text}  <{name}>" if name else text


def _unknown(fields: tuple[int, int, int, int, int], syntax: Syntax) -> str:
    code, dst, src, off, imm = fields
    if syntax is Syntax.OBJDUMP:
        return "<unknown>"
    if syntax is Syntax.XLATED:
        return f"BUG_{code:02x}"
    word = code | dst << 8 | src << 12 | (off & 0xFFFF) << 16 | (imm & 0xFFFFFFFF) << 32
    return f".8byte {word:#x}"


def _hexed(
    opcode: Opcode, fields: tuple[int, int, int, int, int], high: int, alu32: bool
) -> dict[str, int | str]:
    _, dst, src, off, imm = fields
    distance = off if opcode.ref is RefKind.JUMP16 else imm
    return {
        "dst": dst,
        "src": src,
        "n": "w" if alu32 else "r",
        "imm": hex(imm),
        "mem": _spaced(off),
        "plus": f" {_spaced(imm)}" if imm else "",
        "jump": f"{distance:+#x}",
        "imm64": _imm64(opcode, imm, high),
        "low": hex(imm & 0xFFFFFFFF),
        "kind": hex(src),
        "fd": f", {off:#x}" if off else "",
        "callee": f"bpf_{HELPERS[imm]}" if imm in HELPERS else hex(imm),
        "space_to": hex(imm >> 16 & 0xFFFF),
        "space_from": hex(imm & 0xFFFF),
    }


def _imm64(opcode: Opcode, low: int, high: int) -> str:
    value = high << 32 | low & 0xFFFFFFFF
    # The halves of an address are numbers of their own, so that a sign says nothing.
    return hex(value if opcode.src == 0 else value & 0xFFFFFFFFFFFFFFFF)


def _xlated(
    opcode: Opcode, fields: tuple[int, int, int, int, int], high: int
) -> dict[str, int | str]:
    _, dst, src, off, imm = fields
    distance = off if opcode.ref is RefKind.JUMP16 else imm
    return {
        "dst": dst,
        "src": src,
        "n": "r",
        "imm": imm,
        "hex": hex(imm & 0xFFFFFFFF),
        "mem": f"{off:+d}",
        "jump": f"pc{distance:+d}",
        "imm64": hex((high << 32 | imm & 0xFFFFFFFF) & 0xFFFFFFFFFFFFFFFF),
        # A dump of a JITed program has a callee's distance in off, its number in imm.
        "delta": off or imm,
        "low": imm,
        "high": high,
        "fd": f", {off}" if off else "",
        "helper": f"bpf_{HELPERS[imm]}" if imm in HELPERS else "unknown",
        "space_to": imm >> 16 & 0xFFFF,
        "space_from": imm & 0xFFFF,
    }


def _spaced(number: int) -> str:
    return f"- {-number:#x}" if number < 0 else f"+ {number:#x}"
