"""Tests that share the kernel have a mark: without it they fail, with it they take turns."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from bpfpatch import asm, kernel
from bpfpatch.bpf.harden import SETTING
from support.machine.tools import bpf_call
from support.session.kernelgroup import GROUP, KernelGuard, _is_loader, in_group

# So that the guard of this process does not listen, but the one under test.
pytestmark = pytest.mark.kernel

ROOT = Path(__file__).parents[2]
UNMARKED: Any = SimpleNamespace(name="test_something", get_closest_marker=lambda _name: None)
TOUCHES: dict[str, Callable[[], object]] = {
    "a load": lambda: kernel.load(asm.assemble("r0 = 0; exit")).close(),
    "a map": lambda: kernel.Map.create("array", 4, 4, 1).close(),
    "the tests' own call": lambda: bpf_call(0, struct.pack("=5I", 2, 4, 4, 1, 0)),
    "the setting": lambda: SETTING.write_text("0"),
    "a pin": lambda: Path("/sys/fs/bpf/bpfpatch_none/pin").write_text(""),
    "Python": lambda: subprocess.run([sys.executable, "-c", ""], check=True),
    "a shell": lambda: subprocess.run("exit 0", shell=True, check=True),
}


@pytest.fixture(scope="module")
def guard() -> KernelGuard:
    """One guard for all: what it hears with cannot be taken off again."""
    return KernelGuard()


@pytest.mark.parametrize("touch", TOUCHES.values(), ids=TOUCHES)
def test_touching_the_kernel_fails(guard: KernelGuard, touch: Callable[[], object]) -> None:
    """Whatever way a test without the mark takes to it, it fails before it gets there."""
    with suppress(kernel.KernelError):
        TOUCHES["a map"]()  # what is looked up once must not be missed the next time
    with (
        pytest.raises(pytest.fail.Exception, match="needs the mark `kernel`: test_something"),
        guard.listening(UNMARKED),
    ):
        touch()


def test_a_failure_that_is_swallowed_is_told_at_the_end(guard: KernelGuard) -> None:
    """Code that goes on after any exception does not hide it."""
    with (
        pytest.raises(pytest.fail.Exception, match="calls bpf"),
        guard.listening(UNMARKED),
        suppress(BaseException),
    ):
        TOUCHES["a map"]()


def test_reading_is_no_touch(guard: KernelGuard) -> None:
    """The setting may be read, and so may the kernel's types."""
    with guard.listening(UNMARKED):
        if SETTING.exists():
            SETTING.read_text()
        with suppress(kernel.KernelError):
            kernel.vmlinux_btf()


@pytest.mark.parametrize(
    ("command", "is_loader"),
    [
        ("fc-list --format=x", False),
        ("/usr/bin/clang-19 -c x.c", False),
        ("setarch --addr-no-randomize bpf-gcc -O2 x.c", False),
        ("setarch --addr-no-randomize bpftool prog", True),
        ("bpftool -j btf dump file x.o", False),
        ("bpftool gen object x.o y.o", False),
        ("bpftool -j prog loadall x.o pin", True),
        ("bpfpatch dump x.o", True),
        ("sh -c clang", True),
    ],
)
def test_which_programs_might_load(command: str, is_loader: bool) -> None:
    """Loaders, and what starts any program it is told; compilers and a look for fonts do not."""
    executable, *args = command.split()
    assert _is_loader(executable, args) is is_loader


def test_marked_files_are_one_unit_of_work_that_goes_out_first() -> None:
    """All files with the mark go to one process, at once; each other file goes to any."""
    pytest.importorskip("xdist")
    from support.session.sidebyside import KernelInOneProcess

    scheduler: Any = object.__new__(KernelInOneProcess)
    scheduler.config = SimpleNamespace(rootpath=ROOT)
    marked = [path for path in ROOT.glob("tests/*/test_*.py") if in_group(path)]
    assert {scheduler._split_scope(f"{path.relative_to(ROOT)}::test") for path in marked} == {GROUP}
    here = "tests/unit/isa/test_opcodes.py"
    assert scheduler._split_scope(f"{here}::test_one[a::b]") == here

    sent: list[list[int]] = []
    node = Mock(send_runtest_some=sent.append)
    scheduler.assigned_work = {}
    scheduler.registered_collections = {node: ["a", "b"]}
    scheduler.workqueue = OrderedDict({here: {"a": False}, GROUP: {"b": False}})
    scheduler._assign_work_unit(node)
    assert sent == [[1]]
