"""Load rewritten objects beside their originals, and ask what the kernel made of them."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from support import packets
from support.tools import BPFFS, BpftoolError, Loaded, bpf_run, loaded

Answer = tuple[int, bytes] | str
# What no two loads share: addresses, ids, and tags, which are hashes of the code as it came in.
UNSTABLE = re.compile(r"0xffff[0-9a-f]{12}|map\[id:\d+\]|bpf_prog_[0-9a-f]{16}|#-?\d+")


@contextlib.contextmanager
def loaded_bytes(data: bytes, folder: Path) -> Iterator[Loaded]:
    """Load an object from memory for the length of a ``with`` block.

    Objects whose maps libbpf pins by name take no other pins for them; what
    it pinned is removed afterwards.

    Raises:
        BpftoolError: it does not load.
    """
    path = folder / "object.o"
    path.write_bytes(data)
    before = set(BPFFS.iterdir())
    try:
        with loaded(path) as what:
            yield what
            return
    except BpftoolError as error:
        if "different from" not in str(error):
            raise
    root = BPFFS / f"{folder.name}_by_name"
    try:
        done = subprocess.run(
            ["bpftool", "prog", "loadall", str(path), str(root)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise BpftoolError(done.stderr)
        yield Loaded(root, {pin.name: pin for pin in sorted(root.iterdir())}, {})
    finally:
        if root.exists():
            for pin in sorted(root.iterdir()):
                pin.unlink()
            root.rmdir()
        for pin in set(BPFFS.iterdir()) - before:
            if not pin.is_dir():
                pin.unlink(missing_ok=True)


def listing(pin: Path) -> list[dict[str, object]]:
    """What the kernel made of a program, with source lines, one dict an instruction."""
    done = subprocess.run(
        ["bpftool", "-j", "prog", "dump", "xlated", "pinned", str(pin), "linum"],
        capture_output=True,
        text=True,
        check=True,
    )
    rows: list[dict[str, object]] = json.loads(done.stdout)
    return [row | {"disasm": UNSTABLE.sub("", str(row.get("disasm", "")))} for row in rows]


def source_lines(rows: list[dict[str, object]]) -> list[tuple[object, ...]]:
    """The functions and source lines that a listing names, in order."""
    keys = ("proto", "file", "line_num", "line_col", "src")
    return [tuple(row.get(key) for key in keys) for row in rows if {"src", "proto"} & set(row)]


def answers(pin: Path) -> dict[str, Answer]:
    """What a program says to each sample packet; where the kernel refuses, its error."""
    out: dict[str, Answer] = {}
    for name, data in packets.SAMPLES.items():
        try:
            ran = bpf_run(pin, data)
        except OSError as error:
            out[name] = error.strerror or str(error)
        else:
            out[name] = (ran.retval, ran.data)
    return out
