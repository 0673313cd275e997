"""Aux data: what an analysis, or the kernel's verifier, found out of each instruction.

Two sources fill the same columns: `bpfpatch.analysis` without a kernel, and
`bpfpatch.kernel` from the log of a real load. Passes do not know which.

========= ======= ============================================================ ==============
column    dtype   what it says                                                 inserted ones
========= ======= ============================================================ ==============
seen      bool    the instruction can be reached                               True
mem_type  uint8   `MemType` of what a load, store or atomic goes through       UNKNOWN
mem_id    int32   more of that: index into ``Subject.maps`` of a map value,    NONE
                  type id in the kernel's BTF of a BTF pointer
zext_dst  bool    the upper half of the 32-bit value that it defines is read   defines_32
ld_map    int32   ld_imm64: index into ``Subject.maps``, of a map or of one    NONE
                  whose value it points into
call_map  int32   helper call: index into ``Subject.maps``, NONE, or MANY      NONE
call_key  int64   bpf_tail_call: the index, where it is one constant; NONE     NONE
callback  int32   bpf_loop call that can be inlined (its flags are 0, and one  NONE
                  callback always): a number; the PSEUDO_FUNC ld_imm64 of that
                  callback has the same one
========= ======= ============================================================ ==============

One table: `STACK_DEPTH` has a row at each subprog's start (anchor ENTRY), int32
bytes of stack that it uses, as the verifier counts them.

Source: linux v6.18, include/linux/bpf_verifier.h, struct bpf_insn_aux_data.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final

from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.program import Column
from bpfpatch.program.columns import Fill

SEEN: Final = "seen"
MEM_TYPE: Final = "mem_type"
MEM_ID: Final = "mem_id"
ZEXT_DST: Final = "zext_dst"
LD_MAP: Final = "ld_map"
CALL_MAP: Final = "call_map"
CALL_KEY: Final = "call_key"
CALLBACK: Final = "callback"
STACK_DEPTH: Final = "stack_depth"
ARENA_ALU: Final = "arena_alu"
"""Whether 64-bit arithmetic is on a pointer into an arena; from the kernel's log alone."""

NONE: Final = -1
"""Not known, or does not apply."""
MANY: Final = -2
"""Another one on another path."""


class MemType(IntEnum):
    """What a load, store or atomic goes through."""

    UNKNOWN = 0
    CTX = 1
    STACK = 2
    PACKET = 3
    PACKET_META = 4
    MAP_VALUE = 5
    MAP_KEY = 6
    MAP_PTR = 7  # the struct bpf_map itself
    MEM = 8  # a helper's memory: ring buffer record, dynptr slice, global argument
    BUF = 9
    TP_BUFFER = 10
    FLOW_KEYS = 11
    SOCKET = 12
    SOCK_COMMON = 13
    TCP_SOCK = 14
    XDP_SOCK = 15
    BTF_ID = 16  # a kernel object that is certainly there
    BTF_ID_PROBE = 17  # one that may be gone: the load becomes a probing one
    ARENA = 18
    ALLOC = 19  # bpf_obj_new memory, typed by the program's BTF


_FILLS: Final[dict[str, tuple[str, Fill]]] = {
    SEEN: ("?", True),
    MEM_TYPE: ("u1", MemType.UNKNOWN),
    MEM_ID: ("i4", NONE),
    ZEXT_DST: ("?", isa.defines_32),
    LD_MAP: ("i4", NONE),
    CALL_MAP: ("i4", NONE),
    CALL_KEY: ("i8", NONE),
    CALLBACK: ("i4", NONE),
    ARENA_ALU: ("?", False),
}


AUX_COLUMNS: Final = frozenset(_FILLS) - {LD_MAP, ARENA_ALU}
"""Those that an analysis fills; ``ld_map`` is for it to read."""


def column(name: str, values: NDArray[Any]) -> Column:
    """One of the columns above.

    Args:
        name: of the column.
        values: (n_slots,) values.

    Raises:
        KeyError: there is no such column.
    """
    dtype, fill = _FILLS[name]
    own = values.astype(dtype)
    own.flags.writeable = False
    return Column(own, fill)
