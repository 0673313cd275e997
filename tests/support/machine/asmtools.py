"""Other tools' word on assembly: llvm-objdump, clang's assembler, and code out of objects."""

from __future__ import annotations

import io
import random
import re
import subprocess
from pathlib import Path
from typing import Literal

from elftools.elf.elffile import ELFFile

from bpfpatch import isa

SHF_EXECINSTR = 4
OBJDUMP = "llvm-objdump-19"
CLANG = "clang-19"

_INSN = re.compile(r"\s*(\d+):\t(.*)")
_SYMBOL = re.compile(r" <[^<> ]+>$")


def code_sections(data: bytes) -> list[tuple[str, isa.ByteOrder, bytes]]:
    """Every executable section of an object: name, byte order, bytes."""
    elf = ELFFile(io.BytesIO(data))
    order: Literal["little", "big"] = "little" if elf.little_endian else "big"
    return [
        (section.name, order, section.data())
        for section in elf.iter_sections()
        if section["sh_flags"] & SHF_EXECINSTR and section["sh_size"]
    ]


def objdump(path: Path, *args: str) -> dict[str, dict[int, str]]:
    """What llvm-objdump prints: section to slot to text, without symbols."""
    command = [OBJDUMP, "-d", "-z", "--no-show-raw-insn", *args, str(path)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found: dict[str, dict[int, str]] = {}
    for line in out.splitlines():
        if line.startswith("Disassembly of section "):
            section = found.setdefault(line.removeprefix("Disassembly of section ")[:-1], {})
        elif match := _INSN.match(line):
            section[int(match[1])] = _SYMBOL.sub("", match[2].strip().replace("\t", " "))
    return found


def clang_object(text: str, folder: Path, byteorder: isa.ByteOrder = "little") -> Path:
    """Assemble text with clang.

    Raises:
        subprocess.CalledProcessError: clang refuses it.
    """
    source, out = folder / "in.s", folder / f"{byteorder}.o"
    source.write_text(text)
    target = "bpfel" if byteorder == "little" else "bpfeb"
    command = [CLANG, f"--target={target}", "-mcpu=v4", "-c", "-x", "assembler"]
    subprocess.run([*command, str(source), "-o", str(out)], check=True, capture_output=True)
    return out


def text_section(path: Path) -> bytes:
    """An object's ``.text``."""
    return next(code for name, _, code in code_sections(path.read_bytes()) if name == ".text")


def clang_text(text: str, folder: Path, byteorder: isa.ByteOrder = "little") -> bytes:
    """The ``.text`` that clang makes of assembly."""
    return text_section(clang_object(text, folder, byteorder))


_VALUES = {
    "dst": tuple(range(10)),
    "src": tuple(range(10)),
    "off": (0, 1, -1, 8, -8, 300, 0x7FFF, -0x8000),
    "imm": (0, 1, -1, 7, -128, 0x7FFFFFFF, -0x80000000, 0x12345678),
}


def random_insn(opcode: isa.Opcode, rng: random.Random) -> isa.Insns:
    """One instruction of a row of the table, well-formed: reserved fields are 0."""
    fields = {
        field: getattr(opcode, field, None) or 0
        if field not in opcode.fields
        else rng.choice(values)
        for field, values in _VALUES.items()
    }
    first = isa.make(opcode.code, **fields)
    if opcode.kind is not isa.Kind.LD_IMM64:
        return first
    has_high = opcode.name not in {"ld_map_fd", "ld_map_idx"}
    return isa.concat([first, isa.make(0, imm=rng.choice(_VALUES["imm"]) if has_high else 0)])
