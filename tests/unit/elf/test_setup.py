"""Setups: values of variables and entries of maps that a program starts with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bpfpatch.elf import ElfObject, Setup, SetupEntry
from bpfpatch.elf.setup import parse_entry
from bpfpatch.errors import OptionError
from support.inputs.bpfobjects import fixture_path
from support.inputs.configured import configured


@pytest.fixture(scope="module")
def obj(tmp_path_factory: pytest.TempPathFactory) -> ElfObject:
    """An object with a map of each kind that matters."""
    return ElfObject.read(configured(tmp_path_factory.mktemp("setup")))


def prepared(obj: ElfObject, *texts: str) -> list[tuple[str, str, str]]:
    """Map, key and value of entries, the bytes in hex."""
    found = Setup(entries=tuple(parse_entry(text) for text in texts)).prepare(obj).entries
    return [(one.map, one.key.hex(), one.value.hex()) for one in found]


RULE = "0a000000070000005000bb01"


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("ports[80]=1", "5000", "01000000"),
        ("ports[0x50]=0x10", "5000", "10000000"),
        (" ports [ 80 ] = 1 ", "5000", "01000000"),
        ("ports[hex:0050]=hex:01 02 03 04", "0050", "01020304"),
        ("cfg[2]={limit=10,mode=DROP,ports=[80,443]}", "02000000", RULE),
        ('cfg[2]={"limit": 10, "mode": "DROP", "ports": [80, 443]}', "02000000", RULE),
        ("cfg[0]={mode=7}", "00000000", "000000000700000000000000"),
        ("routes[{bits=8,data=[10,0,0,0]}]=5", "080000000a000000", "05000000"),
        ("counts[0]=258", "00000000", "0201000000000000"),
    ],
)
def test_entries_become_bytes_by_type(obj: ElfObject, text: str, key: str, value: str) -> None:
    """Keys and values are read by their BTF types, or are bytes after ``hex:``."""
    assert prepared(obj, text) == [(text.strip().split("[")[0].strip(), key, value)]


def test_python_values_and_bytes(obj: ElfObject) -> None:
    """A library's user gives numbers, dicts and bytes as they are."""
    entries = (
        SetupEntry("cfg", 2, {"limit": 10, "mode": "DROP", "ports": [80, 443]}),
        SetupEntry("ports", b"\0\x50", 3),
    )
    found = Setup(entries=entries).prepare(obj).entries
    assert [one.value.hex() for one in found] == [RULE, "03000000"]


def test_the_later_of_two_entries_counts(obj: ElfObject) -> None:
    """A key that is given twice, in whatever form, has the later value."""
    assert prepared(obj, "ports[80]=1", "ports[0x50]=2") == [("ports", "5000", "02000000")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prots[80]=1", "there is no map 'prots' (did you mean ports"),
        (".bss[0]=1", ".bss is a section of variables: set these by their own names"),
        ("ports[65536]=1", "the key of ports[65536] holds 0 to 65535, not 65536"),
        ("ports[80]=-1", "ports[80] holds 0 to 4294967295, not -1"),
        ("ports[eighty]=1", "'eighty' is not one of its values; give a number from 0 to 65535"),
        ("ports[hex:01]=1", "the key of ports[hex:01] has 2 bytes, but 1 were given"),
        ("ports[80]=hex:0", "is not hex: and pairs of hex digits"),
        ("cfg[4]={limit=1}", "cfg[4]: the map has 4 elements, the first is 0"),
        ("cfg[0]=5", "cfg[0] is struct rule: set its members"),
        (
            "cfg[0]={mode=SLOW}",
            "cfg[0].mode is mode: 'SLOW' is not one of its values; give PASS, DROP",
        ),
        ("cfg[0]={speed=1}", "has no member 'speed'; it has: limit, mode, ports"),
        ("cfg[0]={ports=[1,2,3]}", "cfg[0].ports has 2 elements, but 3 were given"),
        ("cfg[0]={limit=1", "character 9: ',' or '}' has to follow"),
        ("routes[{bits=33}]=1", "a prefix has 32 bits at most, not 33"),
        ("jumps[0]=1", "type prog_array: it holds programs, which the source gives with .values"),
        ("waiting[0]=1", "type queue, which has no keys"),
        ("events[0]=1", "type ringbuf, whose entries cannot be set"),
    ],
)
def test_what_does_not_fit_is_refused(obj: ElfObject, text: str, message: str) -> None:
    """The error says which entry, what it can be, and what there is."""
    with pytest.raises(OptionError) as caught:
        prepared(obj, text)
    assert message in str(caught.value)


