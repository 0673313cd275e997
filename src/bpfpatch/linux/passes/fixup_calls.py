"""fixup-calls: what the kernel does last: guards, inlined helpers, extra arguments."""

from __future__ import annotations

from dataclasses import dataclass

from bpfpatch.facts.columns import ZEXT_DST
from bpfpatch.passes.base import Pass, register
from bpfpatch.passes.setting import Setting
from bpfpatch.passes.target import Target
from bpfpatch.patch import PatchList
from bpfpatch.program import Program

from .fixups import INTERNAL, LOADABLE, NEEDS, Job


@register
@dataclass(frozen=True)
class FixupCalls(Pass):
    """Guard divisions; for the kernel's own form, rewrite calls and loads as it does, too.

    For bpf(2), only divisions are guarded: the rest has no form that it takes.
    See `bpfpatch.linux.passes.fixups` for the pieces.

    Source: linux v6.18, kernel/bpf/verifier.c, do_misc_fixups().
    """

    name = "fixup-calls"
    needs = tuple(NEEDS)
    uses = (ZEXT_DST,)

    def needed(self, program: Program, target: Target) -> tuple[str, ...]:
        """What tells of calls and loads that the program has; for bpf(2) nothing."""
        if target.is_loadable:
            return ()
        return tuple(name for name, is_asked in NEEDS.items() if is_asked(program.insns).any())

    def run_for(self, patches: PatchList, setting: Setting) -> None:
        """Run all pieces over the code as it is now: none sees what another puts in."""
        job = Job(patches, setting)
        for fixup in LOADABLE if setting.target.is_loadable else INTERNAL:
            fixup(job)
        job.finish()
