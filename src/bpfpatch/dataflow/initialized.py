"""Which registers are certainly set: only those may be read, or spilled."""

from __future__ import annotations

from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.patch import CodeView

from .backward import Masks
from .blocks import Blocks
from .forward import set_before
from .liveness import Liveness

_R1: Final = np.uint16(1 << 1)


def initialized(view: CodeView, blocks: Blocks, liveness: Liveness) -> Masks:
    """Find the registers that are set before each instruction, on every path to it.

    A subprog has those arguments that it reads; the first one, if nothing calls it, is the main
    one and has R1.

    Args:
        view: the code.
        blocks: its blocks.
        liveness: of the view.

    Returns:
        (n,) masks, see `set_before`.
    """
    given = liveness.before[view.starts] & np.uint16(isa.ARGS)
    is_called = view.ref_is_entry & (view.ref_target == 0)
    if not is_called.any():
        given[:1] = _R1
    return set_before(view, blocks, liveness.writes, given)
