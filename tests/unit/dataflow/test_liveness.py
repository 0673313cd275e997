"""Which registers, and which upper halves, are read later: against a plain model, and by hand."""

from __future__ import annotations

import numpy as np
import pytest

from bpfpatch import isa
from bpfpatch.asm import assemble
from bpfpatch.dataflow.blocks import Blocks
from bpfpatch.dataflow.initialized import initialized
from bpfpatch.dataflow.liveness import Liveness, upper_halves_read
from bpfpatch.facts.helpers import helper_args, returns_nothing
from bpfpatch.patch import CodeView
from bpfpatch.program import Program
from support.generators.programs import verifiable_code

NO_TARGETS = np.zeros(0, np.int32)


def looked_at(text: str) -> tuple[CodeView, Blocks]:
    """A view of assembly, and its blocks."""
    view = CodeView.of_program(assemble(text))
    return view, Blocks.of(view, NO_TARGETS)


def liveness(text: str) -> Liveness:
    """The liveness of assembly."""
    return Liveness.of(*looked_at(text))


def registers(mask: int) -> set[int]:
    """A mask as a set."""
    return {register for register in range(12) if int(mask) >> register & 1}


def before(text: str) -> list[set[int]]:
    """What is live in front of each slot."""
    return [registers(mask) for mask in liveness(text).before]


def successors(view: CodeView, slot: int) -> list[int]:
    """Slots that may run next, from the references alone."""
    insn = view.insns[slot : slot + 1]
    width = 2 if insn["code"][0] == isa.LD_IMM64 else 1
    out = [slot + width] if isa.falls_through(insn)[0] else []
    rows = np.flatnonzero((view.ref_slot == slot) & ~view.ref_is_entry)
    return out + [int(view.ref_target[row]) for row in rows]


def plain_model(program: Program) -> list[int]:
    """The textbook's equations, one instruction at a time, until nothing changes."""
    view = CodeView.of_program(program)
    reads, writes = isa.reads(program.insns).tolist(), isa.writes(program.insns).tolist()
    into = [0] * len(program)
    callee = {
        int(slot): int(target)
        for slot, target, is_entry in zip(
            view.ref_slot, view.ref_target, view.ref_is_entry, strict=True
        )
        if is_entry
    }
    changed = True
    while changed:
        changed = False
        for slot in reversed(np.flatnonzero(view.node >= 0).tolist()):
            after = 0
            for goal in successors(view, slot):
                after |= into[goal]
            use = into[callee[slot]] & isa.ARGS if slot in callee else reads[slot]
            new = (after & ~writes[slot]) | use
            changed |= new != into[slot]
            into[slot] = new
    return into


@pytest.mark.parametrize("seed", range(40))
def test_live_registers_are_those_of_the_plain_model(seed: int) -> None:
    """On generated programs with loops and calls, every mask is the textbook's."""
    program = assemble(verifiable_code(seed))
    view = CodeView.of_program(program)
    found = Liveness.of(view, Blocks.of(view, NO_TARGETS)).before
    first = view.node >= 0
    assert found[first].tolist() == np.array(plain_model(program))[first].tolist()


def test_straight_line() -> None:
    """A register is live from where it is set to its last use."""
    assert before("r1 = 1; r2 = r1; r0 = r2; exit") == [set(), {1}, {2}, {0}]


def test_both_ways_of_a_branch_count() -> None:
    """What either way reads is live in front of the branch."""
    text = "if r1 == 0 goto out; r0 = r2; exit; out: r0 = r3; exit"
    assert before(text)[0] == {1, 2, 3}


def test_loop_keeps_what_it_reads_again() -> None:
    """A register that the next round reads is live at the loop's end."""
    assert before("r0 = 0; l: r0 += r6; if r0 < 9 goto l; exit")[2] == {0, 6}


def test_ld_imm64_has_two_slots() -> None:
    """In front of its second slot is what is behind it."""
    assert before("r1 = 5 ll; r0 = r1; exit") == [set(), {1}, {1}, {0}]
    assert before("goto on; on: r1 = 5 ll; r0 = r1; exit")[1:] == [set(), {1}, {1}, {0}]


