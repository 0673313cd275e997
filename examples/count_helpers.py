"""A pass with a map of its own: count the calls of each helper.

    bpfpatch apply --plugin examples/count_helpers.py -p count-helpers lb.o -o lb.counted.o

Load the result in place of the program; `bpftool map dump name helper_calls`
shows the counts, by the helpers' numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bpfpatch import isa
from bpfpatch.elf import u64_array
from bpfpatch.errors import OptionError
from bpfpatch.facts import MapDefinition
from bpfpatch.facts.kinds import MapType
from bpfpatch.passes import Pass, Scratch, Setting, register
from bpfpatch.patch import PatchList

N_HELPERS = 256
# After the one the kernel allows no calls, after the other nothing runs.
NOT_COUNTED = tuple(isa.HELPER_IDS[name] for name in ("spin_lock", "tail_call"))


@register
@dataclass(frozen=True)
class CountHelpers(Pass):
    """Count the calls of each helper, in an array by the helpers' numbers.

    bpf_spin_lock() and bpf_tail_call() are not counted.

    Attributes:
        map: name of the array.
    """

    name = "count-helpers"
    map: str = "helper_calls"

    def run_for(self, patches: PatchList, setting: Setting) -> None:
        """Add the map, and after each call a look-up and an addition."""
        edit = setting.edit
        if edit is None:
            raise OptionError(
                "pass count-helpers adds a map to an object, and this code is of none"
            )
        edit.add_map(MapDefinition(self.map, MapType.ARRAY, 4, 8, N_HELPERS), u64_array(1))
        view, scratch = patches.view(), Scratch.of(patches, edit.obj)
        is_counted = isa.is_helper_call(view.insns) & ~np.isin(view.insns["imm"], NOT_COUNTED)
        for slot in np.flatnonzero(is_counted).tolist():
            # A call leaves nothing in R1 to R5, so that only its result is to be kept.
            words = scratch.words(slot + 1, 2)
            if not words:
                setting.notices.append(f"slot {slot}: no stack is left to count the call")
                continue
            helper = int(view.insns["imm"][slot])
            patches.insert_after(int(view.node[slot]), self._count(helper, *words))

    def _count(self, helper: int, result: int, key: int) -> str:
        return f"""
            *(u64 *)(r10 - {result}) = r0
            *(u32 *)(r10 - {key}) = {helper}
            r2 = r10
            r2 += -{key}
            r1 = &{self.map}
            call bpf_map_lookup_elem
            if r0 == 0 goto done
            r1 = 1
            lock *(u64 *)(r0 + 0) += r1
        done:
            r0 = *(u64 *)(r10 - {result})
        """
