"""Aux data without a kernel: what is seen, through what memory is accessed, what calls get."""

from __future__ import annotations

import numpy as np
import pytest

from bpfpatch import asm
from bpfpatch.facts.columns import (
    CALL_KEY,
    CALL_MAP,
    CALLBACK,
    LD_MAP,
    MANY,
    MEM_ID,
    MEM_TYPE,
    NONE,
    SEEN,
    STACK_DEPTH,
    ZEXT_DST,
    MemType,
    column,
)
from bpfpatch.facts.kinds import MapFlag, MapType, ProgType
from bpfpatch.facts.maps import MapFacts
from bpfpatch.facts.subject import Subject
from bpfpatch.linux.verifier.auxdata import aux_data
from bpfpatch.program import Program

ARRAY = MapFacts("array", MapType.ARRAY, 4, 16, 4)
HASH = MapFacts("hash", MapType.HASH, 4, 16, 4)
PROGS = MapFacts("progs", MapType.PROG_ARRAY, 4, 4, 8)
CONSTANTS = MapFacts(
    ".rodata", MapType.ARRAY, 4, 8, 1, MapFlag.RDONLY_PROG, content=b"\1\0\0\0\xff\xff\0\0"
)
OF_MAPS = MapFacts("outer", MapType.ARRAY_OF_MAPS, 4, 4, 1, inner=HASH)


def analyse(
    text: str, *maps: MapFacts, prog_type: ProgType = ProgType.SCHED_CLS, flags: int = 0
) -> Program:
    """Aux data of text in which MAP0, MAP1 ... are addresses of maps, and VALUE0 of values."""
    for index in range(len(maps)):
        text = text.replace(f"MAP{index}", f"ld_pseudo MAPREG, 0x1, {index}")
    lines = []
    for line in text.splitlines():
        if "ld_pseudo MAPREG" in line:
            register, _, load = line.partition("=")
            line = load.replace("MAPREG", register.strip())  # noqa: PLW2901 - the line, rewritten
        lines.append(line)
    program = asm.assemble("\n".join(lines))
    values = np.full(len(program), NONE, np.int32)
    is_map = (program.insns["code"] == 0x18) & np.isin(program.insns["regs"] >> 4, (1, 2))
    values[is_map] = program.insns["imm"][is_map]
    program = program.with_columns(**{LD_MAP: column(LD_MAP, values)})
    return aux_data(program, Subject(prog_type=prog_type, maps=maps, flags=flags), None)


def values(aux: Program, name: str) -> list[int]:
    """A column."""
    out: list[int] = aux.columns[name].values.tolist()
    return out


def unseen(aux: Program) -> list[int]:
    """Slots that nothing reaches."""
    return [slot for slot, is_seen in enumerate(values(aux, SEEN)) if not is_seen]


def depths(aux: Program) -> list[int]:
    """The table of stack depths."""
    out: list[int] = aux.tables[STACK_DEPTH].rows.tolist()
    return out


@pytest.mark.parametrize(
    ("condition", "dead"),
    [
        ("r6 = *(u8 *)(r1 + 0)\nif r6 > 255 goto out", None),
        ("r6 = *(u32 *)(r1 + 0)\nr6 &= 7\nif r6 <= 7 goto out", "falls"),
        ("r6 = *(u32 *)(r1 + 0)\nr6 >>= 28\nif r6 < 16 goto out", "falls"),
        ("r6 = *(u32 *)(r1 + 0)\nr6 <<= 2\nif r6 & 3 goto out", "jumps"),
        ("r6 = *(u32 *)(r1 + 0)\nr6 |= 4\nif r6 == 3 goto out", "jumps"),
        ("r6 = *(u32 *)(r1 + 0)\nif w6 s< -2147483648 goto out", "jumps"),
        ("r6 = 9\nr6 /= 3\nif r6 == 3 goto out", "neither"),
        ("r6 = 5\nr6 = -r6\nif r6 s< 0 goto out", "falls"),
        ("r6 = 1\nr6 = be16 r6\nif r6 == 256 goto out", "falls"),
    ],
)
def test_ranges_and_bits_decide_branches(condition: str, dead: str | None) -> None:
    """What the verifier decides by a scalar's bits and ranges is decided; division is not."""
    aux = analyse(f"r0 = 0\n{condition}\nr0 = 1\nout: exit")
    last = len(aux) - 1
    expected = {"falls": [last - 1], "jumps": [], "neither": [], None: []}[dead]
    assert unseen(aux) == expected


