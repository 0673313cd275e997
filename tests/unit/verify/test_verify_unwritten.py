"""A lost store of zero is a fault like any other."""

from __future__ import annotations

import pytest

from bpfpatch.asm import assemble
from bpfpatch.verify import verify


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            "*(u64 *)(r10 - 8) = 0; r0 = *(u64 *)(r10 - 8); exit",
            "r0 = *(u64 *)(r10 - 8); exit",
        ),
        (
            "*(u32 *)(r10 - 8) = 3; r0 = *(u32 *)(r10 - 8); exit",
            "*(u8 *)(r10 - 8) = 3; r0 = *(u32 *)(r10 - 8); exit",
        ),
    ],
)
def test_lost_store_of_zero_is_found(before: str, after: str) -> None:
    """The stack holds anything but zeros until somebody writes to it."""
    assert verify(assemble(before), assemble(before), kind="socket_filter").is_same
    assert verify(assemble(before), assemble(after), kind="socket_filter").differs
