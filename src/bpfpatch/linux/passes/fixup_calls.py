"""fixup-calls: what the kernel does last: guards, inlined helpers, extra arguments."""

from __future__ import annotations

from dataclasses import dataclass

from bpfpatch.passes.base import Pass, register
from bpfpatch.passes.setting import Setting
from bpfpatch.patch import PatchList

from .fixups import INTERNAL, LOADABLE, Job


@register
@dataclass(frozen=True)
class FixupCalls(Pass):
    """Guard divisions; for the kernel's own form, rewrite calls and loads as it does, too.

    For bpf(2), only divisions are guarded: the rest has no form that it takes.
    See `bpfpatch.linux.passes.fixups` for the pieces.

    Source: linux v6.18, kernel/bpf/verifier.c, do_misc_fixups().
    """

    name = "fixup-calls"

    def run_for(self, patches: PatchList, setting: Setting) -> None:
        """Run all pieces over the code as it is now: none sees what another puts in."""
        job = Job(patches, setting)
        for fixup in LOADABLE if setting.target.is_loadable else INTERNAL:
            fixup(job)
        job.finish()
