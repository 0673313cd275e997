"""Paths in the bpf file system: pin a program, and see what a path stands for.

Source: linux v6.18, kernel/bpf/syscall.c, bpf_map_show_fdinfo() and bpf_prog_show_fdinfo().
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from bpfpatch.errors import OptionError

from .syscall import Cmd, Handle, bpf, refused

_KINDS: Final = {"map_id": "map", "prog_id": "program"}


def pin(loaded: Handle, path: str) -> None:
    """Keep a program or map in the kernel under a path of the bpf file system.

    Raises:
        KernelError: the kernel refused, or something is there already.
    """
    try:
        bpf(Cmd.OBJ_PIN, pathname=os.fsencode(path) + b"\0", bpf_fd=loaded.fd)
    except OSError as error:
        raise refused(error, f"pinning at {path}") from error


def pinned(path: str) -> tuple[str, int]:
    """What is pinned at a path: "map" or "program", and its id.

    Raises:
        OptionError: something else is pinned there.
        KernelError: nothing is, or the kernel refused.
    """
    try:
        fd, _ = bpf(Cmd.OBJ_GET, pathname=os.fsencode(path) + b"\0")
    except OSError as error:
        raise refused(error, f"opening what is pinned at {path}") from error
    with Handle(fd) as handle:
        lines = Path(f"/proc/self/fdinfo/{handle.fd}").read_text().splitlines()
    told = dict(line.split(":", 1) for line in lines if ":" in line)
    for key, kind in _KINDS.items():
        if key in told:
            return kind, int(told[key])
    raise OptionError(f"what is pinned at {path} is neither a map nor a program")
