"""What happens only where a buffer has no room is looked for, too."""

from __future__ import annotations

from bpfpatch.elf import ElfObject
from bpfpatch.patch import PatchList
from bpfpatch.verify import Bounds, verify
from support.inputs.bpfobjects import fixture_path

REFUSED_AT_ONCE = 7
"""``r6 = 1`` of full_buffers.c: stays only where the very first reservation is refused."""


def test_a_fault_behind_a_full_ring_buffer_is_found() -> None:
    """A program that differs only where a ring buffer is full from the start is told apart."""
    obj = ElfObject.read(fixture_path("full_buffers.clang-19.v3.el.g.o"))
    linked = obj.link("fill")
    assert int(linked.program.insns["imm"][REFUSED_AT_ONCE]) == 1
    patches = PatchList(linked.program)
    patches.modify(REFUSED_AT_ONCE, imm=5)
    after = linked.with_code(patches.linearize())
    bounds = Bounds(seconds=20, runs=400)
    assert verify(linked, after, obj=obj, bounds=bounds).differs
    assert not verify(linked, linked, obj=obj, bounds=bounds).differs
