"""ctx-access: turn loads and stores of a context into those of the kernel's own struct."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.btf import Btf, Kind
from bpfpatch.errors import OptionError, UnsupportedError, Where
from bpfpatch.facts import MEM_TYPE, MemType, ProgType
from bpfpatch.facts.layouts import Layouts
from bpfpatch.passes.base import Pass, register
from bpfpatch.passes.search import CodeIndex, groups
from bpfpatch.passes.setting import Setting
from bpfpatch.passes.target import Target
from bpfpatch.patch import Body, CodeView, PatchList
from bpfpatch.program.types import Mask, Slots, gather

from .ctx import ContextTable, Converter, context_of
from .ctx import context as context_named
from .ctx.access import LDX, MEM, MEMSX, MODE, ST, STX, Access, with_hidden, with_registers
from .ctx.form import Scene, make
from .ctx.sock import SOCK, TCP_SOCK
from .ctx.xdp import XDP_SOCK

_ATOMIC: Final = 0xC0
_PROBE_MEM: Final = 0x20
_PROBE_MEMSX: Final = 0x40
_PROBE_MEM32: Final = 0xA0
_PROBE_MEM32SX: Final = 0xC0
_PROBE_ATOMIC: Final = 0xE0

_POINTED: Final = {
    MemType.SOCKET: SOCK,
    MemType.SOCK_COMMON: SOCK,
    MemType.TCP_SOCK: TCP_SOCK,
    MemType.XDP_SOCK: XDP_SOCK,
}

_SLICE_RDWR: Final = "bpf_dynptr_slice_rdwr"


@register
@dataclass(frozen=True)
class CtxAccess(Pass):
    """Turn accesses to the context into those of the kernel's own structs.

    Sockets behind pointers are contexts, too. Loads through pointers that may
    be gone, and accesses to an arena, become those that may fault. A program
    that writes to packets gets the prologue that its kind has.

    Attributes:
        context: name of the context's table; "" for that of the program's kind.
        nr_cpus: how many processors the kernel was built for; 0 to take it from the types.

    Source: linux v6.18, kernel/bpf/verifier.c, convert_ctx_accesses().
    """

    name = "ctx-access"
    needs = (MEM_TYPE,)
    context: str = ""
    nr_cpus: int = 0

    def run_for(self, patches: PatchList, setting: Setting) -> None:
        """Change probing accesses in place, put the prologue in front, replace the others."""
        code = _Code.of(patches)
        own = self._context(code, setting)
        is_internal = not setting.target.is_loadable
        if is_internal:
            _probe(patches, code)
        layouts = _layouts(setting.target)
        constants = self._constants(layouts)
        tables = {MemType.CTX: own} if own else {}
        if is_internal:
            tables |= _POINTED
        sites = _Sites.of(code, [int(kind) for kind in tables])
        equal = sites.groups()
        converters = [Converter(table, layouts, constants) for table in tables.values()]
        converters = [_aware(one, row, sites, equal, layouts) for row, one in enumerate(converters)]
        hidden = setting.target.hidden
        work = [_group(patches, converters, sites, rows, hidden) for rows in equal]
        if own and own.prologue and _writes_packets(code, setting.target.btf):
            patches.prepend(int(code.view.node[0]), _prologue(own, layouts, hidden))
        for edit in (part for parts in work for part in parts):
            patches.replace(edit.nodes, edit.body, edit.imms)

    def _context(self, code: _Code, setting: Setting) -> ContextTable | None:
        """The table for the program's own context; None for none."""
        has_sites = bool((code.mem == MemType.CTX).any())
        found: ContextTable | None = None
        if self.context:
            found = context_named(self.context)
        elif setting.subject is not None:
            prog_type = setting.subject.prog_type
            if prog_type is ProgType.EXT and has_sites:
                raise UnsupportedError(
                    "an extension has the context of the program that it extends, which is not "
                    "known here; name it with the option context"
                )
            found = context_of(prog_type)
        elif has_sites:
            raise OptionError(
                f"pass {self.name} needs to know what kind of program this is; "
                "give a subject, or the option context"
            )
        if found is not None and found.is_internal and setting.target.is_loadable:
            raise OptionError(
                f"pass {self.name} makes the kernel's own form, which bpf(2) refuses, of context "
                f"{found.name}; ask for it with Target.internal()"
            )
        return found

    def _constants(self, layouts: Layouts) -> dict[str, int]:
        nr_cpus = self.nr_cpus
        if not nr_cpus and layouts.btf is not None and layouts.has("cpumask.bits"):
            nr_cpus = 8 * layouts.place("cpumask.bits").size
        # Numbers below are processors' (linux v6.18, include/net/busy_poll.h, MIN_NAPI_ID).
        return {"min_napi_id": nr_cpus + 1} if nr_cpus else {}


