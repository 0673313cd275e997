"""Mutated inputs through every command: each is done or refused, in bounded time and memory.

A case is a number. It chooses a seed (an object, a counted object, counters, a capture, raw
instructions, assembly), mutates it, and runs one command on it in this process. Wrong is an exit
status of 3, no end within `LIMIT_S`, running out of the memory that the caller's limit leaves, a
file left behind, or an existing output that a failure has touched.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import shutil
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bpfpatch import asm
from bpfpatch.cli.app import run
from bpfpatch.coverage import Coverage, collect, cover_map
from bpfpatch.elf import ElfObject
from bpfpatch.errors import BpfPatchError
from bpfpatch.passes import Pipeline
from bpfpatch.passes.cover import CoverMap
from support.generators.fuzzing import HangError, mutate, time_limit
from support.inputs.bpfobjects import fixture_objects

LIMIT_S: Final = 20
"""Seconds after which a case counts as hanging; commands take well under one."""
BUG: Final = 3
_STOPPED: Final = (130, 143)
"""The harness itself was interrupted or terminated."""
_OF_DIFF: Final = ("diff", "verify", "kernel-diff")
"""Their status 1 says that there is a difference."""
_OLD: Final = b"what was there before"
_MOST_BYTES: Final = 1 << 16
_PIPELINES: Final = (
    "blind",
    "blind{spill=false}",
    "cover",
    "cover{edges=true}",
    "cover{count=percpu}",
    "dce",
    "dce{aux=true}",
    "copies{safe=false}",
    "dead-stores",
    "jumps{safe=false}",
    "shrink",
    "shrink{safe=false}",
    "ctx-access",
    "fixup-calls",
    "fastcall",
    "inline-loop",
    "lower",
    "nops",
    "sprinkle{every=3}",
    "zext",
    "zext{force=true}",
    "trace{at=*:exit,regs=all}",
    "sprinkle,dce,blind,nops",
)
_RUN: Final = ("--hex", "00" * 64, "--budget", "20000")
Command = Callable[[random.Random, Path], list[str]]


def _of_code(*more: str) -> dict[str, Command]:
    """Commands for whatever has instructions; ``IN`` is the input, ``WHOLE`` the unmutated one."""

    def apply(rng: random.Random, at: Path) -> list[str]:
        internal = ["--internal"] if rng.random() < 0.5 else []
        pipeline = rng.choice(_PIPELINES)
        if rng.random() < 0.3:
            return ["exec", "IN", "-p", pipeline, *internal, *_RUN, *more]
        return ["apply", "-p", pipeline, "IN", "-o", "OUT", "--report", *more]

    return {
        "apply": apply,
        "dump": lambda rng, at: [
            "dump",
            "IN",
            *rng.choice([[], ["--raw"], ["--syntax", "xlated", "--raw"], ["--json"]]),
            *more,
        ],
        "lines": lambda rng, at: ["dump", "IN", "--lines", "--syntax", "xlated", *more],
        "diff": lambda rng, at: ["diff", *rng.choice([("IN", "WHOLE"), ("WHOLE", "IN")]), *more],
        "page": lambda rng, at: ["diff", "WHOLE", "IN", "--html", "OUT", *more],
        "exec": lambda rng, at: ["exec", "IN", *_RUN, *rng.choice([[], ["--trace"]]), *more],
        "verify": lambda rng, at: ["verify", "IN", "WHOLE", "--seconds", "0.2", *more],
        "info": lambda rng, at: ["info", "IN", *rng.choice([[], ["--json"]]), *more],
    }


_OBJECT: Final[dict[str, Command]] = {
    **_of_code(),
    "cover": lambda rng, at: ["cover", "IN", "-o", "OUT", *rng.choice([[], ["--edges"]])],
    "counted run": lambda rng, at: ["cover", "run", "IN", *_RUN, "-o", "OUT"],
    "trace": lambda rng, at: ["trace", "IN", "--at", "*:entry", "--regs", "all", "-o", "OUT"],
    "extract": lambda rng, at: ["extract", "IN", "--list"],
}
_LOADS: Final[dict[str, Command]] = {
    "load": lambda rng, at: ["load", "IN", *rng.choice([[], ["--json"], ["--log"]])],
    "why": lambda rng, at: ["load", "--why", "IN"],
    "repair": lambda rng, at: ["repair", "IN", "-o", "OUT", "--rounds", "3"],
    "shown": lambda rng, at: ["kernel-diff", "IN"],
}
"""Commands that ask the verifier. Nothing is run or attached."""
_RAW: Final = _of_code("--format", "raw")
_TEXT: Final = _of_code("--format", "asm")


def _report(rng: random.Random, at: Path) -> list[str]:
    form = rng.choice(["terminal", "lcov", "cobertura", "html", "json"])
    if rng.random() < 0.3:
        return ["profile", "OBJ", "COUNTERS", "--by", rng.choice(["function", "line", "block"])]
    if form == "terminal":
        return ["cover", "report", "OBJ", "COUNTERS", "--lines", "--functions"]
    more = ["--write-sources", str(at / "sources")] if rng.random() < 0.3 else []
    return ["cover", "report", "OBJ", "COUNTERS", "--format", form, "-o", "OUT", *more]


def _capture(rng: random.Random, at: Path) -> list[str]:
    return ["exec", "OBJ", "--pcap", "IN", "--budget", "20000"]


@dataclass(frozen=True)
class Seed:
    """A whole input, and what is done with it.

    Attributes:
        name: of the input.
        data: the input.
        change: what mutates it.
        commands: by name; one is chosen.
        files: more files of the case, by what stands for them in the command.
    """

    name: str
    data: bytes
    change: Callable[[random.Random, bytes], bytes]
    commands: dict[str, Command]
    files: tuple[tuple[str, bytes], ...] = ()


def kernel_seeds() -> list[Seed]:
    """The committed objects for this machine, for what loads them."""
    return [
        Seed(name, data, _object, _LOADS)
        for name, data in fixture_objects()
        if ".el." in name and len(data) <= _MOST_BYTES
    ]


def seeds() -> list[Seed]:
    """From the committed objects; those over 64 KiB are left out."""
    out: list[Seed] = []
    for name, data in fixture_objects():
        if len(data) > _MOST_BYTES:
            continue
        out.append(Seed(name, data, _object, _OBJECT))
        obj = ElfObject.parse(data)
        if name.startswith("asm_"):
            text = asm.format_program(obj.code).encode()
            out.append(Seed(f"{name} as text", text, _text, _TEXT))
            out.append(Seed(f"{name} raw", obj.code.to_bytes(), mutate, _RAW))
    return [*out, *_counted(), _packets()]


def _counted() -> Iterator[Seed]:
    wanted = [one for one in fixture_objects() if one[0].startswith(("xdp_balancer", "xdp_drop"))]
    for name, data in wanted[:3]:
        for count in ("atomic", "percpu"):
            made, _ = Pipeline.parse(f"cover{{count={count}}}").run_object(ElfObject.parse(data))
            cover = cover_map(made)
            counters = collect.save(Coverage.of(cover, [1] * cover.n_counters))
            whole = made.to_bytes()
            report = {"report": _report}
            files = (("OBJ", whole), ("COUNTERS", counters))
            yield Seed(f"{name} {count}, object", whole, _section, report, files)
            yield Seed(f"{name} {count}, counters", counters, _json, report, files)


def _packets() -> Seed:
    name, data = next(one for one in fixture_objects() if one[0].startswith("xdp_balancer"))
    capture = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    for size in (14, 64, 200):
        capture += struct.pack("<IIII", 1, 2, size, size) + bytes(size)
    return Seed(f"packets for {name}", capture, mutate, {"exec": _capture}, (("OBJ", data),))


# Mutations that get further than those of plain bytes.


def _object(rng: random.Random, data: bytes) -> bytes:
    """Half of the time bytes of one section, which leaves the ELF whole."""
    if rng.random() < 0.5:
        return mutate(rng, data)
    found = [one for one in ElfObject.parse(data).sections if one.has_bytes]
    one = rng.choice(found)
    mine = data[one.byte_off : one.byte_off + one.size]
    if one.flags & 4:  # code: whole instructions, with opcodes that exist
        out = bytearray(mine)
        for _ in range(rng.choice([1, 2, 8])):
            at = 8 * rng.randrange(len(out) // 8 or 1)
            out[at : at + 8] = _insn(rng)
        new = bytes(out)
    else:
        new = mutate(rng, mine)
    new = new[: one.size].ljust(one.size, b"\0")
    return data[: one.byte_off] + new + data[one.byte_off + one.size :]


def _insn(rng: random.Random) -> bytes:
    code = rng.choice([0x18, 0x85, 0x05, 0x06, 0x95, 0x8D, 0xE5, 0xDB, 0xC3, rng.randrange(256)])
    regs = rng.choice([0, 0x10, 0x20, 0xA1, 0x1A, 0xBB, 0x0B, rng.randrange(256)])
    off = rng.choice([0, 1, -1, -8, 0x7FFF, -0x8000, rng.randrange(-64, 64)])
    imm = rng.choice([0, 1, -1, 0x7FFFFFFF, -0x80000000, rng.randrange(-300, 300)])
    return struct.pack("<BBhi", code, regs, off, imm)


def _text(rng: random.Random, data: bytes) -> bytes:
    """Lines of assembly, swapped, repeated and mutated."""
    if rng.random() < 0.5:
        return mutate(rng, data)
    lines = data.split(b"\n")
    for _ in range(rng.choice([1, 2, 4])):
        at, to = rng.randrange(len(lines)), rng.randrange(len(lines))
        kind = rng.randrange(4)
        if kind == 0:
            lines[at], lines[to] = lines[to], lines[at]
        elif kind == 1:
            lines.insert(at, lines[to])
        elif kind == 2:
            del lines[at : at + rng.randrange(1, 4)]
            lines = lines or [b""]
        else:
            lines[at] = mutate(rng, lines[at])
    return b"\n".join(lines)


def _json(rng: random.Random, data: bytes) -> bytes:
    """Bytes of the file, or values of the section in it."""
    if rng.random() < 0.3:
        return mutate(rng, data)
    import base64

    body = json.loads(data)
    body = _value(rng, body)
    if isinstance(body, dict) and isinstance(body.get("map"), str) and rng.random() < 0.5:
        with contextlib.suppress(ValueError, zlib.error):
            inner = _packed(rng, base64.b64decode(body["map"]))
            body["map"] = base64.b64encode(inner).decode()
    return json.dumps(body).encode()


def _packed(rng: random.Random, data: bytes) -> bytes:
    """One value of a cover section, made another; half of the time its identity fits that."""
    body = _value(rng, json.loads(zlib.decompress(data)))
    if isinstance(body, dict) and rng.random() < 0.5:
        body = _with_identity(body)
    return zlib.compress(json.dumps(body).encode())


def _with_identity(body: dict[str, Any]) -> dict[str, Any]:
    """The section with the identity that reading it finds; as it is where it cannot be read.

    Without that, hardly a case would get past the look at the identity.
    """
    seen: list[CoverMap] = []

    class Noted(CoverMap):
        def _check(self) -> None:
            seen.append(self)
            super()._check()

    with contextlib.suppress(BpfPatchError):
        Noted.parse(zlib.compress(json.dumps(body).encode()))
    return body | {"identity": f"{seen[-1].identity:016x}"} if seen else body


def _value(rng: random.Random, body: Any) -> Any:
    """One value somewhere in JSON, made another."""
    if isinstance(body, dict) and body and rng.random() < 0.95:
        key = rng.choice(list(body))
        return body | {key: _value(rng, body[key])}
    if isinstance(body, list) and body and rng.random() < 0.8:
        at = rng.randrange(len(body))
        return [*body[:at], _value(rng, body[at]), *body[at + 1 :]]
    made = (
        None,
        True,
        -1,
        0,
        1 << 64,
        1 << 2000,
        0.5,
        "",
        "x",
        [],
        {},
        [[]],
        "\ud800",
        [body, body],
    )
    return rng.choice(made)


def _section(rng: random.Random, data: bytes) -> bytes:
    """What counters mean, in an object that is otherwise whole."""
    from bpfpatch.passes.cover import SECTION

    if rng.random() < 0.3:
        return _object(rng, data)
    one = next(one for one in ElfObject.parse(data).sections if one.name == SECTION)
    mine = data[one.byte_off : one.byte_off + one.size]
    new = _packed(rng, mine)
    if len(new) <= one.size:
        return data[: one.byte_off] + new.ljust(one.size, b"\0") + data[one.byte_off + one.size :]
    return data[: one.byte_off] + new[: one.size] + data[one.byte_off + one.size :]


# Cases.


def case_of(of_all: list[Seed], number: int) -> tuple[Seed, bytes, list[str], str]:
    """A case's seed, input, command and the command's name; placeholders are left in it."""
    rng = random.Random(number)
    seed = rng.choice(of_all)
    data = seed.change(rng, seed.data)
    name = rng.choice(sorted(seed.commands))
    return seed, data, seed.commands[name](rng, Path("AT")), name


def run_case(of_all: list[Seed], number: int) -> str | None:
    """Run one case; what is wrong, or None."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        return _run_in(folder, of_all, number)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run_in(folder: Path, of_all: list[Seed], number: int) -> str | None:
    seed, data, command, name = case_of(of_all, number)
    files = {"IN": data, "WHOLE": seed.data, "OUT": _OLD, **dict(seed.files)}
    if dict(seed.files).get("OBJ") == seed.data:
        files["OBJ"] = data
    if dict(seed.files).get("COUNTERS") == seed.data:
        files["COUNTERS"] = data
    for file, content in files.items():
        (folder / file).write_bytes(content)
    args = [str(folder / one) if one in files else one for one in command]
    args = [one.replace("AT", str(folder), 1) if one.startswith("AT/") else one for one in args]
    what = f"case {number} ({seed.name}, {name}): {' '.join(command)}"
    status, said = _run(args)
    if status in _STOPPED:
        raise SystemExit(status)
    if status is None:
        return f"{what}: no end after {LIMIT_S} s"
    if status not in (0, 1, 2):
        return f"{what}: status {status}: {said[-300:]}"
    if "out of memory" in said:
        return f"{what}: {said[-300:]}"
    left = {path.name for path in folder.iterdir()} - set(files) - {"sources"}
    if left:
        return f"{what}: left {sorted(left)}"
    has_failed = status > (command[0] in _OF_DIFF)
    if has_failed and (folder / "OUT").read_bytes() != _OLD:
        return f"{what}: status {status}, and yet OUT was replaced"
    return None


def _run(args: list[str]) -> tuple[int | None, str]:
    """(status, what was printed to stderr); None for a case that does not end."""
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
    try:
        with time_limit(LIMIT_S), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = run(args)
    except HangError:
        return None, ""
    said = err.getvalue()
    return (None, "") if status == BUG and "HangError" in said else (status, said)
