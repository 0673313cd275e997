"""dce: take out code that cannot run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bpfpatch import isa
from bpfpatch.dataflow.blocks import Blocks
from bpfpatch.dataflow.constants import Constants
from bpfpatch.dataflow.reach import reachable
from bpfpatch.errors import OptionError
from bpfpatch.facts import SEEN
from bpfpatch.patch import PatchList
from bpfpatch.program import Program
from bpfpatch.program.types import Mask

from .base import Pass, register
from .deadcode import remove_unseen
from .setting import Setting
from .sites import indirect_targets, landing_pads, opaque_slots
from .target import Target


@register
@dataclass(frozen=True)
class Dce(Pass):
    """Remove unreachable code, branches on constants, and functions that nothing calls any more.

    A branch on a constant that the code in front of it shows becomes a `goto`,
    or goes; what then cannot be reached goes with its line records,
    relocations, function records and symbols. A function that nothing called
    to begin with has a reason of its own and stays. What the pass leaves, it
    leaves for good: run on its own result, it changes nothing.

    With ``aux=true`` it decides nothing itself: what the column ``seen`` does
    not call reachable goes, as the kernel does it. A branch one of whose ways
    cannot be taken then becomes a `goto`, of no distance where it never jumps:
    one for `nops` to take out. The address of a callback that goes, which code
    that stays may still load, becomes that of the next function, or 0.

    Attributes:
        branches: whether to decide branches on constants.
        functions: whether to remove functions that nothing calls any more.
        aux: whether to go by the column ``seen`` alone.
        maps: whether maps, variables, externs and types that only removed code used go, too.

    Source: linux v6.18, kernel/bpf/verifier.c, opt_hard_wire_dead_code_branches()
    and opt_remove_dead_code(); the decisions without ``aux`` are our own.
    """

    name = "dce"
    knows_landing_pads = True
    branches: bool = True
    functions: bool = True
    aux: bool = False
    maps: bool = False

    needs = (SEEN,)

    def needed(self, program: Program, target: Target) -> tuple[str, ...]:
        """What can be reached is in a column, if that is to decide."""
        del program, target
        return self.needs if self.aux else ()

    def run_for(self, patches: PatchList, setting: Setting) -> None:
        """See `run`; an object's maps go when its code is put back.

        Raises:
            OptionError: its maps are to go, and there is no object.
        """
        if self.maps:
            if setting.edit is None:
                raise OptionError("dce{maps=true} takes an object's maps out: run it on an object")
            setting.edit.prunes = True
        self.run(patches)

    def run(self, patches: PatchList) -> None:
        """Decide and delete, all at once: what is left has nothing more to decide.

        Raises:
            OptionError: the column is wanted, and there is none.
        """
        if self.aux:
            remove_unseen(patches)
            return
        remove_unreachable(patches, branches=self.branches, functions=self.functions)


def remove_unreachable(
    patches: PatchList,
    *,
    branches: bool = True,
    functions: bool = True,
    kept: frozenset[int] = frozenset(),
) -> int:
    """Take out what no path leads to, see `Dce`.

    Args:
        patches: the list.
        branches: whether to decide branches on constants.
        functions: whether to remove functions that nothing calls any more.
        kept: functions, by number in the original program, that stay as they are.

    Returns:
        How many instructions were changed or deleted.
    """
    view = patches.view()
    pads = landing_pads(patches.program, view)
    # A pad starts a block as what follows a call that does not return does.
    blocks = Blocks.of(view, indirect_targets(patches.program, view), pads - 1)
    constants = Constants(view, blocks, opaque_slots(patches, view)) if branches else None
    roots = np.arange(len(view.starts), dtype=np.int32)
    is_open = ~np.isin(view.subprog, list(kept))
    if functions:
        roots = roots[kept_functions(patches.program)[view.subprog] | ~is_open]
    reach = reachable(view, blocks, roots, constants, pads)
    taken = reach.taken[is_open[view.subprog_of(reach.taken)]]
    never = reach.never[is_open[view.subprog_of(reach.never)]]
    patches.modify(view.node[taken], code=isa.JA, dst=0, src=0, imm=0)
    is_gone = ~reach.block & is_open[blocks.subprog]
    gone = np.repeat(is_gone, np.diff(blocks.start, append=len(view)))
    gone[never] = True
    sites = view.node[gone & (view.node >= 0)]
    patches.delete(sites)
    return int(sites.size + taken.size)


def kept_functions(program: Program) -> Mask:
    """(m,) functions that something outside of the code enters, or must enter if anything does.

    The latter are those that no other one leads to: nothing calls them, or
    only they themselves and each other do.
    """
    subprogs, refs = program.subprogs, program.refs
    caller = subprogs.of(refs.slot[refs.is_entry]).tolist()
    callee = subprogs.of(refs.target[refs.is_entry]).tolist()
    calls: dict[int, set[int]] = {}
    for one, other in zip(caller, callee, strict=True):
        calls.setdefault(one, set()).add(other)
    stays = subprogs.is_root | ~np.isin(np.arange(len(subprogs)), callee)
    is_led_to = stays.copy()
    todo = np.flatnonzero(stays).tolist()
    while todo:
        for other in calls.get(todo.pop(), ()):
            if not is_led_to[other]:
                is_led_to[other] = True
                todo.append(other)
    return stays | ~is_led_to
