"""Arenas in the kernel: where they are mapped, and what their variables look like."""

from __future__ import annotations

import mmap

import pytest
from click.testing import CliRunner

from bpfpatch import kernel, runs
from bpfpatch.bpf.fixedmap import address_of, write_at
from bpfpatch.cli.app import cli
from bpfpatch.elf import ElfObject
from bpfpatch.facts.kinds import MapType
from support.inputs.bpfobjects import fixture_path
from support.machine import tools

pytestmark = pytest.mark.kernel

PATH = fixture_path("arena.clang-19.v3.el.g.o")
START = 1 << 44


@pytest.fixture(autouse=True)
def _kernel() -> None:
    tools.need_bpf()
    try:
        kernel.Map.create(MapType.ARENA, 0, 0, 1, flags=1 << 10).close()
    except kernel.KernelError:
        pytest.skip("not on this kernel: arenas")


def test_variables_of_an_arena_at_a_fixed_address() -> None:
    """An arena of map_extra has its variables' content, also where two are open at once."""
    obj = ElfObject.read(PATH)
    with (
        runs.open_runner(obj.link("count"), "jit", obj=obj) as one,
        runs.open_runner(obj.link("count"), "jit", obj=obj) as other,
    ):
        got = [runner.run(runs.Input()).r0 for runner in (one, one, other)]
    assert got == [9, 11, 9]


def test_the_address_is_the_one_that_was_asked_for() -> None:
    """The kernel shows variables at map_extra, and the loader knows that address."""
    obj = ElfObject.read(PATH)
    with kernel.open_object(obj, ["count"]) as opened:
        assert opened.maps["arena"].user_address == START
        insns = opened.programs["count"].xlated()
    words = insns["imm"].astype("i8") & 0xFFFF_FFFF
    shown = {int(words[at + 1]) << 32 | int(words[at]) for at in range(len(words) - 1)}
    assert any(START <= one < START + 4096 for one in shown)


def test_another_mapping_is_left_alone() -> None:
    """Where something else is mapped at the address the arena is refused, not put over it."""
    pages = mmap.mmap(-1, 4096)
    address = address_of(pages)
    with (
        kernel.Map.create(MapType.ARENA, 0, 0, 1, flags=1 << 10, extra=address) as arena,
        pytest.raises(OSError, match="exists"),
    ):
        write_at(arena.fd, address, 4096, b"x")
    assert pages[:1] == b"\0"


def test_kernel_diff_knows_variables_of_an_arena() -> None:
    """A variable in an arena is the same on both sides, whatever address the kernel shows."""
    found = CliRunner().invoke(cli, ["kernel-diff", str(PATH), "--prog", "count"])
    assert "count, aux from kernel: equal" in found.output


def test_arithmetic_on_arena_pointers_is_the_kernels() -> None:
    """Which 64-bit arithmetic is narrowed is what the log says of the pointers."""
    found = CliRunner().invoke(cli, ["kernel-diff", str(PATH)])
    assert found.exit_code == 0, found.output
    assert "walk, aux from kernel: equal" in found.output
