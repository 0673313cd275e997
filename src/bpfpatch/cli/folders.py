"""Folders of objects, which are told from other files by what is in them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bpfpatch.errors import BpfPatchError

from .failure import Failure, blame

_ELF: Final = b"\x7fELF"
_MACHINE: Final = slice(18, 20)
_BPF: Final = (b"\xf7\x00", b"\x00\xf7")
"""e_machine of BPF in both byte orders. Source: include/uapi/linux/elf-em.h, EM_BPF."""


@dataclass(frozen=True)
class Folder:
    """What a folder holds.

    Attributes:
        path: as it was given.
        objects: names of objects, with the folders that they are in below this one, in order.
        skipped: names of other files.
    """

    path: str
    objects: tuple[str, ...]
    skipped: tuple[str, ...]

    def file(self, name: str) -> str:
        """The path of one of its files."""
        return str(Path(self.path) / name)

    def notes(self) -> list[str]:
        """What to say of files that are no objects."""
        if not self.skipped:
            return []
        shown = ", ".join(self.skipped[:5])
        more = f" and {len(self.skipped) - 5} more" if len(self.skipped) > 5 else ""
        return [f"no BPF objects, left out: {shown}{more}"]


def read_folder(path: str) -> Folder:
    """Look through a folder and those in it; links to folders are not followed.

    Raises:
        Failure: it cannot be read, or holds no object.
    """
    objects: list[str] = []
    skipped: list[str] = []
    with blame(path):
        for root, folders, files in os.walk(path, onerror=_raise):
            folders.sort()
            for name in files:
                file = Path(root) / name
                kind = objects if _is_object(file) else skipped
                kind.append(str(file.relative_to(path)))
    if not objects:
        raise Failure(path, "there is no BPF object in this folder")
    return Folder(path, tuple(sorted(objects)), tuple(sorted(skipped)))


def _raise(error: OSError) -> None:
    raise error


def _is_object(file: Path) -> bool:
    if not file.is_file():
        return False
    with file.open("rb") as stream:
        head = stream.read(_MACHINE.stop)
    return head.startswith(_ELF) and head[_MACHINE] in _BPF


def one_line(error: Failure | BpfPatchError) -> str:
    """Why a file failed, in one line."""
    return "; ".join(error.messages) if isinstance(error, Failure) else str(error)
