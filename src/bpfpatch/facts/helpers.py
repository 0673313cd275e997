"""How many arguments a helper takes, and which leave nothing in R0."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.program.types import Insns

MOST_ARGS: Final = 5

# One digit a helper, in the order of their numbers from 1 on.
_COUNTS: Final = (
    "242305005553300213144221543533323103232210323112543442435224224325454444443414102425513224"
    "431111115543334442155333321044511305312432222111114443423354142124202031545341323111134145"
    "4332101144533231442255333220442"
)
_VOID: Final = (
    "tail_call",
    "spin_lock",
    "spin_unlock",
    "set_hash_invalid",
    "ringbuf_submit",
    "ringbuf_discard",
    "ringbuf_submit_dynptr",
    "ringbuf_discard_dynptr",
)

_ARGS_OF: Final = np.array(
    [isa.ARGS, *(((1 << int(count)) - 1) << 1 for count in _COUNTS)], np.uint16
)
_IS_VOID: Final = np.zeros(len(_ARGS_OF), np.bool_)
_IS_VOID[[isa.HELPER_IDS[name] for name in _VOID]] = True


def helper_args(insns: Insns) -> NDArray[np.uint16]:
    """The argument registers that helper calls read.

    Args:
        insns: (n,) helper calls.

    Returns:
        (n,) masks of R1 to R5; all of them where the helper is not known.

    Source: bpf_helper_defs.h of libbpf v1.5. bpf_trace_printk takes any number: all five.
    """
    return _ARGS_OF[_number(insns)]


def returns_nothing(insns: Insns) -> NDArray[np.bool_]:
    """(n,) helper calls behind which R0 might not be readable.

    Source: linux v6.18, the ret_type of bpf_*_proto: RET_VOID.
    """
    number = _number(insns)
    out: NDArray[np.bool_] = _IS_VOID[number] | (number == 0)
    return out


def _number(insns: Insns) -> NDArray[np.int64]:
    """(n,) helper numbers; 0 for one that is not in the table."""
    imm = insns["imm"].astype(np.int64)
    return np.where((imm > 0) & (imm < len(_ARGS_OF)), imm, 0)
