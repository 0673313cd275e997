"""What the tests of passes share."""

from __future__ import annotations

import pytest

from support.session.plugins import own_registry


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    own_registry(monkeypatch)
