"""The pieces of the pass `fixup-calls`: one small file a kind of rewriting.

Each takes a `Job` and edits its list; all look at the code as it was before any
of them. What do_misc_fixups() of linux v6.18 does, and who does it here:

=================================================== ==============================
the kernel                                          here
=================================================== ==============================
a function for what bpf_throw throws                `exceptions`
addr_space_cast, arithmetic on arena pointers       `arena`
division by zero and by minus one                   `division`
probing loads below the limit of user space         `probes` (x86-64: none)
LD_ABS, LD_IND                                      `packetloads`
pointer arithmetic against speculation              for unprivileged loads only: none
nospec (in convert_ctx_accesses())                  for unprivileged loads only: none
may_goto, and its slots at each subprog's start     `maygoto`
kfunc calls                                         `kfuncs`
get_route_realm, get_prandom_u32, override_return   no instruction changes
tail_call: an opcode and jump tables of the JIT's   shows in no dump: none
tail_call: index masks                              for unprivileged loads only: none
timer_set_callback, *_storage_get, per_cpu_ptr      `extraargs`
calls on maps                                       `mapcalls`, `maplookups`
jiffies64, get_smp_processor_id, get_func_*,        `helpers`
get_branch_snapshot, kptr_xchg
all other helper calls: their addresses             keep their numbers
ld_imm64 of a variable or function by type id       `symbols`
(check_pseudo_btf_id())
ld_imm64 of maps and subprogs                       keep their maps and distances
=================================================== ==============================

Addresses that a piece has to put in are left 0, and noted in the column of
`addresses`.
"""

from collections.abc import Callable
from typing import Final

from bpfpatch import isa
from bpfpatch.facts.columns import CALL_MAP, MEM_TYPE, STACK_DEPTH
from bpfpatch.passes.addresses import ADDRESS, Address
from bpfpatch.program.types import Insns, Mask

from .arena import cast_arena_pointers
from .division import guard_divisions
from .exceptions import add_exception_callback
from .extraargs import add_arguments, is_percpu_call
from .helpers import inline_helpers
from .job import Job
from .kfuncs import fix_kfunc_calls
from .mapcalls import is_map_call, resolve_map_calls
from .maygoto import count_may_gotos
from .packetloads import expand_packet_loads
from .probes import check_probing_loads
from .symbols import load_symbols

LOADABLE: Final[tuple[Callable[[Job], None], ...]] = (guard_divisions,)
"""What has a form that bpf(2) accepts."""

INTERNAL: Final[tuple[Callable[[Job], None], ...]] = (
    add_exception_callback,
    cast_arena_pointers,
    guard_divisions,
    check_probing_loads,
    expand_packet_loads,
    count_may_gotos,
    fix_kfunc_calls,
    add_arguments,
    resolve_map_calls,
    inline_helpers,
    load_symbols,
)
"""All that the kernel does; each instruction is of at most one piece's kind."""

NEEDS: Final[dict[str, Callable[[Insns], Mask]]] = {
    CALL_MAP: is_map_call,
    MEM_TYPE: is_percpu_call,
    STACK_DEPTH: isa.is_may_goto,
}
"""Columns and tables that pieces go by, and the instructions for which they do."""

__all__ = ["ADDRESS", "INTERNAL", "LOADABLE", "NEEDS", "Address", "Job"]
