"""What memory holds that nobody has written to."""

from __future__ import annotations

import pytest

from bpfpatch.asm import assemble
from bpfpatch.facts import MapDefinition, MapType
from bpfpatch.interp import Machine, MachineOptions

READ = "r0 = *(u64 *)(r10 - 8); *(u64 *)(r10 - 8) = 7; exit"
RECORD = """
    r1 = map[id:1]; r2 = 8; r3 = 0; call bpf_ringbuf_reserve
    if r0 == 0 goto out
    r6 = *(u64 *)(r0 + 0); r1 = r0; r2 = 0; call bpf_ringbuf_submit; r0 = r6
    out: exit
"""


@pytest.mark.parametrize("engine", ["compiled", "reference"])
@pytest.mark.parametrize("text", [READ, RECORD])
def test_unwritten_memory_holds_the_fill(engine: str, text: str) -> None:
    """A frame and a record start with it in every run, and with zeros by default."""
    maps = {1: MapDefinition("", MapType.RINGBUF, max_entries=4096)}
    for options, expected in (({}, 0), ({"fill": 0xA5}, 0xA5A5A5A5A5A5A5A5)):
        machine = Machine(
            assemble(text), maps=maps, options=MachineOptions(engine=engine, **options)
        )  # type: ignore[arg-type]
        assert [machine.run().r0 for _ in range(2)] == [expected] * 2
