"""Helper names."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from bpfpatch.errors import OptionError
from bpfpatch.isa import HELPERS, helper_id
from support.machine.tools import need

KERNEL_BTF = Path("/sys/kernel/btf/vmlinux")


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


def test_running_kernel() -> None:
    """The running kernel has none of another name, up to what it knows."""
    need("bpftool")
    if not KERNEL_BTF.exists():
        pytest.skip("this kernel has no BTF")
    command = ["bpftool", "btf", "dump", "file", str(KERNEL_BTF), "format", "c"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = {int(number): name for name, number in re.findall(r"\bBPF_FUNC_(\w+) = (\d+),", out)}
    found.pop(0)
    assert len(found) > 150
    assert all(HELPERS.get(helper) == name for helper, name in found.items())
