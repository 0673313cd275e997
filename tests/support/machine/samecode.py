"""Whether two programs in the kernel have the same code, their maps being others."""

from __future__ import annotations

import numpy as np

from bpfpatch import isa

_MAPS = (isa.Pseudo.MAP_FD, isa.Pseudo.MAP_VALUE)


def without_maps(xlated: isa.Insns) -> bytes:
    """A program as the kernel hands it out, without what tells its maps from others.

    These are ids in references, and addresses where the kernel has inlined a look-up.
    """
    out = xlated.copy()
    out["imm"][isa.is_pseudo(out, *_MAPS)] = 0
    wide = np.flatnonzero(isa.is_pseudo(out, isa.Pseudo.NUMBER))
    wide = wide[out["imm"][wide + 1] < 0]  # addresses of the kernel's
    out["imm"][wide] = 0
    out["imm"][wide + 1] = 0
    return out.tobytes()


def functions_of(xlated: isa.Insns) -> tuple[bytes, ...]:
    """The same, function by function, in an order that does not depend on the loader's.

    A call is known by its opcode alone: loaders put functions in different orders.
    """
    calls = np.flatnonzero(isa.is_subprog_call(xlated))
    funcs = np.flatnonzero(isa.is_pseudo(xlated, isa.Pseudo.FUNC))
    starts = {0, *(calls + 1 + xlated["off"][calls]).tolist()}
    starts |= set((funcs + 1 + xlated["imm"][funcs]).tolist())
    out = np.frombuffer(without_maps(xlated), isa.INSN).copy()
    out["off"][calls] = 0
    out["imm"][calls] = 0
    out["imm"][funcs] = 0
    out["imm"][funcs + 1] = 0
    return tuple(sorted(part.tobytes() for part in np.split(out, sorted(starts - {0}))))
