"""Line records as text and numbers."""

import numpy as np
import pytest

from bpfpatch.btf import LINE_INFO, BtfLine, line_col_join, line_col_split, source_line
from bpfpatch.errors import FormatError, OptionError


@pytest.mark.parametrize(("line", "column"), [(0, 0), (1, 1), (4194303, 1023), (214, 7)])
def test_split_and_join(line, column):
    """The line has the upper 22 bits, the column the lower 10."""
    assert line_col_join(line, column) == line * 1024 + column
    assert line_col_split(line * 1024 + column) == (line, column)


def test_large_column():
    """A column that does not fit becomes the largest that does."""
    assert line_col_split(line_col_join(3, 5000)) == (3, 1023)


@pytest.mark.parametrize(("line", "column"), [(-1, 0), (1 << 22, 0), (1, -1)])
def test_no_such_place(line, column):
    """A line that does not fit is refused."""
    with pytest.raises(OptionError):
        line_col_join(line, column)


def test_source_line(make_btf):
    """A record's strings are looked up."""
    btf = make_btf([], b"\0lb.c\0\tx = 1;\0")
    record = np.array([(0, 1, 6, 214 << 10 | 2)], LINE_INFO)[0]
    found = source_line(btf, record)
    assert found == BtfLine("lb.c", 214, 2, "\tx = 1;")
    assert str(found) == "lb.c:214"


def test_source_line_without_strings(make_btf):
    """A record whose strings do not exist is an error."""
    record = np.array([(0, 99, 0, 0)], LINE_INFO)[0]
    with pytest.raises(FormatError):
        source_line(make_btf([]), record)
