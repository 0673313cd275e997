"""Which upper halves a walk reads, from logs as v6.18 writes them."""

from __future__ import annotations

from bpfpatch import asm, isa
from bpfpatch.btf import BtfBuilder, Func, FuncProto, Int, IntEncoding, Param
from bpfpatch.linux.log.zextlog import zext_from_log


def marked(text: str, walk: str, kernel_btf: object = None) -> list[int]:
    """Slots whose upper half is read.

    Args:
        text: the program.
        walk: the slots that the log shows, in their order; other lines of the log in brackets.
        kernel_btf: of the kernel.
    """
    program = asm.assemble(text)
    codes = program.insns["code"].tolist()
    lines = []
    for part in walk.replace("[", "\n[").replace("]", "]\n").splitlines():
        if part.startswith("["):
            lines.append(part[1:-1])
        else:
            lines += [f"{slot}: ({codes[int(slot)]:02x}) text ;" for slot in part.split()]
    found = zext_from_log("\n".join(lines), program, kernel_btf)  # type: ignore[arg-type]
    return [slot for slot, is_marked in enumerate(found.tolist()) if is_marked]


def test_a_wide_read_marks_the_definition() -> None:
    """A 32-bit read does not; a definition that is overwritten is not marked."""
    assert marked("w1 = 1; w1 = 2; w2 = 3; w3 = w2; r0 = r1; exit", "0 1 2 3 4 5") == [1]


def test_a_copy_of_32_bits_is_a_definition_of_its_own() -> None:
    """The first one's upper half is not what is read."""
    assert marked("w1 = 1; w0 = w1; exit", "0 1 2") == [1]


def test_what_a_program_returns_is_read_whole() -> None:
    """An exit of the program reads R0."""
    assert marked("w0 = 1; exit", "0 1") == [0]


def test_a_path_that_is_pruned_marks_nothing() -> None:
    """What is safe is not walked, though another path reads it there."""
    text = "w7 = 1; if r1 > r2 goto L; w7 = 2; L: r0 = r7; exit"
    assert marked(text, "0 1 2 3 4 [from 1 to 3: safe]") == [2]


def test_a_path_is_taken_up_with_what_was_known_at_its_jump() -> None:
    """The register has another definition there than where the walk has come to since."""
    text = "w7 = 1; if r1 > r2 goto L; w7 = 2; L: r0 = r7; exit"
    assert marked(text, "0 1 2 3 4 [from 1 to 3: R7=1 R10=fp0] 3 4") == [0, 2]


def test_a_decided_jump_leaves_nothing() -> None:
    """Its own path goes on at its target, with what was defined before it."""
    text = "w7 = 1; if r1 > r2 goto L; w7 = 2; L: r0 = r7; exit"
    assert marked(text, "0 1 3 4") == [0]


def test_of_several_visits_the_one_with_the_same_registers_is_taken_up() -> None:
    """The second visit of a jump may have been decided: the log does not say so."""
    text = "w7 = 1; L: if r1 > r2 goto out; w7 = 2; w6 = 3; goto L; out: r0 = r7; exit"
    code = asm.assemble(text).insns["code"].tolist()[0]
    first = f"[0: ({code:02x}) w7 = 1 ; R7=1 R6=0]"
    walk = first + " 1 [2: (b4) w7 = 2 ; R7=2] [3: (b4) w6 = 3 ; R6=3] 4 1 2 3 4"
    assert marked(text, walk + "[from 1 to 5: R6=0 R7=1 R10=fp0] 5 6") == [0]
    assert marked(text, walk + "[from 1 to 5: R6=3 R7=2 R10=fp0] 5 6") == [2]


def test_subprogs_take_definitions_in_and_give_them_back() -> None:
    """What is passed is read in the callee, what it returns in the caller."""
    text = "w1 = 1; w2 = 1; call f; r3 = r0; r0 = 0; exit; f: r4 = r1; w0 = w2; exit"
    walk = "0 1 2 6 7 8 [from 8 to 3: R0=1 R10=fp0] 3 4 5"
    assert marked(text, walk) == [0, 7]


