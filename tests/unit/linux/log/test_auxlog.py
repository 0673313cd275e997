"""The verifier's log, as v6.18 writes it, read into columns."""

from __future__ import annotations

import numpy as np
import pytest

from bpfpatch import asm, isa
from bpfpatch.errors import FormatError
from bpfpatch.facts.columns import (
    CALL_KEY,
    CALL_MAP,
    CALLBACK,
    MANY,
    MEM_ID,
    MEM_TYPE,
    NONE,
    SEEN,
    STACK_DEPTH,
    MemType,
)
from bpfpatch.facts.kinds import MapType
from bpfpatch.facts.maps import MapFacts
from bpfpatch.facts.subject import Subject
from bpfpatch.kernel import aux_from_log, with_ld_map
from bpfpatch.program import Program

END = "processed 9 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0\n"


def read(text: str, log: str, maps: tuple[MapFacts, ...] = (), names: tuple[str, ...] = ()):
    """Columns of a program in which the descriptor of map n is n + 3."""
    program = with_ld_map(asm.assemble(text), range(3, 3 + len(maps)))
    return aux_from_log(log, program, Subject(maps=maps), map_names=names)


def kinds(program: Program) -> dict[int, str]:
    """What each access goes through."""
    column = program.columns[MEM_TYPE].values.tolist()
    return {slot: MemType(kind).name for slot, kind in enumerate(column) if kind}


def array(name: str, value_size: int = 8, entries: int = 4) -> MapFacts:
    """An array."""
    return MapFacts(name, MapType.ARRAY, 4, value_size, entries)


def test_what_was_printed_was_seen() -> None:
    """An instruction is reached if the log has a line of it; a second slot goes with its first."""
    program = read(
        "if r1 == 0 goto +3; r0 = 5 ll; exit; exit",
        "0: R1=ctx() R10=fp0\n0: (15) if r1 == 0x0 goto pc+3     ; R1=ctx()\n"
        "1: (18) r0 = 0x5                      ; R0=5\n3: (95) exit\n",
    )
    assert program.columns[SEEN].values.tolist() == [True, True, True, True, False]


def test_the_base_is_what_it_was_before_where_the_load_defines_it() -> None:
    """The state behind an instruction is that after it."""
    program = read(
        "r1 = *(u32 *)(r1 + 76); r1 = *(u8 *)(r1 + 0); exit",
        "0: R1=ctx() R10=fp0\n"
        "0: (61) r1 = *(u32 *)(r1 +76)         ; R1=pkt(r=8)\n"
        "1: (71) r1 = *(u8 *)(r1 +0)           ; R1=scalar(smin=0,var_off=(0x0; 0xff))\n"
        "2: (95) exit\n",
    )
    assert kinds(program) == {0: "CTX", 1: "PACKET"}


def test_a_path_that_is_taken_up_again_has_its_own_state() -> None:
    """Registers are those of the line that says from where to where."""
    program = read(
        "if r2 == 0 goto +1; r1 = r10; *(u64 *)(r1 - 8) = 0; exit",
        "0: R1=ctx() R2=scalar() R10=fp0\n"
        "0: (15) if r2 == 0x0 goto pc+1       ; R2=scalar(umin=1)\n"
        "1: (bf) r1 = r10                     ; R1=fp0 R10=fp0\n"
        "2: (7a) *(u64 *)(r1 -8) = 0\n"
        "mark_precise: frame0: parent state regs=r1 stack=:  R1=ctx() R10=fp0\n"
        "3: R1=fp0 R10=fp0 fp-8=0\n"
        "3: (95) exit\n\n"
        "from 0 to 2: R1=map_value(map=a,ks=4,vs=8) R2=0 R10=fp0\n"
        "2: (7a) *(u64 *)(r1 -8) = 0          ; R1=map_value(map=a,ks=4,vs=8)\n"
        "3: (95) exit\n",
        (array("a"),),
    )
    # Neither is rewritten, and the kernel keeps the first.
    assert kinds(program) == {2: "STACK"}


def test_a_line_of_source_is_no_state() -> None:
    """Whatever the source says."""
    program = read(
        "r0 = r1; r0 = *(u8 *)(r0 + 0); exit",
        "0: R1=ctx() R10=fp0\n0: (bf) r0 = r1      ; R0=ctx() R1=ctx()\n"
        "; 1: R0=fp0 R10=fp0 @ a.c:1\n"
        "1: (71) r0 = *(u8 *)(r0 +0)          ; R0=0\n2: (95) exit\n",
    )
    assert kinds(program) == {1: "CTX"}


