"""Load, read the refusal, mend, load again."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.errors import BpfPatchError, Where
from bpfpatch.linux.log.judge import LoadVerdict
from bpfpatch.linux.log.messages import Family
from bpfpatch.linux.log.refusal import Refusal
from bpfpatch.patch import Linearized, PatchList
from bpfpatch.program.types import Slots
from bpfpatch.prove import is_available

from .counting import Counting
from .exits import Exits
from .kinds import Mended, Tools, kinds_for
from .prove import never_taken
from .report import Mending, Order, ProgramReport, RepairReport
from .site import RepairSite, SiteCode
from .sources import RepairedSource

PROVED_WHY: Final = "the check never fires: on no path in front of it can its condition hold"
_SAME_PLACE: Final = 12
"""How often one instruction is mended."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When to give up.

    Attributes:
        seconds: most time in all.
        rounds: most mendings for one program.
        insns: most slots that are added in all.
    """

    seconds: float = 60.0
    rounds: int = 64
    insns: int = 4096


@dataclass
class Rounds:
    """The repair of all programs of one source.

    Attributes:
        source: what is repaired.
        limits: when to give up.
        on_guard: what a program returns where a guard fires; None for what is safe for its kind.
        counting: how firing guards are counted, or None.
        progress: told what goes on.
        proves: whether guards are proved to never fire, where they are; takes z3.
    """

    source: RepairedSource
    limits: Limits
    on_guard: int | None = None
    counting: Counting | None = None
    progress: Callable[[str], None] | None = None
    proves: bool = field(default_factory=is_available)
    report: RepairReport = field(default_factory=RepairReport)

    def __post_init__(self) -> None:
        self.patches = PatchList(self.source.program)
        self.code: Linearized = self.patches.linearize()
        self._exits = Exits(self.patches, self.on_guard, self.counting)
        self._tried: dict[int, list[str]] = {}
        self._seen: dict[str, tuple[list[int], bytes]] = {}
        self._start = time.monotonic()

    def run(self) -> None:
        """Repair one program after the other, and then see that all load."""
        self.report.insns_before = len(self.source.program)
        names = self.source.names()
        self.report.programs = [ProgramReport(name) for name in names]
        for program in self.report.programs:
            self._repair(program)
        # A function may serve several programs: what was mended for one is there for all.
        if self.report.mendings:
            for program in self.report.programs:
                if program.is_loaded:
                    self._recheck(program)
        self.report.insns_after = len(self.code.program)
        self.report.seconds = time.monotonic() - self._start

    def _repair(self, program: ProgramReport) -> None:
        while True:
            try:
                verdict, origin = self._load(program.name)
            except BpfPatchError as error:  # it cannot even be linked
                program.reason = str(error)
                return
            if verdict.is_loaded:
                program.is_loaded = True
                subprogs = self.code.program.subprogs
                owners = np.unique(subprogs.of(origin[origin >= 0])).tolist()
                self._seen[program.name] = owners, self._code_of(owners)
                program.was_loaded = not self.report.mendings or program.rounds == 0
                return
            program.reason = self._round(program, verdict, origin)
            if program.reason:
                return

    def _recheck(self, program: ProgramReport) -> None:
        owners, seen = self._seen[program.name]
        if self._code_of(owners) == seen:
            return
        verdict, _ = self._load(program.name)
        if not verdict.is_loaded:
            program.is_loaded = False
            self._repair(program)

    def _code_of(self, owners: list[int]) -> bytes:
        """The instructions of some subprogs, without the distances of their calls."""
        program = self.code.program
        ends = program.subprogs.ends(len(program))
        spans = [
            np.arange(program.subprogs.start[one], ends[one], dtype=np.int64) for one in owners
        ]
        insns = program.insns[np.concatenate(spans)] if spans else program.insns[:0]
        insns = insns.copy()
        insns["imm"][isa.is_subprog_call(insns)] = 0
        return insns.tobytes()

    def _load(self, name: str) -> tuple[LoadVerdict, Slots]:
        start = time.monotonic()
        verdict, origin = self.source.load(name, self.code)
        self.report.seconds_in_kernel += time.monotonic() - start
        return verdict, origin

    def _round(self, program: ProgramReport, verdict: LoadVerdict, origin: Slots) -> str:
        """Mend one refusal; gives why that is not possible, or ""."""
        refusal = verdict.refusal
        if refusal is None or refusal.family in (Family.KERNEL, Family.FORM, Family.UNKNOWN):
            return _not_ours(verdict)
        last = refusal.path.last
        if last is None or refusal.where is None or last.slot >= origin.size:
            return f"no mending is known: {verdict.reason}"
        return self._over(program) or self._mend(program, verdict, refusal, origin)

    def _mend(
        self, program: ProgramReport, verdict: LoadVerdict, refusal: Refusal, origin: Slots
    ) -> str:
        site = RepairSite(SiteCode(self.patches), refusal, origin, program.name)
        tried = self._tried.setdefault(self._anchor(site), [])
        if len(tried) >= _SAME_PLACE:
            return f"nothing helps: {verdict.reason}"
        tools = Tools(self._exits, self.source.type_of(program.name), frozenset(tried))
        where = self._original(site.slot(site.last), refusal)
        for mend in kinds_for(refusal.kind):
            before = len(self.code.program)
            try:
                with self.patches.as_pass("repair"):
                    first_new = self.patches.first_node_of_pass
                    mended = mend(site, tools)
                if mended is None:
                    continue
                self.code = self.patches.linearize()
            except BpfPatchError as error:
                return f"cannot be mended: {verdict.reason} ({error})"
            tried.append(mended.key or mended.kind)
            mended = self._proved(mended, tools, site, first_new)
            self._note(program, mended, where, refusal, len(self.code.program) - before)
            return ""
        return f"no mending is known: {verdict.reason}"

    def _proved(self, mended: Mended, tools: Tools, site: RepairSite, first_new: int) -> Mended:
        """A guard that provably never fires changes nothing."""
        if not self.proves or mended.order is not Order.GUARD or not tools.leaves:
            return mended
        code = SiteCode(self.patches)
        view = code.view
        leaves = np.isin(view.node, tools.leaves)
        is_check = (view.node[view.ref_slot] >= first_new) & leaves[view.ref_target]
        checks = view.ref_slot[is_check].tolist()
        if not checks or not all(_never_leaves(code, jump, site, first_new) for jump in checks):
            return mended
        return replace(mended, order=Order.SAME, why=PROVED_WHY, shown_by="z3")

    def _over(self, program: ProgramReport) -> str:
        """Which limit is reached, or ""."""
        if program.rounds >= self.limits.rounds:
            return f"{self.limits.rounds} rounds were not enough"
        if time.monotonic() - self._start > self.limits.seconds:
            return f"{self.limits.seconds:g} seconds were not enough"
        if len(self.code.program) - self.report.insns_before > self.limits.insns:
            return f"{self.limits.insns} added instructions were not enough"
        return ""

    def _anchor(self, site: RepairSite) -> int:
        """The original slot that a refusal is about, also where an inserted instruction is."""
        return int(self.code.remap.site[site.slot(site.last)])

    def _original(self, slot: int, refusal: Refusal) -> Where:
        old = int(self.code.remap.orig[slot])
        if old >= 0:
            return self.source.program.where(old)
        assert refusal.where is not None
        return refusal.where

    def _note(
        self, program: ProgramReport, mended: Mended, where: Where, refusal: Refusal, added: int
    ) -> None:
        program.rounds += 1
        self.report.mendings.append(
            Mending(
                mended.kind,
                mended.order,
                mended.shown_by,
                program.name,
                where,
                refusal.message,
                mended.why,
                added,
                program.rounds,
            )
        )
        if self.progress is not None:
            self.progress(str(self.report.mendings[-1]))


def _never_leaves(code: SiteCode, jump: int, site: RepairSite, first_new: int) -> bool:
    """Whether a jump to an exit is provably never taken."""
    view = code.view
    if bool(isa.is_cond_jump(view.insns[jump : jump + 1])[0]):
        return never_taken(code, jump, site)
    # The end of a copied path: no run passes the last branch in front of it.
    for slot in range(jump - 1, 0, -1):
        if view.node[slot] < first_new:
            return False
        if bool(isa.is_cond_jump(view.insns[slot : slot + 1])[0]):
            goes_on = view.ref_target[np.searchsorted(view.ref_slot, slot)] == slot + 2
            return never_taken(code, slot, site, falls=not goes_on)
    return False


def _not_ours(verdict: LoadVerdict) -> str:
    """Why a refusal is not mended."""
    refusal = verdict.refusal
    if refusal is None:
        return f"not loaded, and not refused by the verifier: {verdict.reason}"
    if refusal.family is Family.KERNEL:
        return f"not mended, since this kernel does not have or allow it: {verdict.reason}"
    if refusal.family is Family.FORM:
        return f"not mended, since the program is not well-formed: {verdict.reason}"
    return f"not understood: {verdict.reason}"
