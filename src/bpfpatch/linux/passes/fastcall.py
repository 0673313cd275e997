"""fastcall: take out spills around calls that leave the registers alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.btf import Btf, Func, FuncProto
from bpfpatch.dataflow.blocks import Blocks
from bpfpatch.dataflow.stackuse import StackUse
from bpfpatch.errors import OptionError
from bpfpatch.facts import ProgType
from bpfpatch.facts.columns import SEEN, STACK_DEPTH
from bpfpatch.facts.helpers import helper_args, helpers_where, returns_nothing
from bpfpatch.passes.base import Pass, register
from bpfpatch.passes.search import CodeIndex
from bpfpatch.passes.setting import Setting
from bpfpatch.passes.sites import indirect_targets
from bpfpatch.patch import Body, CodeView, PatchList
from bpfpatch.program.types import Insns, Mask, Slots

from .fixups.depths import set_stack_depths, stack_depths

_SPILL: Final = 0x7B
_FILL: Final = 0x79
_FP: Final = 10
_WORD: Final = 8
_MOST: Final = 5

_FAST_HELPERS: Final = list(helpers_where(lambda proto: proto.is_fast))
_FAST_KFUNCS: Final = ("bpf_cast_to_kern_ctx", "bpf_rdonly_cast")

_SLOW_CPU_NUMBER: Final = (
    ProgType.SOCKET_FILTER,
    ProgType.CGROUP_SKB,
    ProgType.CGROUP_SOCK,
    ProgType.SOCK_OPS,
    ProgType.SK_SKB,
    ProgType.CGROUP_DEVICE,
    ProgType.SK_MSG,
    ProgType.CGROUP_SOCK_ADDR,
    ProgType.SK_REUSEPORT,
    ProgType.FLOW_DISSECTOR,
    ProgType.CGROUP_SYSCTL,
    ProgType.CGROUP_SOCKOPT,
    ProgType.SK_LOOKUP,
    ProgType.NETFILTER,
)
"""Kinds of programs that get a get_smp_processor_id without the promise, as v6.18 shows."""

_NOP: Final = Body(isa.nop())
_NEUTRAL: Final = isa.mov(isa.R0, isa.R0)[0]
_ANY_HELPER: Final = isa.call_helper("map_update_elem")[0]


@register
@dataclass(frozen=True)
class Fastcall(Pass):
    """Replace spills and fills around calls that clobber none of those registers by nops.

    A pattern is a run of 8-byte spills in front of a call, and the same
    registers' fills after it, in reverse, at the lowest slots of the frame
    that any such spill uses. Nothing else of the subprog may touch those
    slots; then the frame ends above them. `nops` takes out what is left.

    Source: linux v6.18, kernel/bpf/verifier.c, mark_fastcall_patterns(),
    check_fastcall_stack_contract() and remove_fastcall_spills_fills().
    """

    name = "fastcall"
    is_internal = True
    uses = (SEEN, STACK_DEPTH)

    def run_for(self, patches: PatchList, setting: Setting) -> None:
        """Find the patterns, check what else uses their slots, and replace them."""
        view = patches.view()
        if not (view.insns["code"] == _SPILL).any():
            return
        patterns = _Patterns.of(view, _Calls.of(view, setting))
        if not patterns.site.size:
            return
        blocks = Blocks.of(view, indirect_targets(patches.program, view))
        has_depths = STACK_DEPTH in patches.program.tables
        depths = stack_depths(patches)[view.subprog] if has_depths else None
        is_clean = patterns.is_clean(view, blocks, _seen(patches, view), depths)
        around = patterns.around(is_clean)
        if not around.size:
            return
        _replace(patches, view, around)
        if has_depths:
            _lower_depths(patches, view, patterns.depths(is_clean))


@dataclass(frozen=True, slots=True, eq=False)
class _Calls:
    """Calls whose arguments are known.

    Attributes:
        slot: (c,) where they are.
        clobbers: (c,) masks of R0 to R5 that each clobbers, going by its signature.
        is_fast: (c,) whether it keeps the promise not to clobber more.
    """

    slot: Slots
    clobbers: NDArray[np.uint16]
    is_fast: Mask

    @classmethod
    def of(cls, view: CodeView, setting: Setting) -> _Calls:
        """All helper and kfunc calls of a view."""
        insns, code = view.insns, CodeIndex(view)
        helpers, kfuncs = code.helper_calls, code.kfunc_calls
        clobbers, is_fast = _of_helpers(insns[helpers], setting)
        if not kfuncs.size:
            return cls(helpers, clobbers, is_fast)
        btf = setting.target.btf
        if btf is None:
            raise OptionError(
                "pass fastcall needs the kernel's types, to know what a kernel function "
                "clobbers: give Target.internal(btf=...)"
            )
        more, is_fast_too = _of_kfuncs(insns["imm"][kfuncs], btf)
        return cls(
            np.concatenate([helpers, kfuncs]),
            np.concatenate([clobbers, more]),
            np.concatenate([is_fast, is_fast_too]),
        )


def _of_helpers(calls: Insns, setting: Setting) -> tuple[NDArray[np.uint16], Mask]:
    args = helper_args(calls, are_checked=True)
    clobbers = args | ~returns_nothing(calls)
    subject = setting.subject
    is_slow = subject is None or subject.prog_type in _SLOW_CPU_NUMBER
    # It is inlined here, and elsewhere done by the JIT.
    is_there = setting.target.arch.name in ("x86_64", "aarch64", "riscv64")
    return clobbers, np.isin(calls["imm"], _FAST_HELPERS) & (is_there and not is_slow)


def _of_kfuncs(ids: NDArray[np.int32], btf: Btf) -> tuple[NDArray[np.uint16], Mask]:
    known, which = np.unique(ids, return_inverse=True)
    clobbers = np.array([_kfunc_clobbers(btf, type_id) for type_id in known.tolist()], np.uint16)
    is_fast = np.array([btf.name_of(type_id) in _FAST_KFUNCS for type_id in known.tolist()], bool)
    return clobbers[which], is_fast[which]


def _kfunc_clobbers(btf: Btf, type_id: int) -> int:
    func = btf.type(type_id)
    proto = btf.type(func.type_id) if isinstance(func, Func) else None
    if not isinstance(proto, FuncProto):
        return 0b111111
    return ((1 << len(proto.params)) - 1) << 1 | (proto.type_id != 0)


@dataclass(frozen=True, slots=True, eq=False)
class _Patterns:
    """Calls with spills before and their fills after.

    Attributes:
        site: (p,) slots of the calls.
        n_spills: (p,) how many.
        is_fast: (p,) whether the call makes them superfluous.
        subprog: (p,) index into the view's subprogs.
        floor: (m,) by subprog, the stack offset from which on others may use the frame.
    """

    site: Slots
    n_spills: Slots
    is_fast: Mask
    subprog: Slots
    floor: Slots

    @classmethod
    def of(cls, view: CodeView, calls: _Calls) -> _Patterns:
        """All patterns of a view."""
        subprog = view.subprog_of(calls.slot)
        lowest = _lowest_spills(view)[subprog]
        n_spills = _count_pairs(view.insns, calls, lowest)
        found = n_spills > 0
        floor = np.zeros(len(view.starts), np.int32)
        np.minimum.at(floor, subprog[found], (lowest + _WORD * n_spills)[found])
        return cls(calls.slot[found], n_spills[found], calls.is_fast[found], subprog[found], floor)

    def _members(self, which: Mask) -> Slots:
        """Slots of the spills and fills of some patterns."""
        parts = []
        for distance in range(1, _MOST + 1):
            some = self.site[which & (self.n_spills >= distance)]
            parts += [some - distance, some + distance]
        return np.concatenate(parts).astype(np.int32)

    def is_clean(self, view: CodeView, blocks: Blocks, seen: Mask, depths: Slots | None) -> Mask:
        """(m,) subprogs in which nothing but patterns goes below the floor.

        Args:
            view: the code.
            blocks: its blocks.
            seen: (n,) instructions that can be reached.
            depths: (m,) of the frames, where they are known; what the kernel says of a
                frame that it has made smaller tells that this one is clean.
        """
        rest = view.insns.copy()
        touches = ~isa.is_jump(rest) & ~isa.is_exit(rest) & (view.node >= 0)
        rest[self._members(np.ones(self.site.size, bool))] = _NEUTRAL
        rest[~seen & touches & ~isa.is_ld_imm64(rest)] = _NEUTRAL
        # What is called, a subprog or a callback, goes upwards from an address as helpers do.
        rest[isa.is_call(rest)] = _ANY_HELPER
        use = StackUse.of(replace(view, insns=rest), blocks)
        clean: Mask = use.is_known & (use.deepest <= -self.floor)
        return clean if depths is None else clean | (depths <= -self.floor)

    def around(self, is_clean: Mask) -> Slots:
        """Slots of all spills and fills that can go."""
        return self._members(self.is_fast & is_clean[self.subprog])

    def depths(self, is_clean: Mask) -> dict[int, int]:
        """New depths by index into the view's subprogs, where a frame gets smaller."""
        stays = np.unique(self.subprog[~self.is_fast])
        gone = np.unique(self.subprog[self.is_fast & is_clean[self.subprog]])
        return {row: -int(self.floor[row]) for row in np.setdiff1d(gone, stays).tolist()}


