"""``bpfpatch info`` of a program in the kernel."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from bpfpatch import isa
from bpfpatch.bpf.errors import KernelError
from bpfpatch.bpf.inspect import InspectedProgram
from bpfpatch.bpf.loadedbtf import read_btf_by_id
from bpfpatch.bpf.map import Map, MapInfo
from bpfpatch.btf import Btf, DataSec, Var
from bpfpatch.btf.values import read_value
from bpfpatch.facts.kinds import MapType, map_flag_names
from bpfpatch.report.inventory import stack_facts
from bpfpatch.report.keys import function_name
from bpfpatch.text import plural

from .info_show import short_type, show_table
from .screen import echo

_ZERO_KEY: Final = bytes(4)


def loaded_json(shown: str, found: InspectedProgram) -> dict[str, Any]:
    """What there is to say, with the keys that docs/cli.md promises.

    Raises:
        KernelError: the kernel does not tell.
    """
    info, code = found.info, found.program
    return {
        "file": shown,
        "id": info.id,
        "name": info.name,
        "type": info.type.text,
        "tag": info.tag,
        "gpl": info.is_gpl,
        "uid": info.uid,
        "slots": len(code),
        "insns": int((~code.second_slots).sum()),
        "jited_bytes": info.jited_len,
        "verified_insns": info.verified_insns,
        "run_count": info.run_cnt,
        "run_time_ns": info.run_time_ns,
        "subprograms": list(_subprograms(found)),
        "maps": [_map_json(one) for one in found.maps],
        "calls": _calls(found),
        "globals": [row for one in found.maps for row in _variables(one)],
    }


def show_loaded(facts: dict[str, Any], *, whole_values: bool) -> None:
    """Print it as tables."""
    licence = "GPL" if facts["gpl"] else "not GPL"
    echo(
        f"{facts['file']}: {facts['type']} program {facts['name']!r}, id {facts['id']}, tag "
        f"{facts['tag']}, {licence}"
    )
    echo(
        f"{plural(facts['insns'], 'instruction')} in {plural(facts['slots'], 'slot')}, "
        f"{facts['jited_bytes']} bytes of "
        f"machine code; the verifier processed {facts['verified_insns']}"
    )
    if facts["run_count"]:
        echo(f"ran {facts['run_count']} times in {facts['run_time_ns']} ns, while that was counted")
    show_table("subprograms", facts["subprograms"], "name", "start#", "end#", "insns#", "stack#")
    columns: tuple[str, ...] = ("id#", "name", "type", "key", "value", "entries#", "flags")
    maps = [
        {**one, "key": short_type(one["key"]), "value": short_type(one["value"])}
        | {"flags": ", ".join(one["flags"]), "entries": one["max_entries"]}
        for one in facts["maps"]
    ]
    show_table("maps", maps, *columns, cut=("flags", "value", "key"), drop="flags")
    calls = [{**one, "callers": ", ".join(one["callers"])} for one in facts["calls"]]
    show_table("calls", calls, "name", "kind", "count#", "callers", cut=("callers",))
    columns = ("name", "map", "type", "bytes#", "value")
    cut: tuple[str, ...] = () if whole_values else ("value", "type")
    rows = [
        {**one, "type": short_type(one["type"]), "value": json.dumps(one["value"])}
        for one in facts["globals"]
    ]
    show_table("globals", rows, *columns, cut=cut)


def _subprograms(found: InspectedProgram) -> Iterator[dict[str, Any]]:
    code = found.program
    ends = code.subprogs.ends(len(code)).tolist()
    stack = stack_facts(code)
    for index, start in enumerate(code.subprogs.start.tolist()):
        yield {
            "name": function_name(code, index),
            "start": start,
            "end": ends[index],
            "insns": int((~code.second_slots[start : ends[index]]).sum()),
            "stack": stack[index][0],
            "stack_known": stack[index][1],
        }


def _types_of(info: MapInfo) -> Btf | None:
    return read_btf_by_id(info.btf_id) if info.btf_id else None


def _map_json(info: MapInfo) -> dict[str, Any]:
    types = _types_of(info)
    key, value = (
        types.type_name(type_id) if types is not None and type_id else None
        for type_id in (info.key_type_id, info.value_type_id)
    )
    return {
        "id": info.id,
        "name": info.name,
        "type": info.type.text,
        "key": key,
        "value": value,
        "key_size": info.key_size,
        "value_size": info.value_size,
        "max_entries": info.max_entries,
        "flags": map_flag_names(info.flags),
    }


def _calls(found: InspectedProgram) -> list[dict[str, Any]]:
    code = found.program
    slots: dict[tuple[str, str], list[int]] = defaultdict(list)
    is_kfunc = isa.is_kfunc_call(code.insns)
    for slot, name in found.calls.items():
        slots["kfunc" if is_kfunc[slot] else "helper", name].append(slot)
    out = []
    for (kind, name), where in sorted(slots.items()):
        owners = code.subprogs.of(np.array(where, np.int32)).tolist()
        callers = [function_name(code, index) for index in dict.fromkeys(owners)]
        out.append({"kind": kind, "name": name, "count": len(where), "callers": callers})
    return out


def _variables(info: MapInfo) -> Iterator[dict[str, Any]]:
    """The variables of a section that is a map, with what they hold now."""
    types = _types_of(info)
    if types is None or not info.value_type_id or info.type is not MapType.ARRAY:
        return
    section = types.type(info.value_type_id)
    if not isinstance(section, DataSec):
        return
    try:
        with Map.from_id(info.id) as opened:
            content = opened.get(_ZERO_KEY) or b""
    except KernelError:  # one that user space may not read
        return
    for row in section.variables:
        var = types.type(row.type_id)
        if isinstance(var, Var):
            data = content[row.byte_off : row.byte_off + row.size]
            yield {
                "name": var.name,
                "map": info.name,
                "type": types.type_name(var.type_id),
                "byte_off": row.byte_off,
                "bytes": row.size,
                "value": read_value(types, var.type_id, data, sys.byteorder),
            }
