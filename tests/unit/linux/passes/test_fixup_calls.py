"""fixup-calls without a kernel: what it needs, what it refuses, and what it tells."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bpfpatch import asm, isa
from bpfpatch.btf import (
    Array,
    Btf,
    BtfBuilder,
    Func,
    FuncLinkage,
    FuncProto,
    Int,
    IntEncoding,
    Member,
    Param,
    Struct,
)
from bpfpatch.errors import OptionError, UnsupportedError
from bpfpatch.facts import (
    CALL_MAP,
    MANY,
    NONE,
    STACK_DEPTH,
    ZEXT_DST,
    AttachType,
    MapFacts,
    MapType,
    ProgFlag,
    ProgType,
    Subject,
    column,
    function,
)
from bpfpatch.linux.passes.fixups import ADDRESS, Address
from bpfpatch.passes import FixupCalls, Pipeline, Target
from bpfpatch.passes.setting import Setting
from bpfpatch.patch import PatchList
from bpfpatch.program import Anchor, AnchoredTable, Program

ARRAY = MapFacts("a", MapType.ARRAY, 4, 12, 5)


def kernel_types(*functions: tuple[str, tuple[str, ...]]) -> tuple[Btf, dict[str, int]]:
    """Types of a kernel with an array at byte 64 and these functions, each with parameters."""
    builder = BtfBuilder()
    number = builder.add(Int("long", 8, 64, IntEncoding.SIGNED))
    flexible = builder.add(Array(number, number, 0))
    builder.add(
        Struct(
            "bpf_array",
            64,
            (Member("map", number, 0), Member("value", flexible, 512)),
        )
    )
    ids = {}
    for name, names in functions:
        proto = builder.add(FuncProto(number, tuple(Param(one, number) for one in names)))
        ids[name] = builder.add(Func(name, proto, FuncLinkage.STATIC))
    return builder.build(), ids


def run(text: str, subject: Subject | None = None, **more: Any) -> Program:
    """A program as the kernel would have it."""
    program = asm.assemble(text)
    call_map = more.pop("call_map", {})
    values = np.full(len(program), NONE, np.int32)
    for slot, index in call_map.items():
        values[slot] = index
    program = program.with_columns(**{CALL_MAP: column(CALL_MAP, values)})
    target = Target.internal(**more)
    return Pipeline((FixupCalls(),), target).run(program, subject=subject).program


def wanted(text: str) -> list[tuple[Any, ...]]:
    """Instructions as tuples."""
    return [tuple(row) for row in asm.assemble(text).insns.tolist()]


def test_look_up_uses_the_types() -> None:
    """Where an array's values are is taken from the kernel's types."""
    types, _ = kernel_types()
    done = run("call 1; exit", Subject(maps=(ARRAY,)), btf=types, call_map={0: 0})
    assert done.insns.tolist() == wanted(
        "r1 += 64; r0 = *(u32 *)(r2 + 0); if r0 >= 5 goto +3; r0 <<= 4; r0 += r1; goto +1; "
        "r0 = 0; exit"
    )


def test_32_bit_kernels_write_nothing_out() -> None:
    """With pointers of 32 bits, calls on maps and helpers stay."""
    text = "call 1; call 118; exit"
    done = run(text, Subject(maps=(ARRAY,)), arch="armv7l", call_map={0: 0})
    assert done.insns.tolist() == wanted(text)


def test_per_cpu_instruction_only_where_it_is() -> None:
    """Where the JIT has no instruction for this CPU's part, the look-up is a call."""
    facts = Subject(maps=(MapFacts("p", MapType.PERCPU_ARRAY, 4, 8, 5),))
    types, _ = kernel_types()
    done = run("call 1; exit", facts, arch="ppc64le", btf=types, call_map={0: 0})
    assert done.insns["imm"][0] == function("percpu_array_map_lookup_elem")


def test_call_on_several_maps_stays() -> None:
    """A call on different maps is a helper call."""
    done = run("call 1; exit", Subject(maps=(ARRAY,)), call_map={0: MANY})
    assert done.insns.tolist() == wanted("call 1; exit")


def test_unknown_map_is_refused() -> None:
    """A call on a map that nobody knows is refused, with its place."""
    with pytest.raises(UnsupportedError, match=r"insn 1.*call_map.* has -1 for it"):
        run("r1 = 0; call 1; exit", Subject(maps=(ARRAY,)))


def test_call_without_a_function_is_refused() -> None:
    """A call that a kind of map does not have is refused, by names."""
    with pytest.raises(UnsupportedError, match="bpf_map_push_elem on a array map"):
        run("call 87; exit", Subject(maps=(ARRAY,)), call_map={0: 0})


