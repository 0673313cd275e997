"""Our text is llvm-objdump's."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from bpfpatch import isa
from bpfpatch.asm import Syntax, format_insns
from support.inputs.bpfobjects import debian_objects, fixture_objects
from support.machine.asmtools import OBJDUMP, clang_object, code_sections, objdump, random_insn
from support.machine.tools import need

# LLVM 19 does not know load_acquire, call_args and the zext mark, and prints another
# instruction for them; without -mcpu it does the same for a 32-bit fetch_add.
MISREAD = {"call_args", "zext_mark", "load_acquire_w", "load_acquire_dw"}
MISREAD_BY_DEFAULT = {*MISREAD, "atomic_fetch_add_w"}


LEAST = 40
"""Objects whose code is no other one's."""


def differences(path: Path, data: bytes, *, alu32: bool) -> list[str]:
    """Where our text is not what the tool prints, of all that it knows."""
    theirs = objdump(path, *(["--mcpu=v4"] if alu32 else []))
    misread = MISREAD if alu32 else MISREAD_BY_DEFAULT
    out = []
    for name, byteorder, code in code_sections(data):
        insns = isa.from_bytes(code[: len(code) & ~7], byteorder)
        texts = format_insns(insns, Syntax.OBJDUMP, alu32=alu32)
        found = isa.rows(insns).tolist()
        for slot, text in theirs[name].items():
            if text == "<unknown>" or slot >= len(texts):
                continue
            if found[slot] >= 0 and isa.OPCODES[found[slot]].name in misread:
                continue
            if texts[slot] != text:
                out.append(f"{name} {slot}: {texts[slot]!r}, not {text!r}")
    return out


@pytest.mark.parametrize("alu32", [False, True])
@pytest.mark.parametrize("objects", [debian_objects, fixture_objects])
def test_real_objects(
    tmp_path: Path, objects: Callable[[], list[tuple[str, bytes]]], alu32: bool
) -> None:
    """Every instruction of real objects prints as llvm-objdump prints it."""
    need(OBJDUMP)
    cases = objects()
    if not cases:
        pytest.skip("no such objects on this machine")
    seen: set[bytes] = set()
    for name, data in cases:
        code = b"".join(code for _, _, code in code_sections(data))
        if code in seen:
            continue  # it is built in several ways that leave the code as it is
        seen.add(code)
        path = tmp_path / "case.o"
        path.write_bytes(data)
        assert differences(path, data, alu32=alu32)[:5] == [], name
    assert len(seen) > LEAST


@pytest.mark.parametrize("alu32", [False, True])
@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_every_row(tmp_path: Path, byteorder: isa.ByteOrder, alu32: bool) -> None:
    """Random instructions of every row print as llvm-objdump prints them."""
    need(OBJDUMP, "clang-19")
    rng = random.Random(2019)
    insns = isa.concat(random_insn(opcode, rng) for opcode in isa.OPCODES for _ in range(12))
    code = isa.to_bytes(insns, byteorder)
    path = clang_object(".byte " + ",".join(map(str, code)), tmp_path, byteorder)
    theirs = objdump(path)[".text"]
    known = sum(text != "<unknown>" for text in theirs.values())
    assert known > 150 * 12
    assert differences(path, path.read_bytes(), alu32=alu32)[:5] == []
