"""A refusal, read from logs in the forms of several kernels."""

from __future__ import annotations

import bpfpatch as bp
from bpfpatch.linux.log.failpath import read_path
from bpfpatch.linux.log.messages import Family, Flaw
from bpfpatch.linux.log.regstate import parse_state, parse_states
from bpfpatch.linux.log.stats import VerifierStats

CORRELATED = bp.asm.assemble("""
    r6 = r1
    r1 = 0
    r2 = *(u32 *)(r6 + 0)
    if r2 != 6 goto use
    r1 = r10
    r1 += -8
    *(u64 *)(r10 - 8) = 0
use:
    r0 = *(u8 *)(r1 + 0)
    exit
""")
NEW_LOG = """\
0: R1=ctx() R10=fp0
0: (bf) r6 = r1                       ; R1=ctx() R6=ctx()
1: (b7) r1 = 0                        ; R1=0
2: (61) r2 = *(u32 *)(r6 +0)          ; R2=scalar(smin=0,smax=umax=0xffffffff,var_off=(0x0; 0xffffffff)) R6=ctx()
3: (55) if r2 != 0x6 goto pc+3 7: R1=0 R2=scalar(smin=0,smax=umax=0xffffffff,var_off=(0x0; 0xffffffff)) R6=ctx() R10=fp0
; return *(char *)p; @ t.c:9
7: (71) r0 = *(u8 *)(r1 +0)
R1 invalid mem access 'scalar'
processed 8 insns (limit 1000000) max_states_per_insn 0 total_states 1 peak_states 2 mark_read 0
"""  # noqa: E501
OLD_LOG = """\
0: R1=ctx(id=0,off=0,imm=0) R10=fp0
0: (bf) r6 = r1
1: (b7) r1 = 0
2: (61) r2 = *(u32 *)(r6 +0)
3: (55) if r2 != 0x6 goto pc+3

from 3 to 7: R1_w=inv0 R2_w=inv(id=0,umax_value=4294967295,var_off=(0x0; 0xffffffff)) R6_w=ctx(id=0,off=0,imm=0) R10=fp0
7: (71) r0 = *(u8 *)(r1 +0)
R1 invalid mem access 'inv'
processed 8 insns (limit 1000000) max_states_per_insn 0 total_states 1 peak_states 1 mark_read 0
"""  # noqa: E501
EXPLAINED = """

Verification failed: Register Type Safety: Not a pointer

Reason:
  R1 holds a number on this path,
  so memory cannot be accessed through it.

At:
  insn 7
        | ^-- error: R1 is not a pointer

Suggestion:
  Check it.

"""
FRAMES = """\
0: R1=ctx() R10=fp0
0: (85) call pc+1
caller:
 R10=fp0
callee:
 frame1: R1=ctx() R10=fp0
2: frame1: R1=ctx() R10=fp0
2: (bf) r6 = r1                       ; frame1: R1=ctx() R6=ctx()
3: (95) exit
R0 !read_ok
processed 3 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""


def test_new_form() -> None:
    """Of the form of 6.18: the place, the register, what was known, and the slice."""
    why = bp.Refusal.from_log(NEW_LOG, CORRELATED)
    assert (why.kind, why.family, why.register) == (Flaw.SCALAR_ACCESS, Family.VALUE, 1)
    assert why.where is not None
    assert why.known is not None
    assert (why.where.slot, why.known.value) == (7, 0)
    assert [step.where.slot for step in why.steps] == [1]


def test_old_form() -> None:
    """Of the form of 5.15 the same."""
    why = bp.Refusal.from_log(OLD_LOG, CORRELATED)
    assert (why.kind, why.register) == (Flaw.SCALAR_ACCESS, 1)
    assert why.known is not None
    assert why.known.value == 0
    assert [step.slot for step in why.path.steps] == [0, 1, 2, 3, 7]


def test_explained_form() -> None:
    """Of the form that explains: the sentence is the same, and the reason is kept beside it."""
    head, tail = NEW_LOG.split("processed")
    why = bp.Refusal.from_log(f"{head}{EXPLAINED}processed{tail}", CORRELATED)
    assert why.message == "R1 invalid mem access 'scalar'"
    assert why.explained.startswith("Register Type Safety: Not a pointer: R1 holds a number")
    assert why.where is not None
    assert why.where.slot == 7


def test_a_rewritten_program_is_shown_in_the_original() -> None:
    """The place is the original's, and who inserted an instruction is said."""
    patches = bp.PatchList(CORRELATED)
    with patches.as_pass("pad"):
        patches.insert_before(2, bp.Body.asm("r3 = 1"))
    program, remap = patches.linearize()
    log = NEW_LOG.replace("\n7: (71)", "\n8: (71)")
    why = bp.Refusal.from_log(log, program, remap, CORRELATED)
    assert why.original is not None
    assert (why.original.slot, why.inserted_by) == (7, "")
    log = NEW_LOG.replace("2: (61) r2 = *(u32 *)(r6 +0)", "2: (b7) r3 = 1")
    log = log.split("3: (55)")[0] + "R3 !read_ok\n"
    why = bp.Refusal.from_log(log, program, remap, CORRELATED)
    assert (why.original, why.inserted_by) == (None, "pad")


