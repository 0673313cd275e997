"""Measure in a process of its own.

Each run is one, so that memory is as fresh for us as for what we are compared
with: a second run in one process would find its pages mapped already.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from typing import Any


def once(function: str, *arguments: Any) -> Any:
    """What a function returns in a new process, or raise with what it wrote.

    Args:
        function: as ``module.name`` within this package.
        arguments: what JSON can hold; so is the result.
    """
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.child", function, json.dumps(arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{function}{arguments} failed:\n{done.stderr}")
    return json.loads(done.stdout)


def runs(count: int, function: str, *arguments: Any) -> list[Any]:
    """What it returns in several processes, one after the other."""
    return [once(function, *arguments) for _ in range(count)]


def figures(count: int, function: str, *arguments: Any) -> dict[str, list[float]]:
    """Of a function that returns named figures: all that several processes found, by name."""
    out: dict[str, list[float]] = {}
    for found in runs(count, function, *arguments):
        for name, value in found.items():
            out.setdefault(name, []).append(value)
    return out


def main() -> None:
    """Run the function that the command line names, and print what it returns."""
    module, _, name = sys.argv[1].rpartition(".")
    function = getattr(import_module(f"benchmarks.{module}"), name)
    print(json.dumps(function(*json.loads(sys.argv[2]))))


if __name__ == "__main__":
    main()
