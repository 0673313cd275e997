"""Open-coded loops over numbers give what they give in the kernel."""

from __future__ import annotations

import pytest

from bpfpatch import kernel
from bpfpatch.asm import assemble
from bpfpatch.btf import Kind
from bpfpatch.interp import Machine, Skb
from bpfpatch.interp.helpers import kfuncs
from support.machine.tools import need_bpf

pytestmark = pytest.mark.kernel

LOOP = """
    r6 = 0
    r7 = 0
    r1 = r10
    r1 += -8
    w2 = {start}
    w3 = {end}
    call kfunc {new}
    r8 = r0
again:
    r1 = r10
    r1 += -8
    call kfunc {next}
    if r0 == 0 goto out
    w1 = *(u32 *)(r0 + 0)
    r6 += r1
    r7 += 1
    goto again
out:
    r1 = r10
    r1 += -8
    call kfunc {destroy}
    r0 = r6
    r0 *= 31
    r0 += r7
    r0 *= 31
    r0 += r8
    exit
"""


@pytest.mark.parametrize(
    ("start", "end"), [(0, 5), (-3, 4), (7, 7), (8, 7), (0, 100000000), (2147483646, 2147483647)]
)
def test_numbers_are_the_kernels(start: int, end: int) -> None:
    """The sum, the number of rounds, and what starting the loop returned."""
    need_bpf()
    names = ("bpf_iter_num_new", "bpf_iter_num_next", "bpf_iter_num_destroy")
    ids = [kernel.vmlinux_btf().find_one(name, Kind.FUNC) for name in names]
    if None in ids:
        pytest.skip("not on this kernel: it has no open-coded iterators")
    new, following, destroy = ids
    program = assemble(LOOP.format(start=start, end=end, new=new, next=following, destroy=destroy))
    functions = {
        new: lambda machine, r1, r2, r3, *_: kfuncs.iter_num_new(machine, r1, r2, r3),
        following: lambda machine, r1, *_: kfuncs.iter_num_next(machine, r1),
        destroy: lambda machine, r1, *_: kfuncs.iter_num_destroy(machine, r1),
    }
    machine = Machine(program, kfuncs=functions)
    with kernel.load(program, prog_type="sched_cls") as loaded:
        expected = loaded.test_run(bytes(64)).retval
    assert machine.run(Skb(bytes(64))).r0 & 0xFFFF_FFFF == expected
