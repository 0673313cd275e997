"""Exception callbacks: functions that only a declaration tag of another one names."""

from __future__ import annotations

from typing import Final

import numpy as np

from .btf import Btf
from .types import DeclTag
from .wire import Kind

EXCEPTION_CALLBACK: Final = "exception_callback:"


def exception_callbacks(btf: Btf) -> dict[int, str]:
    """Names of exception callbacks by the type id of the function that declares one.

    Raises:
        FormatError: a declaration tag is broken.
    """
    out = {}
    for type_id in np.flatnonzero(btf.kinds == Kind.DECL_TAG).tolist():
        tag = btf.type(type_id)
        if isinstance(tag, DeclTag) and tag.name.startswith(EXCEPTION_CALLBACK):
            out[tag.type_id] = tag.name.removeprefix(EXCEPTION_CALLBACK)
    return out
