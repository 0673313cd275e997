"""Names of the kernel's functions by address."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .errors import KernelError

KALLSYMS: Final = Path("/proc/kallsyms")
_TEXT_KINDS: Final = b"tTwW"
_NEWLINE, _SPACE = ord("\n"), ord(" ")


@dataclass(frozen=True, slots=True, eq=False)
class TextSymbols:
    """The functions of the kernel and its modules.

    Attributes:
        addresses: (n,) uint64, ascending; all 0 where kptr_restrict hides them.
        data: the file that they were read from.
        starts: (n,) where each one's name starts in it.
    """

    addresses: NDArray[np.uint64]
    data: bytes
    starts: NDArray[np.int64]

    @classmethod
    def parse(cls, data: bytes) -> TextSymbols:
        """The functions of a file like /proc/kallsyms: address, kind, name, module."""
        text = np.frombuffer(data, "u1")
        ends = np.flatnonzero(text == _NEWLINE)
        if not ends.size:
            return cls(np.zeros(0, np.uint64), data, np.zeros(0, np.int64))
        lines = np.append(0, ends[:-1] + 1)
        width = data.index(b" ")
        lines = lines[np.isin(text[lines + width + 1], np.frombuffer(_TEXT_KINDS, "u1"))]
        digits = text[lines[:, None] + np.arange(width)]
        nibbles = np.where(digits >= ord("a"), digits - (ord("a") - 10), digits - ord("0"))
        addresses = np.zeros(lines.size, np.uint64)
        for column in nibbles.T:
            addresses = addresses << np.uint64(4) | column
        order = np.argsort(addresses, kind="stable")
        return cls(addresses[order], data, lines[order] + width + 3)

    def names(self, address: int) -> frozenset[str]:
        """All functions that start at an address; several may share one."""
        key = np.uint64(address & (1 << 64) - 1)
        first, last = (
            np.searchsorted(self.addresses, key),
            np.searchsorted(self.addresses, key, side="right"),
        )
        return frozenset(self._name(row) for row in range(int(first), int(last)))

    def address(self, name: str) -> int:
        """Where a function starts; 0 where there is none of that name, or it is hidden."""
        wanted = f" {name}".encode()
        at = -1
        while (at := self.data.find(wanted, at + 1)) >= 0:
            rows = np.flatnonzero(self.starts == at + 1)
            if rows.size and self._name(int(rows[0])) == name:
                return int(self.addresses[rows[0]])
        return 0

    def _name(self, row: int) -> str:
        start = int(self.starts[row])
        return self.data[start : self.data.index(b"\n", start)].split()[0].decode()


@cache
def text_symbols() -> TextSymbols:
    """The running kernel's functions, read once.

    Raises:
        KernelError: /proc/kallsyms cannot be read.
    """
    try:
        return TextSymbols.parse(KALLSYMS.read_bytes())
    except OSError as error:
        raise KernelError(error.errno or 0, f"reading {KALLSYMS}") from error
