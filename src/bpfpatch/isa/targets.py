"""What a target takes: cpu versions 1 to 4, and the newest kernels.

A version is what compilers mean by ``-mcpu=vN``; it says which instructions
there are, not which helpers or program types.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt

from bpfpatch.errors import OptionError

from .encoding import Insns
from .opcodes import CPU_NEWER
from .predicates import min_cpu


@dataclass(frozen=True, slots=True)
class Cpu:
    """One cpu version.

    Attributes:
        name: ``v1`` to ``v4``, or ``newest``.
        version: 1 to 5; a higher one takes all that a lower one does.
    """

    name: str
    version: int

    def refused(self, insns: Insns) -> npt.NDArray[np.int64]:
        """Find what this target does not take.

        Args:
            insns: (n,) `INSN`.

        Returns:
            Slots, ascending int64; kernel-internal and unknown ones always.
        """
        return np.flatnonzero(min_cpu(insns) > self.version)

    @classmethod
    def parse(cls, name: str) -> Cpu:
        """Look a target up by name.

        Raises:
            OptionError: there is none of that name.
        """
        cpu = TARGETS.get(name)
        if cpu is None:
            raise OptionError(f"there is no cpu {name!r}; choose one of {', '.join(TARGETS)}")
        return cpu


TARGETS: Final[Mapping[str, Cpu]] = MappingProxyType(
    {
        **{f"v{version}": Cpu(f"v{version}", version) for version in range(1, 5)},
        "newest": Cpu("newest", CPU_NEWER),
    }
)
"""All targets by name, oldest first."""
