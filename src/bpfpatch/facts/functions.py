"""Functions of the kernel that are no helpers, but that the kernel itself puts calls of in.

In the kernel's own form a helper call has an address for its number. Addresses
are another on each machine: here a helper keeps its number, and each other
function has one above all helpers.
"""

from __future__ import annotations

from typing import Final

from bpfpatch.errors import OptionError

FIRST_FUNCTION: Final = 1 << 16

FUNCTIONS: Final = (
    "__htab_map_lookup_elem",
    "htab_map_update_elem",
    "htab_map_delete_elem",
)
"""Names as in /proc/kallsyms; appended to, never reordered."""

_NUMBER: Final = {name: FIRST_FUNCTION + index for index, name in enumerate(FUNCTIONS)}


def function(name: str) -> int:
    """The number of a function, for a call's immediate.

    Raises:
        OptionError: it is none of `FUNCTIONS`.
    """
    if name not in _NUMBER:
        raise OptionError(f"no number is known for the kernel's function {name!r}")
    return _NUMBER[name]


def function_name(number: int) -> str | None:
    """The name for a number, or None."""
    index = number - FIRST_FUNCTION
    return FUNCTIONS[index] if 0 <= index < len(FUNCTIONS) else None
