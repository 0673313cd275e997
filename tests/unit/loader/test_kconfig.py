"""Configuration values: places and encodings, by libbpf's rules."""

import struct

import pytest

from bpfpatch.btf import (
    Array,
    BtfBuilder,
    DataSec,
    Enum,
    Enumerator,
    Int,
    IntEncoding,
    SecVar,
    Var,
    VarLinkage,
)
from bpfpatch.kernel import KernelError, kconfig_content
from bpfpatch.loader.kconfig import kconfig_layout


@pytest.fixture(scope="module")
def btf():
    """A bool, a char, an array of char, a tristate, a signed and an unsigned number."""
    types = BtfBuilder()
    is_set = types.add(Int("_Bool", 1, 8, IntEncoding.BOOL))
    char = types.add(Int("char", 1, 8, IntEncoding.SIGNED))
    number = types.add(Int("int", 4, 32, IntEncoding.SIGNED))
    long = types.add(Int("unsigned long", 8, 64))
    text = types.add(Array(char, number, 6))
    tristate = types.add(Enum("libbpf_tristate", 4, (Enumerator("TRI_NO", 0),)))
    names = {
        "CONFIG_BOOL": is_set,
        "CONFIG_CHAR": char,
        "CONFIG_TEXT": text,
        "CONFIG_TRI": tristate,
        "CONFIG_INT": number,
        "CONFIG_LONG": long,
    }
    rows = [
        SecVar(types.add(Var(name, type_id, VarLinkage.EXTERN)), 0, 0)
        for name, type_id in names.items()
    ]
    types.add(DataSec(".kconfig", 0, tuple(rows)))
    return types.build()


GIVEN = {
    "CONFIG_BOOL": "y",
    "CONFIG_CHAR": "m",
    "CONFIG_TEXT": '"lengthy"',
    "CONFIG_TRI": "m",
    "CONFIG_INT": "-250",
    "CONFIG_LONG": "0x1234",
}


def test_values_are_placed_by_alignment_size_and_name(btf):
    """The widest alignment comes first, in it the smallest, in that by name."""
    places = [(row.name, row.byte_off) for row in kconfig_layout(btf)]
    assert places == [
        ("CONFIG_LONG", 0),
        ("CONFIG_INT", 8),
        ("CONFIG_TRI", 12),
        ("CONFIG_BOOL", 16),
        ("CONFIG_CHAR", 17),
        ("CONFIG_TEXT", 18),
    ]


def test_values_are_encoded_by_type(btf):
    """y, m, numbers and text become what their variable's type holds; text is cut to fit."""
    content = kconfig_content(btf, frozenset(), GIVEN)
    assert content == struct.pack("=Qii?c6s", 0x1234, -250, 2, True, b"m", b"lengt\0")


def test_absent_values_are_zeros_where_weak(btf):
    """A weak one that nobody knows reads as zero; another one is an error."""
    given = {**GIVEN}
    del given["CONFIG_INT"]
    weak = kconfig_content(btf, frozenset({"CONFIG_INT"}), given)
    assert weak[8:12] == bytes(4)
    with pytest.raises(KernelError, match="has no CONFIG_INT"):
        kconfig_content(btf, frozenset(), given)


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("CONFIG_BOOL", "m", "module"),
        ("CONFIG_INT", "y", "bool, char"),
        ("CONFIG_INT", '"text"', "array of char"),
        ("CONFIG_INT", "5000000000", "does not fit 4 bytes"),
        ("CONFIG_LONG", "abc", "not a number"),
    ],
)
def test_values_of_another_type_are_refused(btf, name, value, why):
    """A value that does not suit the variable's type is an error that says why."""
    with pytest.raises(KernelError, match=why):
        kconfig_content(btf, frozenset(), {**GIVEN, name: value})
