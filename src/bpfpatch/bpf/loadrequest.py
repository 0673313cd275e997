"""A load that another process asks for, as a program with its tables."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.btf import Btf, Func
from bpfpatch.btf.callbacks import exception_callbacks
from bpfpatch.errors import OptionError
from bpfpatch.facts.kinds import ProgType
from bpfpatch.facts.license import is_gpl_compatible
from bpfpatch.facts.subject import Subject
from bpfpatch.program import (
    FUNC_INFO,
    LINE,
    LINE_INFO,
    Anchor,
    AnchoredTable,
    OnReplace,
    Program,
    Subprogs,
)
from bpfpatch.program.refs import read_references
from bpfpatch.program.types import Slots

from .loadcall import CORE_ROW, FUNC_ROW, LINE_ROW, CallVerdict, LoadCall, LoadedCode, NotOursError
from .loadedbtf import btf_id_of, read_btf, read_btf_by_id
from .map import Map, possible_cpus
from .mapfacts import map_facts, with_ld_map
from .records import func_info, line_info

_CORE_RELO: Final = "core_relo"
_INSN_SIZE: Final = 8
_SYS_BPF: Final = 166
_PROBE_SLOTS: Final = 8


class HasProgram(Protocol):
    """What a pipeline or linearizing gives."""

    @property
    def program(self) -> Program:
        """The new program."""


@dataclass(frozen=True, slots=True, eq=False)
class Attempt:
    """A load that was tried out from here.

    Attributes:
        program: what was loaded.
        verdict: what the kernel said.
    """

    program: Program | None
    verdict: CallVerdict

    @property
    def is_loaded(self) -> bool:
        """Whether the kernel took it."""
        return self.verdict.handle is not None

    def close(self) -> None:
        """Unload it, unless it is the answer."""
        if self.verdict.handle is not None:
            self.verdict.handle.close()


class LoadRequest:
    """A process's BPF_PROG_LOAD that waits to be answered.

    What is in here is ours for as long as the call is being answered; descriptors
    in the program are copies in this process.

    Attributes:
        tid: the thread that waits.
        comm: its name; "" where it is gone.
        type: kind of program.
        attach_type: where it will attach, for types whose rules depend on it.
        license: as the object's section has it.
        flags: `ProgFlag` bits.
        short_name: the name that the kernel will keep, up to 15 characters.
        n_slots: its length.
    """

    def __init__(self, call: LoadCall) -> None:
        """Raises: NotOursError, this version does not know such programs."""
        row = call.attr[0]
        self.call = call
        self.tid = call.remote.tid
        try:
            self.type = ProgType.of(int(row["prog_type"]))
        except OptionError:
            raise NotOursError(f"its type {int(row['prog_type'])} is not known here") from None
        self.attach_type = int(row["expected_attach_type"])
        self.license = call.license.decode("utf-8", "replace")
        self.flags = int(row["prog_flags"])
        self.short_name = bytes(row["prog_name"]).decode("utf-8", "replace")
        self.n_slots = len(call.code.insns)
        # Who asks may be gone once it has its answer.
        self.comm = _comm(self.tid)
        self._stack = ExitStack()

    def __repr__(self) -> str:
        return f"<LoadRequest {self.name!r}, {self.type.text}, {self.n_slots} slots>"

    def close(self) -> None:
        """Close all that was opened; a second time is fine."""
        self._stack.close()
        self.call.close()

    @property
    def is_loader(self) -> bool:
        """Whether this is a light skeleton's loader, a program that loads others in the kernel.

        Source: linux v6.18, kernel/bpf/syscall.c, bpf_sys_bpf().
        """
        if self.type is not ProgType.SYSCALL:
            return False
        insns = self.call.code.insns
        return bool((isa.is_helper_call(insns) & (insns["imm"] == _SYS_BPF)).any())

    @property
    def is_probe(self) -> bool:
        """Whether it looks like a loader's question what the kernel can do.

        These have no types, no name or one of libbpf's own, and a few instructions.
        """
        has_name = bool(self.short_name) and not self.short_name.startswith("libbpf_")
        is_plain = not has_name and self.btf is None
        return is_plain and self.n_slots <= _PROBE_SLOTS

    @cached_property
    def btf(self) -> Btf | None:
        """The program's own types.

        Raises:
            KernelError: the kernel does not tell.
        """
        fd = int(self.call.attr["prog_btf_fd"][0])
        return read_btf(fd) if fd else None

    @cached_property
    def btf_id(self) -> int:
        """The number of the program's own types in the kernel, or 0.

        Raises:
            KernelError: the kernel does not tell.
        """
        return btf_id_of(self.btf_fd) if self.btf_fd else 0

    @property
    def btf_fd(self) -> int:
        """Our descriptor of the program's own types, or 0."""
        return int(self.call.attr["prog_btf_fd"][0])

    @cached_property
    def name(self) -> str:
        """The main function's name at full length, or the short one."""
        btf, rows = self.btf, self.call.code.func_info
        if btf is None or not rows.size or rows["insn_off"][0]:
            return self.short_name
        return _func_name(btf, int(rows["type_id"][0])) or self.short_name

    @cached_property
    def maps(self) -> tuple[Map, ...]:
        """The maps that it refers to, in the order of their first use.

        Raises:
            KernelError: one of them is not a map.
        """
        return tuple(self._stack.enter_context(Map.from_fd(fd)) for fd in self.map_fds)

    @cached_property
    def map_fds(self) -> tuple[int, ...]:
        """Our descriptors of the maps, in the same order."""
        insns = self.call.code.insns
        sites = isa.is_pseudo(insns, isa.Pseudo.MAP_FD, isa.Pseudo.MAP_VALUE)
        return tuple(dict.fromkeys(insns["imm"][sites].tolist()))

    @cached_property
    def program(self) -> Program:
        """The program: flat, as bpf(2) takes it, with its tables and the column ``ld_map``.

        Map references have our descriptors. Tables are ``func_info``, ``line_info`` and
        ``core_relo``, where the process has given such.

        Raises:
            KernelError: its types cannot be read.
            ValueError: records that the kernel would refuse, too.
        """
        code, btf = self.call.code, self.btf
        tables = {}
        if code.func_info.size:
            tables[FUNC_INFO] = _table(code.func_info, FUNC_ROW, Anchor.ENTRY, is_unique=True)
        if code.line_info.size:
            tables[LINE_INFO] = _table(code.line_info, LINE_ROW, Anchor.ENTRY, is_unique=True)
        if code.core_relo.size:
            rows = code.core_relo.copy()
            rows["insn_off"] //= _INSN_SIZE
            tables[_CORE_RELO] = _table(rows, CORE_ROW, Anchor.OWN, is_unique=False)
        program = Program(
            code.insns,
            self._subprogs(code, btf),
            tables=tables,
            strings=b"" if btf is None else btf.string_bytes,
        )
        return with_ld_map(program, self.map_fds)

    def _subprogs(self, code: LoadedCode, btf: Btf | None) -> Subprogs:
        refs = read_references(code.insns, np.zeros(0, np.int32))
        rows = code.func_info[code.func_info["insn_off"] < self.n_slots]
        # Sets, since the first np.union1d of a process imports much.
        entered = set(refs.target[refs.is_entry].tolist()) | set(rows["insn_off"].tolist())
        starts = sorted({0} | {slot for slot in entered if 0 <= slot < self.n_slots})
        types = dict(zip(rows["insn_off"].tolist(), rows["type_id"].tolist(), strict=True))
        names = [
            _func_name(btf, types[start]) if btf is not None and start in types else ""
            for start in starts
        ]
        names[0] = names[0] or self.short_name
        called_back = set() if btf is None else set(exception_callbacks(btf).values())
        is_root = np.array(
            [row == 0 or name in called_back for row, name in enumerate(names)], np.bool_
        )
        return Subprogs(
            np.array(starts, np.int32), tuple(names), np.zeros(len(starts), np.int32), is_root
        )

    @cached_property
    def subject(self) -> Subject:
        """What a loader knows of it beside the instructions; maps as ``ld_map`` counts them.

        Raises:
            KernelError: the kernel does not tell.
        """
        facts = [map_facts(made, self._types_of(made)) for made in self.maps]
        inner = [one.inner for one in facts if one.inner is not None]
        return Subject(
            prog_type=self.type,
            attach_type=self.attach_type,
            maps=(*facts, *inner),
            flags=self.flags,
            btf=self.btf,
            attach_btf_id=int(self.call.attr["attach_btf_id"][0]),
            is_gpl=is_gpl_compatible(self.license),
            n_cpus=possible_cpus(),
        )

    def _types_of(self, made: Map) -> Btf | None:
        btf_id = made.info().btf_id
        if not btf_id:
            return None
        return read_btf_by_id(btf_id)

    def attempt(
        self, new: Program | HasProgram | None = None, *, log_level: int | None = None
    ) -> Attempt:
        """Load it from here, without answering the process.

        Args:
            new: what to load; as it came by default.
            log_level: for a log of our own; by default as the process wants it, 0 for none.

        Returns:
            What the kernel said. An attempt that was loaded may be what a function for
            `bpfpatch.bpf.intercept` returns.
        """
        program = None if new is None else _program(new)
        code = None if program is None else code_of(program)
        return Attempt(program, self.call.make(code, log_level))


