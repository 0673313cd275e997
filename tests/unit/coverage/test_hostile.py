"""Sections and counters that were made to mislead, or to take memory."""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bpfpatch.cli.app import run
from bpfpatch.coverage import Coverage, collect, cover_map
from bpfpatch.elf import ElfObject
from bpfpatch.errors import FormatError, OptionError
from bpfpatch.passes import Pipeline
from bpfpatch.passes.cover import SECTION, CoverMap
from bpfpatch.passes.cover.packing import most, pack
from support.inputs.bpfobjects import fixture_path

OBJECT = fixture_path("xdp_balancer.clang-19.v3.el.g.o")


@pytest.fixture(scope="module")
def cover() -> CoverMap:
    """What the counters of an object with line records mean."""
    made, _ = Pipeline.parse("cover").run_object(ElfObject.read(OBJECT))
    return cover_map(made)


def _saved(cover: CoverMap) -> bytes:
    return collect.save(Coverage.of(cover, [0] * cover.n_counters))


def _changed(cover: CoverMap, change: Any) -> bytes:
    body = json.loads(zlib.decompress(cover.to_bytes()))
    change(body)
    return pack(json.dumps(body).encode())


def test_counters_of_other_lines_are_not_this_objects(cover: CoverMap) -> None:
    """The same code with other line numbers is another object: the report shows lines."""
    moved = replace(cover, lines=tuple(replace(row, line=row.line + 1) for row in cover.lines))
    with pytest.raises(OptionError, match="another one, or instrumented anew since"):
        collect.load(_saved(cover), moved)


def test_counters_of_other_names_are_not_this_objects(cover: CoverMap) -> None:
    """Nor is one whose references have other names."""
    named = replace(cover, names={slot: f"{name}2" for slot, name in cover.names.items()})
    assert cover.names
    with pytest.raises(OptionError, match="another one"):
        collect.load(_saved(cover), named)


@pytest.mark.parametrize("version", [1, 2])
def test_older_sections_are_read(cover: CoverMap, version: int) -> None:
    """What earlier versions wrote is read, with the identity that it was given then."""
    old = replace(cover, version=version)
    assert old.identity != cover.identity
    assert CoverMap.parse(old.to_bytes()) == old
    assert CoverMap.parse(old.to_bytes()).identity == old.identity


def test_a_text_is_in_the_section_once(cover: CoverMap) -> None:
    """A file's name is not repeated for each line record."""
    long = replace(cover, lines=tuple(replace(row, file="x" * 60_000) for row in cover.lines))
    assert zlib.decompress(long.to_bytes()).count(b"x" * 60_000) == 1


def test_a_small_section_stays_small() -> None:
    """A section that unpacks to far more than its size is refused before it is unpacked."""
    bomb = zlib.compress(b" " * (8 << 20))
    with pytest.raises(FormatError, match=f"unpacks to more than {most(len(bomb))} bytes"):
        CoverMap.parse(bomb)


def test_a_small_code_stays_small(cover: CoverMap) -> None:
    """So is the code in a section of version 2, which is packed again."""

    def change(body: dict[str, Any]) -> None:
        body["code"] = base64.b64encode(zlib.compress(bytes(64 << 20))).decode()

    data = _changed(replace(cover, version=2), change)
    with pytest.raises(FormatError, match=r"the code in section .* unpacks to more than"):
        CoverMap.parse(data)


def test_counters_that_unpack_to_too_much(cover: CoverMap) -> None:
    """A file of counters has such a section in it, and the same bound."""
    body = json.loads(_saved(cover))
    body["map"] = base64.b64encode(zlib.compress(b" " * (8 << 20))).decode()
    with pytest.raises(FormatError, match="unpacks to more than"):
        collect.load(json.dumps(body).encode(), cover)


def test_text_that_packs_too_well_is_written_so_that_it_is_read() -> None:
    """Real code that repeats itself packs as well as a bomb, and is left unpacked."""
    data = b" " * (8 << 20)
    assert len(data) <= most(len(pack(data)))
    assert zlib.decompress(pack(data)) == data


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body["functions"][0].update(name={"a": 1}),
        lambda body: body["functions"][0].update(section=7),
        lambda body: body["functions"][0].update(start="0"),
        lambda body: body["functions"][0].update(blocks=[[0.5, 1]]),
        lambda body: body["functions"][0].update(blocks=[[0, 4]] * 1000),
        lambda body: body.update(counting=[]),
        lambda body: body.update(counting="twice"),
        lambda body: body.update(n_counters=1 << 27),
        lambda body: body.update(n_counters=True),
        lambda body: body.update(lines=[[0, 1 << 40, 1, 1, 0]]),
        lambda body: body.update(texts=["\ud800"] * 1000),
        lambda body: body.update(texts=None),
        lambda body: body.update(version=[1]),
        lambda body: body.update(version=True),
        lambda body: body.update(names={"0": ["a"]}),
        lambda body: body.update(code=7),
    ],
)
def test_a_value_of_the_wrong_type_or_size(cover: CoverMap, change: Any) -> None:
    """Is refused where the section is read, not where something trips over it."""
    with pytest.raises(FormatError, match=SECTION):
        CoverMap.parse(_changed(cover, change))


def test_what_could_not_be_read_is_not_written(cover: CoverMap) -> None:
    """A name that no UTF-8 can hold is an error of the pass."""
    broken = replace(cover, names={0: "\ud800"})
    with pytest.raises(FormatError, match=SECTION):
        broken.to_bytes()


def test_an_existing_file_stays(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`cover` looks at its own section before it replaces OUT."""
    out = tmp_path / "out.o"
    out.write_bytes(b"old")

    def refuse(_data: bytes) -> CoverMap:
        raise FormatError("cannot be read back")

    monkeypatch.setattr(CoverMap, "parse", refuse)
    assert run(["cover", str(OBJECT), "-o", str(out), "-q"]) == 1
    assert "cannot be read back" in capsys.readouterr().err
    assert out.read_bytes() == b"old"
