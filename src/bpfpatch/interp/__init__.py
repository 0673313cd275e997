"""Run programs: an interpreter of the whole instruction set with checked memory.

Example::

    machine = Machine(assemble("r0 = *(u8 *)(r1 + 2); exit"))
    machine.run(mem=b"abc").r0                     # 99

    machine = Machine.of_object(ElfObject.read("lb.o"), "xdp_main")
    outcome = machine.run(Xdp(packet))
    outcome.r0, outcome.packet, machine.maps["stats"].contents()
"""

from .contexts import Arguments, Context, Plain, Skb, Xdp
from .errors import BudgetError, HelperError, InterpError, TrapError
from .machine import Environment, HelperCall, Machine, MachineOptions, MachineOutcome
from .maps import SimulatedMap
from .memory import Memory, Region

__all__ = [
    "Arguments",
    "BudgetError",
    "Context",
    "Environment",
    "HelperCall",
    "HelperError",
    "InterpError",
    "Machine",
    "MachineOptions",
    "MachineOutcome",
    "Memory",
    "Plain",
    "Region",
    "SimulatedMap",
    "Skb",
    "TrapError",
    "Xdp",
]
