"""Every opcode and every helper goes through all that has to know of it.

Whoever adds a row to a table is told here, by the row's name, what was forgotten.
"""

from __future__ import annotations

import inspect
import random

import numpy as np
import pytest

from bpfpatch import asm, isa
from bpfpatch.dataflow.blocks import Blocks
from bpfpatch.dataflow.liveness import Liveness, defined_registers, reads_64
from bpfpatch.dataflow.stackuse import StackUse
from bpfpatch.facts import MapFacts, MapType, MemType, ProgType, Subject
from bpfpatch.facts.columns import CALL_MAP, LD_MAP, MEM_TYPE, NONE, SEEN, column
from bpfpatch.facts.helperproto import ArgKind, HelperProto, ResultKind
from bpfpatch.facts.helpers import HELPER_PROTOS, helper_args, is_variadic, returns_nothing
from bpfpatch.interp import Machine, MachineOptions
from bpfpatch.interp.errors import InterpError
from bpfpatch.interp.registry import BUILT_IN
from bpfpatch.isa import Kind
from bpfpatch.linux.log.provenance import origins
from bpfpatch.linux.verifier import decoded
from bpfpatch.linux.verifier.auxdata import aux_data
from bpfpatch.patch import CodeView
from bpfpatch.program import Program
from bpfpatch.verify.calls import describe
from support.machine.asmtools import random_insn

BY_ROW = pytest.mark.parametrize("opcode", isa.OPCODES, ids=lambda opcode: opcode.name)
SUBMITTED = [
    opcode
    for opcode in isa.OPCODES
    if opcode.kind is not Kind.BARRIER and opcode.name not in ("callx", "tail_call", "call_args")
]
BY_HELPER = pytest.mark.parametrize("proto", HELPER_PROTOS.values(), ids=lambda proto: proto.name)

_SUBPROG = isa.concat([isa.mov(isa.R0, 1), isa.exit_()])
_BEFORE = isa.concat(
    [
        isa.mov(isa.R6, isa.R1),
        isa.mov(isa.R0, 3),
        isa.load("u64", isa.R3, isa.R6, 0),
        isa.mov(isa.R4, 5),
        isa.mov(isa.R5, 0),
        isa.mov(isa.R7, 0),
        isa.store("u64", isa.R10, -8, isa.R3),
    ]
)
_AFTER = isa.concat(
    [
        isa.alu("+=", isa.R7, 1),
        isa.load("u64", isa.R8, isa.R10, -8),
        isa.alu("^=", isa.R0, isa.R8),
        isa.alu("^=", isa.R0, isa.R7),
        isa.exit_(),
    ]
)
# What neither interpreter runs in a program on plain memory: it has no such things.
_REFUSED = {
    *("ld_map_fd", "ld_map_value", "ld_btf_id", "ld_map_idx", "ld_map_idx_value"),
    *("ld_abs_w", "ld_abs_h", "ld_abs_b", "ld_ind_w", "ld_ind_h", "ld_ind_b"),
    *("gotox", "callx", "call_kfunc", "call_args", "tail_call"),
}
# What the value analysis makes of each kind.
_DECODED = {
    Kind.ALU: {decoded.ALU, decoded.MOV_IMM},
    Kind.LD_IMM64: {decoded.WIDE},
    Kind.LOAD: {decoded.LOAD},
    Kind.PACKET_LOAD: {decoded.LEGACY_LOAD},
    Kind.STORE: {decoded.STORE},
    Kind.ATOMIC: {decoded.ATOMIC},
    Kind.JUMP: {decoded.GOTO, decoded.GOTOX},
    Kind.COND_JUMP: {decoded.BRANCH},
    Kind.CALL: {decoded.CALL},
    Kind.EXIT: {decoded.EXIT},
}
# What a load through a helper's result goes through.
_THROUGH = {
    ResultKind.INT: MemType.UNKNOWN,
    ResultKind.VOID: MemType.UNKNOWN,
    ResultKind.VALUE: MemType.MAP_VALUE,
    ResultKind.SOCKET: MemType.SOCKET,
    ResultKind.SOCK_COMMON: MemType.SOCK_COMMON,
    ResultKind.TCP_SOCK: MemType.TCP_SOCK,
    ResultKind.MEM: MemType.MEM,
    ResultKind.PER_CPU: MemType.UNKNOWN,
    ResultKind.OBJECT: MemType.BTF_ID_PROBE,
}
_CALLBACK_WORDS = {"map", "key", "value", "any", "vma", "dynptr", "r1", "r3", "r4"}


