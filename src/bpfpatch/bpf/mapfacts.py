"""The facts of maps in the kernel, for passes and analyses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from bpfpatch import isa
from bpfpatch.btf import Btf
from bpfpatch.facts.columns import LD_MAP, NONE, column
from bpfpatch.facts.kinds import MapFlag, MapType
from bpfpatch.facts.maps import MapFacts
from bpfpatch.program import Program

from .map import Map, MapInfo

_FDINFO: Final = Path("/proc/self/fdinfo")
_ZERO_KEY: Final = bytes(4)


def with_ld_map(program: Program, fds: Iterable[int]) -> Program:
    """A flat program with the column ``ld_map``: which of ``fds`` each ld_imm64 has.

    Args:
        program: with the maps' descriptors in its ld_imm64 instructions.
        fds: the maps' descriptors; the column has an index into these.
    """
    insns = program.insns
    values = np.full(len(insns), NONE, np.int32)
    sites = np.flatnonzero(isa.is_pseudo(insns, isa.Pseudo.MAP_FD, isa.Pseudo.MAP_VALUE))
    known = {fd: index for index, fd in enumerate(fds)}
    values[sites] = [known.get(fd, NONE) for fd in insns["imm"][sites].tolist()]
    return program.with_columns(**{LD_MAP: column(LD_MAP, values)})


def map_facts(made: Map, btf: Btf | None = None) -> MapFacts:
    """The facts of one map.

    Args:
        made: the map, open.
        btf: the types that it was made with.

    Raises:
        KernelError: the kernel does not tell.
    """
    info = made.info()
    facts = _from_info(info, btf)
    inner = None if made.inner is None else _from_info(made.inner, btf)
    return replace(
        facts,
        name=made.name,
        content=_constant(made, info),
        inner=inner,
        address=made.user_address or (info.extra if info.type is MapType.ARENA else 0),
    )


def _from_info(info: MapInfo, btf: Btf | None) -> MapFacts:
    has_types = btf is not None and info.value_type_id != 0
    return MapFacts(
        name=info.name,
        type=info.type,
        key_size=info.key_size,
        value_size=info.value_size,
        max_entries=info.max_entries,
        flags=info.flags,
        btf=btf if has_types else None,
        key_type_id=info.key_type_id if has_types else 0,
        value_type_id=info.value_type_id if has_types else 0,
    )


def _constant(made: Map, info: MapInfo) -> bytes | None:
    """The value of a map whose value the verifier takes for constant.

    Source: linux v6.1, kernel/bpf/verifier.c, bpf_map_is_rdonly(), and
    kernel/bpf/arraymap.c, array_map_direct_value_addr().
    """
    is_single = info.type is MapType.ARRAY and info.max_entries == 1
    if not (is_single and info.flags & MapFlag.RDONLY_PROG and is_frozen(made)):
        return None
    return made.get(_ZERO_KEY)


def is_frozen(made: Map) -> bool:
    """Whether user space may no longer change the map."""
    try:
        text = (_FDINFO / str(made.fd)).read_text()
    except OSError:
        return False
    fields: dict[str, Any] = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return str(fields.get("frozen", "")).strip() == "1"