def test_helper_reads_no_more_than_it_takes() -> None:
    """R3 to R5 are dead in front of a call of a helper of two arguments."""
    assert before("call bpf_map_lookup_elem; exit")[0] == {1, 2}
    assert before("call bpf_get_prandom_u32; exit")[0] == set()
    assert before("call 9999; exit")[0] == {1, 2, 3, 4, 5}


def test_printing_helper_reads_what_it_is_given() -> None:
    """bpf_trace_printk reads its text, and those of R3 to R5 that some path has set.

    Compilers let two prints of different texts share their call.
    """
    start = "r1 = 0; r2 = 8; "
    assert before(start + "call bpf_trace_printk; exit")[2] == {1, 2}
    assert before(start + "r3 = 1; call bpf_trace_printk; exit")[3] == {1, 2, 3}
    branch = "r3 = 1; if r1 == 0 goto out; r4 = 2; out: call bpf_trace_printk; exit"
    assert before(start + branch)[3:6] == [{1, 2, 3, 4}, {1, 2, 3}, {1, 2, 3, 4}]


def test_kernel_function_reads_what_it_is_given() -> None:
    """How many arguments a kernel function takes the code does not say: all that may be set."""
    assert before("r1 = 0; call kfunc 7; exit")[1] == {1}
    assert before("r1 = 0; r2 = 0; if r1 == 0 goto on; r3 = 1; on: call kfunc 7; exit")[4] == {
        1,
        2,
        3,
    }


def test_a_function_is_given_what_any_caller_sets() -> None:
    """An argument that is only printed is read by the call where some caller sets it."""
    printing = "f: r1 = 0; r2 = 8; call bpf_trace_printk; r0 = 0; exit"
    one = before("r1 = 0; r3 = 1; call f; exit; " + printing)
    assert one[2] == {3}
    other = before("r1 = 0; r3 = 1; call f; r3 = 1; r4 = 1; call f; exit; " + printing)
    assert other[2] == {3, 4}
    assert other[5] == {3, 4}
    none = before("r1 = 0; call f; call f; exit; " + printing)
    assert none[1] == set()


@pytest.mark.parametrize(
    ("helper", "printed"), [("loop", set()), ("for_each_map_elem", {3, 4}), ("find_vma", {3})]
)
def test_a_callback_is_given_what_its_helper_gives(helper: str, printed: set[int]) -> None:
    """What a callback prints of its arguments is what the helper that calls it passes."""
    text = f"r1 = 0; r2 = func f ll; r3 = 0; r4 = 0; call bpf_{helper}; exit; f: r1 = 0; r2 = 8; "
    found = before(text + "call bpf_trace_printk; r0 = 0; exit")
    assert found[7] == printed


def test_a_prototype_says_what_a_function_is_given_at_most() -> None:
    """A register that the callers only happen to have set is none of a global function's."""
    view, blocks = looked_at(
        "r1 = 0; r3 = 1; call f; exit; f: r1 = 0; r2 = 8; call bpf_trace_printk; r0 = 0; exit"
    )
    takes = np.array([0b10, 0b10], np.uint16)
    assert registers(Liveness.of(view, blocks, takes=takes).before[4]) == set()


def test_call_destroys_r0_to_r5() -> None:
    """What is in them does not live through a call."""
    assert before("call bpf_get_prandom_u32; r0 = r1; r0 += r6; exit")[0] == {6}


def test_call_of_a_subprog_reads_what_that_reads() -> None:
    """Arguments that the callee, or a callee of its, reads are live in front of the call."""
    text = "call f; exit; f: r6 = r2; call g; r0 += r6; exit; g: r0 = r3; exit"
    assert before(text)[0] == {2, 3}


