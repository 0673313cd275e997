"""What independent readers find in an object's DWARF."""

from __future__ import annotations

import io
import re
import subprocess
from pathlib import Path

import numpy as np
from elftools.elf.elffile import ELFFile

from bpfpatch.elf import ElfObject

Line = tuple[int, int, int]
"""File number, line and column."""

_KNOWN_TYPES = {1: 2, 10: 3, 11: 3, 12: 2}
"""What LLVM calls the relocations of older compilers and of binutils: it knows no others."""
SPREAD = 1 << 24
_DW_LNE_SET_ADDRESS = 2


def for_llvm(obj: ElfObject) -> bytes:
    """The object with debug relocations of the types that LLVM's readers know."""
    data, order = bytearray(obj.to_bytes()), obj.byteorder
    for sec in obj.sections:
        if not sec.name.startswith(".rel.debug_"):
            continue
        for start in range(sec.byte_off, sec.byte_off + sec.size, 16):
            at = start + (8 if order == "little" else 12)
            kind = int.from_bytes(data[at : at + 4], order)
            data[at : at + 4] = _KNOWN_TYPES.get(kind, kind).to_bytes(4, order)
    return bytes(data)


def spread(obj: ElfObject) -> bytes:
    """The same for llvm-symbolizer: code sections at addresses of their own, `SPREAD` apart."""
    data, order = bytearray(for_llvm(obj)), obj.byteorder
    headers = int(obj.raw.header["shoff"][0])
    for sec in obj.sections:
        if sec.type == 1 and sec.flags & 4:
            at = headers + 64 * sec.index + 16
            data[at : at + 8] = (SPREAD * sec.index).to_bytes(8, order)
    return bytes(data)


def symbolized(obj: ElfObject, path: Path) -> list[str]:
    """File, line and column of every slot, as llvm-symbolizer says, with all that is inlined."""
    path.write_bytes(spread(obj))
    asked = "".join(f"{SPREAD * home + at:#x}\n" for home, at in code_places(obj))
    command = ["llvm-symbolizer-22", f"--obj={path}", "--output-style=LLVM"]
    done = subprocess.run(
        command, input=asked, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.rstrip("\n").split("\n\n")


def complaints(obj: ElfObject, path: Path) -> list[str]:
    """What ``llvm-dwarfdump --verify`` says of an object, without numbers."""
    path.write_bytes(for_llvm(obj))
    command = ["llvm-dwarfdump-22", "--verify", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    text = (done.stdout + done.stderr).splitlines()
    found = [line for line in text if line.startswith(("error", "warning"))]
    return sorted(re.sub(r"0x[0-9a-f]+|\d+", "N", line) for line in found)


def line_table(obj: ElfObject) -> dict[tuple[int, int], Line]:
    """Lines by section number and byte, of every instruction that has one, by pyelftools."""
    elf = ELFFile(io.BytesIO(obj.to_bytes()))
    dwarf = elf.get_dwarf_info(relocate_dwarf_sections=False)
    section_of = _sections_of_addresses(elf)
    out: dict[tuple[int, int], Line] = {}
    for unit in dwarf.iter_CUs():
        program = dwarf.line_program_for_CU(unit)
        if program is None:
            continue
        span = range(program.program_start_offset, program.program_end_offset)
        homes = iter([home for at, home in section_of if at in span])
        before, home = None, -1
        for entry in program.get_entries():
            if entry.is_extended and entry.command == _DW_LNE_SET_ADDRESS:
                home = next(homes)
            state = entry.state
            if state is None:
                continue
            if before is not None:
                line = before.file, before.line, before.column
                for at in range(before.address, state.address, 8):
                    out[home, at] = line
            before = None if state.end_sequence else state
    return out


def _sections_of_addresses(elf: ELFFile) -> list[tuple[int, int]]:
    """(place in .debug_line, section number) of relocations, by place."""
    table = elf.get_section_by_name(".rel.debug_line")
    symbols = elf.get_section_by_name(".symtab")
    out = []
    for rel in table.iter_relocations():
        home = symbols.get_symbol(rel["r_info_sym"])["st_shndx"]
        is_code = isinstance(home, int) and elf.get_section(home)["sh_flags"] & 4
        if is_code:
            out.append((rel["r_offset"], home))
    return sorted(out)


def code_places(obj: ElfObject) -> list[tuple[int, int]]:
    """Section number and byte of every slot of an object without padding between functions."""
    out = []
    for sec in obj.sections:
        if sec.type == 1 and sec.flags & 4:
            out += [(sec.index, at) for at in range(0, sec.size, 8)]
    assert len(out) == len(obj.code)
    return out


def wrong_lines(before: ElfObject, after: ElfObject, site: np.ndarray) -> list[str]:
    """Instructions of an object whose line is not that of the original that they are at.

    Args:
        before: the original.
        after: what became of it; sections have the same numbers.
        site: (n,) original slot of each instruction.
    """
    old, new = line_table(before), line_table(after)
    was, now = code_places(before), code_places(after)
    wrong = []
    for slot, origin in enumerate(site.tolist()):
        want, got = old.get(was[origin]), new.get(now[slot])
        if want != got:
            wrong.append(f"slot {slot} of slot {origin}: {got}, not {want}")
    return wrong


def listed_lines(obj: ElfObject, path: Path) -> list[str]:
    """Source places in the order in which ``llvm-objdump -l`` prints them, repetitions left out."""
    path.write_bytes(for_llvm(obj))
    command = ["llvm-objdump-22", "-d", "-l", "--no-show-raw-insn", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    found = re.findall(r"^; (\S+:\d+)$", done.stdout, re.MULTILINE)
    return [line for index, line in enumerate(found) if not index or line != found[index - 1]]


def listed_source(path: Path) -> list[str]:
    """Source text and instructions in the order in which ``llvm-objdump -S`` prints them.

    How far jumps and calls go is left out, and so are jumps to the next instruction.
    """
    command = ["llvm-objdump-22", "-S", "--no-show-raw-insn", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    lines = re.findall(r"^(;.*|\s+\d+:\t.*)$", done.stdout, re.MULTILINE)
    bare = [re.sub(r"^\s+\d+:\t", "", line) for line in lines if "\tgoto +0x0 " not in line]
    return [re.sub(r"(goto|call) [-+]?0x.*", r"\1", line) for line in bare]


def moved_lines(before: ElfObject, after: ElfObject, site: np.ndarray, path: Path) -> list[str]:
    """As `wrong_lines`, by llvm-symbolizer: with functions, files and all that is inlined."""
    old, new = symbolized(before, path), symbolized(after, path)
    pairs = enumerate(site.tolist())
    return [f"slot {at}: {new[at]}, not {old[was]}" for at, was in pairs if new[at] != old[was]]