def test_subject_and_types_are_asked_for() -> None:
    """What is missing is named."""
    with pytest.raises(OptionError, match="give a subject"):
        run("call 1; exit", call_map={0: 0})
    with pytest.raises(OptionError, match="needs the kernel's types"):
        run("call 1; exit", Subject(maps=(ARRAY,)), call_map={0: 0})
    loop = PatchList(asm.assemble("r0 = 0; may_goto +1; goto -2; exit"))
    with pytest.raises(OptionError, match="table 'stack_depth'"):
        FixupCalls().run_for(loop, Setting(Target.internal()))


def test_packet_loads_are_refused_elsewhere() -> None:
    """A kind of program that cannot have them is told so."""
    with pytest.raises(UnsupportedError, match="xdp program has no loads from a packet"):
        run("r6 = r1; r0 = *(u8 *)skb[0]; exit", Subject(ProgType.XDP))


def test_addresses_are_noted() -> None:
    """Each address that only the kernel knows is 0, and the column says whose it is."""
    done = run("call 118; call 8; call 170; exit", Subject())
    which = done.columns[ADDRESS].values
    found = {int(which[slot]): slot for slot in np.flatnonzero(which).tolist()}
    assert set(found) == {Address.JIFFIES, Address.CPU_NUMBER, Address.PROG_AUX}
    for slot in found.values():
        assert done.insns["imm"][slot] == 0
    assert not which[~np.isin(np.arange(which.size), list(found.values()))].any()


def test_symbols_are_noted() -> None:
    """A ld_imm64 by type id becomes one of an address."""
    done = run("ld_pseudo r3, 3, 1234; exit", Subject())
    assert done.insns.tolist() == wanted("r3 = 0 ll; exit")
    assert done.columns[ADDRESS].values[0] == Address.SYMBOL


def test_patched_instructions_count_as_read() -> None:
    """Of all that a patch consists of, the kernel takes the upper half for read."""
    program = asm.assemble("w1 /= w2; w3 += w4; w5 s/= -1; exit")
    nothing = column(ZEXT_DST, np.zeros(len(program), bool))
    program = program.with_columns(**{ZEXT_DST: nothing})
    done = Pipeline((FixupCalls(),), Target.internal()).run(program).program
    marked = done.insns["code"][done.columns[ZEXT_DST].values].tolist()
    assert marked == [0xAC, 0x3C, 0x84]


def test_counted_may_goto() -> None:
    """Before there were clocks, a may_goto had one slot, and a subprog its own count."""
    program = asm.assemble("r0 = 0; at: may_goto end; goto at; end: exit")
    depth = AnchoredTable(np.zeros(1, np.int32), np.array([12], np.int32), Anchor.ENTRY)
    program = program.with_tables(**{STACK_DEPTH: depth})
    done = Pipeline((FixupCalls(),), Target.internal("6.12")).run(program).program
    assert done.insns.tolist() == wanted(
        "*(u64 *)(r10 - 24) = 0x800000; r0 = 0; at: r11 = *(u64 *)(r10 - 24); "
        "if r11 == 0 goto end; r11 -= 1; *(u64 *)(r10 - 24) = r11; goto at; end: exit"
    )
    assert done.tables[STACK_DEPTH].rows.tolist() == [24]


TRAMPOLINE = {
    "get_func_arg": (
        "r0 = *(u64 *)(r1 - 8); if w2 >= w0 goto +6; r2 <<= 3; r2 += r1; "
        "r0 = *(u64 *)(r2 + 0); *(u64 *)(r3 + 0) = r0; r0 = 0; goto +1; r0 = -22; exit"
    ),
    "get_func_ret": (
        "r0 = *(u64 *)(r1 - 8); r0 <<= 3; r0 += r1; r3 = *(u64 *)(r0 + 0); "
        "*(u64 *)(r2 + 0) = r3; r0 = 0; exit"
    ),
    "get_func_arg_cnt": "r0 = *(u64 *)(r1 - 8); exit",
    "get_func_ip": "r0 = *(u64 *)(r1 - 16); exit",
}


@pytest.mark.parametrize("name", TRAMPOLINE)
def test_trampolines(name: str) -> None:
    """What a trampoline left in front of the context is read in place."""
    facts = Subject(ProgType.TRACING, attach_type=AttachType.TRACE_FEXIT)
    done = run(f"call {isa.HELPER_IDS[name]}; exit", facts)
    assert done.insns.tolist() == wanted(TRAMPOLINE[name])


