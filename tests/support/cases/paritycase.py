"""Case files for parity: assembly, and how to load it.

A file has lines for all of its cases, and then cases, each under a sentence that must hold::

    type: xdp
    map: counts array 4 8 16

    == A division after a look-up takes both rewrites.
    each op: /= | %=
        r2 = r10
        ...
        r1 = map counts
        call bpf_map_lookup_elem
        r6 {op} r7

``each`` makes one case of every alternative, and of every combination with other ones. Other
lines: ``attach``, ``flags`` (names of `ProgFlag` with + between them), ``gpl: no`` and
``harden: yes``, which loads with constants blinded; ``aux: kernel``, where our own analysis
cannot know. A map has a name, a type, the sizes of key and
value, the number of entries, and optionally flags. In the code

- ``r1 = map NAME`` and ``r1 = map NAME + 8`` (of the value of an array of one entry) stand for the
  ld_imm64,
- ``{task_struct.pid}`` for a member's place in bytes,
- ``call kfunc NAME`` for the call of a function of the kernel.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bpfpatch import isa, kernel
from bpfpatch.asm import assemble
from bpfpatch.btf import Kind
from bpfpatch.facts import AttachType, ProgFlag
from bpfpatch.program import Program
from support.cases.lined import with_lines

KEYS = {"type", "attach", "map", "flags", "each", "gpl", "harden", "aux"}
LINE = re.compile(r"(\w+)(?: (\w+))?: *(.*)$")
MEMBER = re.compile(r"\{(\w+)\.(\w+)\}")
KFUNC = re.compile(r"call kfunc ([a-z]\w*)")
MAP_LOAD = re.compile(r"(r\d+) = map (\w+)(?: \+ (\d+))?")


@dataclass
class ParityCase:
    """One program, and how to load it."""

    name: str
    text: str
    type: str = "socket_filter"
    attach: str = ""
    flags: int = 0
    is_gpl: bool = True
    is_hardened: bool = False
    aux: str = "kernel offline"
    maps: dict[str, tuple[str, int, int, int, int]] = field(default_factory=dict)


def read_cases(path: Path) -> Iterator[ParityCase]:
    """The cases of a file, all alternatives made out."""
    head, *parts = re.split(r"^== *", path.read_text(), flags=re.M)
    common, rest = _head(head.splitlines())
    assert not "".join(rest).strip(), f"{path}: code before the first case"
    for part in parts:
        title, _, body = part.partition("\n")
        assert title.strip().endswith("."), f"{path}: {title!r} must be a sentence"
        own, code = _head(body.splitlines())
        yield from _expand(f"{path.stem}: {title.strip()[:-1]}", common + own, "\n".join(code))


def _head(lines: list[str]) -> tuple[list[tuple[str, str, str]], list[str]]:
    """The leading ``key: value`` lines, and the rest."""
    found = []
    for index, line in enumerate(lines):
        if not line.strip() or line.startswith("#"):
            continue
        match = LINE.match(line)
        if match is None or match[1] not in KEYS:
            return found, lines[index:]
        found.append((match[1], match[2] or "", match[3].strip()))
    return found, []


def _expand(name: str, head: list[tuple[str, str, str]], code: str) -> Iterator[ParityCase]:
    axes = [
        [(what, value.strip()) for value in values.split(" | ")]
        for key, what, values in head
        if key == "each"
    ]
    for chosen in itertools.product(*axes):
        text = code
        shown = " ".join(value for _, value in chosen)
        case = ParityCase(f"{name} [{shown}]" if shown else name, "")
        for key, _, value in head:
            for what, alternative in chosen:
                value = value.replace(f"{{{what}}}", alternative)  # noqa: PLW2901
            _set(case, key, value)
        for what, alternative in chosen:
            text = text.replace(f"{{{what}}}", alternative)
        case.text = text
        yield case


def _set(case: ParityCase, key: str, value: str) -> None:
    if key == "type":
        case.type = value
    elif key == "attach":
        case.attach = value
    elif key == "gpl":
        case.is_gpl = value != "no"
    elif key == "aux":
        case.aux = value
    elif key == "harden":
        case.is_hardened = value == "yes"
    elif key == "flags":
        for name in value.split("+"):
            case.flags |= getattr(ProgFlag, name.strip().upper())
    elif key == "map":
        map_name, kind, *numbers = value.split()
        key_size, value_size, entries, *flags = (int(number, 0) for number in numbers)
        case.maps[map_name] = (kind, key_size, value_size, entries, *(flags or [0]))


_maps: dict[tuple[str, int, int, int, int], kernel.Map] = {}


def map_of(spec: tuple[str, int, int, int, int]) -> kernel.Map:
    """A map of this kind: one for all cases that want the same.

    A map of programs belongs to programs like the first that used it: of those, always a new one.
    """
    if spec not in _maps or spec[0] == "prog_array":
        kind, key_size, value_size, entries, flags = spec
        inner = None
        if kind.endswith("of_maps"):
            inner = map_of(("array", 4, 8, 4, 0))
        _maps[spec] = kernel.Map.create(
            kind, key_size, value_size, entries, flags=flags, name=kind[:12], inner=inner
        )
    return _maps[spec]


def case_program(case: ParityCase) -> tuple[Program, tuple[kernel.Map, ...]]:
    """The program with its maps' descriptors in it, and the maps."""
    used = list(dict.fromkeys(match[2] for match in MAP_LOAD.finditer(case.text)))
    maps = tuple(map_of(case.maps[name]) for name in used)
    byte_offs: list[int] = []

    def load(match: re.Match[str]) -> str:
        """An ld_imm64 of the map's descriptor: the second half has to wait."""
        byte_offs.append(int(match[3] or 0))
        kind = 1 if match[3] is None else 2
        return f"ld_pseudo {match[1]}, {kind}, {maps[used.index(match[2])].fd}"

    text = KFUNC.sub(_kfunc, MEMBER.sub(_member, case.text))
    program = assemble(MAP_LOAD.sub(load, text))
    insns = program.insns.copy()
    slots = np.flatnonzero(isa.is_ld_imm64(insns) & np.isin(isa.src(insns), (1, 2)))
    insns["imm"][slots + 1] = byte_offs
    return Program(insns, subprogs=program.subprogs), maps


def _member(match: re.Match[str]) -> str:
    """Where a member is in one of the kernel's structs."""
    btf = kernel.vmlinux_btf()
    struct = btf.find_one(match[1], Kind.STRUCT)
    assert struct is not None, match[0]
    return str(btf.offset_of(struct, match[2]))


def _kfunc(match: re.Match[str]) -> str:
    found = kernel.vmlinux_btf().find_one(match[1], Kind.FUNC)
    return f"call kfunc {found}"


def load_case(
    case: ParityCase, *, log_level: int = 0, keep_log: bool = False
) -> tuple[kernel.LoadedProgram, tuple[kernel.Map, ...]]:
    """Load a case, with a line record on every instruction."""
    program, maps = case_program(case)
    lined, btf = with_lines(program)
    loaded = kernel.load(
        lined,
        prog_type=case.type,
        attach_type=AttachType.of(case.attach) if case.attach else None,
        license="GPL" if case.is_gpl else "none",
        btf=btf,
        flags=case.flags,
        log_level=log_level,
        keep_log=keep_log,
        mode="jit+harden" if case.is_hardened else "jit",
    )
    return loaded, maps