@dataclass(frozen=True, slots=True, eq=False)
class _Code:
    """The code as it is now.

    Attributes:
        view: the code.
        index: its opcodes.
        mem: (n,) `MemType` numbers; 0 at second slots of ld_imm64.
    """

    view: CodeView
    index: CodeIndex
    mem: NDArray[np.uint8]

    @classmethod
    def of(cls, patches: PatchList) -> _Code:
        view = patches.view()
        mem = patches.aux_at(MEM_TYPE, view.node)
        mem[view.node < 0] = 0
        return cls(view, CodeIndex(view), mem)

    def through(self, kinds: Iterable[int]) -> Slots:
        """(k,) slots of what goes through pointers of some kinds, ascending."""
        found = np.zeros(self.mem.size, bool)
        for kind in kinds:
            found |= self.mem == kind
        return np.flatnonzero(found).astype(np.int32)


def _is_load(codes: NDArray[np.uint8]) -> Mask:
    """(k,) plain and sign-extending loads."""
    mode = codes & MODE
    found: Mask = (codes & 7 == LDX) & ((mode == MEM) | (mode == MEMSX))
    return found


def _is_store(codes: NDArray[np.uint8]) -> Mask:
    """(k,) plain stores."""
    kind = codes & 7
    found: Mask = ((kind == ST) | (kind == STX)) & (codes & MODE == MEM)
    return found


@dataclass(frozen=True, slots=True, eq=False)
class _Sites:
    """Accesses to contexts.

    Attributes:
        node: (s,) nodes.
        insn: (s,) instructions.
        table: (s,) which of the contexts.
    """

    node: Slots
    insn: isa.Insns
    table: NDArray[np.uint8]

    @classmethod
    def of(cls, code: _Code, kinds: list[int]) -> _Sites:
        """All accesses through pointers of some kinds."""
        at = code.through(kinds)
        codes = gather(code.index.codes, at)
        is_access = _is_load(codes) | _is_store(codes)
        if not is_access.all():
            at = at[is_access]
        row = np.zeros(256, np.uint8)
        row[kinds] = np.arange(len(kinds))
        words = gather(isa.words(code.view.insns), at)
        return cls(gather(code.view.node, at), words.view(isa.INSN), row[gather(code.mem, at)])

    def access(self, row: int) -> Access:
        """The access in a row."""
        insn = self.insn[row]
        regs = int(insn["regs"])
        return Access(int(insn["code"]), int(insn["off"]), regs & 0xF == regs >> 4)

    def groups(self) -> list[NDArray[np.int32]]:
        """Rows of equal accesses: same table, place, opcode and registers."""
        keys = isa.words(self.insn) & np.uint64(0xFFFFFFFF)  # all but the immediate
        if self.table.any():
            keys |= self.table.astype(np.uint64) << np.uint64(32)
        return [rows for _, rows in groups(keys, np.arange(self.node.size, dtype=np.int32))]


@dataclass(frozen=True, slots=True, eq=False)
class _Edit:
    """One body for many sites.

    Attributes:
        nodes: (s,) sites.
        body: what comes in their place.
        imms: by slot of the body, (s,) immediates: of a store, those of the sites.
    """

    nodes: Slots
    body: Body
    imms: dict[int, NDArray[np.int32]] | None = None


def _aware(
    one: Converter,
    table: int,
    sites: _Sites,
    equal: list[NDArray[np.int32]],
    layouts: Layouts,
) -> Converter:
    """The same, or the table for programs that know more."""
    known = one.context
    if known.aware is None:
        return one
    firsts = [int(rows[0]) for rows in equal]
    accesses = [sites.access(row) for row in firsts if sites.table[row] == table]
    if any(one.reads(access, known.aware_field) for access in accesses):
        return Converter(known.aware, layouts, one.constants)
    return one


