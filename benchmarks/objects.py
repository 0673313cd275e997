"""Objects read, written and rewritten; the command line as a whole process; other readers."""

from __future__ import annotations

import io
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from bpfpatch.elf import ElfObject
from bpfpatch.errors import BpfPatchError
from bpfpatch.passes import Pipeline

from . import child
from .pages import ROOT
from .report import Cell, Line, Outcome, Plot, Table
from .synthetic import big_object

PIPELINES: Final = ("sprinkle{every=4}", "dce,nops", "dce,nops,blind,zext")
SETS: Final = ("debian", "synthetic")
MOST_RUNS: Final = 3
SMALL: Final = ROOT / "src" / "bpfpatch" / "data" / "demo.o"

Objects = list[tuple[str, bytes]]
Found = dict[str, Any]
"""Seconds by what was done; under a name with EACH, those of each object."""
EACH: Final = ", each"


def _sets(name: str) -> Objects:
    """The objects that one row of the table is about."""
    if name == "synthetic":
        return [("synthetic", big_object(n_insns=430_000, n_relocs=60_000))]
    sys.path.insert(0, str(ROOT / "tests"))
    found: Objects = import_module("support.inputs.bpfobjects").debian_objects()
    return found


def _timed(out: Found, what: str, work: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """What a function gives of each, and the seconds that it took, of each and in all."""
    given, seconds = [], []
    for item in items:
        began = time.perf_counter()
        given.append(work(item))
        seconds.append(time.perf_counter() - began)
    out[what], out[what + EACH] = sum(seconds), seconds
    return given


def _read(data: bytes) -> ElfObject:
    obj = ElfObject.parse(data)
    _ = obj.code  # read on first use
    return obj


def ours(name: str) -> Found:
    """Seconds to read, write as they are, and rewrite all objects."""
    objects = _sets(name)
    warm = _read(SMALL.read_bytes())
    warm.to_bytes()
    sizes = [len(data) for _, data in objects]
    out: Found = {"objects": len(objects), "bytes": sum(sizes), "bytes" + EACH: sizes}
    if not objects:
        return out
    read = _timed(out, "read", _read, [data for _, data in objects])
    written = _timed(out, "no-op write", ElfObject.to_bytes, read)
    assert written == [data for _, data in objects]
    for text in PIPELINES:
        pipeline = Pipeline.parse(text)
        pipeline.run_object(warm)
        began = time.perf_counter()
        out[f"{text}, refused"] = sum(not _rewritten(pipeline, obj) for obj in read)
        out[text] = time.perf_counter() - began
    return out


def _rewritten(pipeline: Pipeline, obj: ElfObject) -> bool:
    """Run a pipeline over an object that has been read, and write the result."""
    try:
        pipeline.run_object(obj)[0].to_bytes()
    except BpfPatchError:
        return False
    return True


def pyelftools(name: str) -> Found | None:
    """Seconds to read headers, sections, symbols and relocations; None where not installed."""
    try:
        elffile: Any = import_module("elftools.elf.elffile")
    except ImportError:
        return None
    objects = _sets(name)
    _read_by_pyelftools(elffile, SMALL.read_bytes())
    out: Found = {}
    _timed(out, "read", partial(_read_by_pyelftools, elffile), [data for _, data in objects])
    return out


def _read_by_pyelftools(elffile: Any, data: bytes) -> int:
    count = 0
    for section in elffile.ELFFile(io.BytesIO(data)).iter_sections():
        section.data()
        for part in ("iter_symbols", "iter_relocations"):
            if hasattr(section, part):
                count += sum(1 for _ in getattr(section, part)())
    return count


def lief(name: str) -> Found | None:
    """Seconds to read and to write; None where not installed."""
    try:
        library: Any = import_module("lief")
    except ImportError:
        return None
    library.logging.disable()
    objects = _sets(name)
    library.parse(SMALL.read_bytes()).write_to_bytes()
    out: Found = {}
    read = _timed(out, "read", library.parse, [data for _, data in objects])
    written = _timed(out, "no-op write", lambda binary: bytes(binary.write_to_bytes()), read)
    out["identical"] = sum(new == old for new, (_, old) in zip(written, objects, strict=True))
    return out


# ---- the command line --------------------------------------------------------------------------


def _commands(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """What is run, and what of it is only Python's start."""
    python, out = sys.executable, str(folder / "out.o")
    bpfpatch = [python, "-m", "bpfpatch"]
    yield "Python's own start (`python -c pass`)", [python, "-c", "pass"]
    yield "with NumPy (`import numpy`)", [python, "-c", "import numpy"]
    yield "with this library (`import bpfpatch`)", [python, "-c", "import bpfpatch"]
    for text in ("dce,nops", "dce,nops,blind,zext"):
        yield (
            f"`bpfpatch apply -p {text}`, demo.o",
            [*bpfpatch, "apply", "-p", text, "-o", out, str(SMALL)],
        )
    yield "`bpfpatch dump`, demo.o", [*bpfpatch, "dump", str(SMALL)]
    big = folder / "big.o"
    big.write_bytes(big_object(n_insns=430_000, n_relocs=60_000))
    yield (
        "`bpfpatch apply -p dce,nops`, 4 MB",
        [*bpfpatch, "apply", "-p", "dce,nops", "-o", out, str(big)],
    )


def _processes(runs: int) -> dict[str, list[float]]:
    """Seconds of each command as a process, taken in turns."""
    out: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        commands = list(_commands(Path(name)))
        for _ in range(runs):
            for what, command in commands:
                began = time.perf_counter()
                subprocess.run(command, capture_output=True, check=True)
                out.setdefault(what, []).append(time.perf_counter() - began)
    return out


# ---- tables ------------------------------------------------------------------------------------


def measure(runs: int) -> Outcome:
    """Both sets of objects with all tools, and the command line."""
    out = Outcome()
    runs = min(runs, MOST_RUNS)
    for name in SETS:
        tools = {
            tool: _several(runs, f"objects.{tool}", name) for tool in ("ours", "pyelftools", "lief")
        }
        out.figures[name] = tools
        own = tools["ours"]
        if own is None or not own["objects"][0]:
            out.tables.append(Table("Debian's objects", ("skipped",), [], ("None is installed.",)))
            continue
        out.tables.append(_table(name, own, tools["pyelftools"], tools["lief"]))
    commands = _processes(runs)
    out.figures["processes"] = commands
    rows: list[tuple[Cell, ...]] = [(what, _ms(found)) for what, found in commands.items()]
    out.tables.append(Table("The command line, as a whole process", ("command", "ms"), rows))
    title = "Objects by their size: Debian's, and the synthetic one"
    lines = tuple(_points([out.figures[name] for name in SETS]))
    out.plots.append(Plot("objects", title, "bytes", "milliseconds", lines))
    return out


def _points(sets: list[dict[str, dict[str, list[Any]] | None]]) -> Iterator[Line]:
    """Each object a point, the median of the runs: what to read and to write takes every tool."""
    for key, group in (("read", "read"), ("no-op write", "write as it is")):
        for tool, label in (("ours", "bpfpatch"), ("pyelftools", "pyelftools"), ("lief", "LIEF")):
            points: list[tuple[float, float]] = []
            for tools in sets:
                own, found = tools["ours"], tools[tool]
                if own is None or found is None or key + EACH not in found:
                    continue
                middle = [statistics.median(of) for of in zip(*found[key + EACH], strict=True)]
                points += zip(own["bytes" + EACH][0], _ms(middle), strict=True)
            if points:
                yield Line(label, points, "points", group)


def _several(runs: int, function: str, name: str) -> dict[str, list[Any]] | None:
    found = child.runs(runs, function, name)
    if found[0] is None:
        return None
    return {key: [one[key] for one in found] for key in found[0]}


def _table(
    name: str,
    own: dict[str, list[Any]],
    elftools: dict[str, list[Any]] | None,
    lief_: dict[str, list[Any]] | None,
) -> Table:
    count, size = int(own["objects"][0]), own["bytes"][0] / 1e6
    rows: list[tuple[Cell, ...]] = [
        ("read", _ms(own["read"]), _of(elftools, "read"), _of(lief_, "read")),
        ("write as it is", _ms(own["no-op write"]), "cannot", _of(lief_, "no-op write")),
        *((f"`{text}` and write", _ms(own[text]), "cannot", "cannot") for text in PIPELINES),
    ]
    notes = []
    if lief_ is not None:
        same = int(lief_["identical"][0])
        notes.append(
            f"What was written as it is equals the input: ours {count} of {count}, LIEF's {same}."
        )
    refused = {text: int(own[f"{text}, refused"][0]) for text in PIPELINES}
    notes += [f"`{text}` refused {n} objects." for text, n in refused.items() if n]
    what = (
        "one synthetic object, 60,000 relocations"
        if name == "synthetic"
        else f"{count} objects of Debian"
    )
    header = (f"ms for {what}", "bpfpatch", "pyelftools", "LIEF")
    both = statistics.median(own["read"]) + statistics.median(own["no-op write"])
    return Table(
        f"{what}, {size:.1f} MB: {1000 * both:.0f} ms to read and write", header, rows, tuple(notes)
    )


def _of(found: dict[str, list[Any]] | None, key: str) -> Cell:
    return "not installed" if found is None else _ms(found[key])


def _ms(seconds: list[float]) -> list[float]:
    return [1000 * value for value in seconds]
