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

    There is no time limit: a load cannot be killed while the kernel is at it. What may
    take long is estimated before it is begun.

    Args:
        function: as ``module.name`` within this package.
        arguments: what JSON can hold; so is the result.
    """
    command = [sys.executable, "-m", "benchmarks.child", function, json.dumps(arguments)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, text=True, stdout=pipe, stderr=pipe) as process:
        try:
            out, err = process.communicate()
        except BaseException:
            _end(process, function)
            raise
    if process.returncode:
        raise RuntimeError(f"{function}{arguments} failed:\n{err}")
    return json.loads(out)


def _end(process: subprocess.Popen[str], what: str) -> None:
    """End a process by a signal that it can answer, and wait until it has.

    A load that blinds puts back the kernel's setting when it is over, and must live so long.
    """
    process.terminate()
    print(f"\nwaiting for {what} to end; a load cannot be interrupted", file=sys.stderr)
    process.wait()


def runs(count: int, function: str, *arguments: Any) -> list[Any]:
    """What it returns in several processes, one after the other."""
    return [once(function, *arguments) for _ in range(count)]


def figures(count: int, function: str, *arguments: Any) -> dict[str, list[Any]]:
    """Of a function that returns named figures: all that several processes found, by name."""
    out: dict[str, list[Any]] = {}
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