def test_arguments_may_be_said_to_be_read() -> None:
    """On request, what is set counts as read by a subprog's call."""
    text = "r1 = 1; r2 = 2; call f; exit; f: r0 = r1; exit"
    view, blocks = looked_at(text)
    args = np.full(len(view), 0b110, np.uint16)
    found = Liveness.of(view, blocks, args)
    assert registers(found.before[2]) == {1, 2}
    assert registers(found.reads[2]) == {1, 2}


def test_call_out_of_the_object_may_read_all_it_is_given() -> None:
    """A function in another object may read every argument that is set."""
    program = Program(
        assemble("r2 = 1; r5 = 1; call f; exit; f: r0 = 1; exit").insns,
        external=np.array([2], np.int32),
    )
    view = CodeView.of_program(program)
    blocks = Blocks.of(view, NO_TARGETS)
    assert registers(Liveness.of(view, blocks).before[2]) == {1, 2, 5}
    narrow = Program(
        assemble("w1 = 1; call f; exit; f: r0 = 1; exit").insns, external=np.array([1], np.int32)
    )
    view = CodeView.of_program(narrow)
    assert upper_halves_read(view, Blocks.of(view, NO_TARGETS)).tolist()[0]


def test_recursion_ends() -> None:
    """Functions that call each other have a finite answer."""
    text = "call f; exit; f: call g; r0 = r6; exit; g: r6 = r4; call f; exit"
    assert before(text)[0] == {4, 6} & {4}


def test_indirect_jump_goes_to_all_targets() -> None:
    """A gotox keeps alive what any of its targets reads."""
    view = CodeView.of_program(assemble("gotox r1; r0 = r2; exit; r0 = r3; exit; r0 = r4; exit"))
    found = Liveness.of(view, Blocks.of(view, np.array([1, 3], np.int32)))
    assert registers(found.before[0]) == {1, 2, 3}


def test_free_registers() -> None:
    """Free is what nobody reads later, nor the instruction itself, nor it defines; never R10."""
    free = liveness("r3 = r1; r3 += r6; r0 = r3; exit").free()
    assert registers(free[1]) == {0, 1, 2, 4, 5, 7, 8, 9}
    assert registers(free[2]) == {1, 2, 4, 5, 6, 7, 8, 9}


def upper(text: str) -> list[int]:
    """Slots of what defines 32 bits whose upper half is read."""
    return np.flatnonzero(upper_halves_read(*looked_at(text))).tolist()


@pytest.mark.parametrize(
    ("text", "slots"),
    [
        ("w1 = 5; r0 = r1; exit", [0]),
        ("w1 = 5; w0 = w1; exit", [1]),
        ("w1 = 5; w1 += 1; r0 = 0; exit", []),
        ("w1 = 5; r1 += 1; r0 = 0; exit", [0]),
        ("w1 = 5; if r1 == 1 goto on; on: r0 = 0; exit", [0]),
        ("w1 = 5; if w1 == 1 goto on; on: r0 = 0; exit", []),
        ("w1 = 5; *(u32 *)(r10 - 8) = w1; r0 = 0; exit", []),
        ("w1 = 5; *(u64 *)(r10 - 8) = r1; r0 = 0; exit", [0]),
        ("w1 = 5; r2 = *(u8 *)(r1 + 0); r0 = 0; exit", [0]),
        ("w1 = 5; *(u8 *)(r1 + 0) = 1; r0 = 0; exit", [0]),
        ("w1 = 5; lock *(u32 *)(r10 - 8) += w1; r0 = 0; exit", []),
        ("w1 = 5; lock *(u64 *)(r10 - 8) += r1; r0 = 0; exit", [0]),
        ("w0 = 5; r1 = 1; w0 = cmpxchg32_32(r10 - 8, w0, w1); r0 = 0; exit", []),
        ("w0 = 5; r1 = 1; w0 = cmpxchg32_32(r10 - 8, w0, w1); exit", [2]),
        ("w1 = load_acquire((u32 *)(r10 - 8)); r0 = r1; exit", [0]),
        ("r1 = 1; w1 = atomic_fetch_or((u32 *)(r10 - 8), w1); r0 = r1; exit", [1]),
        ("w1 = 5; r1 = be16 r1; r0 = 0; exit", []),
        ("w1 = 5; r1 = be64 r1; r0 = 0; exit", [0]),
        ("w1 = 5; w2 = 6; call bpf_map_lookup_elem; exit", [0, 1]),
        ("w3 = 5; call bpf_map_lookup_elem; exit", []),
        ("w0 = 5; exit", [0]),
        ("r1 = 5; r0 = 1 ll; exit", []),
        ("w1 = 5; call f; exit; f: r0 = r1; exit", [0]),
        ("w1 = 5; call f; exit; f: w0 = w1; exit", [3]),
        ("call f; r0 = 1; exit; f: w0 = 1; exit", []),
        ("call f; exit; f: w0 = 1; exit", [2]),
        ("r2 = f ll; r0 = 0; exit; f: w0 = 1; exit", [4]),
        ("w6 = 5; call f; r0 = r6; exit; f: r0 = 1; exit", [0]),
    ],
)
def test_upper_half(text: str, slots: list[int]) -> None:
    """What counts as a read of 64 bits is the kernel's rule, is_reg64()."""
    assert upper(text) == slots


