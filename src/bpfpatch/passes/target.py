"""For whom a pipeline rewrites."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from bpfpatch.errors import OptionError


@dataclass(frozen=True, slots=True)
class Target:
    """Who is to run the result.

    Attributes:
        is_loadable: whether bpf(2) must accept it; else it is the kernel's own form.
        cpu: the highest cpu version that may be used, 1 to 4; None for any.
    """

    is_loadable: bool = True
    cpu: int | None = None

    def __post_init__(self) -> None:
        """Check the version.

        Raises:
            OptionError: no such version.
        """
        if self.cpu not in (None, 1, 2, 3, 4):
            raise OptionError(f"cpu is v1, v2, v3 or v4, not {self.cpu!r}")

    @classmethod
    def loadable(cls, cpu: str | int | None = None) -> Self:
        """A program for bpf(2), of at most this cpu version: ``"v3"`` or 3.

        Raises:
            OptionError: no such version.
        """
        if cpu is None:
            return cls()
        number = str(cpu).removeprefix("v")
        if number not in ("1", "2", "3", "4"):
            raise OptionError(f"cpu is v1, v2, v3 or v4, not {cpu!r}")
        return cls(cpu=int(number))

    @classmethod
    def internal(cls) -> Self:
        """The form that the kernel makes of a program, which bpf(2) refuses."""
        return cls(is_loadable=False)
