"""What answering a loader's loads costs: bpftool with 50 programs, alone and under `intercept`.

Source of the object: tests/fixtures/src/xdp_balancer.c, its program written out 50 times.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final

from bpfpatch import kernel
from bpfpatch.bpf.intercept import Answer, OnLoad
from bpfpatch.bpf.loadrequest import LoadRequest
from bpfpatch.elf import ElfObject
from bpfpatch.intercept import Rewriter
from bpfpatch.passes import Pipeline, Target

from . import child
from .report import Outcome, Table

N_PROGRAMS: Final = 50
WAYS: Final = {"nothing": "", "sprinkle": "sprinkle", "blind": "blind", "cover": "cover"}
"""Names of rows, and pipelines."""
LONGER: Final = "alone, a sprinkled file"
_MAIN: Final = 'SEC("xdp")\nint balancer('
_SOURCE: Final = Path(__file__).parent.parent / "tests" / "fixtures" / "src" / "xdp_balancer.c"
_PINS: Final = Path("/sys/fs/bpf")
_CLANG: Final = "clang-19"
_AGAIN: Final = 4


def one() -> dict[str, float]:
    """Seconds of the loader, alone and in each way: of several rounds the least, in turns."""
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        obj = _object(Path(folder))
        longer = obj.with_name("longer.o")
        made, _ = Pipeline.parse("sprinkle").run_object(ElfObject.read(str(obj)))
        made.write(str(longer))
        pins = _PINS / f"bpfpatch_bench_{os.getpid()}"
        try:
            for _ in range(_AGAIN + 1):
                for name, way in {"alone": None, LONGER: None, **WAYS}.items():
                    path = longer if name == LONGER else obj
                    argv = ["bpftool", "prog", "loadall", str(path), str(pins)]
                    found.setdefault(name, []).append(_run(argv, pins, way))
        finally:
            shutil.rmtree(pins, ignore_errors=True)
    return {name: min(seconds[1:]) for name, seconds in found.items()}


def _object(folder: Path) -> Path:
    text = _SOURCE.read_text()
    head, main = text.split(_MAIN)
    main, _, rest = main.partition("\n}\n")
    copies = "".join(f"{_MAIN[:-1]}_{at}({main}\n}}\n" for at in range(N_PROGRAMS))
    source, out = folder / "many.c", folder / "many.o"
    source.write_text(f"{head}{copies}{rest}")
    flags = ["-O2", "-g", "-mcpu=v3", "-target", "bpf", "-Wno-everything", f"-I{_SOURCE.parent}"]
    subprocess.run([_CLANG, *flags, "-c", str(source), "-o", str(out)], check=True)
    return out


def _run(argv: list[str], pins: Path, way: str | None) -> float:
    began = time.perf_counter()
    if way is None:
        subprocess.run(argv, check=True)
    else:
        assert kernel.intercept(argv, _function(way)) == 0
    seconds = time.perf_counter() - began
    shutil.rmtree(pins)
    return seconds


def _function(way: str) -> OnLoad | None:
    if not way:
        return None
    pipeline, rewriter = Pipeline.parse(way), Rewriter(Target())

    def on_load(request: LoadRequest) -> Answer:
        return None if request.is_probe else rewriter.rewrite(request, pipeline)

    return on_load


def measure(most: int) -> Outcome:
    """Take all figures."""
    reason = _missing()
    if reason:
        return Outcome([Table(f"intercept: not measured, {reason}", ("way",), [])])
    found = child.figures(most, "intercept.one")
    middle = {name: statistics.median(seconds) for name, seconds in found.items()}
    rows = [
        (name, f"{1000 * seconds:.0f} ms", f"{seconds / middle['alone']:.1f}")
        for name, seconds in middle.items()
    ]
    head = (f"bpftool loads {N_PROGRAMS} programs", "wall time", "ratio")
    return Outcome([Table("intercept: a loader's wall time, our own start aside", head, rows)])


def _missing() -> str:
    for tool in (_CLANG, "bpftool"):
        if not shutil.which(tool):
            return f"{tool} is not installed"
    return str(kernel.available() or "")
