"""What bodies call, and load the address of, by name."""

from __future__ import annotations

import pytest

from bpfpatch import isa
from bpfpatch.asm import assemble
from bpfpatch.btf import Btf, BtfBuilder, Func, FuncLinkage, FuncProto, Int, Param
from bpfpatch.elf import ElfObject
from bpfpatch.errors import AsmError, EditError, LostRowError, OptionError
from bpfpatch.facts import MapDefinition
from bpfpatch.facts.kinds import MapType
from bpfpatch.passes import ObjectEdit
from bpfpatch.patch import Body, PatchList
from support.cases.passcase import listing
from support.inputs.bpfobjects import fixture_path

TWO = ".subprog main; call f; exit; .subprog f; r0 = 1; exit"
HITS = MapDefinition("hits", MapType.ARRAY, 4, 8, 1)


def demo() -> ElfObject:
    """An object with a map of its own name."""
    return ElfObject.parse(fixture_path("xdp_balancer.clang-19.v3.el.g.o").read_bytes())


def symbols_of(obj: ElfObject) -> list[tuple[str, str, int]]:
    """(instruction, symbol, type) of each relocation of an object, in order."""
    table = obj.code.tables["reloc"]
    rows = zip(table.insn.tolist(), table.rows, strict=True)
    return [
        (isa.describe(obj.code.insns, slot), obj.symbols[int(row["sym"])].name, int(row["type"]))
        for slot, row in rows
    ]


def test_a_function_is_called_by_name() -> None:
    """A call of a function of the program reaches it; so does a load of its address."""
    patches = PatchList(assemble(TWO))
    patches.insert_before(0, "call f; r1 = &f")
    wanted = assemble(TWO.replace("call f", "call f; r1 = &f; call f", 1))
    assert listing(patches.linearize().program) == listing(wanted)


def test_a_call_by_name_enters_where_calls_do_now() -> None:
    """What is in front of the function by then is run, as with each other call."""
    patches = PatchList(assemble(TWO))
    body = Body.asm("call f")
    patches.insert_before(0, body)
    patches.insert_before(2, "r0 = 5")
    patches.insert_before(1, body)
    program = patches.linearize().program
    assert program.refs.target.tolist() == [4, 4, 4]


def test_the_same_body_serves_several_lists() -> None:
    """A name means each list's own."""
    body = Body.asm("call f")
    for text in (TWO, TWO.replace("exit; .subprog f", "r0 = 0; exit; .subprog f")):
        patches = PatchList(assemble(text))
        patches.insert_before([0, 1], body)
        program = patches.linearize().program
        assert set(program.refs.target.tolist()) == {int(program.subprogs.start[1])}


def test_a_function_that_is_gone_cannot_be_called() -> None:
    """Where all of it is deleted, its name leads nowhere."""
    patches = PatchList(assemble(TWO))
    patches.delete_subprog("f")
    with pytest.raises(EditError, match="all of this subprog is deleted"):
        patches.insert_before(0, "call f")


def test_names_of_nothing_are_refused_with_those_that_are_alike() -> None:
    """An unknown name is an error at the edit, which says what may have been meant."""
    patches = PatchList(assemble(TWO))
    with pytest.raises(OptionError, match=r"'bpf_map_lookup' \(did you mean bpf_map_lookup_elem"):
        patches.insert_before(0, "call bpf_map_lookup")
    with pytest.raises(OptionError, match=r"there is no function 'hits'.*PatchList\(obj.code, obj"):
        patches.insert_before(0, "r1 = &hits")
    assert patches.linearize().remap.is_identity


def test_names_of_an_object_are_refused_likewise() -> None:
    """With an object its maps, variables and declared functions are those there are."""
    obj = demo().with_map(HITS)
    patches = PatchList(obj.code, obj)
    with pytest.raises(OptionError, match=r"no map or variable 'hit' \(did you mean hits\?\)"):
        patches.insert_before(0, "r1 = &hit")
    with pytest.raises(OptionError, match="a kfunc is declared by"):
        patches.insert_before(0, "call bpf_rcu_read_lock")
    with pytest.raises(OptionError, match="'hits' is no function"):
        patches.insert_before(0, "call hits")


