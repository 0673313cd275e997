"""What the kernel makes of a program, next to what our pipeline makes of it.

::

    with kernel.open_object("lb.o", []) as lb:
        loaded = lb.load("balance")
        given = with_aux(...)
        print(parity.compare(loaded, given, Pipeline.kernel("6.18")).is_equal)
"""

from .compare import Parity, ParityDifference, Part, compare, first_difference
from .masks import unmask
from .names import helpers_of, implementations
from .normal import Normal, normal_ours, normal_theirs

__all__ = [
    "Normal",
    "Parity",
    "ParityDifference",
    "Part",
    "compare",
    "first_difference",
    "helpers_of",
    "implementations",
    "normal_ours",
    "normal_theirs",
    "unmask",
]