@pytest.mark.parametrize(("n_cpus", "dead"), [(None, []), (5, []), (4, [3]), (1, [3])])
def test_a_cpu_number_is_below_the_number_of_cpus(n_cpus: int | None, dead: list[int]) -> None:
    """A comparison with it is decided if that is known: do_refine_retval_range()."""
    text = "call bpf_get_smp_processor_id; r1 = r0; if r0 < 4 goto out; r1 = 7; out: r0 = 0; exit"
    program = asm.assemble(text)
    aux = aux_data(program, Subject(prog_type=ProgType.SCHED_CLS, n_cpus=n_cpus), None)
    assert unseen(aux) == dead


def test_refined_range_decides_a_later_branch() -> None:
    """A number that is at most 5 behind one comparison is not 9 in the next."""
    aux = analyse(
        """
        r0 = *(u32 *)(r1 + 0)
        if r0 > 5 goto out
        if r0 == 9 goto dead
        r0 = 0
    out:
        exit
    dead:
        r0 = 1
        exit
        """
    )
    assert unseen(aux) == [5, 6]


def test_copy_is_refined_with_its_original() -> None:
    """A comparison of a number tells of its copies, also of one that a constant was added to."""
    aux = analyse(
        """
        r6 = *(u32 *)(r1 + 0)
        r7 = r6
        r7 += 10
        r0 = 0
        if r6 > 5 goto out
        if r7 > 15 goto dead
    out:
        exit
    dead:
        r0 = 1
        exit
        """
    )
    assert unseen(aux) == [7, 8]


def test_values_that_depend_on_each_other_are_kept_apart() -> None:
    """Each way is followed on its own: a flag says which one it was."""
    aux = analyse(
        """
        r0 = *(u32 *)(r1 + 0)
        if r0 == 0 goto zero
        r6 = 1
        goto both
    zero:
        r6 = 4
    both:
        if r6 == 2 goto dead
        r0 = 0
        exit
    dead:
        r0 = 1
        exit
        """
    )
    assert unseen(aux) == [8, 9]


def test_frozen_map_is_constant() -> None:
    """A load from a frozen, read-only array of one element gives its bytes."""
    aux = analyse(
        """
        ld_pseudo r1, 0x2, 0
        r2 = *(s16 *)(r1 + 4)
        r0 = 0
        if r2 == -1 goto out
        r0 = 1
    out:
        exit
        """,
        CONSTANTS,
    )
    assert unseen(aux) == [5]
    assert values(aux, MEM_TYPE)[2] == MemType.MAP_VALUE
    assert values(aux, MEM_ID)[2] == 0


def test_mutable_map_is_not_constant() -> None:
    """What others may write is not known."""
    writable = MapFacts(".data", MapType.ARRAY, 4, 8, 1)
    text = "ld_pseudo r1, 0x2, 0; r2 = *(u32 *)(r1 + 0); r0 = 0; if r2 == 1 goto +1; r0 = 1; exit"
    assert unseen(analyse(text, writable)) == []


def test_constant_reaches_a_static_subprog() -> None:
    """A static subprog is looked at for each call, with that call's arguments."""
    aux = analyse(
        """
        r1 = 3
        call helper
        r1 = 5
        call helper
        exit
    helper:
        if r1 == 4 goto dead
        r0 = 0
        exit
    dead:
        r0 = 1
        exit
        """
    )
    assert unseen(aux) == [8, 9]


def test_result_of_a_subprog_comes_back() -> None:
    """What a subprog returns is known behind its call, and R6 to R9 are as before."""
    aux = analyse(
        """
        r6 = 2
        call helper
        if r0 != 7 goto dead
        if r6 != 2 goto dead
        r0 = 0
        exit
    dead:
        r0 = 1
        exit
    helper:
        r6 = 0
        r0 = 7
        exit
        """
    )
    assert unseen(aux) == [6, 7]


LOOKUP = """
    r6 = r1
    *(u32 *)(r10 - 8) = KEY
    r2 = r10
    r2 += -8
    r1 = MAP0
    call 1
    if r0 == 0 goto out
    r3 = *(u32 *)(r0 + 4)
out:
    r0 = 0
    exit
"""


