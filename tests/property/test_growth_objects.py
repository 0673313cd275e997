"""Commands on objects with eight times as much of one thing take about eight times as long."""

from __future__ import annotations

import contextlib
import io
import struct
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bpfpatch import asm
from bpfpatch.btf import BtfBuilder, DeclTag, Func, FuncLinkage, FuncProto, Int, IntEncoding
from bpfpatch.cli.app import run
from bpfpatch.elf.build import DataPart, NewObjectParts, NewVariable, build_object, with_names
from bpfpatch.facts.kinds import MapType
from bpfpatch.facts.maps import MapDefinition
from bpfpatch.program import FUNC_INFO, LINE_INFO, Anchor, AnchoredTable, Program
from bpfpatch.program.program import LINE

SMALL, FACTOR = 150, 8
MOST = 3 * FACTOR
"""Quadratic work would grow by 64; what does not depend on the size keeps the ratio below 8."""
TRIES = 3

FUNC = np.dtype([("type_id", "<u4")])
_RETURN = "r0 = 0\nexit\n"


def _parts(text: str) -> NewObjectParts:
    btf = with_names(BtfBuilder().build(), "xdp")
    program: Program = asm.assemble(text)
    n_subprogs = len(program.subprogs)
    is_global = tuple(row == 0 for row in range(n_subprogs))
    return NewObjectParts(program, "xdp", "GPL", btf, (), (), {}, is_global)


def _loads(count: int, name: Callable[[int], str]) -> NewObjectParts:
    """So many ld_imm64, each of what it is told."""
    given = _parts(".subprog main\n" + "r1 = 0 ll\n" * count + _RETURN)
    uses = {2 * at: name(at) for at in range(count)}
    program = replace(given.program, external=np.array(sorted(uses), np.int32))
    return replace(given, program=program, uses=uses)


def _chain(count: int) -> NewObjectParts:
    """Functions that each call the next one."""
    calls = [f".subprog f{at}\ncall f{at + 1}\n{_RETURN}" for at in range(count)]
    return _parts(
        ".subprog main\ncall f0\n" + _RETURN + "".join(calls) + f".subprog f{count}\n" + _RETURN
    )


def _calls(count: int) -> NewObjectParts:
    """Calls of one function."""
    return _parts(".subprog main\n" + "call f\n" * count + _RETURN + ".subprog f\n" + _RETURN)


def _map(name: str) -> MapDefinition:
    return MapDefinition(name, MapType.ARRAY, 4, 8, 1)


def _maps(count: int) -> NewObjectParts:
    """Maps, each referred to once."""
    maps = tuple(_map(f"m{at}") for at in range(count))
    return replace(_loads(count, lambda at: f"m{at}"), maps=maps)


def _relocations(count: int) -> NewObjectParts:
    """Relocations to one map."""
    return replace(_loads(count, lambda _: "m"), maps=(_map("m"),))


def _symbols(count: int) -> NewObjectParts:
    """Variables of one section."""
    variables = tuple(NewVariable(f"v{at}", 8 * at, 8) for at in range(count))
    return replace(
        _parts(".subprog main\n" + _RETURN), data=(DataPart(".data", bytes(8 * count), variables),)
    )


def _sections(count: int) -> NewObjectParts:
    """Sections of data."""
    data = tuple(
        DataPart(f".data.d{at}", bytes(8), (NewVariable(f"v{at}", 0, 8),)) for at in range(count)
    )
    return replace(_parts(".subprog main\n" + _RETURN), data=data)


def _lines(count: int) -> NewObjectParts:
    """Line records, all with the name of one file, which is as long as they are many."""
    given = _parts(".subprog main\n" + "r1 = 0\n" * count + _RETURN)
    assert given.btf is not None
    types = BtfBuilder(given.btf)
    rows = np.zeros(count, LINE)
    rows["file_name_off"] = types.string("f" * 20 * count)
    rows["line_off"] = types.string("r1 = 0;")
    rows["line_col"] = np.arange(1, count + 1) << 10
    table = AnchoredTable(np.arange(count, dtype=np.int32), rows, Anchor.ENTRY, unique=True)
    btf = types.build()
    program = replace(given.program, strings=btf.string_bytes).with_tables(**{LINE_INFO: table})
    return replace(given, program=program, btf=btf)


