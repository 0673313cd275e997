"""A pass that takes debugging out: bpf_printk(), and what only it needed.

bpfpatch apply --plugin examples/drop_printk.py -p drop-printk lb.o -o lb.quiet.o
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bpfpatch import isa
from bpfpatch.passes import Pass, Scratch, Setting, register
from bpfpatch.patch import PatchList
from bpfpatch.program.types import Slots

PRINTERS = tuple(isa.HELPER_IDS[name] for name in ("trace_printk", "trace_vprintk"))


@register
@dataclass(frozen=True)
class DropPrintk(Pass):
    """Take out bpf_printk(), with what only its calls needed: arguments, and their formats.

    Where a program goes by its result, that is 0 then.
    """

    name = "drop-printk"

    def run_for(self, patches: PatchList, setting: Setting) -> None:
        """Take the calls out, and then whatever makes a value that nothing reads any more."""
        view = patches.view()
        is_printer = isa.is_helper_call(view.insns) & np.isin(view.insns["imm"], PRINTERS)
        calls = view.node[is_printer]
        if not calls.size:
            return
        before = self._unused(patches, setting)
        patches.replace(calls, "r0 = 0")
        while (unused := np.setdiff1d(self._unused(patches, setting), before)).size:
            patches.delete(unused)
        if setting.edit is not None:
            setting.edit.prunes = True  # maps and formats that only this code has used go, too

    def _unused(self, patches: PatchList, setting: Setting) -> Slots:
        """(k,) nodes that do nothing but set a register, which is set again before it is read."""
        view = patches.view()
        live = Scratch.of(patches, setting.edit.obj if setting.edit else None).liveness.before
        is_pure = (view.node >= 0) & (isa.is_alu(view.insns) | isa.is_ld_imm64(view.insns))
        pure = np.flatnonzero(is_pure)
        after = pure + 1 + isa.is_ld_imm64(view.insns)[pure]
        is_read = live[after] >> isa.dst(view.insns)[pure] & 1
        return view.node[pure[is_read == 0]]
