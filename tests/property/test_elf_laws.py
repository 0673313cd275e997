"""Laws of writing: what is read back is what was meant, whatever was edited."""

import random

import numpy as np
import pytest

from bpfpatch import isa
from bpfpatch.elf import ElfObject
from bpfpatch.patch import Body, PatchList
from support.inputs.bpfobjects import fixture_objects

NAMES = [name for name, _ in fixture_objects() if "strip-all" not in name]
#: Tables that are written and read back row by row, with fields that an edit may renumber.
RENUMBERED = {"reloc": ("sym", "section"), "symbol": ("sym",), "label": ("sym",)}
ADDRESSES = ("code_address", "jump_table")


def randomly_edited(obj, rng):
    """Nops before, in front of and after instructions, and some plain instructions taken out."""
    patches = PatchList(obj.code)
    code = obj.code
    firsts = np.flatnonzero(~code.second_slots)
    plain = isa.falls_through(code.insns) & ~isa.is_jump(code.insns) & ~isa.is_call(code.insns)
    plain = np.flatnonzero(plain & ~code.second_slots)
    patches.insert_before(_some(firsts, rng, 4), Body(isa.ja(0)))
    patches.prepend(_some(firsts, rng, 4), Body(isa.ja(0)))
    patches.insert_after(_some(plain, rng, 4), Body(isa.ja(0)))
    taken = np.unique(np.concatenate([table.insn for table in code.tables.values()]))
    patches.delete(_some(np.setdiff1d(plain, taken), rng, 5))
    return patches.linearize()


def _some(slots, rng, one_in):
    return np.array([slot for slot in slots.tolist() if rng.randrange(one_in) == 0], np.int32)


@pytest.mark.parametrize("name", NAMES)
def test_what_was_written_is_what_was_meant(name):
    """parse(with_code(new).to_bytes()).code is new's program, with its tables."""
    obj = ElfObject.parse(dict(fixture_objects())[name])
    new = randomly_edited(obj, random.Random(name))
    out = obj.with_code(new)
    again = ElfObject.parse(out.to_bytes())
    assert again == out
    code = again.code
    assert (code.insns == new.program.insns).all()
    assert (code.subprogs.start == new.program.subprogs.start).all()
    assert code.subprogs.names == new.program.subprogs.names
    assert (code.external == new.program.external).all()
    for table_name, table in new.program.tables.items():
        found = code.tables[table_name]
        dropped = (
            *RENUMBERED.get(table_name, ()),
            *(("sym", "section") if table_name in ADDRESSES else ()),
        )
        assert _rows(found, dropped) == _rows(table, dropped)


def _rows(table, dropped):
    fields = [field for field in table.rows.dtype.names if field not in dropped]
    ends = table.end.tolist() if table.end is not None else [0] * len(table)
    if "is_sized" in fields:
        ends = [end if row else 0 for end, row in zip(ends, table.rows["is_sized"], strict=True)]
    rows = table.rows[fields].tolist()
    return sorted(zip(table.insn.tolist(), ends, map(str, rows), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_unedited_code_gives_the_same_bytes(name):
    """with_code(PatchList(code).linearize()) changes no byte."""
    obj = ElfObject.parse(dict(fixture_objects())[name])
    assert obj.with_code(PatchList(obj.code).linearize()).to_bytes() == obj.to_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_nops_put_in_and_taken_out_are_no_change(name):
    """Code with nops put in, written, read, and with the nops taken out, is the original's."""
    obj = ElfObject.parse(dict(fixture_objects())[name])
    patches = PatchList(obj.code)
    patches.insert_before(np.flatnonzero(~obj.code.second_slots), Body(isa.ja(0)))
    there = patches.linearize()
    wide = ElfObject.parse(obj.with_code(there).to_bytes())
    patches = PatchList(wide.code)
    patches.delete(np.flatnonzero(there.remap.orig < 0))
    back = wide.with_code(patches.linearize())
    old = {sec.name: bytes(sec.data) for sec in obj.sections}
    for sec in back.sections:
        renumbered = sec.name in (".symtab", ".llvm_addrsig") or sec.name.startswith(".rel")
        # Line programs are written as LLVM does; binutils takes other operations for equal rows.
        of_gas = sec.name == ".debug_line" and name.endswith(".dwarf.o")
        if not renumbered and not of_gas:
            assert bytes(sec.data) == old[sec.name], sec.name
    if len(back.sections) == len(obj.sections) and not name.endswith(".dwarf.o"):
        assert back.to_bytes() == obj.to_bytes()