def _tags(count: int) -> NewObjectParts:
    """Functions with a type and a declaration tag each."""
    given = _chain(count)
    assert given.btf is not None
    types = BtfBuilder(given.btf)
    number = types.add(Int("int", 4, 32, IntEncoding.SIGNED))
    proto = types.add(FuncProto(number, ()))
    names = given.program.subprogs.names
    rows = np.zeros(len(names), FUNC)
    for at, name in enumerate(names):
        rows["type_id"][at] = made = types.add(Func(name, proto, FuncLinkage.STATIC))
        types.add(DeclTag("tag", made))
    table = AnchoredTable(given.program.subprogs.start, rows, Anchor.ENTRY, unique=True)
    return replace(
        given, program=given.program.with_tables(**{FUNC_INFO: table}), btf=types.build()
    )


def _code_sections(count: int) -> bytes:
    """Sections of code, a function of two instructions in each."""
    code = asm.assemble(_RETURN).to_bytes()
    body, headers, symbols = bytearray(64), [(0,) * 10], bytearray(24)
    names, strings = bytearray(b"\0"), bytearray(b"\0")

    def text(home: bytearray, one: str) -> int:
        home += one.encode() + b"\0"
        return len(home) - len(one) - 1

    def section(name: str, content: bytes, *form: int) -> None:
        kind, flags, link, info, entry = form
        at = text(names, name)
        headers.append((at, kind, flags, 0, len(body), len(content), link, info, 8, entry))
        body.extend(content + bytes(-len(content) % 8))

    for at in range(count):
        section(f"xdp/{at}", code, 1, 6, 0, 0, 0)
        name = text(strings, f"f{at}" if at else "main")
        symbols += struct.pack("<IBBHQQ", name, 0x12, 0, at + 1, 0, len(code))
    section(".symtab", bytes(symbols), 2, 0, count + 2, 1, 24)
    section(".strtab", bytes(strings), 3, 0, 0, 0, 0)
    section(".shstrtab", bytes(names) + b".shstrtab\0", 3, 0, 0, 0, 0)
    shape = (1, 247, 1, 0, 0, len(body), 0, 64, 0, 0, 64, len(headers), len(headers) - 1)
    body[:64] = b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", *shape)
    return bytes(body) + b"".join(struct.pack("<IIQQQQIIQQ", *one) for one in headers)


KINDS = {
    "code sections": _code_sections,
    "functions": _chain,
    "calls": _calls,
    "maps": _maps,
    "relocations": _relocations,
    "symbols": _symbols,
    "sections": _sections,
    "line records": _lines,
    "tags": _tags,
}
COMMANDS = {
    "info": ("info", "IN"),
    "dump": ("dump", "IN", "--lines"),
    "link": ("dump", "IN", "--link", "main"),
    "apply": ("apply", "-p", "nops,sprinkle", "IN", "-o", "OUT", "-q"),
    "cover": ("cover", "IN", "-o", "OUT", "-q"),
}


@pytest.fixture(scope="module", params=KINDS)
def objects(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A small object of a kind and a large one."""
    folder = tmp_path_factory.mktemp("growth")
    out = []
    for count in (SMALL, SMALL * FACTOR):
        path = folder / f"{count}.o"
        made = KINDS[request.param](count)
        data = made if isinstance(made, bytes) else build_object(made).to_bytes()
        path.write_bytes(data)
        out.append(path)
    return out


def _seconds(command: tuple[str, ...], path: Path) -> float:
    files = {"IN": str(path), "OUT": str(path.with_suffix(".out"))}
    began = time.process_time()
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()) as said,
    ):
        status = run([files.get(word, word) for word in command])
    assert status == 0, said.getvalue()
    return time.process_time() - began


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_linear(objects: list[Path], name: str) -> None:
    """Whatever an object has many of; the best of a few tries, for a busy machine's sake."""
    best = [float("inf"), float("inf")]
    for _ in range(TRIES):
        found = [_seconds(COMMANDS[name], path) for path in objects]
        best = [min(pair) for pair in zip(best, found, strict=True)]
        if best[1] < MOST * best[0]:
            break
    assert best[1] < MOST * best[0], f"{FACTOR} times as much, {best} s"
