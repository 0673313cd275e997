"""What a command works on: an object, assembly or raw instructions, from a file or ``-``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final, Literal

import click

from bpfpatch.elf import ElfObject
from bpfpatch.elf.files import read_all
from bpfpatch.elf.space import RELOC_TABLE
from bpfpatch.errors import FormatError
from bpfpatch.isa import ByteOrder
from bpfpatch.program import Program

from .failure import Failure, blame

Format = Literal["elf", "asm", "raw", "loaded"]

_BY_SUFFIX: Final[dict[str, Format]] = {
    ".s": "asm",
    ".asm": "asm",
    ".bin": "raw",
    ".raw": "raw",
    ".o": "elf",
}
format_option = click.option(
    "--format",
    "wanted",
    type=click.Choice(["auto", "elf", "asm", "raw"]),
    default="auto",
    show_default=True,
    help="What the input is: an object, assembly, or instructions of 8 bytes each.",
)

endian_option = click.option(
    "--endian",
    type=click.Choice(["little", "big"]),
    default="little",
    show_default=True,
    help="Byte order of raw instructions.",
)

_TEXT: Final = frozenset({9, 10, 13, *range(32, 127)})


@dataclass(frozen=True, eq=False)
class CliInput:
    """One input, read.

    Attributes:
        shown: how messages call it.
        format: what it is.
        program: its code.
        obj: the object, where it is one.
        byteorder: of its instructions.
        given_names: of what is no object, by slot, what it refers to outside of the code.
    """

    shown: str
    format: Format
    program: Program
    obj: ElfObject | None
    byteorder: ByteOrder
    given_names: Mapping[int, str] = field(default_factory=dict)

    @cached_property
    def names(self) -> Mapping[int, str]:
        """By slot, what relocations refer to outside of the code.

        Raises:
            Failure: the symbols are broken.
        """
        with blame(self.shown):
            return self.given_names if self.obj is None else reference_names(self.obj)


def read_input(path: str, wanted: str = "auto", byteorder: ByteOrder = "little") -> CliInput:
    """Read an input.

    Args:
        path: a file, or ``-`` for the standard input.
        wanted: a `Format`, or ``auto`` to tell by content and name.
        byteorder: of raw instructions; an object says so itself.

    Raises:
        Failure: it cannot be read, or is broken.
    """
    shown = "<stdin>" if path == "-" else path
    with blame(shown):
        data = read_all(path)
        if not data:
            raise FormatError("it is empty", 0)
        found = _format_of(path, data) if wanted == "auto" else wanted
        if found == "raw":
            return CliInput(shown, "raw", Program.from_bytes(data, byteorder), None, byteorder)
        if found == "asm":
            return CliInput(shown, "asm", _assemble(data), None, byteorder)
        obj = ElfObject.parse(data)
        return CliInput(shown, "elf", obj.code, obj, obj.byteorder)


def read_object(path: str) -> tuple[str, ElfObject]:
    """Read what has to be an object, and how messages call it.

    Raises:
        Failure: it cannot be read, or is broken.
    """
    found = read_input(path, "elf")
    assert found.obj is not None
    return found.shown, found.obj


def reference_names(obj: ElfObject) -> dict[int, str]:
    """By slot, the name of the map, section or function that a relocation refers to."""
    table = obj.code.tables[RELOC_TABLE]
    outside = set(obj.code.external.tolist())
    rows = zip(table.insn.tolist(), table.rows["sym"].tolist(), strict=True)
    return {slot: obj.symbols[symbol].name for slot, symbol in rows if slot in outside}


def check_terminal(path: str) -> None:
    """Refuse to write bytes to a terminal.

    Raises:
        Failure: the output is one.
    """
    if path == "-" and stdout_is_terminal():
        raise Failure("<stdout>", "is a terminal; write to a file, or to a pipe")


def stdout_is_terminal() -> bool:
    """Whether stdout is a terminal, so that what is written there is read."""
    return sys.stdout.isatty()


def _format_of(path: str, data: bytes) -> Format:
    if data.startswith(b"\x7fELF"):
        return "elf"
    by_name = _BY_SUFFIX.get(Path(path).suffix.lower())
    if by_name is not None:
        return by_name
    # A file without a name can only be told by what is in it.
    return "asm" if path == "-" and _TEXT.issuperset(data[:4096]) else "elf"


def _assemble(data: bytes) -> Program:
    from bpfpatch.asm import assemble  # noqa: PLC0415 - objects need no assembler

    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError("assembly is UTF-8 text, and this is not", error.start) from error
    return assemble(text)
