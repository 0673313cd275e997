"""Does a rewritten program behave as the original? Runs both, and looks for where they part.

::

    verdict = verify(linked, linked.with_code(result), obj=obj, provenance=result)
    if verdict.differs:
        print(verdict)
"""

from .api import verify, verify_objects
from .case import POINTER_MARK, Case, Entry
from .compare import WHAT, Difference
from .coverage import BranchCoverage
from .search import Bounds
from .trace import TraceRow
from .verdict import Counterexample, Verdict

__all__ = [
    "POINTER_MARK",
    "WHAT",
    "Bounds",
    "BranchCoverage",
    "Case",
    "Counterexample",
    "Difference",
    "Entry",
    "TraceRow",
    "Verdict",
    "verify",
    "verify_objects",
]
