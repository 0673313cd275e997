"""The command line: ``bpfpatch``, or ``python -m bpfpatch``."""

from __future__ import annotations

import os
import signal
import sys

TYPE_CHECKING = False  # that of typing: until main() runs, an interrupt ends in a traceback
if TYPE_CHECKING:
    from types import FrameType
    from typing import Final

__all__ = ["main"]

_EXTRA: Final = {"click", "rich"}


INTERRUPTED: Final = 130
"""What a shell says of a process that SIGINT ended."""


def stop_at_once(_number: int, _frame: FrameType | None) -> None:
    """End a process that has done nothing yet, without a traceback from the middle of an import."""
    os.write(2, b"bpfpatch: interrupted\n")
    os._exit(INTERRUPTED)


def main() -> None:
    """Run the command line on ``sys.argv``, and exit."""
    # A shell that starts a command in the background has it ignored: leave that.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, stop_at_once)
    _have_streams()
    try:
        from .app import run  # noqa: PLC0415 - without click there is still a message

        code = run()
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in _EXTRA:
            raise
        sys.stderr.write(
            f"bpfpatch: the command line needs {error.name}, which is not installed: "
            f"pip install {error.name.partition('.')[0]}\n"
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
    import io  # noqa: PLC0415 - see TYPE_CHECKING

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
