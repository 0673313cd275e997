"""Objects that a test compiles from a few lines of its own."""

from __future__ import annotations

import subprocess
from pathlib import Path

from support.machine.tools import need

_HEADERS = Path(__file__).parents[2] / "fixtures" / "src"


def compile_bpf(
    folder: Path, text: str, *, clang: str = "clang-19", flags: tuple[str, ...] = ("-g",)
) -> Path:
    """Compile C with the fixtures' header for little-endian BPF of cpu v3; skips without clang."""
    need(clang)
    source, out = folder / "given.c", folder / "given.o"
    source.write_text(f'#include "bpf_fixture.h"\n{text}')
    command = [clang, "-O2", "-target", "bpfel", "-mcpu=v3", f"-I{_HEADERS}", "-Wno-everything"]
    subprocess.run([*command, *flags, "-c", source, "-o", out], check=True, capture_output=True)
    return out
