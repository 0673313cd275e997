"""What the kernel made of a program, as a `Program` whose references are references again.

A loaded program's code comes back with some fields in a form of their own:

================ ========================================== ==========================
instruction      the kernel hands out                       here
================ ========================================== ==========================
subprog call     ``off``: the distance, its low 16 bits;    ``imm``: the distance
                 ``imm``: the subprog's index; later
                 kernels the other way round
                 (`Topic.XLATED_CALL`)
PSEUDO_FUNC      second ``imm``: the subprog's index        0
helper call      ``imm``: address from ``__bpf_call_base``  the same; `call_names`
kfunc call       the same                                   the same; `call_names`
tail call        ``imm``: 12, the helper's number           the same; `call_names`
map's ld_imm64   ``imm``: the map's id                      the same; `map_ids`
================ ========================================== ==========================

Source: linux v6.1, kernel/bpf/syscall.c, bpf_insn_prepare_dump(), and
kernel/bpf/verifier.c, jit_subprogs(); seen on v6.18.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.errors import UnsupportedError
from bpfpatch.facts.columns import NONE
from bpfpatch.linux.versions import Topic, running, value
from bpfpatch.program import (
    FUNC_INFO,
    LINE,
    LINE_INFO,
    Anchor,
    AnchoredTable,
    Program,
    Subprogs,
)
from bpfpatch.program.refs import read_references
from bpfpatch.program.types import Slots

from .kallsyms import text_symbols
from .loaded import LoadedProgram
from .proginfo import ProgInfo

CALL_BASE: Final = "__bpf_call_base"
_TAIL_CALL: Final = 12
_TAIL_CALL_NAMES: Final = frozenset({"bpf_tail_call"})
_WRAP: Final = 1 << 16
_THROWN: Final = isa.concat([isa.mov(isa.R0, isa.R1), isa.exit_()])
_TYPE: Final = np.dtype([("type_id", "<u4")])


@dataclass(frozen=True, slots=True, eq=False)
class XlatedProgram:
    """A loaded program's code, read back.

    Attributes:
        program: with the subprogs that the kernel has, and its tables func_info and line_info
            where it was loaded with some. In its ``external`` are the call and the address of
            the callback of a bpf_loop of no rounds that the kernel wrote out and then, since
            nothing reached it, removed, if it was the program's only subprog: their distance
            leads past the code. Where other subprogs are left, the kernel has let them refer
            to the next one, and so has this.
        raw: (n,) `isa.INSN`, as the kernel handed it out.
        call_names: by slot of each helper, kfunc or tail call: all functions of the kernel that
            start at the called address. None where it hides addresses (CAP_SYSLOG), or has no
            name for that one.
        map_ids: (n,) int64, at each ld_imm64 of a map or of a place in its value that map's id;
            NONE elsewhere.
        hidden: (k,) starts of subprogs of the kernel's own making: what catches an exception in
            a program that throws and has nothing for that. No func_info and no list of JITed
            functions has them.
    """

    program: Program
    raw: isa.Insns
    call_names: Mapping[int, frozenset[str]]
    map_ids: NDArray[np.int64]
    hidden: Slots


def read_xlated(loaded: LoadedProgram) -> XlatedProgram:
    """Read a program back from the kernel.

    Raises:
        KernelError: the kernel withholds it; see `LoadedProgram.xlated`.
        UnsupportedError: the program runs in the interpreter, or is so long that the kernel's
            16-bit distances do not tell where its subprogs start.
    """
    info, raw = loaded.info(), loaded.xlated()
    names = _call_names(raw)
    starts = _subprog_starts(raw, info)
    hidden = _hidden(raw, starts, names)
    starts = np.append(starts, hidden)
    dangling = _dangling(raw, starts)
    program = Program(
        raw.copy() if dangling.size else _with_distances(raw, starts),
        Subprogs(starts, ("",) * starts.size, np.zeros(starts.size, np.int32)),
        tables=_tables(info),
        external=dangling,
        strings=b"" if loaded.btf is None else loaded.btf.string_bytes,
    )
    return XlatedProgram(program, raw, names, _map_ids(raw), hidden)


def _call_names(raw: isa.Insns) -> dict[int, frozenset[str]]:
    sites = np.flatnonzero(isa.is_helper_call(raw) | isa.is_kfunc_call(raw))
    if not sites.size:
        return {}
    symbols = text_symbols()
    base = symbols.address(CALL_BASE)
    known: dict[int, frozenset[str]] = {_TAIL_CALL: _TAIL_CALL_NAMES}
    out = {}
    for site, imm in zip(sites.tolist(), raw["imm"][sites].tolist(), strict=True):
        if imm not in known:
            known[imm] = symbols.names(base + imm) if base and imm else frozenset()
        out[site] = known[imm]
    return out


def _map_ids(raw: isa.Insns) -> NDArray[np.int64]:
    is_map = isa.is_pseudo(raw, isa.Pseudo.MAP_FD, isa.Pseudo.MAP_VALUE)
    return np.where(is_map, raw["imm"], NONE).astype(np.int64)


def _subprog_starts(raw: isa.Insns, info: ProgInfo) -> NDArray[np.int32]:
    """(m,) slots; from func_info, or from what calls and function addresses say."""
    if info.func_info.size:
        return info.func_info["insn_off"].astype(np.int32)
    return _called_starts(raw)


def _hidden(raw: isa.Insns, starts: Slots, names: Mapping[int, frozenset[str]]) -> Slots:
    """(k,) where the kernel has put a function after the program, of which nothing tells."""
    tail = len(raw) - _THROWN.size
    throws = any("bpf_throw" in group for group in names.values())
    return np.array([tail] if throws and _is_made(raw, tail, starts) else [], np.int32)


def _is_made(raw: isa.Insns, tail: int, starts: NDArray[np.int32]) -> bool:
    """Whether the program ends in an exception callback of the kernel's making.

    A program that throws and has no callback gets one at its end, which neither func_info nor
    the list of JITed functions has. Nothing refers to it, and all other code can be reached.

    Source: linux v6.18, kernel/bpf/verifier.c, do_misc_fixups(), add_hidden_subprog().
    """
    if tail <= starts[-1] or (raw[tail:] != _THROWN).any():
        return False
    refs = read_references(raw, np.zeros(0, np.int32))
    # A call before it can only be one of bpf_throw, or of what throws in the end.
    before = raw[tail - 1 : tail]
    is_entered = bool((isa.falls_through(before) & ~isa.is_call(before))[0])
    return not is_entered and tail not in refs.target[~refs.is_entry]


def _called_starts(raw: isa.Insns) -> NDArray[np.int32]:
    funcs = np.flatnonzero(isa.is_pseudo(raw, isa.Pseudo.FUNC))
    start_of = {0: 0}
    for slot in funcs.tolist():
        start_of[int(raw["imm"][slot + 1])] = slot + 1 + int(raw["imm"][slot])
    calls = np.flatnonzero(isa.is_subprog_call(raw))
    if _distance_field() == "imm":
        starts = {*start_of.values(), *(calls + 1 + raw["imm"][calls]).tolist()}
        return np.array(sorted(starts), np.int32)
    wrapped = (calls + 1 + raw["off"][calls]) % _WRAP
    for index, low in dict(zip(raw["imm"][calls].tolist(), wrapped.tolist(), strict=True)).items():
        if index in start_of:
            continue
        places = np.arange(low, len(raw), _WRAP)
        if places.size > 1:
            places = places[~isa.falls_through(raw)[places - 1]]
        if places.size != 1:
            raise UnsupportedError(
                f"the program has {len(raw)} slots: its calls' 16-bit distances leave "
                f"{places.size} places for subprog {index}; load it with func_info"
            )
        start_of[index] = int(places[0])
    return np.array([start_of[index] for index in sorted(start_of)], np.int32)


def _dangling(raw: isa.Insns, starts: NDArray[np.int32]) -> Slots:
    """Calls of subprogs, and their addresses, in a program that has no subprogs any more.

    The kernel leaves these as they are: distances in ``imm``.

    Source: linux v6.18, kernel/bpf/verifier.c, jit_subprogs(); seen on v6.18.
    """
    if starts.size > 1:
        return np.zeros(0, np.int32)
    is_func = isa.is_pseudo(raw, isa.Pseudo.FUNC)
    return np.flatnonzero(isa.is_subprog_call(raw) | is_func).astype(np.int32)


def _with_distances(raw: isa.Insns, starts: NDArray[np.int32]) -> isa.Insns:
    insns = raw.copy()
    calls = np.flatnonzero(isa.is_subprog_call(raw))
    if _distance_field() == "off":
        insns["imm"][calls] = starts[raw["imm"][calls]] - calls - 1
    insns["off"][calls] = 0
    funcs = np.flatnonzero(isa.is_pseudo(raw, isa.Pseudo.FUNC))
    insns["imm"][funcs + 1] = 0
    return insns


def _distance_field() -> str:
    """The field of a subprog call that the running kernel leaves the distance in."""
    distance, _ = value(Topic.XLATED_CALL, running())
    return str(distance)


def _tables(info: ProgInfo) -> dict[str, AnchoredTable]:
    out = {}
    for name, records, dtype in (
        (FUNC_INFO, info.func_info, _TYPE),
        (LINE_INFO, info.line_info, LINE),
    ):
        if records.size:
            rows: NDArray[Any] = np.zeros(records.size, dtype)
            for field in dtype.names or ():
                rows[field] = records[field]
            insn = records["insn_off"].astype(np.int32)
            out[name] = AnchoredTable(insn, rows, Anchor.ENTRY, unique=True)
    return out