@pytest.mark.parametrize(
    ("facts", "key", "is_decided"), [(ARRAY, 3, True), (ARRAY, 4, False), (HASH, 3, False)]
)
def test_array_lookup_with_a_constant_key_is_never_null(
    facts: MapFacts, key: int, is_decided: bool
) -> None:
    """An array has each element below its length; so there is nothing behind the null check.

    Source: linux v6.18, kernel/bpf/verifier.c, can_elide_value_nullness().
    """
    text = LOOKUP.replace("KEY", str(key)) + "\n"
    aux = analyse(text.replace("out:\n", "r0 = 1\nexit\nout:\n"), facts)
    assert unseen(aux) == ([11, 12] if is_decided else [])
    assert values(aux, CALL_MAP)[6] == 0
    assert values(aux, MEM_TYPE)[8] == MemType.MAP_VALUE


def test_key_that_is_wider_than_it_should_be_decides_nothing() -> None:
    """Only a constant that was stored with the key's size counts as a constant key."""
    text = LOOKUP.replace("*(u32 *)(r10 - 8) = KEY", "*(u64 *)(r10 - 8) = 0")
    assert unseen(analyse(text.replace("out:\n", "r0 = 1\nexit\nout:\n"), ARRAY)) == []


def test_null_check_holds_for_all_copies() -> None:
    """A copy in a register or on the stack is not null where the original is not."""
    aux = analyse(
        """
        *(u32 *)(r10 - 4) = 1
        r2 = r10
        r2 += -4
        r1 = MAP0
        call 1
        r7 = r0
        *(u64 *)(r10 - 16) = r0
        if r0 == 0 goto out
        if r7 == 0 goto dead
        r3 = *(u64 *)(r10 - 16)
        if r3 == 0 goto dead
        r4 = *(u64 *)(r3 + 0)
    out:
        r0 = 0
        exit
    dead:
        r0 = 1
        exit
        """,
        HASH,
    )
    assert unseen(aux) == [15, 16]
    assert values(aux, MEM_TYPE)[12] == MemType.MAP_VALUE


def test_inner_map_is_found() -> None:
    """What is found in a map of maps is a map: the inner one, by its place among the maps."""
    aux = analyse(
        """
        *(u32 *)(r10 - 4) = 0
        r2 = r10
        r2 += -4
        r1 = MAP0
        call 1
        if r0 == 0 goto out
        r1 = r0
        r2 = r10
        r2 += -4
        call 1
    out:
        r0 = 0
        exit
        """,
        OF_MAPS,
        HASH,
    )
    assert values(aux, CALL_MAP)[5] == 0
    assert values(aux, CALL_MAP)[10] == 1


def test_two_maps_at_one_call_are_many() -> None:
    """A call that gets one map here and another there is told so."""
    aux = analyse(
        """
        r0 = *(u32 *)(r1 + 0)
        *(u32 *)(r10 - 4) = 0
        r2 = r10
        r2 += -4
        r1 = MAP0
        if r0 == 0 goto both
        r1 = MAP1
    both:
        call 1
        r0 = 0
        exit
        """,
        ARRAY,
        HASH,
    )
    assert values(aux, CALL_MAP)[9] == MANY


@pytest.mark.parametrize(("index", "expected"), [("3", 3), ("8", NONE), ("r0", NONE)])
def test_tail_call_key(index: str, expected: int) -> None:
    """The index of a tail call is told where it is one constant within the map."""
    text = f"r0 = *(u32 *)(r1 + 0)\nr3 = {index}\nr2 = MAP0\ncall 12\nr0 = 0\nexit"
    aux = analyse(text, PROGS)
    assert values(aux, CALL_KEY)[4] == expected
    assert values(aux, CALL_MAP)[4] == 0


@pytest.mark.parametrize(
    ("prog_type", "text", "slot", "expected"),
    [
        (ProgType.XDP, "r2 = *(u32 *)(r1 + 0); r0 = *(u8 *)(r2 + 0); exit", 0, MemType.CTX),
        (ProgType.XDP, "r2 = *(u32 *)(r1 + 0); r0 = *(u8 *)(r2 + 0); exit", 1, MemType.PACKET),
        (ProgType.XDP, "r2 = *(u32 *)(r1 + 8); r0 = *(u8 *)(r2 + 0); exit", 1, MemType.PACKET_META),
        (
            ProgType.SCHED_CLS,
            "r2 = *(u64 *)(r1 + 168); if r2 == 0 goto +1; r3 = *(u32 *)(r2 + 4); r0 = 0; exit",
            2,
            MemType.SOCK_COMMON,
        ),
        (
            ProgType.SK_MSG,
            "r2 = *(u64 *)(r1 + 72); r3 = *(u32 *)(r2 + 4); r0 = 0; exit",
            1,
            MemType.SOCKET,
        ),
        (
            ProgType.FLOW_DISSECTOR,
            "r2 = *(u64 *)(r1 + 144); r0 = *(u16 *)(r2 + 0); exit",
            1,
            MemType.FLOW_KEYS,
        ),
        (ProgType.KPROBE, "r2 = *(u64 *)(r1 + 0); r0 = 0; exit", 0, MemType.CTX),
        (ProgType.XDP, "*(u64 *)(r10 - 8) = 1; r0 = *(u64 *)(r10 - 8); exit", 0, MemType.STACK),
    ],
)
def test_memory_types(prog_type: ProgType, text: str, slot: int, expected: MemType) -> None:
    """A context's pointers are what the program's kind makes of them."""
    assert values(analyse(text, prog_type=prog_type), MEM_TYPE)[slot] == expected