def test_jumps_still_need_a_label() -> None:
    """A name is for calls and addresses; a jump to one is an error of the body."""
    with pytest.raises(OptionError, match="no label 'f' in the body"):
        Body.asm("goto f")
    with pytest.raises(OptionError, match="no label '@here'"):
        Body.asm("call @here")


def test_maps_get_relocations() -> None:
    """Each copy of a body refers to the object's symbols, as a compiler would have written it."""
    obj = demo().with_map(HITS)
    patches = PatchList(obj.code, obj)
    body = Body.asm("r1 = &hits; r2 = 3")
    nodes = patches.insert_before([0, 5], [body, body])
    assert set(nodes.tolist()) <= set(patches.attached().tolist())
    out = obj.with_code(patches.linearize())
    new = [row for row in symbols_of(ElfObject.parse(out.to_bytes())) if row[1] == "hits"]
    assert new == [("r1 = 0x0 ll", "hits", 1)] * 2
    assert patches.linearize().program.to_bytes() == out.code.to_bytes()


def test_what_was_named_and_deleted_leaves_no_relocation() -> None:
    """A row goes with its instruction; one whose instruction is replaced is an error."""
    obj = demo().with_map(HITS)
    patches = PatchList(obj.code, obj)
    patches.delete(patches.insert_before(0, "r1 = &hits"))
    assert "hits" not in {symbol for _, symbol, _ in symbols_of(obj.with_code(patches.linearize()))}
    patches.replace(patches.insert_before(0, "r1 = &hits"), "r1 = 0")
    with pytest.raises(LostRowError, match="a row attached to reloc belongs to it"):
        patches.linearize()


def test_a_kfunc_is_called_by_name() -> None:
    """A call of what the edit declares is left to the loader, and has no target in the program."""
    edit = ObjectEdit(demo())
    edit.add_kfunc("my_kfunc", kernel_types())
    edit.add_kfunc("my_kfunc", kernel_types())
    patches = PatchList(edit.obj.code, edit)
    call = patches.insert_before(0, "call my_kfunc")
    with pytest.raises(EditError, match="calls or addresses no subprog"):
        patches.insert_before(call, "call @target")
    program = patches.linearize().program
    assert 0 in program.external.tolist()
    assert 0 not in program.refs.slot.tolist()
    out = ElfObject.parse(edit.obj.with_code(patches.linearize()).to_bytes())
    assert symbols_of(out)[0][1:] == ("my_kfunc", 10)
    assert 0 in out.code.external.tolist()


def kernel_types() -> Btf:
    """Types of a kernel with one function."""
    types = BtfBuilder()
    number = types.add(Int("int", 4, 32))
    proto = types.add(FuncProto(number, (Param("count", number),)))
    types.add(Func("my_kfunc", proto, FuncLinkage.GLOBAL))
    return types.build()


def test_a_pass_names_what_it_added() -> None:
    """An object without relocations gets room for some."""
    obj = ElfObject.parse(fixture_path("asm_acquire.clang-19.v4.el.o").read_bytes())
    edit = ObjectEdit(obj)
    edit.add_map(HITS)
    patches = PatchList(obj.code, edit)
    patches.insert_before(0, "r1 = &hits")
    out = edit.obj.with_code(patches.linearize())
    assert [symbol for _, symbol, _ in symbols_of(out)] == ["hits"]


def test_text_is_taken_where_a_body_is() -> None:
    """Each verb takes assembly; what is neither is refused by its type."""
    patches = PatchList(assemble("r0 = 1; r0 = 2; exit"))
    patches.insert_before(0, "r1 = 0")
    patches.prepend(0, "r2 = 0")
    patches.insert_after(0, "r3 = 0")
    patches.replace([1], ["r4 = 0"])
    wanted = assemble("r1 = 0; r2 = 0; r0 = 1; r3 = 0; r4 = 0; exit")
    assert patches.linearize().program.to_bytes() == wanted.to_bytes()
    with pytest.raises(AsmError, match="line 1, column 1"):
        patches.insert_before(0, "flub")
    with pytest.raises(OptionError, match="a Body, or assembly as text, not int"):
        patches.insert_before(0, 5)


def test_names_of_slots_that_cannot_have_one() -> None:
    """Only a call and an ld_imm64 can name something."""
    for slot, what in ((0, "is no call and no ld_imm64"), (1, "there is no body slot 1")):
        with pytest.raises(OptionError, match=what):
            Body(isa.mov(0, 1), names={slot: "hits"})