def code_of(program: Program) -> LoadedCode:
    """What a flat program is loaded from."""
    relos = program.tables.get(_CORE_RELO)
    core = np.zeros(0 if relos is None else len(relos), CORE_ROW)
    if relos is not None:
        core["insn_off"] = relos.insn * _INSN_SIZE
        for field in relos.rows.dtype.names or ():
            core[field] = relos.rows[field]
    return LoadedCode(program.insns, func_info(program), line_info(program), core)


def _program(new: Program | HasProgram) -> Program:
    return new if isinstance(new, Program) else new.program


def _table(
    rows: NDArray[Any], dtype: np.dtype[Any], anchor: Anchor, *, is_unique: bool
) -> AnchoredTable:
    fields = [(name, dtype[name]) for name in (dtype.names or ())[1:]]
    payload = np.zeros(len(rows), LINE if dtype is LINE_ROW else np.dtype(fields))
    for name, _ in fields:
        payload[name] = rows[name]
    insn: Slots = rows["insn_off"].astype(np.int32)
    return AnchoredTable(insn, payload, anchor, OnReplace.ERROR, unique=is_unique)


def _func_name(btf: Btf, type_id: int) -> str:
    if not 0 < type_id < len(btf.kinds):
        return ""
    found = btf.type(type_id)
    return found.name if isinstance(found, Func) else ""


def _comm(tid: int) -> str:
    try:
        return Path(f"/proc/{tid}/comm").read_text().strip()
    except OSError:
        return ""