def test_pointers_survive_the_stack_and_arithmetic() -> None:
    """A spilled and moved context pointer is one still."""
    aux = analyse(
        """
        r6 = r1
        r6 += 8
        *(u64 *)(r10 - 8) = r6
        r7 = *(u64 *)(r10 - 8)
        r7 += -8
        r0 = *(u32 *)(r7 + 0)
        exit
        """
    )
    assert values(aux, MEM_TYPE)[5] == MemType.CTX


def test_packet_pointers_end_where_the_packet_may_move() -> None:
    """Behind a helper that may move the packet, the old pointers are numbers like others."""
    text = """
        r6 = *(u32 *)(r1 + 0)
        r2 = 0
        MOVE
        r0 = 0
        if r6 > 5 goto out
        if r6 > 9 goto dead
    out:
        exit
    dead:
        r0 = 1
        exit
    """
    moved = analyse(text.replace("MOVE", "call 44"), prog_type=ProgType.XDP)
    assert unseen(moved) == [7, 8]
    assert unseen(analyse(text.replace("MOVE", "r3 = 0"), prog_type=ProgType.XDP)) == []


def test_stack_slots_that_a_helper_writes_are_unknown() -> None:
    """A constant on the stack is gone when a helper has written there, and others are not."""
    aux = analyse(
        """
        *(u64 *)(r10 - 16) = 1
        *(u64 *)(r10 - 8) = 1
        r1 = r10
        r1 += -16
        r2 = 8
        call 16
        r0 = 0
        r3 = *(u64 *)(r10 - 8)
        if r3 == 1 goto next
        r0 = 1
    next:
        r4 = *(u64 *)(r10 - 16)
        if r4 == 1 goto out
        r0 = 2
    out:
        exit
        """,
        prog_type=ProgType.KPROBE,
    )
    assert unseen(aux) == [9]


def test_released_object_is_no_pointer() -> None:
    """A comparison with null of what was given back is not decided."""
    aux = analyse(
        """
        r1 = MAP0
        r2 = 8
        r3 = 0
        call 131
        if r0 == 0 goto out
        r6 = r0
        *(u64 *)(r0 + 0) = 1
        r1 = r0
        r2 = 0
        call 132
        if r6 == 0 goto out
        r0 = 1
    out:
        r0 = 0
        exit
        """,
        MapFacts("ring", MapType.RINGBUF, 0, 0, 4096),
    )
    assert unseen(aux) == []
    assert values(aux, MEM_TYPE)[7] == MemType.MEM


LOOP = """
    r1 = 5
    ld_pseudo r2, 0x4, CALLBACK
    r3 = r10
    r3 += -8
    *(u64 *)(r10 - 8) = 0
    r4 = FLAGS
    call 181
    r0 = 0
    exit
    r3 = *(u64 *)(r2 + 0)
    r3 += 1
    *(u64 *)(r2 + 0) = r3
    r0 = 0
    exit
"""


def test_callback_is_seen_with_its_arguments() -> None:
    """A callback runs with the context that it is given: here the caller's stack."""
    aux = analyse(LOOP.replace("CALLBACK", "8").replace("FLAGS", "0"))
    assert unseen(aux) == []
    assert values(aux, MEM_TYPE)[10] == MemType.STACK
    assert depths(aux) == [8, 0]


@pytest.mark.parametrize(("flags", "expected"), [("0", 1), ("1", NONE)])
def test_loop_that_can_be_inlined(flags: str, expected: int) -> None:
    """bpf_loop with flags of 0 and its callback's address have the same number."""
    aux = analyse(LOOP.replace("CALLBACK", "8").replace("FLAGS", flags))
    found = values(aux, CALLBACK)
    assert found[7] == expected
    assert found[1] == expected


