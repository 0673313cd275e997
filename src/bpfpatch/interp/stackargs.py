"""Arguments from the sixth on, as one running function sees them.

Source: linux v7.2, kernel/bpf/verifier.c, check_stack_arg_read(), check_stack_arg_write() and
invalidate_outgoing_stack_args(): what the verifier refuses is an error here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .image import Image

_IN_REGISTERS = 5


class PassedArgs:
    """What a function was given by R11, and what it has stored for its next call.

    Args:
        image: whose machine holds what the caller has stored.
    """

    __slots__ = ("_given", "_image", "_may_load", "_stored")

    def __init__(self, image: Image) -> None:
        self._image = image
        self._given = image.machine.passed
        self._stored: dict[int, int] = {}
        self._may_load = True
        image.machine.passed = {}

    def load(self, which: int, slot: int) -> int:
        """The function's own argument of a number, counted after the fifth.

        Raises:
            TrapError: the caller has not stored it, or it is too late.
        """
        number = _IN_REGISTERS + which
        if not self._may_load:
            self._image.bad_argument(
                slot, f"argument {number} is loaded after a call, or after a store of another one"
            )
        return self._found(self._given, which, slot)

    def store(self, which: int, value: int) -> None:
        """Store an argument for the next call."""
        self._stored[which] = value
        self._may_load = False

    def take(self) -> dict[int, int]:
        """What has been stored, by number after the fifth; a call uses it up."""
        out, self._stored = self._stored, {}
        self._may_load = False
        return out

    def more(self, taken: dict[int, int], n_args: int, slot: int) -> tuple[int, ...]:
        """What a kernel function of so many arguments gets beside R1 to R5.

        Raises:
            TrapError: one has not been stored.
        """
        wanted = range(1, n_args - _IN_REGISTERS + 1)
        return tuple(self._found(taken, which, slot) for which in wanted)

    def _found(self, given: dict[int, int], which: int, slot: int) -> int:
        value = given.get(which)
        if value is None:
            self._image.bad_argument(
                slot, f"argument {_IN_REGISTERS + which} is not stored since the last call"
            )
        return value
