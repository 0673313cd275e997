"""Jump tables as clang-22 writes them: entries without relocations, and an indirect jump."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from bpfpatch import isa
from bpfpatch.elf import ElfObject
from bpfpatch.interp import Machine, Skb, Xdp
from bpfpatch.passes import Pipeline
from bpfpatch.program import JUMP_TABLE
from support.inputs.bpfobjects import fixture_path
from support.inputs.compiled import compile_bpf

SWITCHES = """
static NOINLINE int named(struct __sk_buff *skb, u32 value)
{
	int r;
	switch (value) {
	CASES
	default: return skb->len;
	}
}
SEC("tc") int one(struct __sk_buff *skb)
{
	int r;
	u8 *data = (void *)(long)skb->data;
	if ((void *)(data + 2) > (void *)(long)skb->data_end)
		return 77;
	switch (data[0]) {
	CASES
	default: return named(skb, data[1]);
	}
}
SEC("tc") int two(struct __sk_buff *skb) { return named(skb, skb->len); }
LICENSE;
"""
# Plain constants would become an array of them.
CASES = " ".join(f"case {n}: r = {(n * 37) % 101}; BARRIER(r); return r;" for n in range(20))
PACKETS = [bytes([first, second]) + bytes(62) for first in (0, 7, 19, 20) for second in (3, 19, 99)]


@pytest.fixture(scope="module", params=["v4", "v4 with many tables"])
def obj(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ElfObject:
    """Two programs, and a static function that both call, each with a switch."""
    flags = ["-g", "-mcpu=v4"]
    if "many" in request.param:
        flags += ["-mllvm", "-bpf-min-jump-table-entries=3"]
    folder = tmp_path_factory.mktemp("switches")
    text = SWITCHES.replace("CASES", CASES)
    return ElfObject.read(compile_bpf(folder, text, clang="clang-22", flags=tuple(flags)))


def results(of: ElfObject) -> list[int | None]:
    """What the first program returns for each packet."""
    machine = Machine.of_object(of, "one")
    return [machine.run(Skb(packet)).r0 for packet in PACKETS]


def test_every_entry_is_an_instruction(obj: ElfObject) -> None:
    """All entries of all tables are rows, and each is in the function that loads its table."""
    section = next(one for one in obj.sections if one.name == ".jumptables")
    table = obj.code.tables[JUMP_TABLE]
    assert len(table) == section.size // 8 > 20
    subprogs = obj.code.subprogs
    owners = set(subprogs.of(table.insn).tolist())
    assert owners == set(subprogs.of(np.array(indirect_jumps(obj), np.int32)).tolist())


def indirect_jumps(of: ElfObject) -> list[int]:
    """Slots of indirect jumps."""
    code = of.code
    is_goto = isa.is_uncond_jump(code.insns)
    return [slot for slot in is_goto.nonzero()[0].tolist() if slot not in code.refs.slot]


@pytest.mark.parametrize("pipeline", ["sprinkle", "dce,nops", "sprinkle,dce", "blind", "zext"])
def test_switch_goes_where_it_went(obj: ElfObject, pipeline: str) -> None:
    """After a pass each entry names the same case, through a file and back."""
    before = results(obj)
    assert len(set(before)) > 4
    new, _ = Pipeline.parse(pipeline).run_object(obj)
    assert results(ElfObject.parse(new.to_bytes())) == before


def test_entries_are_bytes_of_their_section(obj: ElfObject) -> None:
    """What is written counts bytes from the start of the code section, twice as many here."""
    new, _ = Pipeline.parse("sprinkle").run_object(obj)
    both = []
    for of in (obj, new):
        section = next(one for one in of.sections if one.name == ".jumptables")
        both.append(struct.unpack(f"<{section.size // 8}Q", bytes(section.data)))
    assert len(both[0]) == len(both[1])
    assert all(old < now for old, now in zip(*both, strict=True))


def test_dead_case_takes_no_entry_along(obj: ElfObject) -> None:
    """No entry is lost, also where nothing is left to delete."""
    new, _ = Pipeline.parse("dce,nops").run_object(obj)
    assert len(new.code.tables[JUMP_TABLE]) == len(obj.code.tables[JUMP_TABLE])


@pytest.mark.parametrize("order", ["el", "eb"])
@pytest.mark.parametrize("pipeline", ["", "sprinkle{every=1}", "dce,nops", "blind{seed=3}"])
def test_a_committed_object_answers_as_the_one_without_tables(order: str, pipeline: str) -> None:
    """clang-22's tables and clang-19's branches are of one source, and so are their answers."""
    with_tables = ElfObject.read(fixture_path(f"switches.clang-22.v4.{order}.g.tables.o"))
    assert len(with_tables.code.tables[JUMP_TABLE]) == 14
    if pipeline:
        with_tables, _ = Pipeline.parse(pipeline).run_object(with_tables)
    without = ElfObject.read(fixture_path("switches.clang-19.v3.el.g.o"))
    machines = [Machine.of_object(one, "machine") for one in (with_tables, without)]
    packets = [bytes((3 * at + first) % 23 for at in range(size)) for first, size in _SIZES]
    answers = [[machine.run(Xdp(packet)).r0 for packet in packets] for machine in machines]
    assert answers[0] == answers[1]
    assert len(set(answers[0])) > 2


_SIZES = [(first, size) for first in (0, 5, 11) for size in (14, 60, 64, 100, 128, 1000, 1500)]
