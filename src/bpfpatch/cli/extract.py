"""``bpfpatch extract``: the BPF objects that a program has in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click

from bpfpatch.elf.files import read_all, write_all

from .embedded import Embedded, find_embedded
from .failure import Command, Failure, blame
from .screen import echo, echo_json, patience

EPILOG: Final = """\b
Examples:
  bpfpatch extract --list /usr/sbin/opensnoop
  bpfpatch extract /usr/sbin/opensnoop -o objects/

Each object becomes a file NAME.N.bpf.o, N from 0.
"""


@click.command("extract", cls=Command, epilog=EPILOG)
@click.argument("binary", metavar="BINARY")
@click.option(
    "-o", "--output", metavar="DIR", default=".", show_default=True, help="Folder to write to."
)
@click.option("--list", "only_list", is_flag=True, help="Only say what there is.")
@click.option("--force", is_flag=True, help="Replace files that exist.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(binary: str, output: str, *, only_list: bool, force: bool, as_json: bool) -> None:
    """Find the BPF objects that are embedded in BINARY, a program or a library; - is stdin."""
    shown = "<stdin>" if binary == "-" else binary
    with blame(shown), patience("searching"):
        found = find_embedded(read_all(binary))
    if not found:
        raise Failure(shown, "there is no BPF object in it")
    stem = "stdin" if binary == "-" else Path(binary).name
    paths = [Path(output) / f"{stem}.{number}.bpf.o" for number in range(len(found))]
    if not only_list:
        _write(Path(output), dict(zip(paths, found, strict=True)), force=force)
    rows = [_facts(one, path) for one, path in zip(found, paths, strict=True)]
    if as_json:
        written = [dict(row, path=None) for row in rows] if only_list else rows
        echo_json({"file": shown, "objects": written})
        return
    for row in rows:
        programs = ", ".join(row["programs"]) or "no programs"
        name = f"at byte {row['byte_off']:#x}" if only_list else row["path"]
        echo(f"{name}: {row['bytes']} bytes, {row['byteorder']}-endian, {programs}")


def _write(folder: Path, files: dict[Path, Embedded], *, force: bool) -> None:
    taken = [path for path in files if path.exists()]
    if taken and not force:
        raise Failure(str(taken[0]), "exists; --force replaces it")
    with blame(str(folder)):
        folder.mkdir(parents=True, exist_ok=True)
    for path, one in files.items():
        with blame(str(path)):
            write_all(path, one.data)


def _facts(one: Embedded, path: Path) -> dict[str, Any]:
    return {
        "path": str(path),
        "byte_off": one.byte_off,
        "bytes": len(one.data),
        "byteorder": one.obj.byteorder,
        "insns": int((~one.obj.code.second_slots).sum()),
        "programs": [program.name for program in one.obj.programs],
    }
