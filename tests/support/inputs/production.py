"""Objects of projects that people run, in a folder beside the project; never a part of it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from bpfpatch.facts.kinds import ProgType

ROOT = Path(__file__).resolve().parents[3]
VARIABLE = "BPFPATCH_OBJECTS"


@dataclass(frozen=True)
class Production:
    """One object.

    Attributes:
        path: the file.
        type: kind of all its programs, where the sections do not tell; else None.
    """

    path: Path
    type: ProgType | None


def folder() -> Path:
    """Where the objects are."""
    return Path(os.environ.get(VARIABLE) or ROOT.parent / "shared" / "objects")


def production_objects(where: Path | None = None) -> list[Production]:
    """The objects of a folder; types as its README says, otherwise by what is known of projects."""
    root = where or folder()
    readme = root / "README.md"
    text = readme.read_text() if readme.exists() else ""
    told = dict(re.findall(r"^\| (\S+\.o) \| [^|]*\| (\w+) \|", text, re.MULTILINE))
    out = []
    for path in sorted(root.glob("*.o")):
        is_cilium = re.search(r"bpf_(lxc|host|overlay|wireguard|network)\.o$", path.name)
        is_classifier = told.get(path.name) == "classifier" or (not text and is_cilium)
        out.append(Production(path, ProgType.SCHED_CLS if is_classifier else None))
    return out


def production(name: str) -> Production:
    """One object by its file name; skips the test where it is not there."""
    found = [one for one in production_objects() if one.path.name == name]
    if not found:
        pytest.skip(f"no production objects in {folder()} (set {VARIABLE})")
    return found[0]
