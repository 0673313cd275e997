"""Unused stack bytes, even where the frame's address escapes.

What is called may go upwards from an address that it is given, as helpers do.
Whether it does nothing else is found out by following its arguments as if
they were addresses in its own frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.btf import Btf, Func, FuncProto, Kind, Ptr
from bpfpatch.dataflow.blocks import Blocks
from bpfpatch.dataflow.stackuse import StackUse
from bpfpatch.facts.helperproto import MOST_ARGS
from bpfpatch.patch import Body, CodeView, PatchList
from bpfpatch.program.types import LOST, Insns, Mask

from ..kfuncs import checked_alone
from ..sites import indirect_targets
from .mapping import WORD

_MAY_GOTO_BYTES: Final = 16
"""What the kernel adds to the frame of a function with a may_goto."""
_ANY_HELPER: Final = isa.call_helper("csum_diff")[0]
"""A helper of five arguments, in place of all that is called."""


class Frames:
    """The frames of a list's functions.

    Args:
        patches: the list.
        view: its code, with helper calls for those of kernel functions.
        blocks: its blocks.
        btf: types that have the functions' prototypes.
    """

    def __init__(self, patches: PatchList, view: CodeView, blocks: Blocks, btf: Btf | None) -> None:
        self._patches = patches
        self._view = view
        self._btf = btf
        checked = checked_alone(view, patches.program, btf)
        certain = StackUse.of(view, blocks, checked)
        self._use = certain
        self._is_known = certain.is_known.copy()
        if not certain.is_known.all():
            self._use = StackUse.of(
                replace(view, insns=_without_calls(view.insns)), blocks, checked
            )
            self._is_known |= self._use.is_known & self._is_upward()

    def home(self, slot: int, n_bytes: int) -> int | str:
        """Bytes below R10 of n_bytes of a slot's frame that are unused, or why there are none."""
        subprog = int(self._view.subprog_of(np.array([slot], np.int32))[0])
        if not self._is_known[subprog]:
            return (
                f"{n_bytes} bytes of stack are needed, and which of them are free is not known: "
                "an address in the frame is computed, or given to a function that may go anywhere "
                "from it"
            )
        more = _MAY_GOTO_BYTES if isa.is_may_goto(self._body(subprog)).any() else 0
        deepest, room = int(self._use.deepest[subprog]), int(self._use.room[subprog])
        bottom = -(-deepest // WORD) * WORD + n_bytes
        if bottom + more - deepest > room:
            return (
                f"{n_bytes} bytes of stack are needed, and the function may have "
                f"{max(room - more, 0)} more; trace fewer registers"
            )
        return bottom

    def _body(self, subprog: int) -> Insns:
        bounds = [*self._view.starts.tolist(), len(self._view)]
        return self._view.insns[bounds[subprog] : bounds[subprog + 1]]

    def _is_upward(self) -> Mask:
        """(m,) whether all that a function calls goes upwards from what it is given."""
        view = self._view
        live = view.ref_is_entry & (view.ref_target != LOST)
        callers = view.subprog_of(view.ref_slot[live]).tolist()
        callees = view.subprog_of(view.ref_target[live]).tolist()
        good = self._arguments_go_upward(sorted(set(callees)))
        good &= np.array([not _goes_back(self._body(one)) for one in range(len(good))], bool)
        out = good.copy()
        # Who calls what does not is none either, however far down it is.
        while True:
            before = out.copy()
            for caller, callee in zip(callers, callees, strict=True):
                out[caller] &= out[callee]
            if (before == out).all():
                return out

    def _arguments_go_upward(self, callees: list[int]) -> Mask:
        """(m,) whether a function touches nothing below what its arguments point at."""
        view = self._view
        depth = [-(-int(self._use.deepest[one]) // WORD) * WORD + WORD for one in callees]
        done = self._patches.linearize().program
        probe = PatchList(done)
        starts = probe.view().starts
        for callee, bottom in zip(callees, depth, strict=True):
            given = [
                part
                for register in self._pointers(callee)
                for part in (isa.mov(register, isa.R10), isa.alu("+=", register, -bottom))
            ]
            if given:
                probe.prepend(int(starts[callee]), Body.of(*given))
        tried = probe.view()
        use = StackUse.of(
            replace(tried, insns=_without_calls(tried.insns)),
            Blocks.of(tried, indirect_targets(done, tried)),
        )
        out = np.ones(len(view.starts), bool)
        out[callees] = use.is_known[callees] & (use.deepest[callees] <= depth)
        return out

    def _pointers(self, subprog: int) -> list[int]:
        """Registers of those arguments of a function that may be addresses."""
        name = self._patches.program.subprogs.names[int(self._view.subprog[subprog])]
        protos = list(_protos(self._btf, name)) if self._btf is not None and name else []
        if not protos or self._btf is None:
            return list(range(1, MOST_ARGS + 1))
        btf = self._btf
        found = {
            1 + at
            for proto in protos
            for at, param in enumerate(proto.params[:MOST_ARGS])
            if isinstance(btf.type(btf.resolve(param.type_id)), Ptr)
        }
        return sorted(found)


def _protos(btf: Btf, name: str) -> Iterator[FuncProto]:
    for type_id in btf.find(name, Kind.FUNC):
        func = btf.type(type_id)
        proto = btf.type(func.type_id) if isinstance(func, Func) else None
        if isinstance(proto, FuncProto):
            yield proto


def _without_calls(insns: Insns) -> Insns:
    """The instructions with a helper in place of all that is called."""
    out = insns.copy()
    out[isa.is_call(insns)] = _ANY_HELPER
    return out


def _goes_back(insns: Insns) -> bool:
    """Whether an access goes downwards from an address that is not the frame's own."""
    is_load = isa.is_load(insns)
    is_access = is_load | isa.is_store(insns) | isa.is_atomic(insns)
    base = np.where(is_load, isa.src(insns), isa.dst(insns))
    return bool((is_access & (base != isa.R10) & (insns["off"] < 0)).any())