def test_an_exit_of_a_subprog_reads_nothing() -> None:
    """The caller leaves R0 alone."""
    text = "call f; r0 = 0; exit; f: w0 = 1; exit"
    assert marked(text, "0 3 4 [from 4 to 1: R0=1 R10=fp0] 1 2") == []


def test_a_global_subprog_reads_none_of_its_arguments() -> None:
    """The verifier does not go in, and looks at it by itself."""
    text = "w1 = 1; call f; r0 = 0; exit; f: r0 = r1; exit"
    assert marked(text, "0 1 2 3 [Validating f() func#1...] 4 5") == []


def test_what_a_callback_returns_is_read_by_nobody() -> None:
    """The helper's call is visited again behind it, and reads its own arguments."""
    text = "w1 = 1; r2 = 0; r3 = 0; r4 = 0; call bpf_loop; r0 = 0; exit; cb: w0 = 0; exit"
    walk = "0 1 2 3 4 5 6 [from 4 to 7: frame1: R1=scalar() R10=fp0 cb] 7 8"
    walk += "[from 8 to 4: R1=1 R10=fp0] 4 5 6"
    assert marked(text, walk) == [0]


def test_a_late_callback_returns_to_the_kernel() -> None:
    """It starts with nothing, and what it returns is read whole."""
    text = "w6 = 1; r1 = 0; r2 = 0; call bpf_timer_set_callback; r0 = 0; exit; cb: w0 = 0; exit"
    assert marked(text, "0 1 2 3 4 5 [from 3 to 6: R1=map_ptr() R10=fp0] 6 7") == [6]


def test_a_tail_call_in_a_subprog_may_return_to_the_caller() -> None:
    """With a number that is not the subprog's; the path behind it is taken up later."""
    text = "w6 = 1; call f; r7 = r6; r0 = 0; exit; f: w6 = 2; call bpf_tail_call; r0 = r6; exit"
    walk = "0 1 5 6 [returning from callee:] 2 3 4 [from 6 to 7: frame1: R6=2 R10=fp0] 7"
    assert marked(text, walk.removesuffix("[from 6 to 7: frame1: R6=2 R10=fp0] 7")) == [0]
    assert marked(text, walk + " 8 [from 8 to 2: safe]") == [0, 5]


def test_a_pointer_of_the_context_is_no_half() -> None:
    """Its field there has 32 bits, the pointer all."""
    text = "r2 = *(u32 *)(r1 + 76); r0 = r2; exit"
    assert marked(text, "[0: (61) r2 = *(u32 *)(r1 +76) ; R1=ctx() R2=pkt(r=0)] 1 2") == []
    shown = "[0: (61) r2 = *(u32 *)(r1 +76) ; R1=ctx() R2=scalar(smin=0)] 1 2"
    assert marked(text, shown) == [0]


def test_a_function_of_the_kernel_reads_its_arguments_of_8_bytes() -> None:
    """Not those of 4; without its type, all."""
    types = BtfBuilder()
    short, wide = (types.add(Int(f"u{8 * n}", n, 8 * n, IntEncoding(0))) for n in (4, 8))
    proto = types.add(FuncProto(short, (Param("a", short), Param("b", wide))))
    func = types.add(Func("f", proto))
    text = f"w1 = 1; w2 = 2; call kfunc {func}; r0 = 0; exit"
    assert marked(text, "0 1 2 3 4", types.build()) == [1]
    assert marked(text, "0 1 2 3 4") == [0, 1]


def test_where_the_walk_is_lost_all_count_as_read() -> None:
    """A path that nothing has left."""
    text = "w6 = 1; w7 = 2; if r1 > r2 goto L; L: r0 = 0; exit"
    program = asm.assemble(text)
    assert marked(text, "0 1 [from 3 to 4: R10=fp0] 4") == [0, 1]
    assert isa.defines_32(program.insns).tolist() == [True, True, False, False, False]
