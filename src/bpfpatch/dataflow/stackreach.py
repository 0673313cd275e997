"""What each function does with the bytes of its stack frame, and of its callers' frames."""

from __future__ import annotations

import numpy as np

from bpfpatch import isa
from bpfpatch.patch import CodeView
from bpfpatch.program.types import LOST, Mask

from .blocks import Blocks
from .stackvalues import DEEPEST, LOADED, ceiling_of, floor_of
from .stackwalk import FrameWalk, Reach, WalkStep

_FP = int(isa.R10)


class FrameWalks:
    """Follows addresses of stack frames through the functions of a view.

    Addresses are followed through moves, additions, and words of the frame in
    which they were stored; through subprogs and callbacks, whatever is called
    goes as far from an address as its own code does from that argument.
    Helpers and kernel functions go upwards from the address that they are given, and so
    does a function that the verifier checks alone, by its types: it takes all that the
    type of an argument has for read and overwritten, whatever the code does.

    Args:
        view: the code.
        blocks: its blocks.
        checked: (m,) functions that the verifier checks alone: global ones; by default none.

    What the verifier would refuse needs no answer: other arithmetic makes no
    address, an atomic operation stores and fetches none, and none gets into a
    caller's frame.

    Source: linux v6.18, kernel/bpf/verifier.c, adjust_ptr_min_max_vals(),
    check_stack_write_fixed_off(), check_stack_read_fixed_off(), prepare_func_exit(),
    btf_check_func_arg_match().
    """

    def __init__(self, view: CodeView, blocks: Blocks, checked: Mask | None = None) -> None:
        self.checked = np.zeros(len(view.starts), bool) if checked is None else checked
        self.view = view
        self.blocks = blocks
        live = view.ref_is_entry & (view.ref_target != LOST)
        slot, target = view.ref_slot[live], view.subprog_of(view.ref_target[live])
        is_call = isa.is_subprog_call(view.insns)[slot]
        self.callee: dict[int, int] = dict(
            zip(slot[is_call].tolist(), target[is_call].tolist(), strict=True)
        )
        self._pointed: dict[int, int] = dict(
            zip(slot[~is_call].tolist(), target[~is_call].tolist(), strict=True)
        )
        self._found: dict[tuple[int, int], Reach | None] = {}

    def depth(self, subprog: int) -> tuple[int, bool]:
        """How many bytes below R10 a subprog reaches, and whether that is certain."""
        low = self.reach(subprog, 0).get(0, (0, 0))[0]
        return (-low, True) if low >= -DEEPEST else (self._seen(subprog), False)

    def reach(self, subprog: int, args: int) -> Reach:
        """How far a subprog goes.

        Args:
            subprog: index into the view's ``starts``.
            args: the arguments, as a mask of registers, that are addresses in a frame.
        """
        key = subprog, args
        if key not in self._found:
            self._found[key] = None
            self._found[key] = FrameWalk(self, subprog, args).reach()
        found = self._found[key]
        if found is None:  # it calls itself
            return {base: (floor_of(base), ceiling_of(base)) for base in range(LOADED + 1)}
        return found

    def callbacks(self, slot: int, register: int) -> set[int]:
        """The subprogs that a helper may be told to call.

        The address of a function is a value like others: it may come from a caller, a callee or a
        frame. Only what the block itself puts into the register is certain.

        Args:
            slot: of the helper's call.
            register: the argument that says which.
        """
        block = int(np.searchsorted(self.blocks.start, slot, "right")) - 1
        start = int(self.blocks.start[block])
        writes = isa.writes(self.view.insns[start:slot]) >> register & 1
        writes[self.view.node[start:slot] < 0] = 0
        last = np.flatnonzero(writes)
        if last.size and start + int(last[-1]) in self._pointed:
            return {self._pointed[start + int(last[-1])]}
        return set(self._pointed.values())

    def steps(self, subprog: int) -> list[list[WalkStep]]:
        """By block of a subprog what its instructions do with the frame, in order."""
        return FrameWalk(self, subprog, 0).steps()

    def _seen(self, subprog: int) -> int:
        """Bytes below R10 that are in use for certain, where others might be, too."""
        bounds = [*self.view.starts.tolist(), len(self.view)]
        insns = self.view.insns[bounds[subprog] : bounds[subprog + 1]]
        is_load = isa.is_load(insns)
        base = np.where(is_load, isa.src(insns), isa.dst(insns))
        is_access = is_load | isa.is_store(insns) | isa.is_atomic(insns)
        off = insns["off"][is_access & (base == _FP)]
        return min(max(-int(off.min(initial=0)), 0), DEEPEST)
