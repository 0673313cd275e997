"""CO-RE records without a kind, as clang 9 wrote them."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from bpfpatch.elf import ElfObject
from bpfpatch.loader.core import apply_core
from bpfpatch.passes import Pipeline
from bpfpatch.report.inventory import core_problem
from support.inputs.bpfobjects import fixture_path

CORE = "core_relo"


def _without_kinds(data: bytes) -> bytes:
    """The object with records of 12 bytes; what they leave of their section stays unused."""
    old = next(bytes(one.data) for one in ElfObject.parse(data).sections if one.name == ".BTF.ext")
    (hdr_len,) = struct.unpack_from("<I", old, 4)
    start, length = struct.unpack_from("<II", old, 24)
    at, end = hdr_len + start, hdr_len + start + length
    part, at = [struct.pack("<I", 12)], at + 4
    while at < end:
        _, count = struct.unpack_from("<II", old, at)
        part.append(old[at : at + 8])
        at += 8
        for row in range(count):
            part.append(old[at + 16 * row : at + 16 * row + 12])
        at += 16 * count
    body = b"".join(part)
    new = bytearray(old)
    new[hdr_len + start : hdr_len + start + len(body)] = body
    struct.pack_into("<I", new, 28, len(body))
    return data.replace(old, bytes(new))


@pytest.fixture(scope="module")
def objects() -> tuple[ElfObject, ElfObject]:
    """An object as it is, and with such records."""
    data = fixture_path("core_relo.clang-19.v3.el.g.o").read_bytes()
    return ElfObject.parse(data), ElfObject.parse(_without_kinds(data))


def test_they_move_with_their_instructions(objects: tuple[ElfObject, ElfObject]) -> None:
    """After an edit each is on the instruction that it was on, and still has 12 bytes."""
    moved = [Pipeline.parse("sprinkle{every=2}").run_object(obj)[0] for obj in objects]
    tables = [ElfObject.parse(one.to_bytes()).code.tables[CORE] for one in moved]
    assert len(tables[0]) > 3
    assert tables[1].insn.tolist() == tables[0].insn.tolist()
    assert tables[1].rows.dtype.names == ("type_id", "access_str_off")
    for name in ("type_id", "access_str_off"):
        assert np.array_equal(tables[1].rows[name], tables[0].rows[name])


def test_that_they_are_ignored_is_said(objects: tuple[ElfObject, ElfObject]) -> None:
    """Who has such an object is told, and nobody else."""
    assert core_problem(objects[0]) == ""
    assert "libbpf ignores them" in core_problem(objects[1])


def test_nothing_is_adapted_by_them(objects: tuple[ElfObject, ElfObject]) -> None:
    """As libbpf ignores them, a loader leaves the code as the compiler made it."""
    obj = objects[1]
    program = obj.link(obj.programs[0].name).program
    assert obj.btf is not None
    assert np.array_equal(apply_core(program, obj.btf), program.insns)
