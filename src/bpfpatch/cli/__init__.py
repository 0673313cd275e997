"""The command line: ``bpfpatch``, or ``python -m bpfpatch``."""

from __future__ import annotations

import io
import os
import sys
from typing import Final

__all__ = ["main"]

_EXTRA: Final = {"click", "rich"}


def main() -> None:
    """Run the command line on ``sys.argv``, and exit."""
    _have_streams()
    try:
        from .app import run  # noqa: PLC0415 - without click there is still a message

        code = run()
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in _EXTRA:
            raise
        sys.stderr.write(
            f"bpfpatch: the command line needs {error.name}, which is not installed: "
            "pip install 'bpfpatch[cli]'\n"
        )
        code = 2
    sys.exit(code)


def _have_streams() -> None:
    """Have all three standard streams, closed or not, and none that refuses a character."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            # The lowest free number is this one: no file of ours must take its place. What goes
            # to a closed stdout is lost, and that is an error; messages have nowhere else to go.
            os.open(os.devnull, os.O_RDONLY if name == "stdout" else os.O_RDWR)
            setattr(sys, name, os.fdopen(number, "w" if number else "r"))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
