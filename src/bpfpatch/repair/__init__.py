"""Mend programs that the verifier refuses although they are right.

::

    done = bp.repair.repair(bp.ElfObject.read("lb.o"))
    if done.report.is_whole:
        done.obj.write("lb.repaired.o")
"""

from .api import Repaired, repair, repair_program
from .report import Mending, Order, ProgramReport, RepairReport
from .rounds import Limits

__all__ = [
    "Limits",
    "Mending",
    "Order",
    "ProgramReport",
    "RepairReport",
    "Repaired",
    "repair",
    "repair_program",
]
