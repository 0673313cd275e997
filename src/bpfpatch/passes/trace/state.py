"""What is known of the code in front of each of its instructions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bpfpatch import isa
from bpfpatch.btf import Btf
from bpfpatch.dataflow.backward import Masks
from bpfpatch.dataflow.blocks import Blocks
from bpfpatch.dataflow.initialized import initialized
from bpfpatch.dataflow.liveness import Liveness
from bpfpatch.dataflow.stackargs import passing
from bpfpatch.patch import CodeView, PatchList
from bpfpatch.program.types import LOST, Mask, Slots

from ..cover.flow import may_vanish
from ..kfuncs import arguments_taken, roots_of, with_stand_ins
from ..locks import held
from ..scratch import fastcall_sequences
from ..sites import UNWOUND, indirect_targets, landing_pads, unwound
from .frames import Frames
from .maybe import MaybeSet


class TraceState:
    """The code of a list as it is now.

    Args:
        patches: the list.
        names: of kernel functions, by the slot of the call in the original program.
        btf: types that have their prototypes.
        programs: slots of the original program where a program starts.

    Attributes:
        view: the code, with helper calls for those of kernel functions.
        blocks: its blocks, which end at calls that may not return.
        writes: (n,) registers that each instruction defines or destroys.
    """

    def __init__(
        self,
        patches: PatchList,
        names: dict[int, str] | None = None,
        btf: Btf | None = None,
        programs: tuple[int, ...] = (0,),
    ) -> None:
        view, program, names = patches.view(), patches.program, names or {}
        kfuncs = {
            slot: names[node] for slot, node in enumerate(view.node.tolist()) if node in names
        }
        self._inside = _inside_sequences(view)
        self.view = view = with_stand_ins(view, kfuncs, btf)
        throws = [slot for slot, name in kfuncs.items() if name == "bpf_throw"]
        self._unwound = unwound(program, view)
        throws += landing_pads(program, view).tolist()
        leaves = may_vanish(view, np.array(throws, np.int32))
        self.blocks = blocks = Blocks.of(view, indirect_targets(program, view), leaves)
        mains = np.flatnonzero(np.isin(view.node, programs)).astype(np.int32)
        # A global function's arguments are checked where it is called, read or not.
        takes = arguments_taken(view, program, btf)
        roots = roots_of(view, program, btf, mains)
        first = Liveness.of(view, blocks, takes=takes, roots=roots)
        known = _initialized(view, blocks, first, mains)
        liveness = Liveness.of(view, blocks, known, takes, roots)
        self.writes = liveness.writes
        self._live = liveness.before
        self._set = _initialized(view, blocks, liveness, mains)
        self._maybe = MaybeSet(view, blocks, liveness.writes, mains)
        self._held = held(view, blocks, kfuncs)
        self._passing = passing(view, blocks)
        self._frames = Frames(patches, view, blocks, btf)

    def live(self, slot: int) -> int:
        """Registers that are live before an instruction, as a mask."""
        return int(self._live[slot]) & self._maybe.at(slot)

    def known(self, slot: int) -> int:
        """Registers that have a value: every path there sets them, or they are live."""
        return (int(self._set[slot]) | int(self._live[slot])) & self._maybe.at(slot)

    def obstacle(self, slot: int) -> str:
        """Why no helper can be called in front of an instruction, or ""."""
        if self._inside[slot]:
            return "it is inside of a sequence that the kernel knows and that must stay together"
        if self._held[slot]:
            return "a lock may be held, and the kernel allows no calls of helpers then"
        if self._unwound[self.blocks.subprog[self.block(slot)]]:
            return UNWOUND
        if self._passing[slot]:
            return "arguments are on their way through R11, and a call would lose them"
        return ""

    def block(self, slot: int) -> int:
        """The number of the block that a slot is in."""
        return int(np.searchsorted(self.blocks.start, slot, side="right")) - 1

    def is_jumped_to(self, slot: int) -> bool:
        """Whether some jump leads to the instruction."""
        view = self.view
        hits: Mask = ~view.ref_is_entry & (view.ref_target == slot) & (view.ref_target != LOST)
        block = self.block(slot)
        return bool(hits.any()) or any(block in goals for goals in self.blocks.indirect.values())

    def home(self, slot: int, n_bytes: int) -> int | str:
        """Bytes below R10 of n_bytes of the frame that are unused, or why there are none."""
        return self._frames.home(slot, n_bytes)


def _inside_sequences(view: CodeView) -> Mask:
    out = np.zeros(len(view), bool)
    starts = np.flatnonzero(view.node >= 0).astype(np.int32)
    for begin, end in fastcall_sequences(view.insns, starts):
        out[begin : end + 1] = True
    return out


def _initialized(view: CodeView, blocks: Blocks, liveness: Liveness, programs: Slots) -> Masks:
    """(n,) registers that are set; a program is given R1, whether it reads it or not."""
    before = liveness.before.copy()
    before[programs] |= np.uint16(1 << isa.R1)
    # The first of the starts counts as the only program's; a second one at its place does not.
    starts = np.concatenate([view.starts[:1], view.starts])
    return initialized(replace(view, starts=starts), blocks, replace(liveness, before=before))
