"""Which tests share the kernel's state, and what keeps the others away from it.

Loads, pins and net.core.bpf_jit_harden are the whole machine's: a program that is loaded while
another process has constants blinded is not what its test expects. Tests that touch any of them
have the mark ``kernel``. Where tests run side by side, all files with that mark go to one
process, and run there one after the other (`support.sidebyside`). A test without the mark fails
where it touches them, also where all tests run in one process (`KernelGuard`).
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

GROUP = "kernel"
"""The mark, and the name of the group."""

_MARK = re.compile(rb"\bmark\.kernel\b")
_SHARED = ("/proc/sys/net/core/bpf_jit_harden", "/sys/fs/bpf/")
_WRITES = os.O_WRONLY | os.O_RDWR
_LOADERS = re.compile(
    r"python[\d.]*|bpfpatch|pytest|make|(ba|da)?sh|env|sudo|unshare|nsenter|ip|tc|bpftrace"
    r"|xdp-\w+|systemd-run"
)
"""Programs that load BPF, or start what does: Python and shells, whatever they are given."""
_HARMLESS_BPFTOOL = {"btf", "gen", "version"}


@cache
def in_group(file: Path) -> bool:
    """Whether a file of tests has the mark anywhere."""
    return bool(_MARK.search(file.read_bytes()))


class KernelGuard:
    """Makes a test without the mark fail when it touches what is shared.

    It hears Python's audit events, and so any way to call bpf(2) from Python. Hooks for these
    stay for good: a process has one guard, which is told when to listen.
    """

    def __init__(self) -> None:
        from bpfpatch.bpf.syscall import _entry

        self._forget = _entry.cache_clear
        self._test = ""
        self._broken = ""
        sys.addaudithook(self._hear)

    @contextmanager
    def listening(self, item: pytest.Item) -> Iterator[None]:
        """Watch a test for the length of a ``with`` block, unless it has the mark."""
        if item.get_closest_marker(GROUP):
            # By the text it is known where tests are handed out, and nothing is imported.
            assert in_group(item.path), f"write `pytest.mark.{GROUP}` out in {item.path}"
            yield
            return
        # After that the next call looks libc's function up again, which is an event.
        self._forget()
        self._test, self._broken = item.name, ""
        try:
            yield
        finally:
            self._test = ""
        if self._broken:
            pytest.fail(self._broken)

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        if not self._test or event not in _TOUCHES:
            return
        what = _TOUCHES[event](*args)
        if not what:
            return
        # Said again at the end of the test, should anything swallow it here.
        self._broken = (
            f"needs the mark `{GROUP}`: {self._test} {what}, and what other tests load or pin at "
            "the same time would notice or be noticed (CONTRIBUTING.md)"
        )
        pytest.fail(self._broken)


def _calls(_library: object, name: object) -> str:
    return "calls bpf(2)" if name == "syscall" else ""


def _opens(path: object, _mode: object, flags: int) -> str:
    if not flags & _WRITES or not isinstance(path, str | bytes | os.PathLike):
        return ""
    name = os.fsdecode(path)
    return f"writes to {name}" if name.startswith(_SHARED) else ""


def _starts(executable: Any, args: Any, _cwd: object, _env: object) -> str:
    words = [os.fsdecode(word) for word in ([args] if isinstance(args, str | bytes) else args)]
    if not _is_loader(os.fsdecode(executable or words[0]), words[1:]):
        return ""
    return f"starts {' '.join(words)[:200]!r}, which might load programs"


def _is_loader(executable: str, args: Sequence[str]) -> bool:
    name = Path(executable).name
    if name == "setarch":  # starts what follows its options
        inner = [word for word in args if not word.startswith("-")]
        return not inner or _is_loader(inner[0], inner[1:])
    if name == "bpftool":
        return not _HARMLESS_BPFTOOL.intersection(args[:2])
    return bool(_LOADERS.fullmatch(name))


_TOUCHES: dict[str, Callable[..., str]] = {
    "ctypes.dlsym": _calls,
    "open": _opens,
    "subprocess.Popen": _starts,
}
"""By audit event what it touches, or "" for nothing."""