def _lowest_spills(view: CodeView) -> Slots:
    """(m,) the lowest stack offset of any 8-byte spill of each subprog."""
    insns = view.insns
    spills = np.flatnonzero((insns["code"] == _SPILL) & (isa.dst(insns) == _FP)).astype(np.int32)
    lowest = np.zeros(len(view.starts), np.int32)
    np.minimum.at(lowest, view.subprog_of(spills), insns["off"][spills].astype(np.int32))
    return lowest


def _count_pairs(insns: Insns, calls: _Calls, lowest: Slots) -> Slots:
    """(c,) how many spills and fills fit together around each call."""
    free = ~calls.clobbers & np.uint16(0b111111)
    n_pairs = np.zeros(calls.slot.size, np.int32)
    goes_on = np.ones(calls.slot.size, bool)
    for distance in range(1, _MOST + 2):
        before, after = calls.slot - distance, calls.slot + distance
        goes_on &= (before >= 0) & (after < len(insns))
        at = np.flatnonzero(goes_on)
        spill, fill = insns[before[at]], insns[after[at]]
        reg = isa.src(spill)
        stack_off = lowest[at] + _WORD * (distance - 1)
        fits = (spill["code"] == _SPILL) & (fill["code"] == _FILL)
        fits &= (isa.dst(spill) == _FP) & (isa.src(fill) == _FP) & (reg == isa.dst(fill))
        fits &= (free[at] >> reg & 1).astype(bool)
        fits &= (spill["off"] == stack_off) & (fill["off"] == stack_off)
        goes_on[at] = fits
        at, reg = at[fits], reg[fits]
        free[at] &= ~(np.uint16(1) << reg.astype(np.uint16))
        n_pairs[at] += 1
    return n_pairs


def _seen(patches: PatchList, view: CodeView) -> Mask:
    """(n,) instructions that can be reached, as far as the column `seen` is there; else all."""
    if SEEN not in patches.program.columns:
        return np.ones(len(view), bool)
    seen: Mask = (view.node < 0) | patches.aux(SEEN)[view.node]
    return seen


def _replace(patches: PatchList, view: CodeView, around: Slots) -> None:
    nodes = view.node[around]
    has_seen = SEEN in patches.program.columns
    seen = patches.aux(SEEN)[nodes] if has_seen else None
    fresh = patches.replace(nodes, _NOP)
    if seen is not None:
        patches.aux(SEEN)[fresh] = seen


def _lower_depths(patches: PatchList, view: CodeView, new: dict[int, int]) -> None:
    depths = stack_depths(patches)
    for row, depth in new.items():
        depths[view.subprog[row]] = depth
    set_stack_depths(patches, depths)
