"""Names of the kernel's functions by address."""

from bpfpatch.kernel import TextSymbols

FILE = b"""\
ffffffff81000010 T two
ffffffff81000010 t also_two
ffffffff81000000 W one
ffffffff81000020 D data
0000000000000000 A fixed_percpu_data
ffffffffc0000000 t inside\t[module]
ffffffff81000030 T two_more
"""


def test_several_functions_may_share_an_address() -> None:
    """All are named, also those of modules."""
    symbols = TextSymbols.parse(FILE)
    assert symbols.names(0xFFFFFFFF81000010) == {"two", "also_two"}
    assert symbols.names(0xFFFFFFFFC0000000) == {"inside"}


def test_data_is_no_function() -> None:
    """Only functions are called."""
    symbols = TextSymbols.parse(FILE)
    assert symbols.names(0xFFFFFFFF81000020) == frozenset()
    assert symbols.address("data") == 0


def test_a_function_is_found_by_its_whole_name() -> None:
    """Not by the start of it."""
    symbols = TextSymbols.parse(FILE)
    assert symbols.address("two_more") == 0xFFFFFFFF81000030
    assert symbols.address("two") == 0xFFFFFFFF81000010
    assert symbols.address("two_") == 0


def test_between_functions_there_is_no_name() -> None:
    """An address is that of a start, or of nothing."""
    assert TextSymbols.parse(FILE).names(0xFFFFFFFF81000011) == frozenset()


def test_an_empty_file_has_no_functions() -> None:
    """As where /proc/kallsyms is empty."""
    assert TextSymbols.parse(b"").names(1) == frozenset()
