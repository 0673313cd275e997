"""LD_ABS and LD_IND: loads from a packet by position, as calls.

Source: linux v6.18, net/core/filter.c, bpf_gen_ld_abs(), compared with what
such a kernel makes of them.
"""

from __future__ import annotations

from typing import Final

from bpfpatch import isa
from bpfpatch.facts import ProgType
from bpfpatch.facts.functions import function
from bpfpatch.isa import R0, R1, R2, R6, Reg
from bpfpatch.passes.search import Opcodes
from bpfpatch.patch import Body
from bpfpatch.program.types import Insns

from .job import Job, body

_HAVE_IT: Final = (ProgType.SOCKET_FILTER, ProgType.SCHED_CLS, ProgType.SCHED_ACT)

_PACKET_LOADS: Final = Opcodes(lambda opcode: opcode.kind is isa.Kind.PACKET_LOAD)
_IND: Final = 0x40
_MODE_MASK: Final = 0xE0
_SIZE_MASK: Final = 0x18
_BITS: Final = {0x10: 8, 0x08: 16, 0x00: 32}


def expand_packet_loads(job: Job) -> None:
    """Replace each by a call, and an exit with 0 where the packet is too short.

    Raises:
        UnsupportedError: a kind of program that has no such loads.
    """
    found = job.code.find(_PACKET_LOADS)
    if found.size and job.subject.prog_type not in _HAVE_IT:
        kind = job.subject.prog_type.text
        raise job.refuse(int(found[0]), f"a {kind} program has no loads from a packet by position")
    for insn, sites in job.groups(found):
        job.replace(sites, _expanded(insn))


def _expanded(insn: Insns) -> Body:
    code, imm = int(insn["code"][0]), int(insn["imm"][0])
    if code & _MODE_MASK != _IND:
        position = [isa.mov(R2, imm)]
    else:
        position = [isa.mov(R2, Reg(int(isa.src(insn)[0])))]
        if imm:
            position.append(isa.alu("+=", R2, imm))
    name = f"bpf_skb_load_helper_{_BITS[code & _SIZE_MASK]}_no_cache"
    return body(
        *position,
        isa.mov(R1, R6),
        isa.call_helper(function(name)),
        isa.jump("s>=", R0, 0, 2),
        isa.alu("^=", R0, R0, width=32),
        isa.exit_(),
    )
