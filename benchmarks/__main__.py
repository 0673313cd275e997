"""``python -m benchmarks [NAME ...]``: measure, print tables, optionally save them and plots."""

from __future__ import annotations

import argparse
import json
import time
from importlib import import_module
from typing import Final

from . import pages
from .machine import machine
from .plots import draw
from .report import Outcome

NAMES: Final = {
    "limit": "edits and linearize next to copying the result, and the blind pass as a whole",
    "handles": "edits one at a time, from a Python loop, and in bulk",
    "peers": "the same insertions with a list of objects, one for each instruction",
    "objects": "ELF objects read, written and rewritten; the command line as a process",
    "interp": "instructions a second in the interpreter, and in the kernel's JIT",
    "passes": "each pass and each analysis by the length of the program",
    "growth": "time by the number of patches: ours, patch by patch, and the running kernel",
    "summary": "what was aimed at, and what the saved figures say of it",
}


def main() -> None:
    """Run what the command line names, or everything."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure, and print tables. Every figure is the median of several processes.",
        epilog="\n".join(f"{name:8}  {what}" for name, what in NAMES.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to measure; all by default")
    parser.add_argument("--runs", type=int, default=3, help="processes a figure (3)")
    parser.add_argument(
        "--save",
        action="store_true",
        help="write JSON and plots, and the tables into the documents",
    )
    parser.add_argument(
        "--profile", action="store_true", help="limit: show where the blind pass spends its time"
    )
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in NAMES]
    if unknown:
        parser.error(f"no measurement {unknown[0]!r}; there are: {', '.join(NAMES)}")
    if arguments.profile:
        import_module("benchmarks.limit").profile()
        return
    print(_described())
    for name in arguments.names or NAMES:
        print(f"\n{name}: {NAMES[name]}", flush=True)
        began = time.perf_counter()
        outcome = import_module(f"benchmarks.{name}").measure(arguments.runs)
        for table in outcome.tables:
            print("\n" + "\n".join(f"  {line}" for line in table.text()))
        print(f"  ({time.perf_counter() - began:.0f} s)", flush=True)
        if arguments.save:
            _save(name, outcome)


def _save(name: str, outcome: Outcome) -> None:
    pages.FOLDER.mkdir(exist_ok=True)
    written = []
    if outcome.figures:
        written.append(pages.FOLDER / f"{name}.json")
        saved = {"machine": machine(), **outcome.json()}
        written[0].write_text(json.dumps(saved, indent=1) + "\n")
    for plot in outcome.plots:
        files = draw(plot, pages.FOLDER)
        written += files
        if not files:
            print("  no plots: matplotlib is not installed; `make bench-setup` installs it")
    lines = [line for table in outcome.tables for line in [*table.markdown(), ""]]
    if outcome.figures:
        lines.append("Measured on: " + _described() + ".")
    written += pages.fill(name, lines)
    print("  wrote " + ", ".join(str(one.relative_to(pages.ROOT)) for one in written))


def _described() -> str:
    return ", ".join(f"{key} {value}" for key, value in machine().items())


if __name__ == "__main__":
    main()
