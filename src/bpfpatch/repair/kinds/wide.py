"""A packet's address that is handled as the 32 bits that it has for the program.

Fields such as ``skb->data`` have 32 bits for a program and 64 in the kernel. Compilers copy, cut or
add to 32 of them, which the verifier refuses, or takes for an unknown number. The same is done on
64 bits: the upper half is 0 for the program, and no packet goes over the end of 32 bits.
"""

from __future__ import annotations

from typing import Final

from bpfpatch import isa
from bpfpatch.linux.log.messages import Flaw
from bpfpatch.linux.log.regstate import RegState
from bpfpatch.patch import Body

from ..report import Order
from ..site import Fields, RepairSite
from .base import Mended, Tools
from .thread import root_of

KINDS: Final = (Flaw.SCALAR_ACCESS, Flaw.ARG_TYPE, Flaw.POINTER_OP)
_MOV32: Final = 0xBC
_WIDE: Final = {_MOV32: "mov", 0x04: "add", 0x14: "sub", 0x0C: "add", 0x1C: "sub"}
_LSH, _RSH = 0x67, 0x77
_PACKET: Final = ("pkt", "pkt_end", "pkt_meta")
_WHY: Final = (
    "a packet's address has 32 bits for the program, with 0 above them, so 64 bits give what 32 do"
)


def mend(site: RepairSite, tools: Tools) -> Mended | None:
    """Do on 64 bits what is done on 32."""
    index: int | None = site.last
    if site.refusal.kind is not Flaw.POINTER_OP:
        register = site.refusal.register
        index = None if register is None or not site.steps else root_of(site, register)
    if index is None or not site.steps:
        return None
    fields = site.fields(index)
    key = f"wide {site.node(index)}"
    if key in tools.tried:
        return None
    if fields.code in (_LSH, _RSH) and fields.imm == 32:
        done = _uncut(site, index, fields)
    else:
        done = _widened(site, index, fields)
    return Mended("wide", Order.SAME, _WHY, "rule", key) if done else None


def _widened(site: RepairSite, index: int, fields: Fields) -> bool:
    wide = _WIDE.get(fields.code)
    operand = isa.Reg(fields.src) if fields.code & 8 else fields.imm
    pointer = site.state(index, f"R{fields.src if fields.code == _MOV32 else fields.dst}")
    if wide is None or fields.off or not _is_packet(pointer):
        return False
    if wide == "mov":
        body = Body(isa.mov(fields.dst, operand))
    elif isinstance(operand, isa.Reg) and _is_packet(site.state(index, f"R{fields.src}")):
        # The distance of two addresses is a number, of which 32 bits are wanted.
        cut = isa.mov32(fields.dst, isa.Reg(fields.dst))
        body = Body.of(isa.alu(wide, fields.dst, operand), cut)
    else:
        body = Body(isa.alu(wide, fields.dst, operand))
    site.patches.replace(site.node(index), body)
    return True


def _uncut(site: RepairSite, index: int, fields: Fields) -> bool:
    """Take out a pair of shifts that cuts an address to 32 bits."""
    if not _is_packet(site.state(index, f"R{fields.dst}")) or fields.code != _LSH:
        return False
    slot = site.slot(index)
    last = int(site.code.blocks.last[site.code.block(slot)])
    for at in range(slot + 1, last + 1):
        other = site.code.fields(at)
        insn = site.code.view.insns[at : at + 1]
        if other.code == _RSH and other.dst == fields.dst and other.imm == 32:
            site.patches.delete(site.node(index))
            site.patches.delete(int(site.code.view.node[at]))
            return True
        if (int(isa.reads(insn)[0]) | int(isa.writes(insn)[0])) >> fields.dst & 1:
            return False
    return False


def _is_packet(state: RegState | None) -> bool:
    return state is not None and state.kind in _PACKET