def test_stack_depth_counts_what_helpers_reach() -> None:
    """A buffer that only a helper writes belongs to the stack; depths are multiples of 8."""
    aux = analyse(
        """
        r1 = r10
        r1 += -20
        r2 = 16
        call 16
        call deeper
        exit
    deeper:
        *(u8 *)(r10 - 1) = 0
        r0 = 0
        exit
        """,
        prog_type=ProgType.KPROBE,
    )
    assert depths(aux) == [24, 8]


def test_zero_extension_is_wanted_where_the_upper_half_is_read() -> None:
    """zext_dst says it of a 32-bit move whose register is read with 64 bits."""
    aux = analyse("w1 = 1; w2 = 2; r0 = r1; w0 += w2; exit")
    assert values(aux, ZEXT_DST)[:2] == [True, False]


def test_long_loop_ends() -> None:
    """A loop that nobody knows the end of is widened, and what is behind it is seen."""
    aux = analyse(
        """
        r6 = *(u32 *)(r1 + 0)
        r7 = 0
    again:
        r7 += 1
        if r7 > 1000000 goto out
        if r6 != r7 goto again
    out:
        r0 = 0
        exit
        """
    )
    assert unseen(aux) == []


def test_tail_call_in_a_subprog_may_return_anything_to_the_caller() -> None:
    """What the subprog itself returns is not all that its caller may get."""
    aux = analyse(
        """
        r9 = 0
        call f
        if r0 == 1 goto out
        r9 = 1
    out:
        r0 = r9
        exit
    f:
        r2 = MAP0
        r3 = 1
        call bpf_tail_call
        r0 = 1
        exit
        """,
        PROGS,
    )
    assert unseen(aux) == []


def test_tail_call_in_a_subprog_leaves_no_packet_pointer() -> None:
    """Behind the call a comparison with the packet's end is not decided any more."""
    code = """
        r6 = r1
        r7 = *(u32 *)(r6 + 76)
        r8 = *(u32 *)(r6 + 80)
        r7 += 16
        if r7 >= r8 goto test
        goto out
    test:
        {}
        if r7 < r8 goto dead
        goto out
    dead:
        r9 = 1
    out:
        r0 = 0
        exit
    """
    tail = "r2 = MAP0\nr3 = 1\ncall bpf_tail_call"
    in_main = analyse(code.format(f"r1 = r6\n{tail}"), PROGS)
    assert len(unseen(in_main)) == 1
    in_subprog = analyse(f"{code.format('call f')}\nf:\n{tail}\nr0 = 1\nexit", PROGS)
    assert unseen(in_subprog) == []


@pytest.mark.parametrize(("upper", "n_read"), [("w0 += 1", 0), ("r0 += 1", 1)])
def test_callback_returns_no_upper_half_to_its_helper(upper: str, n_read: int) -> None:
    """What a callback returns counts as read where a caller of the program reads it."""
    aux = analyse(
        f"""
        r1 = 3
        r2 = a ll
        r3 = 0
        r4 = 0
        call bpf_loop
        r1 = 0
        call a
        {upper}
        w0 = 0
        exit
    a:
        w0 = 0
        exit
        """
    )
    callback = len(aux) - 2
    assert values(aux, ZEXT_DST)[callback] == n_read


def test_late_callback_returns_to_the_kernel() -> None:
    """What a timer's callback returns goes back to the kernel, as what a program returns."""
    aux = analyse(
        """
        ld_pseudo r1, 0x2, 0
        r2 = a ll
        call bpf_timer_set_callback
        r0 = 0
        exit
    a:
        w0 = 0
        exit
        """,
        ARRAY,
    )
    assert values(aux, ZEXT_DST)[len(aux) - 2] == 1


def test_many_diamonds_take_linear_work() -> None:
    """With n branches one behind the other there are 2**n ways, but not so many visits."""
    lines = ["r6 = *(u32 *)(r1 + 0)", "r7 = 0"]
    for bit in range(800):
        lines += [f"if r6 & {1 << bit % 31} goto +1", f"r7 += {bit}"]
    aux = analyse("\n".join([*lines, "r0 = r7", "exit"]))
    assert unseen(aux) == []


def test_subprogs_that_call_each_other_often_take_bounded_work() -> None:
    """Chains of calls multiply; at some number of them a callee is looked at only once."""
    lines = ["call f0", "exit"]
    for depth in range(6):
        lines.append(f"f{depth}:")
        lines += [f"call f{depth + 1}"] * 8
        lines.append("exit")
    lines += ["f6:", "r0 = 1", "exit"]
    assert unseen(analyse("\n".join(lines))) == []
