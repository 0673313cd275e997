"""Verifier logs, as kernels 6.1 and 6.18 were seen to write them."""

import pytest

from bpfpatch.errors import Where
from bpfpatch.kernel import VerifierError, summarize

READ_BEFORE_WRITE = """\
0: R1=ctx() R10=fp0
; return *p; @ lb.c:214
0: (79) r0 = *(u64 *)(r3 +0)
R3 !read_ok
processed 1 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""
LOOP = """\
0: R1=ctx() R10=fp0
0: (05) goto pc-1
infinite loop detected at insn 0
cur state: R1=ctx() R10=fp0
old state: R1=ctx() R10=fp0
processed 2 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""
ACCEPTED = """\
func#0 @0
0: R1=ctx() R10=fp0
0: (b7) r0 = 7                        ; R0_w=7
1: (95) exit
processed 2 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""
UNREACHABLE = "unreachable insn 7\nprocessed 0 insns (limit 1000000) max_states_per_insn 0\n"
SUBPROG = """\
Validating helper() func#1...
4: R1=scalar() R10=fp0
; int helper(int a) @ lb.c:9
4: (61) r0 = *(u32 *)(r1 +0)
R1 invalid mem access 'scalar'
processed 1 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""
OLD_KERNEL = """\
0: R1=ctx(off=0,imm=0) R10=fp0
0: (b7) r0 = 1
1: R0_w=1
1: (0f) r0 += r1
R0 pointer += pointer prohibited
verification time 12 usec
stack depth 0
processed 2 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""


@pytest.mark.parametrize(
    ("log", "message", "slot"),
    [
        (READ_BEFORE_WRITE, "R3 !read_ok", 0),
        (LOOP, "infinite loop detected at insn 0", 0),
        (UNREACHABLE, "unreachable insn 7", 7),
        (SUBPROG, "R1 invalid mem access 'scalar'", 4),
        (OLD_KERNEL, "R0 pointer += pointer prohibited", 1),
    ],
    ids=["read", "loop", "unreachable", "subprog", "old"],
)
def test_the_complaint_is_found(log, message, slot):
    """The message is the verifier's complaint, the slot the instruction that it is about."""
    found = summarize(log)
    assert (found.message, found.slot) == (message, slot)


def test_an_accepted_programs_log_has_no_complaint():
    """Instructions, states and statistics are no complaint."""
    assert summarize(ACCEPTED).message == ""
    assert summarize("").slot is None


def test_the_error_is_one_line_and_keeps_the_log():
    """The message says where in one line; the log stays behind it."""
    error = VerifierError(13, "R3 !read_ok", READ_BEFORE_WRITE, Where(0, "main", "lb.c:214"))
    assert str(error) == "insn 0 in subprog main (lb.c:214): R3 !read_ok: EACCES"
    assert (error.slot, error.name, error.log) == (0, "EACCES", READ_BEFORE_WRITE)
