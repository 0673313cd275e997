"""Statistics of programs, counted while they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .syscall import Cmd, Handle, bpf, refused

_RUN_TIME = 0


@contextmanager
def stats() -> Iterator[None]:
    """Have the kernel count runs and their time for the length of a ``with`` block.

    Counts of all programs on the machine grow meanwhile; see `ProgInfo.run_cnt`.

    Raises:
        KernelError: the kernel refused.
    """
    try:
        fd, _ = bpf(Cmd.ENABLE_STATS, type=_RUN_TIME)
    except OSError as error:
        raise refused(error, "turning statistics on") from error
    with Handle(fd):
        yield