@pytest.mark.parametrize(
    ("before", "kind"),
    [
        ("trusted_ptr_task_struct()", "BTF_ID"),
        ("rcu_ptr_task_struct(off=8)", "BTF_ID"),
        ("untrusted_ptr_task_struct()", "BTF_ID_PROBE"),
        ("ptr_task_struct()", "BTF_ID_PROBE"),
        ("rdonly_untrusted_mem(sz=0)", "BTF_ID_PROBE"),
        ("ptr_mine(ref_obj_id=2)", "ALLOC"),
        ("ptr_mine(non_own_ref,id=3)", "ALLOC"),
        ("map_value_or_null(id=1,map=a,ks=4,vs=8)", "MAP_VALUE"),
        ("map_key(map=a,ks=4,vs=8)", "MAP_KEY"),
        ("map_ptr(map=a,ks=4,vs=8)", "MAP_PTR"),
        ("rdonly_mem(sz=8)", "MEM"),
        ("ringbuf_mem(ref_obj_id=2,sz=24)", "MEM"),
        ("pkt_meta(r=4)", "PACKET_META"),
        ("fp-8", "STACK"),
        ("fp[0]-24", "STACK"),
        ("sock()", "SOCKET"),
        ("sock_common()", "SOCK_COMMON"),
        ("tcp_sock()", "TCP_SOCK"),
        ("xdp_sock()", "XDP_SOCK"),
        ("flow_keys()", "FLOW_KEYS"),
        ("tp_buffer()", "TP_BUFFER"),
        ("rdonly_buf(off=4)", "BUF"),
        ("arena()", "ARENA"),
    ],
)
def test_a_pointer_is_known_by_its_name(before: str, kind: str) -> None:
    """Each kind that the verifier prints."""
    log = (
        f"0: R1={before} R10=fp0\n0: (79) r1 = *(u64 *)(r1 +0)       ; R1=scalar()\n1: (95) exit\n"
    )
    assert kinds(read("r1 = *(u64 *)(r1 + 0); exit", log, (array("a"),))) == {0: kind}


def test_objects_of_different_trust_are_probed() -> None:
    """Where a trusted and an RCU pointer meet, the kernel relies on neither."""
    log = (
        "0: R1=trusted_ptr_task_struct() R10=fp0\n"
        "0: (79) r2 = *(u64 *)(r1 +0)   ; R1=trusted_ptr_task_struct() R2=scalar()\n1: (95) exit\n"
        "\nfrom 0 to 0: R1=rcu_ptr_task_struct() R10=fp0\n"
        "0: (79) r2 = *(u64 *)(r1 +0)   ; R1=rcu_ptr_task_struct() R2=scalar()\n1: (95) exit\n"
    )
    assert kinds(read("r2 = *(u64 *)(r1 + 0); exit", log)) == {0: "BTF_ID_PROBE"}


def test_what_rcu_protected_is_not_after_the_section() -> None:
    """The verifier does not print such a register again."""
    log = (
        "0: R6=rcu_ptr_task_struct() R10=fp0\n"
        "0: (85) call bpf_rcu_read_unlock#999\n"
        "1: (79) r6 = *(u64 *)(r6 +0)         ; R6=scalar()\n2: (95) exit\n"
    )
    program = Program(
        isa.concat([isa.call_kfunc(999), isa.load("u64", isa.R6, isa.R6, 0), isa.exit_()])
    )
    assert kinds(aux_from_log(log, program, Subject())) == {1: "BTF_ID_PROBE"}


LOOKUP = "ld_pseudo r1, 1, 4; r2 = r10; call bpf_map_lookup_elem; r0 = *(u64 *)(r0 + 0); exit"


def lookup_log(key: str) -> str:
    """A lookup in a map that the log shows so."""
    return (
        "0: R1=ctx() R10=fp0\n"
        f"0: (18) r1 = 0xffff888000000000       ; R1=map_ptr({key})\n"
        "2: (bf) r2 = r10                      ; R2=fp0 R10=fp0\n"
        f"3: (85) call bpf_map_lookup_elem#1    ; R0=map_value({key})\n"
        "4: (79) r0 = *(u64 *)(r0 +0)          ; R0=scalar()\n5: (95) exit\n"
    )


def test_a_map_is_known_by_its_name_and_sizes() -> None:
    """The kernel keeps 15 characters of a name."""
    maps = (array("a_map_with_a_long_name"), array("other"))
    log = lookup_log("map=a_map_with_a_lo,ks=4,vs=8")
    program = read(LOOKUP, log, maps, ("a_map_with_a_lo", "other"))
    assert program.columns[CALL_MAP].values[3] == 0
    assert program.columns[MEM_ID].values[4] == 0


def test_maps_of_one_name_are_told_apart_by_what_made_the_pointer() -> None:
    """The second map's descriptor is in the ld_imm64."""
    maps = (array("same"), array("same"))
    program = read(LOOKUP, lookup_log("map=same,ks=4,vs=8"), maps, ("same", "same"))
    assert program.columns[CALL_MAP].values[3] == 1
    assert program.columns[MEM_ID].values[4] == 1


def test_a_map_that_nobody_knows_is_none() -> None:
    """The subject has no map of these sizes."""
    program = read(LOOKUP, lookup_log("map=x,ks=8,vs=16"), (array("x"),), ("x",))
    assert program.columns[CALL_MAP].values[3] == NONE


