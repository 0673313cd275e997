"""What was aimed at, and what the saved figures say of it."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator
from typing import Any, Final

from . import pages
from .growth import ASKED, FIT_FROM, KERNEL_FIT_FROM, SIZES, at_asked, exponent, middle
from .kinds import KINDS
from .limit import CASES, MILLION
from .report import Outcome, Table, number

Row = tuple[str, str, str]
_MILLION: Final = str(MILLION)


def measure(_runs: int) -> Outcome:
    """Measure nothing: read what the others saved."""
    rows = [row for name, read in _READERS.items() for row in _rows(name, read)]
    header = ("what was aimed at", "goal", "measured")
    notes = (
        "From the saved figures; `make bench BENCH=--save` measures all of them, and writes them.",
    )
    return Outcome([Table("Goals", header, [*rows, *_whole()], notes)])


def _rows(name: str, read: Callable[[dict[str, Any]], Iterator[Row]]) -> list[Row]:
    path = pages.FOLDER / f"{name}.json"
    if not path.exists():
        return []
    try:
        return list(read(json.loads(path.read_text())["figures"]))
    except KeyError as error:
        again = f"no {error} in what was saved; `python -m benchmarks {name}` measures it again"
        return [(f"{name}, saved by another version", "", again)]


def _whole() -> Iterator[Row]:
    """What all measurements took, where all of them say so."""
    saved = [json.loads(path.read_text()) for path in sorted(pages.FOLDER.glob("*.json"))]
    if saved and all("seconds" in one for one in saved):
        minutes = sum(one["seconds"] for one in saved) / 60
        yield "all of `make bench`", "15 minutes", f"{minutes:.1f} minutes"


def _growth(figures: dict[str, Any]) -> Iterator[Row]:
    for name, found in figures.items():
        own, loads = _points(found["ours"]), _points(found["kernel"])
        slope, theirs = exponent(own, FIT_FROM), exponent(loads, KERNEL_FIT_FROM)
        if slope is None:
            continue
        kernel = "not measured" if theirs is None else f"{theirs:.2f}"
        yield (
            f"exponent of {KINDS[name].what}, {FIT_FROM:,} to {SIZES[-1]:,} sites",
            "at most 1.05",
            f"{slope:.2f} (the kernel's: {kernel})",
        )
    yield from _blinding(_points(figures["blind"]["ours"]), _points(figures["blind"]["kernel"]))


def _blinding(own: dict[int, float], loads: dict[int, float]) -> Iterator[Row]:
    asked = at_asked(loads)
    if asked is None:
        return
    yield (
        f"{ASKED:,} immediates blinded; the kernel's time: {asked.how}",
        "10,000 times",
        _times(asked.seconds, own[ASKED]),
    )
    if ASKED not in loads:
        most = max(loads)
        what = f"{most:,} immediates blinded, the most that the kernel was given; measured"
        yield what, "", _times(loads[most], own[most])


def _times(theirs: float, ours: float) -> str:
    return f"{number(theirs)} s there, {number(1000 * ours)} ms here: {number(theirs / ours)} times"


def _points(found: dict[str, list[float]]) -> dict[int, float]:
    return middle({int(n): values for n, values in found.items()})


def _limit(figures: dict[str, Any]) -> Iterator[Row]:
    for name in ("replace", "insert", "scattered"):
        of = {key: statistics.median(values) for key, values in figures[name][_MILLION].items()}
        yield (
            f"1,000,000 instructions, {CASES[name][0]}: time of a copy of the result into fresh "
            "4 KiB pages, and memory",
            "2, and 6",
            f"{of['ratio']:.1f} ({number(of['ours_ms'])} ms; {of['numpy_ratio']:.1f} of NumPy's "
            f"own `.copy()`), and {of['peak_ratio']:.1f}",
        )
    found = figures["blind-internal"][_MILLION]
    blind, whole = (statistics.median(found[key]) for key in ("pass_ms", "ours_ms"))
    yield (
        "pass `blind` on 1,000,000 instructions",
        "200 ms",
        f"{number(blind)} ms; {number(whole)} ms with list, linearize and validation",
    )


def _handles(figures: dict[str, Any]) -> Iterator[Row]:
    found = [statistics.median(figures[f"by_node {n}"]["edit_ns"]) for n in (10_000, 1_000_000)]
    yield (
        "one edit by node, in 10,000 and in 1,000,000 instructions",
        "the same",
        " and ".join(f"{number(ns / 1000)} us" for ns in found),
    )


def _objects(figures: dict[str, Any]) -> Iterator[Row]:
    own = figures["synthetic"]["ours"]
    both = [sum(pair) for pair in zip(own["read"], own["no-op write"], strict=True)]
    yield (
        "4 MB object, 60,000 relocations, read and written",
        "50 ms",
        f"{number(1000 * statistics.median(both))} ms",
    )
    for what, seconds in figures["processes"].items():
        if what.startswith("`bpfpatch apply") and "demo.o" in what:
            yield (
                f"{what}, as a process",
                "400 ms",
                f"{number(1000 * statistics.median(seconds))} ms",
            )


_READERS: Final[dict[str, Callable[[dict[str, Any]], Iterator[Row]]]] = {
    "growth": _growth,
    "limit": _limit,
    "handles": _handles,
    "objects": _objects,
}
