"""The interpreter as a runner."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from bpfpatch.bpf.errors import KernelError
from bpfpatch.btf import Btf
from bpfpatch.elf import ElfObject, LinkedProgram
from bpfpatch.elf.setup import PreparedEntry
from bpfpatch.errors import BpfPatchError, OptionError
from bpfpatch.facts.kinds import ProgType
from bpfpatch.facts.maps import MapDefinition
from bpfpatch.interp import Context, Machine, MachineOptions, Plain, Region, Skb, Xdp
from bpfpatch.interp import MachineOutcome as Ran
from bpfpatch.interp.contexts import SKB_FIELDS, XDP_FIELDS, Left
from bpfpatch.interp.objects import put_entries
from bpfpatch.isa import ByteOrder
from bpfpatch.loader.core import CoreTypes, apply_core, kernel_types
from bpfpatch.loader.kconfig import kconfig_content, kconfig_layout
from bpfpatch.loader.mapspec import weak_names
from bpfpatch.program import Program

from .contents import InterpMaps, data_sections
from .model import Input, Maps, Outcome
from .netctx import SKB_TYPES, arrival, kept_fields, n_meta
from .runner import Runner, no_such_map

_L2: Final = frozenset({ProgType.SCHED_CLS, ProgType.SCHED_ACT})
_ADDRESSES: Final = frozenset(
    {"data", "data_end", "data_meta", "len", "wire_len", "flow_keys", "sk", "protocol"}
)


class Raw:
    """A context that is nothing but bytes; R1 holds its address.

    Args:
        content: the bytes.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._region: Region | None = None

    def enter(self, machine: Machine) -> tuple[int, int]:
        """Put it into memory."""
        self._region = machine.memory.add("ctx", self._content)
        return self._region.address, 0

    def leave(self, machine: Machine) -> Left:
        """Take it out again."""
        assert self._region is not None
        machine.memory.remove(self._region)
        return Left(ctx=bytes(self._region.data))


class InterpRunner(Runner):
    """A program on a machine of its own."""

    def __init__(
        self,
        program: LinkedProgram | Program,
        obj: ElfObject | None,
        prog_type: ProgType | None,
        options: MachineOptions,
        *,
        maps: Mapping[int, MapDefinition] | None = None,
        btf: Btf | None = None,
        entries: Sequence[PreparedEntry] = (),
    ) -> None:
        super().__init__("interp", prog_type)
        if isinstance(program, LinkedProgram):
            assert obj is not None
            types = given_types(obj, btf)
            adapt = partial(adapted, btf=obj.btf, types=types)
            self.machine = Machine.of_linked(
                obj, program, options, externs=configuration(obj), adapt=adapt
            )
        else:
            self.machine = Machine(program, options, maps=maps)
        data = {} if obj is None else data_sections(obj, entries)
        self._maps = InterpMaps(self.machine, data)
        self._entries = entries
        put_entries(self.machine, entries)

    def run(self, one: Input, *, with_maps: bool = True) -> Outcome:
        """See `Runner.run`."""
        context = _context(self.prog_type, one, self.machine.byteorder)
        try:
            ran = self.machine.run(context)
        except BpfPatchError as error:
            return Outcome(error=error, n_insns=None)
        return Outcome(
            r0=ran.r0,
            packet=ran.packet,
            meta=ran.meta if isinstance(context, Xdp) else None,
            ctx=_ctx(context, ran),
            mem=ran.mem if isinstance(context, Plain) else None,
            maps=self.maps() if with_maps else {},
            helpers=ran.trace,
            printed=ran.printed,
            n_insns=ran.n_insns,
        )

    def maps(self) -> Maps:
        """See `Runner.maps`."""
        return self._maps.read()

    def put(self, name: str, key: bytes, value: bytes) -> None:
        """See `Runner.put`."""
        found = self.machine.maps.get(name)
        if found is None:
            raise no_such_map(name, self.machine.maps)
        if (len(key), len(value)) != (found.key_size, found.value_size):
            raise OptionError(
                f"map {name!r} has keys of {found.key_size} and values of {found.value_size} "
                f"bytes, but {len(key)} and {len(value)} were given"
            )
        found.set(key, value)

    def reset(self) -> None:
        """See `Runner.reset`."""
        self._maps.restore()
        put_entries(self.machine, self._entries)

    def close(self) -> None:
        """There is nothing to give back."""


def given_types(obj: ElfObject, btf: Btf | None) -> CoreTypes | None:
    """The types that an object's CO-RE records are to be applied with, or None.

    Those that are given; else the running kernel's, if it tells them and has the byte order.
    """
    if btf is not None:
        return CoreTypes(btf)
    if obj.btf is None or obj.byteorder != sys.byteorder:
        return None
    try:
        return kernel_types()
    except KernelError:
        return None


def adapted(linked: LinkedProgram, *, btf: Btf | None, types: CoreTypes | None) -> Program:
    """A linked program with its CO-RE records applied, as far as there are types.

    What the types lack becomes a call that no machine has, as libbpf does it: it is an error
    where it is reached.

    Raises:
        CoreRelocationError: a record does not fit its instruction, or is ambiguous.
    """
    program = linked.program
    if btf is None or types is None or not len(linked.core_relo):
        return program
    tables = {name: table for name, table in program.tables.items() if name != "core_relo"}
    return replace(program, insns=apply_core(program, btf, types), tables=tables)


def configuration(obj: ElfObject) -> dict[str, bytes]:
    """What the running kernel's configuration says of the values that an object asks for.

    Where it cannot be told there is nothing, and the interpreter takes zeros.
    """
    if obj.btf is None:
        return {}
    try:
        content = kconfig_content(obj.btf, weak_names(obj))
    except KernelError:
        return {}
    return {
        row.name: content[row.byte_off : row.byte_off + row.size] for row in kconfig_layout(obj.btf)
    }


def _context(prog_type: ProgType | None, one: Input, byteorder: ByteOrder) -> Context:
    if one.mem is not None:
        return Plain(one.mem)
    if one.packet is None:
        return Raw(one.ctx or b"")
    if prog_type is ProgType.XDP:
        size = n_meta(one.ctx, one.packet, byteorder)
        fields = _fields(one.ctx, XDP_FIELDS, byteorder)
        return Xdp(one.packet[size:], fields, meta=one.packet[:size])
    if prog_type is None or prog_type in SKB_TYPES:
        fields = {**arrival(one.packet, byteorder), **_fields(one.ctx, SKB_FIELDS, byteorder)}
        return Skb(one.packet, fields, is_l2=prog_type in _L2)
    raise OptionError(f"the interpreter has no packet for a {prog_type.text} program")


def _fields(
    ctx: bytes | None, known: Mapping[str, tuple[int, int]], byteorder: ByteOrder
) -> dict[str, int]:
    """What a context sets, of what can be set; a field of 0 is as if it were not given."""
    if ctx is None:
        return {}
    out = {}
    for name, (at, size) in known.items():
        value = int.from_bytes(ctx[at : at + size], byteorder)
        if name not in _ADDRESSES and value:
            out[name] = value
    return out


def _ctx(context: Context, ran: Ran) -> bytes | None:
    if isinstance(context, Skb):
        return kept_fields(ran.ctx)
    return ran.ctx if isinstance(context, Raw) else None
