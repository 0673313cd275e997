"""Which arguments a function of the kernel takes whole, all 64 bits of them.

Source: linux v6.18, kernel/bpf/verifier.c, check_kfunc_call(), mark_btf_func_reg_size().
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from bpfpatch import isa
from bpfpatch.btf import Btf, Func, FuncProto, Ptr

_WORD: Final = 8
_MOST: Final = 5


def wide_arguments(type_ids: Sequence[int], btf: Btf) -> list[int]:
    """For each function, the registers R1 to R5 that hold its arguments of 8 bytes, as masks.

    Args:
        type_ids: what the calls have.
        btf: the kernel's types.
    """
    return [_of(type_id, btf) for type_id in type_ids]


@lru_cache(4096)
def _of(type_id: int, btf: Btf) -> int:
    """One of them; all of R1 to R5 where that is not a function."""
    func = btf.type(type_id) if 0 < type_id < len(btf) else None
    proto = btf.type(func.type_id) if isinstance(func, Func) else None
    if not isinstance(proto, FuncProto):
        return int(isa.ARGS)
    out = 0
    for register, param in enumerate(proto.params[:_MOST], start=1):
        target = btf.type(btf.resolve(param.type_id))
        if isinstance(target, Ptr) or btf.size_of(param.type_id) == _WORD:
            out |= 1 << register
    return out
