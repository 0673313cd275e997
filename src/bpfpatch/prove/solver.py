"""z3, if it is installed."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any, Final

from bpfpatch.errors import OptionError

HOW_TO_INSTALL: Final = "pip install 'bpfpatch[prove]'"

Term = Any
"""A z3 expression; z3 has no types of its own to name."""


def is_available() -> bool:
    """Whether z3 is installed."""
    return importlib.util.find_spec("z3") is not None


def require_z3() -> Any:
    """The module z3.

    Raises:
        OptionError: it is not installed.
    """
    if not is_available():
        raise OptionError(f"a proof takes z3, which is not installed: {HOW_TO_INSTALL}")
    return importlib.import_module("z3")
