"""The passes that come with the package are imported when they are asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest

import bpfpatch.passes
from bpfpatch.passes import Pipeline, base, builtin, registered
from bpfpatch.passes.builtin import CLASSES, built_in


@pytest.mark.parametrize("name", CLASSES)
def test_a_pass_has_the_name_that_it_is_listed_by(name: str) -> None:
    """The list of our own passes says of each where it is."""
    found = built_in(name)
    assert found.name == name
    assert f"{found.__module__}.{found.__name__}".startswith(
        f"bpfpatch.{CLASSES[name].rpartition('.')[0]}"
    )
    assert registered()[name] is found
    assert getattr(bpfpatch.passes, found.__name__) is found


def test_parsing_a_pipeline_imports_its_passes_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipeline of two passes asks for no third."""
    asked: list[str] = []

    def record(name: str) -> Any:
        asked.append(name)
        return import_module(name)

    monkeypatch.setattr(base, "_REGISTRY", {})
    monkeypatch.setattr(builtin, "import_module", record)
    Pipeline.parse("sprinkle,inline-loop")
    assert set(asked) == {"bpfpatch.passes.sprinkle", "bpfpatch.linux.passes.inline_loop"}


def test_unknown_names_are_refused() -> None:
    """Neither the package nor the list of passes makes up what is not there."""
    with pytest.raises(AttributeError, match="Nothing"):
        _ = bpfpatch.passes.Nothing
    with pytest.raises(KeyError):
        registered()["nothing"]


def test_all_are_listed_without_an_import() -> None:
    """The names are there at once, in order, beside those of one's own."""
    assert set(CLASSES) <= set(registered())
    assert len(registered()) == len(list(registered()))
    assert list(registered()) == sorted(registered())
