"""String tables: names by byte offset, with a bound on the text that they can expand to."""

from __future__ import annotations

from bpfpatch.errors import FormatError

BUDGET_PER_BYTE = 16
"""A table may be read for this many times its size. Names that overlap can expand without end."""


class StringTable:
    """Names of one string table, decoded when asked for and kept.

    Attributes:
        data: the table's bytes; the last one is NUL.
        byte_off: where the table starts in its file, for messages.
    """

    def __init__(self, data: bytes | memoryview, byte_off: int) -> None:
        self.data = bytes(data)
        self.byte_off = byte_off
        self._names: dict[int, str] = {}
        self._budget = (len(self.data) + 1) * BUDGET_PER_BYTE
        if self.data and self.data[-1] != 0:
            raise FormatError(
                "the string table does not end in a NUL byte", byte_off + len(self.data) - 1
            )

    def get(self, str_off: int) -> str:
        """The name at ``str_off``.

        Raises:
            FormatError: it starts outside of the table, or the names that were
                asked for are together far longer than the table.
        """
        name = self._names.get(str_off)
        if name is not None:
            return name
        if str_off == 0:
            return ""
        if not 0 <= str_off < len(self.data):
            raise FormatError(
                f"name {str_off:#x} lies outside of its string table of {len(self.data):#x} bytes",
                self.byte_off,
            )
        end = self.data.index(0, str_off)
        self._budget -= end - str_off
        if self._budget < 0:
            raise FormatError(
                f"names overlap: they expand to more than {BUDGET_PER_BYTE} times their table",
                self.byte_off + str_off,
            )
        name = self.data[str_off:end].decode("utf-8", "surrogateescape")
        self._names[str_off] = name
        return name
