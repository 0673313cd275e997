"""Helper names."""

from __future__ import annotations

import pytest

from bpfpatch.errors import OptionError
from bpfpatch.isa import HELPERS, helper_id


@pytest.mark.parametrize(
    ("helper", "name"),
    [(1, "map_lookup_elem"), (12, "tail_call"), (181, "loop"), (211, "cgrp_storage_delete")],
)
def test_names(helper: int, name: str) -> None:
    """A helper has the number of include/uapi/linux/bpf.h, with or without its prefix."""
    assert HELPERS[helper] == name
    assert helper_id(name) == helper_id(f"bpf_{name}") == helper


def test_unknown() -> None:
    """A name that no helper has is an error."""
    with pytest.raises(OptionError, match="bpf_nonsense"):
        helper_id("bpf_nonsense")
