"""Running programs: registers, frames, control flow, budget, hooks, and the kernel's own forms."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from bpfpatch import isa
from bpfpatch.asm import assemble
from bpfpatch.errors import OptionError
from bpfpatch.interp import BudgetError, HelperError, Machine, MachineOptions, Plain, TrapError
from bpfpatch.program import JUMP_TABLE, Anchor, AnchoredTable, Program, Subprogs

Make = Callable[..., Machine]
U64 = (1 << 64) - 1


def test_r1_and_r2_hold_memory_and_its_length(make: Make) -> None:
    """R1 is the memory's address and R2 its length; what is written there comes back."""
    outcome = make("r0 = *(u8 *)(r1 + 1); *(u8 *)(r1 + 0) = r2; exit").run(mem=b"abc")
    assert (outcome.r0, outcome.mem, outcome.n_insns) == (ord("b"), b"\x03bc", 3)


def test_given_registers_and_entry(make: Make) -> None:
    """A run may start at any function, with any R1 and R2."""
    machine = make("exit; r0 = r1; r0 += r2; exit")
    assert machine.run(entry=1, r1=40, r2=2).r0 == 42


def test_entry_by_name() -> None:
    """The function to start with may be named; another name is refused."""
    program = Program(assemble("exit; r0 = 7; exit").insns, Subprogs.from_starts({1: "seven"}))
    assert Machine(program).run(entry="seven").r0 == 7
    with pytest.raises(OptionError, match="no function 'eight'"):
        Machine(program).run(entry="eight")


def test_callee_has_its_own_frame_and_may_use_the_callers(make: Make) -> None:
    """A pointer to the caller's stack works; R10 is another one; R6 to R9 are kept."""
    text = """
    r6 = 5
    *(u64 *)(r10 - 8) = 1
    r1 = r10
    r1 += -8
    call f
    r0 = *(u64 *)(r10 - 8)
    r0 += r6
    exit
    f:
    *(u64 *)(r10 - 8) = 99
    r6 = 1000
    *(u64 *)(r1 + 0) = 37
    r0 = 0
    exit
    """
    assert make(text).run().r0 == 42


def test_frames_are_clean(make: Make) -> None:
    """What a function left on its stack is gone when it is called again."""
    text = """
    call f
    call f
    exit
    f:
    r0 = *(u64 *)(r10 - 8)
    *(u64 *)(r10 - 8) = 7
    exit
    """
    assert make(text).run().r0 == 0


def test_a_call_loses_the_argument_registers(make: Make) -> None:
    """R1 to R5 hold no old values after a call."""
    assert make("r3 = 5; call f; r0 = r3; exit; f: r0 = 0; exit").run().r0 != 5


def test_eight_frames_and_no_more(make: Make) -> None:
    """Seven nested calls are fine, the eighth is not."""
    chain = "".join(f"f{k}: call f{k + 1}; exit;" for k in range(1, 7))
    assert make(f"call f1; exit; {chain} f7: r0 = 3; exit").run().r0 == 3
    with pytest.raises(BudgetError, match="more than 8 calls") as caught:
        make(f"call f1; exit; {chain} f7: call f8; exit; f8: exit").run()
    assert caught.value.unit == "frames"


def test_exact_budget(make: Make) -> None:
    """A program may take as many instructions as the budget says, and not one more."""
    text = "r1 = 10; l: r1 -= 1; if r1 != 0 goto l; r0 = 0; exit"
    assert make(text, budget=23).run().n_insns == 23
    with pytest.raises(BudgetError, match="budget of 22 instructions"):
        make(text, budget=22).run()


@pytest.mark.parametrize(
    "text", ["l: goto l", "l: call f; goto l; f: exit", "l: r1 += 1; if r1 != 0 goto l; exit"]
)
def test_endless_loops_end(make: Make, text: str) -> None:
    """A loop without end uses its budget up."""
    with pytest.raises(BudgetError) as caught:
        make(text, budget=5000).run()
    assert (caught.value.budget, caught.value.unit) == (5000, "instructions")


def test_may_goto_falls_through_so_often(make: Make) -> None:
    """may_goto is taken when its own budget is used up, a function call at a time."""
    text = "r0 = 0; l: may_goto out; r0 += 1; goto l; out: exit"
    assert make(text, may_goto=12).run().r0 == 12


def test_gotox_follows_the_jump_table(make: Make) -> None:
    """An indirect jump goes where the table says, and nowhere else."""
    insns = np.concatenate(
        [isa.make(0x0D, 1), isa.mov(isa.R0, 1), isa.exit_(), isa.mov(isa.R0, 2), isa.exit_()]
    )
    table = AnchoredTable(np.array([1, 3], np.int32), np.zeros(2, "<u4"), Anchor.LAND)
    program = Program(insns).with_tables(**{JUMP_TABLE: table})
    base = 0x20 << 28
    engine = make("exit").engine
    machine = Machine(program, options=MachineOptions(engine=engine))
    assert [machine.run(r1=base + 8 * slot).r0 for slot in (1, 3)] == [1, 2]
    with pytest.raises(TrapError, match="not an address from a jump table"):
        machine.run(r1=base + 8 * 2)