def test_more_entries_than_fit(obj: ElfObject) -> None:
    """A map is not given more entries than it holds."""
    with pytest.raises(OptionError, match="map 'ports' has room for 2 entries, 3 are given"):
        prepared(obj, *(f"ports[{port}]=1" for port in (1, 2, 3)))


@pytest.mark.parametrize(
    "text", ["ports", "ports=1", "ports[80", "ports[80]", "ports[80]+1", "[8]=1"]
)
def test_what_is_no_entry(text: str) -> None:
    """An entry is NAME[KEY]=VALUE."""
    with pytest.raises(OptionError, match=r"an entry is NAME\[KEY\]=VALUE"):
        parse_entry(text)


def test_brackets_and_quotes_in_a_key() -> None:
    """A key ends at its own bracket."""
    found = parse_entry('a[{x=[1,2],y="]["}]=[3]')
    assert (found.key, found.value) == ('{x=[1,2],y="]["}', "[3]")


def test_without_types_a_number_has_the_maps_size() -> None:
    """A legacy map has no types: numbers take the object's byte order, and have to fit."""
    old = ElfObject.read(str(fixture_path("legacy_maps.clang-19.v2.eb.o")))
    name = next(one.name for one in old.maps if one.name)
    entry = Setup(entries=(SetupEntry(name, 1, 2),)).prepare(old).entries[0]
    assert int.from_bytes(entry.key, "big") == 1
    assert int.from_bytes(entry.value, "big") == 2
    for key, message in (("x", "no type in BTF"), (1 << 40, "too few for")):
        with pytest.raises(OptionError, match=message):
            Setup(entries=(SetupEntry(name, key, 2),)).prepare(old)


def test_variables_of_every_section(obj: ElfObject) -> None:
    """What the file has no bytes for starts with its value, too, and the object stays as it was."""
    found = Setup({"scale": 3, "start": 9}).prepare(obj)
    assert {one.name: one.value for one in found.obj.variables}["scale"] == 3
    assert [(one.map, one.value.hex()) for one in found.entries] == [(".bss", "09000000")]
    assert found.fixed == {(".bss", bytes(4)), (".rodata", bytes(4))}
    assert {one.name: one.value for one in obj.variables}["scale"] == 1


def test_a_file_says_the_same(obj: ElfObject) -> None:
    """What a setup prints is what a file of it says."""
    setup = Setup(
        {"scale": 3}, (SetupEntry("ports", b"\x50\0", 1), SetupEntry("cfg", 2, {"mode": 1}))
    )
    again = Setup.from_json(json.loads(json.dumps(setup.to_json())))
    assert again.prepare(obj).entries == setup.prepare(obj).entries
    assert again.variables == setup.variables


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([], "is a JSON object"),
        ({"map": {}}, "has variables and maps, no 'map'"),
        ({"variables": []}, "variables are an object"),
        ({"maps": []}, "maps are an object"),
        ({"maps": {"ports": {"80": 1}}}, "has a list of entries"),
        ({"maps": {"ports": [{"key": 80}]}}, "has a key and a value, not"),
    ],
)
def test_files_of_another_form(found: Any, message: str) -> None:
    """A file that is not made as docs/setup.md says is an error that says what it should be."""
    with pytest.raises(OptionError, match=message):
        Setup.from_json(found)


def test_what_a_rewriting_took_out_is_left_out(obj: ElfObject, tmp_path: Path) -> None:
    """Of the rewritten object's maps, those that are gone get nothing."""
    other = ElfObject.read(str(fixture_path("xdp_balancer.clang-19.v3.el.g.o")))
    setup = Setup({"scale": 2}, (SetupEntry("ports", 80, 1),))
    assert setup.prepare(other, obj).entries == ()
