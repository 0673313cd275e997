"""Licences that count as GPL-compatible."""

from __future__ import annotations

import pytest

from bpfpatch.facts.license import is_gpl_compatible


@pytest.mark.parametrize("text", ["GPL", "GPL v2", "Dual BSD/GPL", "Dual MIT/GPL", "Dual MPL/GPL"])
def test_gpl_compatible(text: str) -> None:
    """These are what the kernel takes for a GPL licence."""
    assert is_gpl_compatible(text)


@pytest.mark.parametrize("text", ["Apache-2.0", "gpl", "GPLv2", "", None])
def test_not_gpl_compatible(text: str | None) -> None:
    """Any other text is none, in other letters either."""
    assert not is_gpl_compatible(text)