def test_unseen_code_reads_nothing() -> None:
    """A read in code that nothing reaches does not count."""
    view, blocks = looked_at("w1 = 5; if w1 == 1 goto on; r0 = r1; exit; on: r0 = 0; exit")
    seen = np.array([True, True, False, False, True, True])
    assert upper_halves_read(view, blocks).tolist()[0]
    assert not upper_halves_read(view, blocks, seen).any()


def is_set(text: str) -> list[set[int]]:
    """What is certainly set in front of each slot."""
    view, blocks = looked_at(text)
    masks = initialized(view, blocks, Liveness.of(view, blocks))
    return [registers(mask) for mask in masks]


def test_set_registers() -> None:
    """At first there are R1 and R10; what is written joins them."""
    assert is_set("r2 = 5; r0 = 0; exit") == [{1, 10}, {1, 2, 10}, {0, 1, 2, 10}]


def test_set_on_one_way_only_is_not_set() -> None:
    """Where ways meet, both must have set a register."""
    text = "if r1 == 0 goto on; r2 = 5; r3 = 1; goto out; on: r3 = 2; out: r0 = 0; exit"
    assert is_set(text)[5] == {1, 3, 10}


def test_call_unsets() -> None:
    """Behind a helper there is R0, but not behind one that returns nothing, or a subprog."""
    assert is_set("r6 = r1; call bpf_get_prandom_u32; exit")[2] == {0, 6, 10}
    assert is_set("r6 = r1; call bpf_spin_lock; r0 = 0; exit")[2] == {6, 10}
    assert is_set("call f; r0 = 0; exit; f: r0 = 0; exit")[1] == {10}


def test_subprog_has_the_arguments_that_it_reads() -> None:
    """More it may not have been given."""
    assert is_set("call f; exit; f: r0 = r2; exit")[2] == {2, 10}


def test_loop_keeps_what_is_set() -> None:
    """A way back does not unset what every round leaves set."""
    assert is_set("r2 = 1; r0 = 0; l: r0 += r2; if r0 < 9 goto l; exit")[2] == {0, 1, 2, 10}


def test_argument_counts() -> None:
    """Facts of bpf_helper_defs.h: fib_lookup has four, tail_call three, ktime_get_ns none."""
    calls = isa.concat(
        isa.call_helper(name) for name in ("fib_lookup", "tail_call", "ktime_get_ns")
    )
    assert [len(registers(mask)) for mask in helper_args(calls)] == [4, 3, 0]
    assert returns_nothing(calls).tolist() == [False, True, False]


def test_a_first_function_that_is_called_has_its_arguments() -> None:
    """In an object the first function is none of the programs: it has what it reads."""
    view, blocks = looked_at("f: r0 = r2; exit; main: r2 = 1; call f; exit")
    found = initialized(view, blocks, Liveness.of(view, blocks))
    assert registers(found[0]) == {2, 10}
