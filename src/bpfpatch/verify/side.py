"""One of the two programs, ready to be run on any number of cases in the interpreter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from bpfpatch.elf import ElfObject, LinkedProgram, TargetKind
from bpfpatch.elf.setup import PreparedEntry
from bpfpatch.errors import BpfPatchError
from bpfpatch.facts.maps import MapDefinition
from bpfpatch.interp import Context, Machine, MachineOptions, Plain, Skb, Xdp
from bpfpatch.interp.contexts import SKB_FIELDS, XDP_FIELDS, Left
from bpfpatch.interp.memory import Region
from bpfpatch.interp.objects import put_entries
from bpfpatch.program import Program

from .calls import Call
from .case import MEMORY_SIZE, Case, Entry, place_pointers
from .coverage import BranchCoverage, Compare, Edge, Hook, Recorder
from .kinds import Shape, r0_bits
from .mapstate import MapState
from .observer import Observer

MAY_GOTO: Final = 64
"""How often a may_goto falls through: enough to see what it does."""

_FILL: Final = 0xA5
"""What unwritten memory holds: zeros would hide that a rewriting lost the store of one."""

_EXTERN_SIZE: Final = 4096
"""Bytes of a variable of the kernel, all of them zeros."""

_MAX_REGIONS: Final = 1 << 12
"""More maps and data sections than programs have, before what they run on."""

_ADDRESSES: Final = ("data", "data_end", "data_meta")


@dataclass(frozen=True, slots=True)
class RunSubject:
    """A program, and what is needed to run it.

    Attributes:
        program: linked or flat.
        obj: the object of a linked one.
        maps: of a flat one, by the number in its ld_imm64.
        entries: what a setup has the object's maps start with.
        own_maps: names of maps that a rewriting has brought.
    """

    program: LinkedProgram | Program
    obj: ElfObject | None = None
    maps: Mapping[int, MapDefinition] = field(default_factory=dict)
    entries: tuple[PreparedEntry, ...] = ()
    own_maps: frozenset[str] = frozenset()

    @property
    def flat(self) -> Program:
        """The code."""
        return self.program.program if isinstance(self.program, LinkedProgram) else self.program


@dataclass(frozen=True, slots=True)
class Observation:
    """What a run did that can be observed.

    Attributes:
        r0: what it returned; of the bits that count.
        packet: the packet afterwards, or None.
        meta: an XDP packet's metadata afterwards.
        ctx: the context or memory afterwards, addresses left out.
        maps: what is in the maps afterwards.
        calls: helper calls, or None where they are not recorded.
        printed: what was printed.
        error: what ended the run before its end, or None.
        n_insns: how many instructions ran.
    """

    r0: int = 0
    packet: bytes | None = None
    meta: bytes = b""
    ctx: bytes | None = None
    maps: Mapping[str, Any] = field(default_factory=dict)
    calls: tuple[Call, ...] | None = None
    printed: tuple[str, ...] = ()
    error: BpfPatchError | None = None
    n_insns: int = 0


class Side:
    """A program on a machine of its own.

    Attributes:
        recorder: what the last run went through.
        machine: the machine.
        state: its maps.
        seen: edges that any run took.
    """

    def __init__(
        self, subject: RunSubject, shape: Shape, *, budget: int, hook: Hook | None = None
    ) -> None:
        self.subject = subject
        self.shape = shape
        self.budget = budget
        self.recorder = Recorder(subject.flat)
        options = MachineOptions(
            hook=hook, watch=self.recorder, may_goto=MAY_GOTO, budget=budget, fill=_FILL
        )
        self.machine = _machine(subject, options)
        self.machine.own_maps = subject.own_maps
        put_entries(self.machine, subject.entries)
        self.state = MapState(self.machine)
        self._entries = tuple(Entry(*one) for one in subject.entries)
        self._r0_mask = (1 << r0_bits(shape)) - 1
        self._addresses = _addresses(shape)
        self.seen: set[Edge] = set()
        self._all = {edge for one in self.recorder.branches.values() for edge in one.edges}
        # A rewriting may take maps out; what is stored of addresses is compared all the same.
        self.machine.memory.round_up(_MAX_REGIONS)
        self._memory = self.machine.memory.add("memory", MEMORY_SIZE)

    def run(self, case: Case, budget: int | None = None) -> Observation:
        """Run the program on one case, from the same state as any other."""
        machine = self.machine
        machine.budget = budget or self.budget
        machine.begin(case.results, case.seed)
        self.recorder.begin()
        self._put_memory(case)
        context = _context(case, self.shape, self._memory)
        error = None
        left = None
        try:
            self.state.fill((*self._entries, *case.entries))
            left = machine.run(context)
        except BpfPatchError as caught:
            error = caught
        maps = self.state.read()
        self.state.reset()
        self.seen.update(self.recorder.edges)
        calls = tuple(machine.calls)
        if left is None:
            return Observation(maps=maps, calls=calls, error=error)
        ctx = left.mem if self.shape is Shape.MEM else _without(left.ctx, self._addresses)
        return Observation(
            r0=left.r0 & self._r0_mask,
            packet=left.packet,
            meta=left.meta,
            ctx=ctx,
            maps=maps,
            calls=calls,
            printed=left.printed,
            n_insns=left.n_insns,
        )

    def reached_branches(self) -> set[int]:
        """Slots of conditional jumps that any run came to."""
        return {slot for slot, _ in self.seen & self._all}

    def _put_memory(self, case: Case) -> None:
        if self.shape is not Shape.CTX:
            return
        pattern = case.memory or bytes(8)
        content = (pattern * (MEMORY_SIZE // len(pattern) + 1))[:MEMORY_SIZE]
        base, order = self._memory.address, self.machine.byteorder
        self._memory.data[:] = place_pointers(content, base, order)

    @property
    def compares(self) -> list[Compare]:
        """What the last run compared."""
        return self.recorder.compares

    @property
    def coverage(self) -> BranchCoverage:
        """How much of the program has been run."""
        return BranchCoverage(len(self.seen & self._all), len(self._all))


def _machine(subject: RunSubject, options: MachineOptions) -> Observer:
    if isinstance(subject.program, LinkedProgram):
        assert subject.obj is not None
        externs = {
            target.name: bytes(_EXTERN_SIZE)
            for target in subject.program.targets
            if target.kind is TargetKind.KSYM
        }
        return Observer.of_linked(subject.obj, subject.program, options, externs=externs)
    return Observer(subject.program, options, maps=subject.maps)


class _Raw:
    """A context that is nothing but bytes, with pointers in it."""

    def __init__(self, content: bytes, base: int) -> None:
        self._content = content
        self._base = base
        self._region: Region | None = None

    def enter(self, machine: Machine) -> tuple[int, int]:
        content = place_pointers(self._content, self._base, machine.byteorder)
        self._region = machine.memory.add("ctx", content)
        return self._region.address, 0

    def leave(self, machine: Machine) -> Left:
        assert self._region is not None
        machine.memory.remove(self._region)
        return Left(ctx=bytes(self._region.data))


def _context(case: Case, shape: Shape, memory: Region) -> Context:
    if shape is Shape.MEM:
        return Plain(case.ctx or b"")
    if shape is Shape.CTX:
        return _Raw(case.ctx or b"", memory.address)
    fields = dict(case.fields)
    if shape is Shape.XDP:
        known = {name: value for name, value in fields.items() if name in XDP_FIELDS}
        return Xdp(case.packet or b"", known)
    known = {name: value for name, value in fields.items() if name in SKB_FIELDS}
    return Skb(case.packet or b"", known, is_l2=shape is Shape.SKB)


def _addresses(shape: Shape) -> tuple[tuple[int, int], ...]:
    """Byte offset and size of the packet's addresses in a context structure."""
    known = {Shape.XDP: XDP_FIELDS, Shape.SKB: SKB_FIELDS, Shape.SKB_NETWORK: SKB_FIELDS}.get(shape)
    return () if known is None else tuple(known[name] for name in _ADDRESSES)


def _without(ctx: bytes, places: tuple[tuple[int, int], ...]) -> bytes:
    """A context structure with the packet's addresses blotted out."""
    if not places:
        return ctx
    out = bytearray(ctx)
    for at, size in places:
        out[at : at + size] = bytes(size)
    return bytes(out)
