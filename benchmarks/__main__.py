"""``python -m benchmarks [--save] [NAME ...]``: measure, and print tables beside the saved ones."""

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
    "intercept": "a loader of 50 programs, alone and with its loads answered by us",
    "relax": "linearize with 100,000 far jumps, next to near ones",
    "passes": "each pass and each analysis by the length of the program",
    "growth": "time by the number of patches: ours, patch by patch, and the running kernel",
    "summary": "what was aimed at, and what the saved figures say of it",
}


def main() -> None:
    """Run what the command line names, or everything."""
    arguments = _arguments()
    if arguments.profile:
        import_module("benchmarks.limit").profile()
        return
    print(_described())
    names = list(arguments.names or NAMES)
    is_whole = set(names) == set(NAMES)
    if arguments.save and not is_whole:
        # The summary, which goes into the README, is of figures of one sitting on one machine.
        names = [name for name in names if name != "summary"]
        print("\nOnly a whole run is summed up in the README; what is named here is saved alone.")
    for name in sorted(names, key="summary".__eq__):  # it is of what is saved, and comes last
        print(f"\n{name}: {NAMES[name]}", flush=True)
        began = time.perf_counter()
        outcome = import_module(f"benchmarks.{name}").measure(arguments.runs)
        seconds = time.perf_counter() - began
        saved = {} if arguments.save else pages.saved_tables(name)
        for table in outcome.tables:
            text = table.text(beside=saved.get(table.title))
            print("\n" + "\n".join(f"  {line}" for line in text))
        print(f"  ({seconds:.0f} s)", flush=True)
        if arguments.save:
            _save(name, outcome, seconds)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure, and print tables, with what was saved in brackets. --save writes\n"
        "them: JSON and plots (SVG and PNG) in docs/benchmarks, tables in the documents; the\n"
        "summary in the README only where everything is measured in one run.\n"
        "A figure with a spread beside it is the median of several processes.",
        epilog="\n".join(f"{name:8}  {what}" for name, what in NAMES.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to measure; all by default")
    parser.add_argument("--runs", type=int, default=3, help="processes a figure, at the most (3)")
    parser.add_argument("--save", action="store_true", help="write what was measured")
    parser.add_argument(
        "--profile", action="store_true", help="limit: show where the blind pass spends its time"
    )
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in NAMES]
    if unknown:
        parser.error(f"no measurement {unknown[0]!r}; there are: {', '.join(NAMES)}")
    if arguments.runs < 1:
        parser.error("--runs must be 1 at least")
    return arguments


def _save(name: str, outcome: Outcome, seconds: float) -> None:
    """Write all that belongs to one measurement, or nothing of it."""
    files = {}
    if outcome.figures:
        saved = {"machine": machine(), "seconds": seconds, **outcome.json()}
        files[pages.FOLDER / f"{name}.json"] = (json.dumps(saved, indent=1) + "\n").encode()
    for plot in outcome.plots:
        drawn = draw(plot)
        files |= {pages.FOLDER / file: data for file, data in drawn.items()}
        if not drawn:
            print("  no plots: matplotlib is not installed; `make bench-setup` installs it")
    lines = [line for table in outcome.tables for line in [*table.markdown(), ""]]
    if outcome.figures:
        lines.append("Measured on: " + _described() + ".")
    files |= pages.filled(name, lines)
    pages.write(files)
    print("  wrote " + ", ".join(str(path.relative_to(pages.ROOT)) for path in files))


def _described() -> str:
    return ", ".join(f"{key} {value}" for key, value in machine().items())


if __name__ == "__main__":
    main()