def _group(
    patches: PatchList,
    converters: list[Converter],
    sites: _Sites,
    rows: NDArray[np.int32],
    hidden: int,
) -> list[_Edit]:
    """What becomes of equal accesses."""
    first = int(rows[0])
    converter = converters[int(sites.table[first])]
    access = sites.access(first)
    try:
        span, _ = converter.span(access)
        insns = converter.insns(access)
    except UnsupportedError as error:
        raise UnsupportedError(f"{_where(patches, int(sites.node[first]))}: {error}") from error
    regs = int(sites.insn["regs"][first])
    body = Body(with_registers(insns, regs & 0xF, regs >> 4, hidden))
    nodes = sites.node if rows.size == sites.node.size else sites.node[rows]
    if not access.is_imm:
        return [_Edit(nodes, body)]
    # The immediate comes with the edit: sites with different ones share a body.
    (at,) = np.flatnonzero((insns["code"] & 7 == ST) & (insns["code"] & MODE == MEM)).tolist()
    imms = sites.insn["imm"][rows]
    if span.field.store_below is None:
        return [_Edit(nodes, body, {at: imms})]
    skips = imms >= span.field.store_below
    parts = [
        _Edit(nodes[~skips], body, {at: imms[~skips]}),
        _Edit(nodes[skips], Body.of(isa.nop())),
    ]
    return [part for part in parts if part.nodes.size]


def _where(patches: PatchList, node: int) -> Where:
    if node < len(patches.program):
        return patches.program.where(node)
    return Where(node)


def _probe(patches: PatchList, code: _Code) -> None:
    """Loads of what may be gone, and accesses to an arena, may fault: the JIT has to know.

    Source: linux v6.18, kernel/bpf/verifier.c, convert_ctx_accesses().
    """
    at = code.through((MemType.BTF_ID_PROBE, MemType.ARENA))
    if not at.size:
        return
    codes, is_arena = code.index.codes[at], code.mem[at] == MemType.ARENA
    is_load, is_store = _is_load(codes), _is_store(codes)
    mode = codes & MODE
    signed = is_load & (mode == MEMSX)
    is_atomic = (codes & 7 == STX) & (mode == _ATOMIC)
    new = mode.copy()
    new[~is_arena & is_load] = _PROBE_MEM
    new[~is_arena & signed] = _PROBE_MEMSX
    new[is_arena & (is_load | is_store)] = _PROBE_MEM32
    new[is_arena & signed] = _PROBE_MEM32SX
    new[is_arena & is_atomic] = _PROBE_ATOMIC
    changes = new != mode
    if changes.any():
        wanted = (codes & ~np.uint8(MODE) | new)[changes]
        patches.modify(code.view.node[at[changes]], code=wanted)


def _writes_packets(code: _Code, btf: Btf | None) -> bool:
    """Whether the program stores into packets, or takes a slice of one that it may write to.

    Source: linux v6.18, kernel/bpf/verifier.c, may_access_direct_pkt_data() and its callers.
    """
    at = code.through((MemType.PACKET, MemType.PACKET_META))
    if _is_store(code.index.codes[at]).any():
        return True
    calls = code.index.kfunc_calls
    if btf is None or not calls.size:
        return False
    wanted = btf.find(_SLICE_RDWR, Kind.FUNC)
    return bool(np.isin(code.view.insns["imm"][calls], wanted).any())


def _prologue(own: ContextTable, layouts: Layouts, hidden: int) -> Body:
    return Body(with_hidden(make(own.prologue, Scene(layouts)).insns(), hidden))


def _layouts(target: Target) -> Layouts:
    return _shared_layouts(target.btf, target.arch.word_bits, target.arch.byteorder)


@lru_cache(maxsize=4)
def _shared_layouts(btf: Btf | None, word_bits: int, byteorder: str) -> Layouts:
    """Looking up a struct by its name costs milliseconds: look each up once."""
    return Layouts(btf, word_bits, byteorder)
