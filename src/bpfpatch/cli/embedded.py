"""BPF objects inside of other files, as a skeleton's program has them in its data."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from bpfpatch.elf import ElfObject
from bpfpatch.errors import BpfPatchError, FormatError

MAGIC: Final = b"\x7fELF"
EM_BPF: Final = 247
SHT_NOBITS: Final = 8

_EHDR: Final = "HHIQQQIHHHHHH"
_SHDR: Final = "IIQQQQIIQQ"
_IDENT: Final = 16
_EHDR_SIZE: Final = 64
_SHDR_SIZE: Final = 64
_MAX_BROKEN: Final = 256
"""How many places may look like an object and be none: each costs a look at its sections."""
_MAX_LOOKS: Final = 8
"""How often, on average, a byte may be looked at for the sake of such places."""


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """A BPF object inside of a file.

    Attributes:
        byte_off: where it starts.
        data: its bytes.
        obj: the object.
    """

    byte_off: int
    data: bytes
    obj: ElfObject


def find_embedded(data: bytes) -> list[Embedded]:
    """Find all whole BPF objects of either byte order.

    An object within an object is not looked for.

    Args:
        data: a program, a library, anything.

    Raises:
        FormatError: so much looks like an object and is none that it must be on purpose.
    """
    out: list[Embedded] = []
    n_broken, left = 0, _MAX_LOOKS * len(data)
    at = data.find(MAGIC)
    while at >= 0:
        header = _header(data, at)
        size = _size(*header, len(data) - at) if header is not None else 0
        found = _parse(data, at, size) if size else None
        if found is not None:
            out.append(found)
            at = data.find(MAGIC, at + len(found.data))
            continue
        n_broken += size > 0
        left -= size + (len(header[1]) if header is not None else 0)
        if n_broken > _MAX_BROKEN or left < 0:
            raise FormatError(
                f"too many places look like a BPF object and are none: {n_broken} so far", at
            )
        at = data.find(MAGIC, at + 1)
    return out


def _parse(data: bytes, at: int, size: int) -> Embedded | None:
    content = data[at : at + size]
    try:
        obj = ElfObject.parse(content)
        len(obj.code)  # reads all of it
    except BpfPatchError:
        return None
    return Embedded(at, content, obj)


def _header(data: bytes, at: int) -> tuple[str, bytes, int] | None:
    """Byte order, section table and least size of the BPF object whose header this would be.

    None if it is no BPF object's. Source: System V ABI, chapter 4, "ELF Header" and "Sections".
    """
    if len(data) - at < _EHDR_SIZE or data[at + 4] != 2 or data[at + 5] not in (1, 2):
        return None
    order = "<" if data[at + 5] == 1 else ">"
    header = struct.unpack_from(order + _EHDR, data, at + _IDENT)
    machine, phoff, shoff = header[1], header[4], header[5]
    phentsize, phnum, shentsize, shnum = header[8:12]
    end = max(_EHDR_SIZE, shoff + shnum * _SHDR_SIZE, phoff + phnum * phentsize)
    if machine != EM_BPF or shentsize != _SHDR_SIZE or end > len(data) - at:
        return None
    return order, data[at + shoff : at + shoff + shnum * _SHDR_SIZE], end


def _size(order: str, table: bytes, least: int, limit: int) -> int:
    """The size of an object by its section table; 0 if it would end after a limit."""
    end = least
    for section in struct.iter_unpack(order + _SHDR, table):
        if section[1] != SHT_NOBITS:
            end = max(end, section[4] + section[5])
    return end if end <= limit else 0
