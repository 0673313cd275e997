"""An object from parts: what was put in is what its readers find."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bpfpatch import asm, isa
from bpfpatch.btf import BtfBuilder
from bpfpatch.elf import ElfObject
from bpfpatch.elf.build import DataPart, NewObjectParts, NewVariable, build_object, with_names
from bpfpatch.elf.mapdefs import map_definitions
from bpfpatch.errors import UnsupportedError
from bpfpatch.facts.kinds import MapType
from bpfpatch.facts.maps import MapDefinition
from bpfpatch.program import Program

TEXT = """
.subprog main
  r1 = 0 ll
  r2 = 8 ll
  call twice
  call 11
  exit
.subprog twice
  r0 = 2
  call once
  exit
.subprog once
  r0 = 1
  exit
"""


def parts(is_global: tuple[bool, ...] = (True, True, False)) -> NewObjectParts:
    """A program with a map, a variable at byte 8, and two functions."""
    program: Program = asm.assemble(TEXT)
    uses = {0: "flows", 2: ".data"}
    program = replace(program, external=np.array(sorted(uses), np.int32))
    inner = MapDefinition("inner", MapType.ARRAY, 4, 8, 3)
    return NewObjectParts(
        program,
        "xdp",
        "Dual MIT/GPL",
        with_names(BtfBuilder().build(), "xdp"),
        (
            MapDefinition("flows", MapType.HASH, 8, 16, 100, flags=1),
            MapDefinition("outer", MapType.ARRAY_OF_MAPS, 4, 4, 2, inner=inner),
            MapDefinition("bloom", MapType.BLOOM_FILTER, 0, 8, 10, extra=5),
        ),
        (DataPart(".data", bytes(range(16)), (NewVariable("counter", 8, 8),)),),
        uses,
        is_global,
    )


@pytest.mark.parametrize(
    "is_global", [(True, True, False), (True, False, False), (True, True, True)]
)
def test_code_is_where_it_was(is_global: tuple[bool, ...]) -> None:
    """Slots, functions and distances of the code are the flat program's, and so are a linker's."""
    given = parts(is_global)
    obj = ElfObject.parse(build_object(given).to_bytes())
    refs, ours = obj.code.refs, given.program.refs
    assert obj.code.subprogs.names == ("main", "twice", "once")
    assert (refs.slot.tolist(), refs.target.tolist()) == (ours.slot.tolist(), ours.target.tolist())
    linked = obj.link("main")
    assert isa.to_bytes(linked.program.insns) == isa.to_bytes(given.program.insns)
    assert [(reloc.slot, reloc.target.name, reloc.addend) for reloc in linked.relocations] == [
        (0, "flows", 0),
        (2, ".data", 8),
    ]


def test_what_a_loader_reads() -> None:
    """Section, licence, maps with all of their definition, and data are what was given."""
    obj = build_object(parts())
    (info,) = obj.programs
    assert (info.name, info.section, obj.license) == ("main", "xdp", "Dual MIT/GPL")
    flows, outer, bloom = map_definitions(obj)
    assert (flows.name, flows.type, flows.key_size, flows.value_size) == ("flows", 1, 8, 16)
    assert (flows.max_entries, flows.flags, bloom.extra) == (100, 1, 5)
    assert outer.inner is not None
    assert (outer.inner.type, outer.inner.value_size, outer.inner.max_entries) == (2, 8, 3)
    (counter,) = [symbol for symbol in obj.symbols if symbol.name == "counter"]
    data = next(section for section in obj.sections if section.name == ".data")
    assert (counter.section, counter.value, counter.size) == (data.index, 8, 8)
    assert bytes(data.data) == bytes(range(16))


def test_the_main_function_is_called_by_none() -> None:
    """A reference to it is refused: no loader knows what to do with one."""
    program = asm.assemble(".subprog main\n call f\n exit\n.subprog f\n call main\n exit\n")
    given = replace(parts((True, True)), program=program, uses={})
    with pytest.raises(UnsupportedError, match="refers to the main function itself"):
        build_object(given)
