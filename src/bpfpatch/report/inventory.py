"""What an object is made of, for who runs it: its maps, what it calls and prints, its stack."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.btf import Btf
from bpfpatch.dataflow.blocks import Blocks
from bpfpatch.dataflow.constants import Address, Constants, Data
from bpfpatch.dataflow.reach import reachable
from bpfpatch.dataflow.stackuse import StackUse
from bpfpatch.elf import ElfObject
from bpfpatch.elf.mapdefs import map_definitions
from bpfpatch.elf.space import CORE_RELO, RELOC_TABLE
from bpfpatch.errors import BpfPatchError
from bpfpatch.facts.helpers import HELPER_PROTOS
from bpfpatch.facts.kfuncs import kfunc_since
from bpfpatch.facts.kinds import map_flag_names
from bpfpatch.facts.maps import MapDefinition
from bpfpatch.facts.since import MAP_TYPE_SINCE, Version
from bpfpatch.passes.const import data_addresses
from bpfpatch.passes.sites import indirect_targets, landing_pads, opaque_slots
from bpfpatch.patch import PatchList
from bpfpatch.program import Program

from .keys import function_name

_FORMATS: Final = {"trace_printk": 1, "trace_vprintk": 1, "seq_printf": 2, "snprintf": 3}
"""Helpers that print, and which of R1 to R5 is the format's address.
Source: linux v6.18, include/uapi/linux/bpf.h, the helpers' descriptions."""
_MOST_TEXT: Final = 1024
"""Bytes of a format; a kernel takes fewer."""


@dataclass(frozen=True, slots=True)
class MapFact:
    """A map that an object defines.

    Attributes:
        name: its name.
        kind: ``btf`` or ``legacy``: how it is defined.
        definition: what it is; None where that cannot be told.
        key: the keys' type as C writes it, or "".
        value: the values', likewise.
        flags: names of its flags.
        since: the first kernel version with maps of its type, or None.
    """

    name: str
    kind: str
    definition: MapDefinition | None = None
    key: str = ""
    value: str = ""
    flags: tuple[str, ...] = ()
    since: Version | None = None


@dataclass(frozen=True, slots=True)
class CallFact:
    """A helper or kfunc that an object calls.

    Attributes:
        kind: ``helper`` or ``kfunc``.
        name: its name.
        count: how many calls.
        since: the first kernel version with it, or None where that is not known.
        callers: functions that call it.
    """

    kind: str
    name: str
    count: int
    since: Version | None
    callers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FormatFact:
    """A text that is printed.

    Attributes:
        helper: what prints it.
        text: the format.
        function: where.
        slot: of the call.
        source: ``file:line``, or "".
    """

    helper: str
    text: str
    function: str
    slot: int
    source: str


def map_facts(obj: ElfObject) -> tuple[tuple[MapFact, ...], str]:
    """The maps that an object defines, and why not all is told of them, or ""."""
    known: dict[str, MapDefinition] = {}
    problem = ""
    try:
        for found in map_definitions(obj):
            known[found.name] = found
    except BpfPatchError as error:
        problem = str(error)
    return tuple(
        _map(one.name, one.kind, known.get(one.name), obj.btf) for one in obj.maps
    ), problem


def core_problem(obj: ElfObject) -> str:
    """Why no loader goes by the CO-RE records of an object, or "".

    Raises:
        FormatError: the object is broken.
    """
    table = obj.code.tables.get(CORE_RELO)
    if table is None or not len(table) or "kind" in (table.rows.dtype.names or ()):
        return ""
    return (
        "its CO-RE records have 12 bytes, as clang 9 wrote them; libbpf ignores them and all of "
        ".BTF.ext, so that the code is loaded as it is"
    )


def _map(name: str, kind: str, found: MapDefinition | None, btf: Btf | None) -> MapFact:
    if found is None:
        return MapFact(name, kind)
    key, value = (
        "" if btf is None or not type_id else btf.type_name(type_id)
        for type_id in (found.key_type_id, found.value_type_id)
    )
    flags = tuple(map_flag_names(found.flags))
    return MapFact(name, kind, found, key, value, flags, MAP_TYPE_SINCE.get(found.type))