def test_callx_calls_a_functions_address(make: Make) -> None:
    """A function's address can be called."""
    assert make("r3 = f ll; callx r3; exit; f: r0 = 9; exit").run().r0 == 9


def test_hook_sees_every_instruction(make: Make) -> None:
    """The hook gets slot and registers before each instruction."""
    steps = []
    machine = make("r0 = 5; r0 += 1; exit", hook=lambda slot, regs: steps.append((slot, regs[0])))
    machine.run()
    assert steps == [(0, 0), (1, 5), (2, 6)]


def test_hidden_register_and_zext_marks(make: Make) -> None:
    """R11 is a register like others, and a zero-extension mark clears the upper half."""
    insns = np.concatenate(
        [
            isa.ld_imm64(isa.Reg.AX, 0xFFFF_FFFF_0000_0005),
            isa.mov(isa.R0, isa.Reg.AX),
            isa.make(0xBC, 0, 0, 0, 1),
            isa.exit_(),
        ]
    )
    assert Machine(Program(insns), options=MachineOptions(engine=make("exit").engine)).run().r0 == 5


def test_probing_load_gives_zero(make: Make) -> None:
    """A PROBE_MEM load of nothing gives 0; of something what is there, sign-extended if asked."""
    probe, signed = 0x20 | 0x01, 0x40 | 0x01
    byte = 0x10
    insns = np.concatenate(
        [
            isa.make(signed | byte, 0, 1, 0),
            isa.mov(isa.R2, 0),
            isa.make(probe | byte, 2, 2, 8),
            isa.alu("+=", isa.R0, isa.R2),
            isa.exit_(),
        ]
    )
    machine = Machine(Program(insns), options=MachineOptions(engine=make("exit").engine))
    assert machine.run(Plain(b"\xfe")).r0 == U64 - 1


def test_big_endian_memory_and_swaps(make: Make) -> None:
    """A big-endian machine loads big-endian, and its le swaps where be does not."""
    text = "r0 = *(u32 *)(r1 + 0); r0 = le32 r0; exit"
    assert make(text, byteorder="big").run(mem=bytes([1, 2, 3, 4])).r0 == 0x04030201
    assert make(text).run(mem=bytes([1, 2, 3, 4])).r0 == 0x04030201


def test_unknown_helper_is_named(make: Make) -> None:
    """The error for a helper that is missing says which one."""
    with pytest.raises(HelperError, match="no helper tcp_gen_syncookie") as caught:
        make("call bpf_tcp_gen_syncookie; exit").run()
    assert caught.value.helper == "helper tcp_gen_syncookie"


def test_own_helpers_and_kfuncs(make: Make) -> None:
    """Python functions serve as helpers and kfuncs; what they return wraps at 64 bits."""
    machine = make(
        "r1 = 20; r2 = 1; call 999; r6 = r0; call kfunc 7; r0 += r6; exit",
        helpers={999: lambda machine, a, b, *rest: a + b},
        kfuncs={7: lambda machine, *args: -1},
    )
    outcome = machine.run()
    assert outcome.r0 == 20
    assert [call.result for call in outcome.trace] == [21, U64]


def test_a_helper_that_breaks_is_an_error_of_ours(make: Make) -> None:
    """Whatever a user's helper raises, the run ends in a HelperError with the place."""

    def broken(machine: Machine, *args: int) -> int:
        raise KeyError("oops")

    with pytest.raises(HelperError, match="KeyError") as caught:
        make("r0 = 0; call 999; exit", helpers={999: broken}).run()
    assert caught.value.slot == 1


def test_open_calls_are_in_the_error(make: Make) -> None:
    """A trap in a callee says where it was called from."""
    with pytest.raises(TrapError) as caught:
        make("call f; exit; f: call g; exit; g: r0 = *(u8 *)(r1 + 0); exit").run()
    assert (caught.value.slot, caught.value.callers) == (4, [2, 0])


def test_runs_are_alike() -> None:
    """The same machine gives the same outcome again: time and chance start anew."""
    machine = Machine(
        assemble("call bpf_get_prandom_u32; r6 = r0; call bpf_ktime_get_ns; r0 ^= r6; exit")
    )
    assert machine.run() == machine.run()
    other = Machine(machine.image.program, options=MachineOptions(seed=1))
    assert other.run().r0 != machine.run().r0


def test_a_long_function_gives_the_same_before_and_after_it_is_compiled() -> None:
    """A long function is interpreted at first and compiled later; its runs do not show when."""
    program = assemble("r0 = r2\n" + "r0 += 3\n" * 5_000 + "exit")
    machine = Machine(program)
    outcomes = {(one.r0, one.n_insns) for one in (machine.run(r2=7) for _ in range(12))}
    assert outcomes == {(7 + 3 * 5_000, 5_002)}
