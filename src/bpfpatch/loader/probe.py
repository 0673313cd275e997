"""What this kernel lets this process do with BPF, found out by trying.

Source: libbpf v1.5, src/libbpf_probes.c, for what each type has to be given.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np

from bpfpatch import isa
from bpfpatch.bpf.errors import KernelError, VerifierError
from bpfpatch.bpf.harden import SETTING
from bpfpatch.bpf.loadedbtf import VMLINUX, load_btf, vmlinux_btf
from bpfpatch.bpf.map import OF_MAPS, Map
from bpfpatch.btf import (
    Btf,
    BtfBuilder,
    Func,
    FuncLinkage,
    FuncProto,
    Int,
    IntEncoding,
    Kind,
    line_col_join,
)
from bpfpatch.facts.kinds import AttachType, MapFlag, MapType, ProgFlag, ProgType
from bpfpatch.program import FUNC_INFO, LINE, LINE_INFO, Anchor, AnchoredTable, Program

from .load import load

_PACKET: Final = bytes(64)

_ATTACH: Final = {
    ProgType.CGROUP_SOCK_ADDR: AttachType.CGROUP_INET4_CONNECT,
    ProgType.CGROUP_SOCKOPT: AttachType.CGROUP_GETSOCKOPT,
    ProgType.SK_LOOKUP: AttachType.SK_LOOKUP,
    ProgType.NETFILTER: AttachType.NETFILTER,
    ProgType.TRACING: AttachType.TRACE_RAW_TP,
    ProgType.LSM: AttachType.LSM_MAC,
}
#: What a program of a type that must attach to something attaches to.
_ATTACH_TO: Final = {
    ProgType.TRACING: ("btf_trace_sys_enter", Kind.TYPEDEF),
    ProgType.LSM: ("bpf_lsm_bpf", Kind.FUNC),
}
#: Types that cannot be tried without another program or a map of their own.
_NOT_TRIED: Final = frozenset({ProgType.UNSPEC, ProgType.EXT, ProgType.STRUCT_OPS})

_SIZES: Final = {
    MapType.STACK_TRACE: (4, 8, 1),
    MapType.LPM_TRIE: (8, 8, 1),
    MapType.CGROUP_STORAGE: (16, 8, 0),
    MapType.PERCPU_CGROUP_STORAGE: (16, 8, 0),
    MapType.QUEUE: (0, 4, 1),
    MapType.STACK: (0, 4, 1),
    MapType.BLOOM_FILTER: (0, 4, 1),
    MapType.RINGBUF: (0, 0, mmap.PAGESIZE),
    MapType.USER_RINGBUF: (0, 0, mmap.PAGESIZE),
    MapType.ARENA: (0, 0, 1),
}
_FLAGS: Final = {MapType.LPM_TRIE: MapFlag.NO_PREALLOC, MapType.ARENA: MapFlag.MMAPABLE}
#: Local storage wants types, and struct_ops the kernel's.
_MAP_NOT_TRIED: Final = frozenset(
    {
        MapType.UNSPEC,
        MapType.STRUCT_OPS,
        MapType.SK_STORAGE,
        MapType.INODE_STORAGE,
        MapType.TASK_STORAGE,
        MapType.CGRP_STORAGE,
    }
)


@dataclass(frozen=True, slots=True)
class Probe:
    """What was found.

    Attributes:
        refused: why bpf(2) is refused altogether, or None; then the rest is empty.
        prog_types: types of programs that load; ext and struct_ops are not tried.
        map_types: types of maps that can be made; local storage and struct_ops are not tried.
        features: names of what works: ``btf`` (loading types), ``func_info``, ``line_info``,
            ``vmlinux_btf``, ``test_run``, ``jit``, ``harden`` (setting bpf_jit_harden),
            ``cpu_v4``, ``may_goto``.
    """

    refused: str | None
    prog_types: frozenset[ProgType]
    map_types: frozenset[MapType]
    features: frozenset[str]


@cache
def available() -> str | None:
    """None where bpf(2) makes a map and loads a program, otherwise why not, as a sentence."""
    try:
        Map.create(MapType.ARRAY).close()
        load(_exit_program(), log_level=0).close()
    except KernelError as error:
        return str(error)
    return None


@cache
def probe() -> Probe:
    """Find out what works; the first call takes some tens of milliseconds."""
    reason = available()
    if reason is not None:
        return Probe(reason, frozenset(), frozenset(), frozenset())
    return Probe(
        None,
        frozenset(kind for kind in ProgType if has_prog_type(kind)),
        frozenset(kind for kind in MapType if has_map_type(kind)),
        frozenset(name for name, works in _FEATURES.items() if _try(works)),
    )


@cache
def has_prog_type(prog_type: ProgType | str) -> bool:
    """Whether a program of a type loads."""
    kind = ProgType.of(prog_type)
    return kind not in _NOT_TRIED and _try(lambda: _load_as(kind, _exit_program()))


@cache
def has_map_type(map_type: MapType | str) -> bool:
    """Whether a map of a type can be made."""
    kind = MapType.of(map_type)
    return kind not in _MAP_NOT_TRIED and _try(lambda: _make(kind))


@cache
def has_helper(prog_type: ProgType | str, helper: str | int) -> bool:
    """Whether programs of a type may call a helper.

    Args:
        prog_type: the type.
        helper: its number, or its name with or without ``bpf_``.

    Raises:
        OptionError: there is no such helper or type.
    """
    number = isa.helper_id(helper) if isinstance(helper, str) else helper
    program = Program(isa.concat([isa.make(isa.CALL, imm=number), isa.exit_()]))
    try:
        _load_as(ProgType.of(prog_type), program)
    except VerifierError as error:
        # What it is called with is wrong, of course. Only these complaints mean the call itself.
        message = error.log
        return not any(
            text in message
            for text in ("invalid func ", "unknown func ", "program of this type cannot use helper")
        )
    except KernelError:
        return False
    return True


def _try(what: Callable[[], object]) -> bool:
    """Whether something works."""
    try:
        return what() is not False
    except (KernelError, OSError):
        return False


def _exit_program() -> Program:
    return Program(isa.concat([isa.mov(isa.R0, 0), isa.exit_()]))


def _load_as(kind: ProgType, program: Program) -> None:
    attach_btf_id = 0
    if kind in _ATTACH_TO:
        attach_btf_id = vmlinux_btf().find_one(*_ATTACH_TO[kind]) or 0
    load(
        program,
        prog_type=kind,
        attach_type=_ATTACH.get(kind),
        attach_btf_id=attach_btf_id,
        flags=ProgFlag.SLEEPABLE if kind is ProgType.SYSCALL else 0,
    ).close()


def _make(kind: MapType) -> None:
    key, value, entries = _SIZES.get(kind, (4, 4, 1))
    inner = Map.create(MapType.HASH) if kind in OF_MAPS else None
    try:
        Map.create(kind, key, value, entries, flags=_FLAGS.get(kind, 0), inner=inner).close()
    finally:
        if inner is not None:
            inner.close()


def _types() -> tuple[Btf, int, int, int]:
    """(types of one function, its id, a file's and a line's name as string offsets)."""
    builder = BtfBuilder()
    number = builder.add(Int("int", 4, 32, IntEncoding.SIGNED))
    proto = builder.add(FuncProto(number, ()))
    func = builder.add(Func("probe", proto, FuncLinkage.STATIC))
    return builder.build(), func, builder.string("int"), builder.string("probe")


def _table(dtype: Any, *row: int) -> AnchoredTable:
    return AnchoredTable(np.zeros(1, np.int32), np.array([row], dtype), Anchor.ENTRY)


def _with_records(**tables: AnchoredTable) -> None:
    btf, *_ = _types()
    load(_exit_program().with_tables(**tables), btf=btf).close()


def _func_info() -> None:
    _, func, _, _ = _types()
    _with_records(**{FUNC_INFO: _table([("type_id", "<u4")], func)})


def _line_info() -> None:
    _, func, file, line = _types()
    _with_records(
        **{
            FUNC_INFO: _table([("type_id", "<u4")], func),
            LINE_INFO: _table(LINE, file, line, line_col_join(1, 1)),
        }
    )


def _test_run() -> None:
    with load(_exit_program()) as prog:
        prog.test_run(_PACKET)


def _jit() -> bool:
    with load(_exit_program()) as prog:
        return prog.info().jited_len > 0


def _cpu_v4() -> None:
    program = Program(
        isa.concat([isa.mov(isa.R0, 0), isa.byte_swap("bswap", isa.R0, 32), isa.exit_()])
    )
    load(program, log_level=0).close()


def _may_goto() -> None:
    program = Program(isa.concat([isa.mov(isa.R0, 0), isa.may_goto(0), isa.exit_()]))
    load(program, log_level=0).close()


_FEATURES: Final[dict[str, Callable[[], object]]] = {
    "btf": lambda: load_btf(_types()[0]).close(),
    "func_info": _func_info,
    "line_info": _line_info,
    "vmlinux_btf": VMLINUX.exists,
    "test_run": _test_run,
    "jit": _jit,
    "harden": lambda: os.access(SETTING, os.W_OK),
    "cpu_v4": _cpu_v4,
    "may_goto": _may_goto,
}
