"""The kernel's code beside ours, for passes that make the kernel's own form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bpfpatch import asm, isa, kernel
from bpfpatch.bpf.xlated import XlatedProgram, read_xlated
from bpfpatch.btf import Kind
from bpfpatch.facts import CALL_MAP, CALLBACK, NONE, STACK_DEPTH, Subject, column, function_name
from bpfpatch.linux.parity.names import implementations
from bpfpatch.linux.passes.fixups import ADDRESS
from bpfpatch.loader.subject import map_facts
from bpfpatch.passes import Pass, Pipeline, Target
from bpfpatch.program import FUNC_INFO, LINE_INFO, Anchor, AnchoredTable, Program
from support.cases.lined import with_lines

MAP_FD, MAP_VALUE = 1, 2
TAIL_CALL = 12
MISSING_STATIC_CALL = "__static_call_return0"


@dataclass(frozen=True)
class Case:
    """One program, with what the verifier would find out of it.

    Attributes:
        text: its assembly; the nth map of an ld_imm64 stands for ``maps[n]``.
        maps: one a ld_imm64 of a map, in order.
        depths: bytes of stack of each subprog, in order; 0 where not said.
        callback: index of the bpf_loop call that can be inlined, by slot, to the slot of the
            ld_imm64 of its callback.
        call_map: by slot of a helper call, index into ``all_maps``; from the nearest ld_imm64
            of a map in front of it where not said.
        load: further arguments of `kernel.load`.
        attach_type: for the subject.
    """

    text: str | Program
    maps: Sequence[kernel.Map] = ()
    depths: Sequence[int] = ()
    callback: Mapping[int, int] = field(default_factory=dict)
    call_map: Mapping[int, int] = field(default_factory=dict)
    load: Mapping[str, Any] = field(default_factory=dict)


def kernel_types() -> Any:
    """The kernel's own types, read once."""
    return kernel.vmlinux_btf()


def submitted(case: Case) -> Program:
    """The program with the maps' descriptors in it."""
    program = asm.assemble(case.text) if isinstance(case.text, str) else case.text
    insns = program.insns.copy()
    uses = np.flatnonzero(isa.is_ld_imm64(insns) & np.isin(isa.src(insns), (MAP_FD, MAP_VALUE)))
    for slot, made in zip(uses.tolist(), case.maps, strict=True):
        insns["imm"][slot] = made.fd
    return Program(insns, program.subprogs)


def with_aux(case: Case, program: Program) -> Program:
    """The same with the columns that a verifier would fill in."""
    insns = program.insns
    n_slots = len(program)
    call_map = np.full(n_slots, NONE, np.int32)
    near = NONE
    uses = np.flatnonzero(isa.is_ld_imm64(insns) & np.isin(isa.src(insns), (MAP_FD, MAP_VALUE)))
    use_of = {slot: index for index, slot in enumerate(uses.tolist())}
    calls = isa.is_helper_call(insns)
    for slot in range(n_slots):
        near = use_of.get(slot, near)
        if calls[slot]:
            call_map[slot] = case.call_map.get(slot, near)
    callback = np.full(n_slots, NONE, np.int32)
    for number, (call, load) in enumerate(case.callback.items()):
        callback[[call, load]] = number
    starts = program.subprogs.start
    depths = np.zeros(starts.size, np.int32)
    depths[: len(case.depths)] = case.depths
    depth = AnchoredTable(starts, depths, Anchor.ENTRY, unique=True)
    return program.with_tables(**{STACK_DEPTH: depth}).with_columns(
        **{CALL_MAP: column(CALL_MAP, call_map), CALLBACK: column(CALLBACK, callback)}
    )


def ours(case: Case, program: Program, *passes: Pass) -> Program:
    """What our passes make of it."""
    kind = case.load.get("prog_type", "socket_filter")
    subject = Subject(
        prog_type=kernel.ProgType.of(kind),
        attach_type=int(kernel.AttachType.of(case.load.get("attach_type", 0))),
        maps=tuple(map_facts(made) for made in case.maps),
        flags=case.load.get("flags", 0),
        attach_btf_id=case.load.get("attach_btf_id", 0),
    )
    target = Target.internal(btf=kernel_types())
    return Pipeline(passes, target).run(with_aux(case, program), subject=subject).program


