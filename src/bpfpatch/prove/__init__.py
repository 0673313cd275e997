"""What instructions mean, as terms of z3: registers are bit vectors, memory an array of bytes.

z3 is an extra (``pip install 'bpfpatch[prove]'``), imported when it is first needed.
"""

from .machine import Fields, SymbolicCode, SymbolicState
from .semantics import alu, condition
from .solver import Term, is_available, require_z3

__all__ = [
    "Fields",
    "SymbolicCode",
    "SymbolicState",
    "Term",
    "alu",
    "condition",
    "is_available",
    "require_z3",
]
