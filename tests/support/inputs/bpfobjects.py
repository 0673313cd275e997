"""Objects to test on: our own committed ones, and those that a Debian system has installed."""

from __future__ import annotations

import functools
import os
import shutil
import struct
import subprocess
from pathlib import Path

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
XDP_TOOLS = Path("/usr/lib/x86_64-linux-gnu/bpf")
PRODUCTION = FIXTURES.parents[2] / "shared" / "objects"
EM_BPF = 247
EHDR_BYTES = 64
SHDR_BYTES = 64
SHT_NOBITS = 8


def fixture_objects() -> list[tuple[str, bytes]]:
    """The committed objects: (file name, contents), by name, read once a run."""
    return list(_objects_in(FIXTURES / "obj"))


def fixture_path(name: str) -> Path:
    """Where a committed object is.

    Args:
        name: its file name, as in ``xdp_balancer.clang-19.v3.el.g.o``.
    """
    return FIXTURES / "obj" / name


def xdp_tools_objects() -> list[tuple[str, bytes]]:
    """The objects of Debian's libxdp1: (file name, contents), none where it is not installed."""
    return list(_objects_in(XDP_TOOLS))


def production_objects() -> list[tuple[str, bytes]]:
    """Objects that people run: (file name, contents), none where there are none.

    They are in the folder that ``BPFPATCH_OBJECTS`` names, or in ``../shared/objects``.
    """
    return list(_objects_in(Path(os.environ.get("BPFPATCH_OBJECTS", PRODUCTION))))


@functools.cache
def _objects_in(folder: Path) -> tuple[tuple[str, bytes], ...]:
    return tuple((path.name, path.read_bytes()) for path in sorted(folder.glob("*.o")))


def libbpf_tools_objects() -> list[tuple[str, bytes]]:
    """The objects inside the programs of Debian's libbpf-tools: (program, contents)."""
    out = []
    for path in _package_programs("libbpf-tools"):
        found = embedded_objects(path.read_bytes())
        names = [path.name] if len(found) == 1 else [f"{path.name}#{i}" for i in range(len(found))]
        out += list(zip(names, found, strict=True))
    return out


@functools.cache
def _debian_objects() -> tuple[tuple[str, bytes], ...]:
    return (*xdp_tools_objects(), *libbpf_tools_objects())


def debian_objects() -> list[tuple[str, bytes]]:
    """All objects that Debian's packages bring: (name, contents), found once a run."""
    return list(_debian_objects())


def embedded_objects(data: bytes) -> list[bytes]:
    """Find complete BPF objects inside another file, such as a skeleton's data.

    Args:
        data: the file's contents.

    Returns:
        Each object, from its header to the end of its last section.
    """
    out = []
    at = data.find(b"\x7fELF", 1)
    while at >= 0:
        size = _object_size(data, at)
        if size:
            out.append(data[at : at + size])
        at = data.find(b"\x7fELF", at + max(size, 4))
    return out


def _object_size(data: bytes, at: int) -> int:
    """Bytes of the 64-bit BPF object at a place, 0 where there is none."""
    if len(data) - at < EHDR_BYTES or data[at + 4] != 2 or data[at + 5] not in (1, 2):
        return 0
    order = "<" if data[at + 5] == 1 else ">"
    (machine,) = struct.unpack_from(f"{order}H", data, at + 18)
    (shoff,) = struct.unpack_from(f"{order}Q", data, at + 40)
    shentsize, shnum = struct.unpack_from(f"{order}HH", data, at + 58)
    size = int(shoff) + shnum * SHDR_BYTES
    if machine != EM_BPF or shentsize != SHDR_BYTES or size > len(data) - at:
        return 0
    for i in range(shnum):
        row = struct.unpack_from(f"{order}IIQQQQIIQQ", data, at + shoff + i * SHDR_BYTES)
        end = row[4] if row[1] == SHT_NOBITS else row[4] + row[5]
        size = max(size, end)
    return size if size <= len(data) - at else 0


def _package_programs(package: str) -> list[Path]:
    """A Debian package's ELF executables, links left out."""
    if shutil.which("dpkg") is None:
        return []
    done = subprocess.run(["dpkg", "-L", package], capture_output=True, text=True, check=False)
    paths = [Path(line) for line in done.stdout.splitlines() if "bin/" in line]
    files = [path for path in paths if path.is_file() and not path.is_symlink()]
    return sorted(path for path in files if path.read_bytes()[:4] == b"\x7fELF")
