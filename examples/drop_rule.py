"""A pass that puts a rule in front of XDP programs: drop UDP or TCP to a port.

bpfpatch apply --plugin examples/drop_rule.py -p 'drop-rule{port=11211}' lb.o -o lb.guarded.o
"""

from __future__ import annotations

from dataclasses import dataclass

from bpfpatch.errors import OptionError
from bpfpatch.passes import Pass, Setting, register
from bpfpatch.patch import PatchList

PROTOCOLS = {"tcp": 6, "udp": 17}


@register
@dataclass(frozen=True)
class DropRule(Pass):
    """Drop IPv4 packets to a port before an XDP program sees them.

    Packets with VLAN tags, and fragments but the first, go to the program.

    Attributes:
        port: of the destination.
        protocol: "udp" or "tcp".
    """

    name = "drop-rule"
    port: int
    protocol: str = "udp"

    def __post_init__(self) -> None:
        """Check the options."""
        if self.protocol not in PROTOCOLS or not 0 <= self.port < 1 << 16:
            raise OptionError("pass drop-rule: a port from 0 to 65535, of protocol udp or tcp")

    def run_for(self, patches: PatchList, setting: Setting) -> None:
        """Put the rule in front of each XDP program of the object."""
        if setting.edit is None:
            raise OptionError("pass drop-rule looks for an object's programs, and there is none")
        programs = [one for one in setting.edit.obj.programs if one.type == "xdp"]
        if not programs:
            raise OptionError("pass drop-rule: the object has no XDP program")
        for program in programs:
            # A prologue: it runs when the program starts, not when a loop comes back to there.
            patches.prepend(program.start, self._rule())

    def _rule(self) -> str:
        """At a program's start all registers are free, but R1, the context."""
        return f"""
            r2 = *(u32 *)(r1 + 0)             // data
            r3 = *(u32 *)(r1 + 4)             // data_end
            r4 = r2
            r4 += 34                          // Ethernet, and IPv4 without options
            if r4 > r3 goto on
            r0 = *(u16 *)(r2 + 12)
            r0 = be16 r0
            if r0 != 0x800 goto on
            r0 = *(u8 *)(r2 + 23)
            if r0 != {PROTOCOLS[self.protocol]} goto on
            r0 = *(u16 *)(r2 + 20)
            r0 = be16 r0
            r0 &= 0x1fff                      // a later fragment has no ports
            if r0 != 0 goto on
            r0 = *(u8 *)(r2 + 14)
            r0 &= 0xf
            r0 <<= 2                          // bytes of the IPv4 header
            r2 += r0
            r4 = r2
            r4 += 18
            if r4 > r3 goto on
            r0 = *(u16 *)(r2 + 16)
            r0 = be16 r0
            if r0 != {self.port} goto on
            r0 = 1                            // XDP_DROP
            exit
        on:
        """