def test_no_result_at_the_start() -> None:
    """A program at a function's start has no result to get."""
    facts = Subject(ProgType.TRACING, attach_type=AttachType.TRACE_FENTRY)
    done = run(f"call {isa.HELPER_IDS['get_func_ret']}; exit", facts)
    assert done.insns.tolist() == wanted("r0 = -95; exit")


def test_program_argument() -> None:
    """A function whose parameter's name says so gets the program itself."""
    types, ids = kernel_types(("bpf_later", ("a", "aux__prog")), ("bpf_plain", ("a",)))
    later, plain = ids["bpf_later"], ids["bpf_plain"]
    done = run(f"call kfunc {plain}; call kfunc {later}; exit", Subject(), btf=types)
    text = f"call kfunc {plain}; r2 = 0 ll; call kfunc {later}; exit"
    assert done.insns.tolist() == wanted(text)
    assert done.columns[ADDRESS].values[1] == Address.PROG_AUX


@pytest.mark.parametrize(
    ("name", "facts", "what"),
    [
        ("bpf_obj_new_impl", Subject(), "size of the new object is not known"),
        ("bpf_list_push_front_impl", Subject(), "0 places of a bpf_list_node"),
        ("bpf_set_dentry_xattr", Subject(ProgType.LSM), "depends on the hook"),
        (
            "bpf_xdp_metadata_rx_hash",
            Subject(ProgType.XDP, flags=ProgFlag.XDP_DEV_BOUND_ONLY),
            "driver's own function",
        ),
        ("bpf_dynptr_from_skb", Subject(), "no function bpf_dynptr_from_skb_rdonly"),
    ],
)
def test_kfuncs_that_are_refused(name: str, facts: Subject, what: str) -> None:
    """What cannot be told is refused, with the place."""
    types, ids = kernel_types((name, ("a", "b")))
    with pytest.raises(UnsupportedError, match=f"insn 0.*{what}"):
        run(f"call kfunc {ids[name]}; exit", facts, btf=types)


@pytest.mark.parametrize(
    ("text", "is_atomic"),
    [
        ("call 156; exit", False),
        ("call kfunc {lock}; call 156; call kfunc {unlock}; exit", True),
        ("call kfunc {lock}; call kfunc {unlock}; call 156; exit", False),
        ("if r1 == 0 goto at; call kfunc {lock}; at: call 156; exit", True),
        ("call kfunc {lock}; call sub; exit; sub: call 156; exit", True),
        (
            "call kfunc {lock}; call kfunc {lock}; call kfunc {unlock}; call 156; exit",
            True,
        ),
    ],
)
def test_where_memory_may_be_waited_for(text: str, is_atomic: bool) -> None:
    """A sleepable program waits for memory, except where it may hold a lock."""
    types, ids = kernel_types(("bpf_rcu_read_lock", ()), ("bpf_rcu_read_unlock", ()))
    names = {"lock": ids["bpf_rcu_read_lock"], "unlock": ids["bpf_rcu_read_unlock"]}
    facts = Subject(ProgType.SYSCALL, flags=ProgFlag.SLEEPABLE)
    done = run(text.format(**names), facts, btf=types)
    moves = done.insns[done.insns["code"] == 0xB7]
    assert moves["imm"].tolist() == [0x820 if is_atomic else 0xCC0]


def test_arena_needs_to_know_its_arithmetic() -> None:
    """Arithmetic in a program with an arena is refused unless a column tells about it."""
    facts = Subject(maps=(MapFacts("arena", MapType.ARENA, 0, 0, 1),))
    with pytest.raises(UnsupportedError, match=r"insn 0.*program with an arena"):
        run("r1 += r2; exit", facts)


def test_casts_to_the_kernel_side() -> None:
    """A cast to the kernel's address clears the upper half; one to the user's is the JIT's."""
    text = "r1 = addr_space_cast(r2, 0, 1); r3 = addr_space_cast(r2, 1, 0); exit"
    done = run(text, Subject())
    assert done.insns.tolist()[:2] == [*wanted("w1 = w2"), *wanted(text)[1:2]]


def test_probing_loads_elsewhere() -> None:
    """Where a kernel guards probing loads itself, they are refused."""
    insns = isa.concat([isa.make(0x39, 1, 2, 8), isa.exit_()])
    target = Target.internal(arch="aarch64")
    with pytest.raises(UnsupportedError, match="highest address of user space"):
        Pipeline((FixupCalls(),), target).run(Program(insns), subject=Subject())