def instruction(opcode: isa.Opcode) -> isa.Insns:
    """One of a row, with registers and distances that make sense after `_BEFORE`."""
    dst, src, off, imm = 3, 4, 0, 5
    if opcode.kind is Kind.LOAD or opcode.name.startswith(("load_acquire", "probe_load_acquire")):
        src, off = 10, -8
    elif opcode.kind in (Kind.STORE, Kind.ATOMIC):
        dst, src, off = 10, 3, -8
    elif opcode.kind in (Kind.JUMP, Kind.COND_JUMP):
        off = imm = 1 if opcode.ref is not isa.RefKind.NONE else 0
    elif opcode.kind is Kind.CALL or opcode.name == "ld_func":
        imm = len(_AFTER) + (opcode.name == "ld_func")
        imm = isa.HELPER_IDS["get_smp_processor_id"] if opcode.name == "call_helper" else imm
    fields = {"dst": dst, "src": src, "off": off, "imm": imm}
    made = isa.make(
        opcode.code,
        **{
            name: value if name in opcode.fields else getattr(opcode, name, None) or 0
            for name, value in fields.items()
        },
    )
    return isa.concat([made, isa.make(0)]) if opcode.kind is Kind.LD_IMM64 else made


def around(opcode: isa.Opcode) -> tuple[Program, int]:
    """A program with an instruction of a row, and its slot."""
    return Program(isa.concat([_BEFORE, instruction(opcode), _AFTER, _SUBPROG])), len(_BEFORE)


def outcome(program: Program, engine: str) -> object:
    """What an engine makes of a program: the result, or the error."""
    machine = Machine(program, options=MachineOptions(engine=engine))
    try:
        found = machine.run(mem=bytes(range(0x81, 0xC1)))
    except InterpError as error:
        return type(error), str(error)
    return found.r0


@BY_ROW
def test_both_interpreters_run_it(opcode: isa.Opcode) -> None:
    """Both engines run a row, with the same result, or refuse it with the same words."""
    program, _ = around(opcode)
    compiled = outcome(program, "compiled")
    assert compiled == outcome(program, "reference")
    assert isinstance(compiled, int) == (opcode.name not in _REFUSED)


@BY_ROW
def test_text_says_all_of_it(opcode: isa.Opcode) -> None:
    """A row's text in assembly reads back as the same bytes, and all syntaxes have one."""
    rng = random.Random(1)
    for _ in range(4):
        insns = random_insn(opcode, rng)
        (text, *_) = asm.format_insns(insns)
        assert asm.parse(text).insns.tobytes() == insns.tobytes(), text
        for syntax in isa.Syntax:
            assert asm.format_insns(insns, syntax)[0]
        assert isa.readable(int(isa.rows(insns)[0]), isa.fields_of(insns, 0), 0, "L7", "name")


@BY_ROW
def test_liveness_has_its_registers(opcode: isa.Opcode) -> None:
    """What a row reads is live before it, and what it only defines is not."""
    program, slot = around(opcode)
    view = CodeView.of_program(program)
    live = Liveness.of(view, Blocks.of(view, np.zeros(0, np.int32)))
    reads = int(isa.reads(program.insns)[slot])
    if opcode.kind is not Kind.CALL:
        assert int(live.reads[slot]) == reads
    assert not int(live.reads[slot]) & ~reads
    assert not int(live.reads[slot]) & ~int(live.before[slot])
    assert not int(live.before[slot]) & int(live.writes[slot]) & ~int(live.reads[slot])
    assert not int(reads_64(view)[slot]) & ~reads
    defines = int(defined_registers(program.insns)[slot])
    assert defines.bit_count() <= 1
    assert bool(isa.defines_32(program.insns)[slot]) == opcode.defines_32
    assert bool(defines) or not opcode.defines_32


def test_what_is_not_submitted_is_newer() -> None:
    """A row that the value analysis never meets is not one that programs of today are made of."""
    others = [opcode for opcode in isa.OPCODES if opcode not in SUBMITTED]
    assert min(opcode.cpu for opcode in others) >= isa.CPU_NEWER


@pytest.mark.parametrize("opcode", SUBMITTED, ids=lambda opcode: opcode.name)
def test_value_analysis_goes_through_it(opcode: isa.Opcode) -> None:
    """The analysis knows a row's kind, and goes on after it where control does."""
    program, slot = around(opcode)
    assert decoded.DecodedCode(program).kind[slot] in _DECODED[opcode.kind]
    aux = aux_data(program, Subject(prog_type=ProgType.SCHED_CLS), None)
    seen = aux.columns[SEEN].values
    after = slot + len(instruction(opcode))
    assert seen[slot]
    # The goals of a gotox are in a table, which is not there.
    assert bool(seen[after]) == opcode.falls_through or opcode.name == "gotox"


@BY_ROW
def test_min_cpu_knows_it(opcode: isa.Opcode) -> None:
    """The least processor version of a row is the table's, whatever stands beside it."""
    program, slot = around(opcode)
    assert int(isa.min_cpu(program.insns)[slot]) == opcode.cpu
    assert isa.alone(isa.min_cpu, program.insns[slot : slot + 1]).tolist() == [opcode.cpu]


