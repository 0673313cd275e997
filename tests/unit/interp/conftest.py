"""Both engines, for tests of what must hold in either."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bpfpatch.asm import assemble
from bpfpatch.interp import Machine

Make = Callable[..., Machine]


@pytest.fixture(params=["compiled", "reference"])
def make(request: pytest.FixtureRequest) -> Make:
    """Makes a machine of assembly text."""

    def machine(text: str, **options: Any) -> Machine:
        return Machine(assemble(text), engine=request.param, **options)

    return machine
