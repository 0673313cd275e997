"""Source lines: what a line record says, as text and numbers.

Source: linux v6.1, include/uapi/linux/bpf.h, struct bpf_line_info,
BPF_LINE_INFO_LINE_NUM() and BPF_LINE_INFO_LINE_COL().
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bpfpatch.errors import OptionError

from .btf import Btf

_MAX_LINE = (1 << 22) - 1
_MAX_COLUMN = (1 << 10) - 1


def line_col_split(line_col: int) -> tuple[int, int]:
    """(line, column) of a line record's ``line_col``."""
    return line_col >> 10, line_col & _MAX_COLUMN


def line_col_join(line: int, column: int = 0) -> int:
    """The ``line_col`` of a line and column.

    A column that does not fit its 10 bits becomes the largest that does.

    Raises:
        OptionError: the line does not fit its 22 bits, or one of them is negative.
    """
    if not 0 <= line <= _MAX_LINE or column < 0:
        raise OptionError(
            f"line {line}, column {column} is not a place that a line record can hold: "
            f"its lines go to {_MAX_LINE}"
        )
    return line << 10 | min(column, _MAX_COLUMN)


@dataclass(frozen=True, slots=True)
class BtfLine:
    """One line of the source.

    Attributes:
        file: as the compiler was given it.
        line: 1-based; 0 where it is not known.
        column: 1-based; 0 where it is not known.
        text: the line, or "" where the compiler did not keep it.
    """

    file: str
    line: int
    column: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def source_line(strings: Btf, record: np.void) -> BtfLine:
    """What one record of ``line_info`` says.

    Args:
        strings: the .BTF that the record belongs to.
        record: one element of a LINE_INFO array.

    Raises:
        FormatError: the record names strings that do not exist.
    """
    line, column = line_col_split(int(record["line_col"]))
    file = strings.string(int(record["file_name_off"]))
    return BtfLine(file, line, column, strings.string(int(record["line_off"])))
