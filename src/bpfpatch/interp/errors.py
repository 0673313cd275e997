"""What goes wrong while a program runs.

::

    SlotError
    `-- InterpError        a run that could not come to its end: also has callers
        |-- TrapError      an access to no memory, or an instruction that cannot run
        |-- BudgetError    too many instructions, or too much memory
        `-- HelperError    a helper or kfunc that is unknown, or that failed

Outside of a run, where there is no instruction to blame (a map that is set from
Python, say), their causes are raised as they are: `StrayAccess`, `OutOfMemory`
and `BadHelperUse`.
"""

from __future__ import annotations

from bpfpatch.errors import BpfPatchError, SlotError, Where


class InterpError(SlotError):
    """A run that could not come to its end.

    Attributes:
        callers: slots of the calls that were open, innermost first.
    """

    def __init__(self, where: Where, what: str) -> None:
        super().__init__(where, what)
        self.callers: list[int] = []
        self._is_placed = False

    def left_through(self, slot: int) -> None:
        """Note that the error leaves a function at this slot; the first one is its own."""
        if self._is_placed:
            self.callers.append(slot)
        self._is_placed = True


class TrapError(InterpError):
    """An access to memory that is not there, or an instruction that cannot run.

    Attributes:
        address: the first byte of the access, or None where no access was to blame.
        size: bytes of the access, or 0.
        access: "read" or "write", or "".
        regions: the memory that there was, a line each.
    """

    def __init__(
        self,
        where: Where,
        what: str,
        address: int | None = None,
        size: int = 0,
        access: str = "",
        regions: tuple[str, ...] = (),
    ) -> None:
        self.address = address
        self.size = size
        self.access = access
        self.regions = regions
        super().__init__(where, what)


class BudgetError(InterpError):
    """More instructions or memory than the machine was given.

    Attributes:
        budget: how much it was given.
        unit: "instructions", "bytes" or "frames".
    """

    def __init__(self, where: Where, what: str, budget: int, unit: str) -> None:
        self.budget = budget
        self.unit = unit
        super().__init__(where, what)


class HelperError(InterpError):
    """A helper or kfunc that the machine lacks, or whose arguments make no sense to it.

    Attributes:
        helper: its name, or its number where it has none.
    """

    def __init__(self, where: Where, helper: str, what: str) -> None:
        self.helper = helper
        super().__init__(where, what)


class StrayAccess(BpfPatchError):  # noqa: N818 - in a run a TrapError is made of it
    """An access to memory that is not there."""

    def __init__(self, address: int, size: int, access: str) -> None:
        super().__init__(f"{access} of {size} bytes at {address:#x}")
        self.address = address
        self.size = size
        self.access = access


class OutOfMemory(BpfPatchError):  # noqa: N818 - in a run a BudgetError is made of it
    """More memory than the machine may have."""

    def __init__(self, wanted: int, limit: int) -> None:
        super().__init__(f"{wanted} bytes of memory, where {limit} are allowed")
        self.limit = limit


class TooMuchMoved(OutOfMemory):
    """More bytes read and written by helpers than a run may take."""

    def __init__(self, limit: int) -> None:
        BpfPatchError.__init__(
            self,
            f"helpers have read and written more than {limit} bytes in this run; "
            "look for a loop without end",
        )
        self.limit = limit


class BadHelperUse(BpfPatchError):  # noqa: N818 - in a run a HelperError is made of it
    """Arguments that a helper cannot make sense of."""