def test_two_maps_at_one_call_are_many() -> None:
    """On another visit the call has another map."""
    log = lookup_log("map=a,ks=4,vs=8") + (
        "\nfrom 0 to 3: R1=map_ptr(map=b,ks=4,vs=8) R2=fp0 R10=fp0\n"
        "3: (85) call bpf_map_lookup_elem#1    ; R0=map_value(map=b,ks=4,vs=8)\n"
    )
    program = read(LOOKUP, log, (array("a"), array("b")), ("a", "b"))
    assert program.columns[CALL_MAP].values[3] == MANY


TAIL = "r3 = 2; ld_pseudo r2, 1, 3; call bpf_tail_call; exit"


@pytest.mark.parametrize(
    ("shown", "key"), [("2", 2), ("P2", 2), ("7", NONE), ("scalar(umax=3)", NONE), ("-1", NONE)]
)
def test_a_tail_calls_index_is_a_constant_within_the_array(shown: str, key: int) -> None:
    """Whatever else it is, it is not known."""
    log = (
        f"0: R1=ctx() R10=fp0\n0: (b7) r3 = 2      ; R3={shown}\n"
        "1: (18) r2 = 0xffff888000000000       ; R2=map_ptr(map=t,ks=4,vs=4)\n"
        "3: (85) call bpf_tail_call#12\n4: (95) exit\n"
    )
    maps = (MapFacts("t", MapType.PROG_ARRAY, 4, 4, 4),)
    assert read(TAIL, log, maps, ("t",)).columns[CALL_KEY].values[3] == key


LOOP = "r1 = 4; ld_pseudo r2, 4, 5; r3 = 0; r4 = 0; call bpf_loop; exit; r0 = 0; exit"
LOOP_LOG = """\
func#0 @0
func#1 @7
0: R1=ctx() R10=fp0
0: (b7) r1 = 4                        ; R1=4
1: (18) r2 = 0x5                      ; R2=func()
3: (b7) r3 = 0                        ; R3=0
4: (b7) r4 = 0                        ; R4={flags}
5: (85) call bpf_loop#181             ; R0=scalar()
6: (95) exit

from 5 to 7: frame1: R1=scalar() R2=0 R10=fp0 cb
7: (b7) r0 = 0                        ; frame1: R0=0 cb
8: (95) exit
stack depth 24+0
"""


def test_a_plain_loop_and_its_callback_have_one_number() -> None:
    """Both the call and the callback's address."""
    program = read(LOOP, LOOP_LOG.format(flags="0"))
    assert program.columns[CALLBACK].values.tolist() == [NONE, 1, NONE, NONE, NONE, 1] + [NONE] * 3


def test_a_loop_with_flags_has_no_number() -> None:
    """It is not inlined."""
    program = read(LOOP, LOOP_LOG.format(flags="scalar()"))
    assert (program.columns[CALLBACK].values == NONE).all()


@pytest.mark.parametrize(("flags", "depth"), [("0", 0), ("1", 24)])
def test_the_depth_is_that_before_the_kernels_rewriting(flags: str, depth: int) -> None:
    """An inlined loop has three registers more on the stack."""
    table = read(LOOP, LOOP_LOG.format(flags=flags)).tables[STACK_DEPTH]
    assert table.insn.tolist() == [0, 7]
    assert table.rows.tolist() == [depth, 0]


def test_a_subprog_that_is_gone_has_no_depth() -> None:
    """The log tells depths of those that are left."""
    log = "func#0 @0\nfunc#1 @3\nfunc#2 @4\n0: R1=ctx() R10=fp0\n0: (05) goto pc+1\n"
    log += "2: (95) exit\n4: (95) exit\n" + END + "stack depth 8+16\n"
    program = read("goto +1; call +1; exit; exit; exit", log)
    starts = {0: "", 3: "", 4: ""}
    program = Program(program.insns, type(program.subprogs).from_starts(starts))
    assert aux_from_log(log, program, Subject()).tables[STACK_DEPTH].rows.tolist() == [8, 0, 16]


@pytest.mark.parametrize("line", ["9: (95) exit", "0: (b7) r0 = 1"])
def test_the_log_of_another_program_is_refused(line: str) -> None:
    """Its slots or opcodes are not the program's."""
    with pytest.raises(FormatError, match="log is of another program"):
        read("exit", f"{line}\n")


def test_speculation_does_not_make_an_instruction_seen() -> None:
    """What the processor alone may run is dead code all the same."""
    log = (
        "0: R1=ctx() R10=fp0\n0: (15) if r1 == 0x0 goto pc+1     ; R1=ctx()\n2: (95) exit\n"
        "\nfrom 0 to 1 (speculative execution): R1=ctx() R10=fp0\n1: (b7) r0 = 1    ; R0=1\n"
    )
    program = read("if r1 == 0 goto +1; r0 = 1; exit", log)
    assert program.columns[SEEN].values.tolist() == [True, False, True]


def test_columns_have_a_value_a_slot() -> None:
    """And the dtype that the facts say."""
    program = read("exit", "0: R1=ctx() R10=fp0\n0: (95) exit\n")
    dtypes = {name: program.columns[name].values.dtype for name in (SEEN, MEM_TYPE, CALL_KEY)}
    assert dtypes == {SEEN: np.bool_, MEM_TYPE: np.uint8, CALL_KEY: np.int64}
