"""Both engines, for tests of what must hold in either."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest

from bpfpatch.asm import assemble
from bpfpatch.interp import Machine, MachineOptions

_OPTIONS = {field.name for field in fields(MachineOptions)}

Make = Callable[..., Machine]


@pytest.fixture(params=["compiled", "reference"])
def make(request: pytest.FixtureRequest) -> Make:
    """Makes a machine of assembly text."""

    def machine(text: str, **given: Any) -> Machine:
        options = {name: given.pop(name) for name in _OPTIONS & set(given)}
        return Machine(assemble(text), MachineOptions(engine=request.param, **options), **given)

    return machine
