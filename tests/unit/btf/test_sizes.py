"""What is behind a type, and how large it is."""

import pytest

from bpfpatch.errors import FormatError

INT = [0, 1 << 24, 4, 32]
STRUCT = [0, 4 << 24, 24]


def wraps(kind, type_id):
    """A record of a kind that refers to one other."""
    return [0, kind << 24, type_id] + [0] * (kind in (14, 17))


@pytest.mark.parametrize("kind", [8, 9, 10, 11, 18])
def test_resolve_walks_through(make_btf, kind):
    """Typedef, volatile, const, restrict and type tags are walked through."""
    assert make_btf([INT, wraps(kind, 1), wraps(kind, 2)]).resolve(3) == 1


@pytest.mark.parametrize("kind", [2, 12, 14, 17])
def test_resolve_stops_at(make_btf, kind):
    """Pointers, functions, variables and declaration tags are types of their own."""
    assert make_btf([INT, wraps(kind, 1)]).resolve(2) == 2


def test_resolve_of_a_ring(make_btf):
    """A typedef of itself is an error, not a hang."""
    with pytest.raises(FormatError, match="refers to itself") as caught:
        make_btf([wraps(8, 2), wraps(10, 1)]).resolve(1)
    assert caught.value.byte_off == 24


def test_resolve_goes_32_deep(make_btf):
    """32 references are walked, as in the kernel, and 33 are not."""
    btf = make_btf([INT, *(wraps(10, type_id) for type_id in range(1, 34))])
    assert btf.resolve(33) == 1
    with pytest.raises(FormatError):
        btf.resolve(34)


@pytest.mark.parametrize(
    ("record", "size"),
    [
        (STRUCT, 24),
        ([0, 5 << 24, 9], 9),
        ([0, 6 << 24, 4], 4),
        ([0, 19 << 24, 8], 8),
        ([0, 16 << 24, 2], 2),
        ([0, 15 << 24, 100], 100),
        (wraps(2, 0), 8),
        (wraps(8, 1), 4),
        (wraps(14, 1), 4),
        (wraps(17, 1), 4),
        ([0, 3 << 24, 0, 1, 1, 7], 28),
        ([0, 3 << 24, 0, 1, 1, 0], 0),
    ],
)
def test_size_of(make_btf, record, size):
    """Each kind that has a size has the one that its record, or what it refers to, says."""
    assert make_btf([INT, record]).size_of(2) == size


def test_size_of_nested_arrays(make_btf):
    """Counts multiply through typedefs."""
    array = [0, 3 << 24, 0, 1, 1, 6]
    assert make_btf([INT, array, wraps(8, 2), [0, 3 << 24, 0, 3, 1, 5]]).size_of(4) == 120


@pytest.mark.parametrize("record", [wraps(12, 0), [0, 7 << 24, 0], [0, 13 << 24, 0], wraps(8, 0)])
def test_no_size(make_btf, record):
    """Functions, prototypes, forward declarations and void have none."""
    with pytest.raises(FormatError, match="has no size"):
        make_btf([record]).size_of(1)


def test_size_of_a_ring(make_btf):
    """An array of itself is an error, not a hang."""
    with pytest.raises(FormatError, match="refers to itself"):
        make_btf([[0, 3 << 24, 0, 1, 1, 1]]).size_of(1)


def test_size_above_4_gib(make_btf):
    """Arrays whose size does not fit 32 bits are refused, as libbpf does."""
    with pytest.raises(FormatError, match="4 GiB"):
        make_btf([INT, [0, 3 << 24, 0, 1, 1, 1 << 30]]).size_of(2)


@pytest.mark.parametrize("size", [4, 8])
def test_pointer_size_is_that_of_long(make_btf, size):
    """A pointer is as large as ``unsigned long``."""
    btf = make_btf([[1, 1 << 24, size, 8 * size], wraps(2, 0)], b"\0unsigned long\0")
    assert (btf.ptr_size, btf.size_of(2)) == (size, size)