def calling(proto: HelperProto) -> tuple[Program, int]:
    """A program that calls a helper with what it takes and loads through the result; the load."""
    parts = [isa.mov(isa.R6, isa.R1)]
    is_func = []
    for reg, arg in enumerate(proto.args, 1):
        kind = arg.kinds[0]
        at = isa.Reg(reg)
        if kind is ArgKind.CTX:
            parts.append(isa.mov(at, isa.R6))
        elif kind is ArgKind.MAP:
            parts.append(isa.ld_imm64(at, 0, src=isa.Pseudo.MAP_FD))
        elif kind is ArgKind.FUNC:
            is_func.append(len(isa.concat(parts)))
            parts.append(isa.ld_imm64(at, 0, src=isa.Pseudo.FUNC))
        elif kind in (ArgKind.KEY, ArgKind.VALUE, ArgKind.MEM, ArgKind.STACK, ArgKind.DYNPTR):
            parts += [isa.mov(at, isa.R10), isa.alu("+=", at, -64)]
        else:
            parts.append(isa.mov(at, 8))
    parts += [
        isa.call_helper(proto.name),
        isa.jump("==", isa.R0, 0, 1),
        isa.load("u8", isa.R1, isa.R0, 0),
        isa.mov(isa.R0, 0),
        isa.exit_(),
    ]
    main = isa.concat(parts)
    for slot in is_func:
        main["imm"][slot] = len(main) - slot - 1
    program = Program(isa.concat([main, _SUBPROG]) if is_func else main)
    is_map = isa.is_pseudo(program.insns, isa.Pseudo.MAP_FD)
    ld_map = np.where(is_map, 0, NONE)
    return program.with_columns(**{LD_MAP: column(LD_MAP, ld_map)}), len(main) - 3


@BY_HELPER
def test_interpreters_agree_on_a_helper(proto: HelperProto) -> None:
    """Both engines run a helper alike, or say alike that it is not there; by its name."""
    program, _ = calling(proto)
    compiled = outcome(program, "compiled")
    assert compiled == outcome(program, "reference")
    if proto.number in BUILT_IN:
        inspect.signature(BUILT_IN[proto.number].run).bind(None, *range(proto.n_args))
    assert asm.format_insns(isa.call_helper(proto.number)) == [f"call bpf_{proto.name}"]
    assert asm.parse(f"call bpf_{proto.name}").insns["imm"].tolist() == [proto.number]


@BY_HELPER
def test_dataflow_knows_a_helper(proto: HelperProto) -> None:
    """A call reads the row's arguments, and leaves R0 where the row has a result."""
    call = isa.call_helper(proto.number)
    assert int(helper_args(call)[0]) == sum(2 << at for at in range(len(proto.args)))
    assert bool(is_variadic(call)[0]) == proto.is_variadic
    assert bool(returns_nothing(call)[0]) == (proto.result.kind is ResultKind.VOID)
    view = CodeView.of_program(calling(proto)[0])
    use = StackUse.of(view, Blocks.of(view, np.zeros(0, np.int32)))
    on_stack = {ArgKind.KEY, ArgKind.VALUE, ArgKind.MEM, ArgKind.STACK, ArgKind.DYNPTR}
    reaches = any(arg.kinds[0] in on_stack for arg in proto.args)
    assert bool(use.is_known[0])
    assert int(use.deepest[0]) == (64 if reaches else 0)


@BY_HELPER
def test_value_analysis_knows_a_helper(proto: HelperProto) -> None:
    """What a helper returns is what the verifier takes it for; its map is kept where it does."""
    program, load = calling(proto)
    maps = (MapFacts("m", MapType.HASH, 4, 8, 16),)
    subject = Subject(prog_type=ProgType.SCHED_CLS, maps=maps)
    aux = aux_data(program, subject, None)
    assert aux.columns[SEEN].values.all()
    through = _THROUGH[proto.result.kind]
    assert aux.columns[MEM_TYPE].values[load] == (
        MemType.BTF_ID if proto.result.is_trusted else through
    )
    calls = np.flatnonzero(isa.is_helper_call(program.insns))
    assert (aux.columns[CALL_MAP].values[calls] == 0).all() == proto.keeps_map
    seen = aux.columns[SEEN].values.astype(bool)
    found = origins(program, seen, (), {(load, 0)})
    from_map = proto.result.kind is ResultKind.VALUE
    assert bool(found[load, 0]) == (from_map and bool(proto.map_reg))
    assert proto.callback is None or set(proto.callback.args) <= _CALLBACK_WORDS


@BY_HELPER
def test_a_call_is_described(proto: HelperProto) -> None:
    """A call that is compared with another has a text for each argument."""
    machine = Machine(Program(_SUBPROG))
    args = tuple(range(1, proto.n_args + 1))
    assert len(describe(machine, proto.name, args).args) == proto.n_args