def assert_same(case: Case, *passes: Pass) -> None:
    """Our code is the kernel's, instruction for instruction."""
    program, btf = with_lines(submitted(case))
    with kernel.load(program, btf=btf, **case.load) as loaded:
        theirs = read_xlated(loaded)
    found = differences(ours(case, program, *passes), theirs, case)
    assert not found, "\n".join(found)


def differences(mine: Program, theirs: XlatedProgram, case: Case) -> list[str]:
    """Slots that differ, as text; [] where all is the same."""
    a, b = mine.insns.copy(), theirs.program.insns.copy()
    if len(a) != len(b):
        return [f"{len(a)} slots, the kernel has {len(b)}", *_listing(a, b)]
    ids = {made.fd: made.info().id for made in case.maps}
    for slot in np.flatnonzero(isa.is_call(b) & ~isa.is_subprog_call(b)).tolist():
        if _is_same_call(a[slot], theirs.call_names.get(slot, frozenset())):
            a["imm"][slot] = b["imm"][slot]
            a["off"][slot] = b["off"][slot]
    is_map = isa.is_ld_imm64(a) & np.isin(isa.src(a), (MAP_FD, MAP_VALUE))
    for slot in np.flatnonzero(is_map).tolist():
        a["imm"][slot] = ids[int(a["imm"][slot])]
    if ADDRESS in mine.columns:
        _take_addresses(a, b, mine.columns[ADDRESS].values)
    out = []
    for slot in np.flatnonzero(a != b).tolist():
        names = theirs.call_names.get(slot, "")
        out.append(f"{slot}: {isa.describe(a, slot)} | {isa.describe(b, slot)} {names}")
    if out:
        out += _listing(a, b)
    if not np.array_equal(mine.subprogs.start, theirs.program.subprogs.start):
        out.append(f"subprogs {mine.subprogs.start} {theirs.program.subprogs.start}")
    return out + _table_differences(mine, theirs.program)


def _table_differences(mine: Program, theirs: Program) -> list[str]:
    """Function and line records that are not on the same instructions."""
    out = []
    for name in (FUNC_INFO, LINE_INFO):
        a, b = mine.tables[name], theirs.tables[name]
        if not np.array_equal(a.insn, b.insn) or not np.array_equal(a.rows, b.rows):
            out.append(f"{name}: {a.insn.tolist()} | {b.insn.tolist()}")
    return out


def _listing(a: isa.Insns, b: isa.Insns) -> list[str]:
    out = ["ours:"]
    out += [f"  {slot}: {isa.describe(a, slot)}" for slot in np.flatnonzero(~isa.second_slots(a))]
    out.append("the kernel's:")
    out += [f"  {slot}: {isa.describe(b, slot)}" for slot in np.flatnonzero(~isa.second_slots(b))]
    return out


def _is_same_call(mine: Any, names: frozenset[str]) -> bool:
    number = int(mine["imm"])
    if mine["code"] != isa.CALL:
        return False
    if int(mine["regs"]) >> 4 == 2:
        types = kernel_types()
        return types.name_of(number) in names and types.head(number).number == Kind.FUNC
    name = function_name(number)
    if name == "perf_snapshot_branch_stack":
        return MISSING_STATIC_CALL in names or any("snapshot" in one for one in names)
    if name is not None:
        return name in names
    return bool(implementations(number) & names)


def _take_addresses(a: isa.Insns, b: isa.Insns, which: Any) -> None:
    """Take over what only the kernel knows: the constants of these slots, and nothing else."""
    for slot in np.flatnonzero(which).tolist():
        assert a["imm"][slot] == 0
        a["imm"][slot] = b["imm"][slot]
        if a["code"][slot] == isa.LD_IMM64:
            assert a["imm"][slot + 1] == 0
            # The upper half of an address of the kernel's.
            assert b["imm"][slot + 1] < 0
            a["imm"][slot + 1] = b["imm"][slot + 1]
