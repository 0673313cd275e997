"""Variables of an object: what they are, and other values for them."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from bpfpatch.btf import (
    Btf,
    BtfBuilder,
    BtfPlace,
    Enum,
    Enumerator,
    Int,
    IntEncoding,
    Member,
    Ptr,
    Struct,
)
from bpfpatch.btf.values import read_value, write_value
from bpfpatch.elf import ElfObject
from bpfpatch.errors import OptionError
from support.inputs.compiled import compile_bpf

SOURCE = """
enum mode { MODE_SLOW, MODE_FAST = 7 };
struct limits { unsigned int max; int low; unsigned few : 3, more : 5; char name[8]; };
const volatile struct limits limits = { .max = 5, .few = 2 };
const volatile enum mode mode = MODE_SLOW;
const volatile _Bool is_on = 0;
const volatile short small[3] = {1, 2, 3};
int counter = 3;
int zero;
void *const volatile where = &counter;
SEC("socket") int run(void *ctx) {
    static const volatile long twice = 4;
    return limits.max + limits.few + mode + is_on + small[1] + ++counter + zero++ + twice
        + (long)where;
}
char _license[] SEC("license") = "GPL";
"""


@pytest.fixture(scope="module")
def obj(tmp_path_factory: pytest.TempPathFactory) -> ElfObject:
    """An object with a variable of each kind."""
    return ElfObject.read(compile_bpf(tmp_path_factory.mktemp("values"), SOURCE))


def value_of(obj: ElfObject, name: str) -> Any:
    """What a variable holds."""
    (found,) = [one for one in obj.variables if one.name == name]
    return found.value


def test_variables_are_listed_with_their_values(obj: ElfObject) -> None:
    """Each variable has its section, its type and what the source starts it with."""
    found = {one.name: (one.section, one.type, one.value) for one in obj.variables}
    assert found["small"] == (".rodata", "const volatile short[3]", [1, 2, 3])
    assert found["counter"] == (".data", "int", 3)
    assert found["zero"] == (".bss", "int", 0)
    assert found["mode"][2] == "MODE_SLOW"
    assert found["limits"][2] == {"max": 5, "low": 0, "few": 2, "more": 0, "name": ""}


@pytest.mark.parametrize(
    ("name", "value", "variable", "after"),
    [
        ("limits.max", "0x10", "limits", {"max": 16, "low": 0, "few": 2, "more": 0, "name": ""}),
        ("limits", {"low": -1, "more": 31}, "limits",
         {"max": 5, "low": -1, "few": 2, "more": 31, "name": ""}),
        ("limits.name", "abc", "limits",
         {"max": 5, "low": 0, "few": 2, "more": 0, "name": "abc"}),
        ("mode", "MODE_FAST", "mode", "MODE_FAST"),
        ("mode", 9, "mode", 9),
        ("is_on", "true", "is_on", True),
        ("is_on", True, "is_on", True),
        ("small", "[4, -5]", "small", [4, -5, 0]),
        ("small[2]", "-7", "small", [1, 2, -7]),
        ("run.twice", 1 << 40, "run.twice", 1 << 40),
    ],
)  # fmt: skip
def test_value_is_written(obj: ElfObject, name: str, value: Any, variable: str, after: Any) -> None:
    """A value comes back as it was given, and nothing else of the object changes."""
    changed = obj.with_values({name: value})
    assert value_of(changed, variable) == after
    assert changed.settled == (name,)
    for one, other in zip(obj.variables, changed.variables, strict=True):
        assert one.name == variable or one == other
    assert changed.code.to_bytes() == obj.code.to_bytes()
    assert len(changed.to_bytes()) == len(obj.to_bytes())


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("mod", 1, "no variable 'mod' (did you mean mode"),
        ("xyzzy", 1, "there are: limits"),
        ("mode", "MODE_X", "give MODE_SLOW, MODE_FAST"),
        ("is_on", 2, "is_on holds 0 to 1, not 2"),
        ("is_on", "maybe", "give true or false"),
        ("small", [1, 2, 3, 4], "small has 3 elements, but 4 were given"),
        ("small", "many", "give a list"),
        ("small[0]", 40000, "holds -32768 to 32767"),
        ("small[3]", 1, "has 3 elements, no 3"),
        ("limits", 3, "set its members, such as limits.max"),
        ("limits.few", 8, "holds 0 to 7"),
        ("limits.foo", 1, "it has: max, low, few, more, name"),
        ("limits.max", -1, "holds 0 to 4294967295"),
        ("limits.name", "12345678", "room for 7 bytes and a NUL"),
        ("limits.max", 1.5, "1.5 is not one of"),
        ("counter", 1, "programs may write it"),
        ("where", 1, "address"),
    ],
)
def test_what_does_not_fit_is_refused(obj: ElfObject, name: str, value: Any, message: str) -> None:
    """A wrong name or value is an error that says what there is."""
    with pytest.raises(OptionError, match=None) as caught:
        obj.with_values({name: value})
    assert message in str(caught.value)


def test_writable_variables_are_given_on_request(obj: ElfObject) -> None:
    """.data takes a start value where that is allowed; .bss is zeros, as loaders make it."""
    assert value_of(obj.with_values({"counter": 8}, writable=True), "counter") == 8
    assert obj.with_values({"zero": 0}, writable=True) == obj
    with pytest.raises(OptionError, match="loaders fill with zeros"):
        obj.with_values({"zero": 1}, writable=True)


def test_without_types_there_are_no_variables(tmp_path: Path) -> None:
    """An object without BTF says what is missing."""
    plain = ElfObject.read(compile_bpf(tmp_path, SOURCE, flags=()))
    assert plain.variables == ()
    with pytest.raises(OptionError, match="has no BTF"):
        plain.with_values({"mode": 1})


def struct_types() -> tuple[Btf, int]:
    """A struct of bitfields, and an enum of negative numbers in it."""
    types = BtfBuilder()
    word = types.add(Int("int", 4, 32, IntEncoding.SIGNED))
    way = types.add(Enum("way", 4, (Enumerator("BACK", -1),), is_signed=True))
    members = (Member("a", word, 0, 3), Member("b", word, 3, 7), Member("way", way, 32))
    where = types.add(Ptr(word))
    made = types.add(Struct("s", 16, (*members, Member("p", where, 64)), kind_flag=True))
    return types.build(), made


@pytest.mark.parametrize("order", ["little", "big"])
def test_bitfields_keep_their_neighbours(order: Any) -> None:
    """Writing one bitfield and reading all gives it and the others, in both byte orders."""
    btf, made = struct_types()
    data = bytearray(16)
    for a in range(-4, 4):
        for b in (-64, -1, 0, 5, 63):
            write_value(btf, BtfPlace(made, 0), data, {"a": a, "b": b, "way": "BACK"}, order, "s")
            found = read_value(btf, made, bytes(data), order)
            assert (found["a"], found["b"], found["way"]) == (a, b, "BACK")
    assert data[4:8] == b"\xff" * 4


def test_big_endian_bitfields_count_from_the_top() -> None:
    """In a big-endian object the first bitfield is the most significant, as compilers lay it out.

    Source: System V ABI for big-endian machines, on bit-fields.
    """
    btf, made = struct_types()
    data = bytearray(16)
    write_value(btf, BtfPlace(made, 0), data, {"a": 1, "b": 2}, "big", "s")
    assert struct.unpack(">I", data[:4])[0] == 1 << 29 | 2 << 22
