"""The command line: ``bpfpatch``, or ``python -m bpfpatch``."""

from __future__ import annotations

import sys
from typing import Final

__all__ = ["main"]

_EXTRA: Final = {"click", "rich"}


def main() -> None:
    """Run the command line on ``sys.argv``, and exit."""
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
