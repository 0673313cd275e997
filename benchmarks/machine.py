"""What was measured on."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path

import numpy as np


def machine() -> dict[str, str]:
    """Kernel, processor, and the versions of what takes part."""
    return {
        "kernel": platform.release(),
        "cpu": _cpu(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        **{name: _version(name) for name in ("pyelftools", "lief")},
    }


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    models = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    return f"{models[0]} x{len(models)}" if models else "unknown"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
