"""What `bpfpatch intercept` says, beside a command that has the terminal."""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter
from contextlib import suppress

from bpfpatch.bpf.intercept import LoadOutcome
from bpfpatch.intercept import told_load
from bpfpatch.text import plural, visible


class Log:
    """Lines to the standard error or a file, each whole, from any thread.

    Args:
        path: the file, to whose end lines are added; the standard error by default.
        has_loads: whether each load gets a line.
    """

    def __init__(self, path: str | None, *, has_loads: bool) -> None:
        """Raises: OSError, the file cannot be opened."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._is_own = path is not None
        self._fd = sys.stderr.fileno() if path is None else os.open(path, flags, 0o666)
        self._has_loads = has_loads
        self._lock = threading.Lock()
        self._said: set[str] = set()
        self._counts: Counter[str] = Counter()

    def close(self) -> None:
        """Close the file, if it is one."""
        if self._is_own:
            os.close(self._fd)

    def say(self, text: str) -> None:
        """Write one line."""
        # Whoever closed our standard error wants to hear nothing.
        with self._lock, suppress(OSError):
            os.write(self._fd, f"bpfpatch: {visible(text)}\n".encode("utf-8", "backslashreplace"))

    def once(self, text: str) -> None:
        """Write a line that was not written before."""
        with self._lock:
            if text in self._said:
                return
            self._said.add(text)
        self.say(text)

    def done(self, outcome: LoadOutcome) -> None:
        """Take note of a load."""
        with self._lock:
            kept = "rewritten" if outcome.is_rewritten and outcome.ending == "loaded" else ""
            self._counts[kept or outcome.ending] += 1
        if self._has_loads:
            self.say(told_load(outcome))
        if not outcome.note:
            return
        if outcome.ending == "let through":
            self.once(f"let through as it is{_whose(outcome)}: {outcome.note}")
        else:
            self.once(f"the original is loaded{_whose(outcome)}: {outcome.note}")

    def sum_up(self) -> None:
        """Write how many loads there were."""
        n_loads = sum(self._counts.values())
        parts = ", ".join(f"{count} {name}" for name, count in sorted(self._counts.items()))
        self.say(f"{plural(n_loads, 'load')}" + (f": {parts}" if parts else ""))


def _whose(outcome: LoadOutcome) -> str:
    request = outcome.request
    if request is None:
        return ""
    return f", {request.name or 'a program without a name'} ({request.type.text})"
