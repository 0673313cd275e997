"""Passes from files, as the command line loads them, for the length of a test."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from bpfpatch.passes import base

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the test registers is gone after it, and only what the package brings is there."""
    built_in = {
        name: cls
        for name, cls in base._REGISTRY.items()
        if cls.__module__.startswith("bpfpatch.passes.")
    }
    monkeypatch.setattr(base, "_REGISTRY", built_in)


def load_plugin(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Import a file for the passes that it registers."""
    own_registry(monkeypatch)
    spec = importlib.util.spec_from_file_location("_plugin_of_a_test", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
