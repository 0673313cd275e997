"""What may stand where bodies are wanted."""

from __future__ import annotations

import pytest

from bpfpatch.errors import OptionError
from bpfpatch.patch import PatchList
from support.cases.rewrite import program


@pytest.mark.parametrize("bodies", [None, 5, 1.5])
def test_many_sites_take_bodies_only(bodies: object):
    """Where sites are many, what is no body and no sequence of bodies is refused by name."""
    patches = PatchList(program("r0 = 1\nr0 = 2\nexit"))
    with pytest.raises(OptionError, match="sites take a Body, or a sequence"):
        patches.insert_before([0, 1], bodies)
