"""What ran of an instrumented object, in terms of its source.

::

    ran = coverage.run(ElfObject.read("lb.o"), "balance", [runs.Input(packet=frame)])
    ran.coverage.files["lb.c"].lines[214]  # how often line 214 ran

Counters of programs that run elsewhere come from `bpfpatch.coverage.collect`.
"""

from .counts import BlockCount, Branch, EdgeCount, FunctionCoverage
from .model import Coverage, FileCoverage, cover_map
from .run import Ran, instrumented, run

__all__ = [
    "BlockCount",
    "Branch",
    "Coverage",
    "EdgeCount",
    "FileCoverage",
    "FunctionCoverage",
    "Ran",
    "cover_map",
    "instrumented",
    "run",
]
