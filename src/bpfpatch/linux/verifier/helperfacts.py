"""The table of helpers, as an analysis of values asks it: by number.

Source: linux v6.18, kernel/bpf/verifier.c, check_helper_call(), do_refine_retval_range().
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bpfpatch import isa
from bpfpatch.facts.columns import MemType
from bpfpatch.facts.helperproto import ResultKind
from bpfpatch.facts.helpers import HELPER_PROTOS, helpers_where

from .values import LEGACY, TRUSTED


@dataclass(frozen=True, slots=True)
class Returned:
    """A pointer that a helper returns.

    Attributes:
        kind: what it points to.
        is_maybe_null: whether it has to be checked.
        is_acquired: whether it refers to an object that has to be released.
        struct: for `MemType.BTF_ID`, the name of the struct.
        trust: for the same, how far it can be relied on.
    """

    kind: MemType
    is_maybe_null: bool
    is_acquired: bool
    struct: str
    trust: int


KPTR_XCHG: Final = isa.HELPER_IDS["kptr_xchg"]
MAP_LOOKUP: Final = isa.HELPER_IDS["map_lookup_elem"]
TAIL_CALL: Final = isa.HELPER_IDS["tail_call"]
LOOP: Final = isa.HELPER_IDS["loop"]
CPU_NUMBER: Final = isa.HELPER_IDS["get_smp_processor_id"]
MAX_ERRNO: Final = 4095

_KINDS: Final = {
    ResultKind.SOCKET: MemType.SOCKET,
    ResultKind.SOCK_COMMON: MemType.SOCK_COMMON,
    ResultKind.TCP_SOCK: MemType.TCP_SOCK,
    ResultKind.MEM: MemType.MEM,
    ResultKind.OBJECT: MemType.BTF_ID,
}
RETURNS: Final = {
    number: Returned(
        _KINDS[proto.result.kind],
        proto.result.is_maybe_null,
        proto.acquires,
        proto.result.struct,
        TRUSTED if proto.result.is_trusted else LEGACY,
    )
    for number, proto in HELPER_PROTOS.items()
    if proto.result.kind in _KINDS and number != KPTR_XCHG
}
"""Helpers that return a pointer, but not into a map."""

VALUES: Final = {
    number: proto.result.is_maybe_null
    for number, proto in HELPER_PROTOS.items()
    if proto.result.kind is ResultKind.VALUE
}
"""Helpers that return a value of the map in R1, and whether or null."""
PER_CPU: Final = {
    number: proto.result.is_maybe_null
    for number, proto in HELPER_PROTOS.items()
    if proto.result.kind is ResultKind.PER_CPU
}
"""Helpers that return what a per-CPU variable's pointer in R1 is for, and whether or null."""
CASTS: Final = helpers_where(lambda proto: proto.casts)
"""Helpers whose result ends with what they are given."""
SIZED: Final = {
    number: proto.result.most_reg
    for number, proto in HELPER_PROTOS.items()
    if proto.result.most_reg
}
"""Helpers that return an error or at most a size: the register that holds it."""

CALLBACKS: Final = {
    number: proto.callback for number, proto in HELPER_PROTOS.items() if proto.callback is not None
}
"""Helpers that call a function of the program."""
SYNCHRONOUS: Final = frozenset(
    number for number, callback in CALLBACKS.items() if not callback.is_late
)
"""Helpers that call a callback before they return, any number of times."""
CHANGES_PACKET: Final = helpers_where(lambda proto: proto.moves_packet)
"""Helpers after which packet pointers are not pointers any more."""
RELEASES: Final = {
    number: proto.released_reg for number, proto in HELPER_PROTOS.items() if proto.released_reg
}
"""Helpers that end an object: the register that it is in."""
MAP_REG: Final = {number: proto.map_reg for number, proto in HELPER_PROTOS.items() if proto.map_reg}
"""Helpers that are called on a map: the register that it is in."""
KEEPS_MAP: Final = helpers_where(lambda proto: proto.keeps_map)
"""Helpers whose map the verifier keeps."""
READS: Final = {number: proto.reads for number, proto in HELPER_PROTOS.items() if proto.reads}
"""Memory that helpers read through their arguments."""
WRITES: Final = {number: proto.writes for number, proto in HELPER_PROTOS.items() if proto.writes}
"""Memory that helpers write through their arguments."""
