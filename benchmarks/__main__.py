"""``python -m benchmarks [NAME ...]``: run measurements, print tables, optionally write JSON."""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

import numpy as np

from . import core


def main() -> None:
    """Run what the command line names, or everything."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(core.ALL)}")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--runs", type=int, default=5, help="processes a measurement (5)")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in core.ALL]
    if unknown:
        parser.error(f"no measurement {unknown[0]!r}; there are: {', '.join(core.ALL)}")
    machine = {
        "kernel": platform.release(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "cpu": _cpu(),
    }
    print("  ".join(f"{key} {value}" for key, value in machine.items()))
    results = {}
    for name in arguments.names or core.ALL:
        print(f"\n{name}: {core.ALL[name][1]}", flush=True)
        results[name] = core.measure(name, arguments.runs)
        for line in core.table(results[name]):
            print("  " + line)
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine, "results": results}, indent=1))


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    models = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    return f"{models[0]} x{len(models)}" if models else "unknown"


if __name__ == "__main__":
    main()