def call_facts(obj: ElfObject) -> tuple[CallFact, ...]:
    """Helpers and kfuncs that an object calls, by kind and name.

    Raises:
        FormatError: the object is broken.
    """
    code = obj.code
    found: dict[tuple[str, str], list[int]] = defaultdict(list)
    since: dict[tuple[str, str], Version] = {}
    for slot in np.flatnonzero(isa.is_helper_call(code.insns)).tolist():
        number = int(code.insns["imm"][slot])
        place = "helper", isa.HELPERS.get(number, str(number))
        found[place].append(slot)
        if number in HELPER_PROTOS:
            since[place] = HELPER_PROTOS[number].since
    for slot, name in kfunc_calls(obj):
        found["kfunc", name].append(slot)
        version = kfunc_since(name)
        if version is not None:
            since["kfunc", name] = version
    return tuple(
        CallFact(*place, len(slots), since.get(place), _functions(code, slots))
        for place, slots in sorted(found.items())
    )


def kfunc_calls(obj: ElfObject) -> Iterator[tuple[int, str]]:
    """Slot and name of calls of functions that no section of the object has."""
    code = obj.code
    is_call = isa.is_call(code.insns) & ~isa.is_helper_call(code.insns)
    table = code.tables[RELOC_TABLE]
    for slot, symbol in zip(table.insn.tolist(), table.rows["sym"].tolist(), strict=True):
        if is_call[slot] and obj.symbols[symbol].section == 0:
            yield slot, obj.symbols[symbol].name


def _functions(code: Program, slots: list[int]) -> tuple[str, ...]:
    owners = code.subprogs.of(np.array(slots, np.int32))
    return tuple(function_name(code, index) for index in dict.fromkeys(owners.tolist()))


def stack_facts(code: Program) -> list[tuple[int, bool]]:
    """Bytes of stack that each subprog uses, and whether it cannot be more."""
    if not len(code):
        return []
    patches = PatchList(code)
    view = patches.view()
    pads = landing_pads(code, view)
    use = StackUse.of(view, Blocks.of(view, indirect_targets(code, view), pads - 1))
    return list(zip(use.deepest.tolist(), use.is_known.tolist(), strict=True))


def format_facts(obj: ElfObject) -> tuple[FormatFact, ...]:
    """Formats that print, as far as they are read-only data that a constant address leads to."""
    code = obj.code
    numbers = {isa.helper_id(name): name for name in _FORMATS}
    calls = np.flatnonzero(isa.is_helper_call(code.insns))
    prints = [slot for slot in calls.tolist() if int(code.insns["imm"][slot]) in numbers]
    if not prints:
        return ()
    given = _arguments(obj)
    out = []
    for slot in prints:
        helper = numbers[int(code.insns["imm"][slot])]
        address = given.get(slot, {}).get(_FORMATS[helper])
        text = _text(obj, address) if isinstance(address, Address) else None
        if text is not None:
            function = _functions(code, [slot])[0]
            source = code.source(slot)
            out.append(FormatFact(helper, text, function, slot, str(source) if source else ""))
    return tuple(out)


def _arguments(obj: ElfObject) -> dict[int, dict[int, int | Address]]:
    """By slot of each call that can be reached, what is known of its arguments."""
    patches = PatchList(obj.code)
    view = patches.view()
    data = Data(dict(data_addresses(patches, view, obj)), lambda _address, _size: None)
    pads = landing_pads(obj.code, view)
    blocks = Blocks.of(view, indirect_targets(obj.code, view), pads - 1)
    constants = Constants(view, blocks, opaque_slots(patches, view), data)
    roots = np.arange(len(view.starts), dtype=np.int32)
    reachable(view, blocks, roots, constants, pads)
    return constants.arguments


def _text(obj: ElfObject, address: Address) -> str | None:
    """The text at an address, up to its NUL."""
    content = obj.raw.contents[address.section]
    if not 0 <= address.byte_off < len(content):
        return None
    start = address.byte_off
    text, end, _ = bytes(content[start : start + _MOST_TEXT]).partition(b"\0")
    return text.decode("utf-8", "backslashreplace") if end and text else None
