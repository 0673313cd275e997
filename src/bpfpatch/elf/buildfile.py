"""The file of an object that is built: headers, contents, and the table of sections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from .raw import EHDR, EHDR_SIZE, EM_BPF, ET_REL, SHDR

ALIGN: Final = 8


@dataclass(slots=True)
class BuiltSection:
    """A section: its header's fields, and its content."""

    name: str
    type: int
    flags: int
    data: bytes
    size: int
    link: int = 0
    info: int = 0
    entsize: int = 0
    align: int = ALIGN


class Strings:
    """A table of strings that grows."""

    def __init__(self) -> None:
        self.data = bytearray(b"\0")
        self._at: dict[str, int] = {"": 0}

    def add(self, text: str) -> int:
        """Where a text is in the table."""
        if text not in self._at:
            self._at[text] = len(self.data)
            self.data += text.encode("utf-8", "surrogateescape") + b"\0"
        return self._at[text]


def file_of(sections: Sequence[BuiltSection], strings: Strings) -> bytes:
    """The whole file; the last section is that of the strings."""
    offs = [strings.add(one.name) for one in sections]
    strtab = len(sections) - 1
    sections[strtab].data = bytes(strings.data)
    sections[strtab].size = len(strings.data)
    rows = np.zeros(len(sections), SHDR["little"])
    out = bytearray(EHDR_SIZE)
    for at, one in enumerate(sections):
        if at:
            out += bytes(-len(out) % one.align)
        rows["name_off"][at], rows["type"][at] = offs[at], one.type
        rows["flags"][at], rows["byte_off"][at] = one.flags, len(out) if at else 0
        rows["size"][at], rows["link"][at], rows["info"][at] = one.size, one.link, one.info
        rows["addralign"][at], rows["entsize"][at] = one.align, one.entsize
        out += one.data
    out += bytes(-len(out) % ALIGN)
    header = np.zeros(1, EHDR["little"])
    header["ident"][0, :7] = [0x7F, *b"ELF", 2, 1, 1]
    header["type"], header["machine"], header["version"] = ET_REL, EM_BPF, 1
    header["shoff"], header["ehsize"] = len(out), EHDR_SIZE
    header["shentsize"], header["shnum"] = SHDR["little"].itemsize, len(rows)
    header["shstrndx"] = strtab
    out[:EHDR_SIZE] = header.tobytes()
    return bytes(out) + rows.tobytes()