def test_frames_are_followed() -> None:
    """A state is of the function that it is printed for."""
    path = read_path(FRAMES)
    assert [step.frame for step in path.steps] == [0, 1, 1]
    assert path.steps[2].before["R6"].kind == "ctx"
    assert "R6" not in path.frames[0]


def test_report_fits_a_screen() -> None:
    """The report names sentence, place, need and slice in few lines."""
    lines = list(bp.Refusal.from_log(NEW_LOG, CORRELATED).lines())
    assert lines[0] == "refused: R1 invalid mem access 'scalar'"
    assert len(lines) < 24


def test_what_is_not_understood_is_shown() -> None:
    """A sentence that no row has is kept as it is."""
    why = bp.Refusal.from_log(NEW_LOG.replace("R1 invalid mem", "quite another mem"), CORRELATED)
    assert why.kind is Flaw.UNKNOWN
    assert why.message == "quite another mem access 'scalar'"


def test_states_of_registers_and_slots() -> None:
    """Numbers, pointers with bounds, and stack bytes are read in both forms."""
    states = parse_states(
        "R0=scalar(id=1+8,smin=smin32=0,smax=umax=255,var_off=(0x0; 0xff)) R1=fp[1]-80 "
        "R2_w=map_value(id=0,off=8,ks=4,vs=16,umax_value=7,var_off=(0x0; 0x7)) "
        "fp-8=????scalar(id=6) fp-16_w=mmmmmmmm fp-24=0 refs=2"
    )
    assert states["R0"].bounds == (0, 255, 0, 255)
    assert (states["R0"].id, states["R1"].frame, states["R1"].off) == (1, 1, -80)
    assert (states["R2"].kind, states["R2"].size, states["R2"].off) == ("map_value", 16, 8)
    assert states["R2"].bounds == (0, 7, 0, 7)
    assert states["fp-8"].is_scalar
    assert (states["fp-16"].kind, states["fp-24"].value) == ("", 0)
    assert parse_state("map_value_or_null(id=5,map=m,ks=8,vs=501)").is_or_null
    assert parse_state("0xffffffff").value == 0xFFFFFFFF


def test_stats_of_a_log() -> None:
    """The last figures count; stack and time are read where they are."""
    log = NEW_LOG + "verification time 12 usec\nstack depth 8+16\n" + FRAMES.split("\n")[-2]
    stats = VerifierStats.from_log(log)
    assert stats is not None
    assert (stats.processed, stats.stack, stats.microseconds) == (3, (8, 16), 12)
    assert VerifierStats.from_log("unreachable insn 7\n") is None
