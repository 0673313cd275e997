"""The assembler dialect of the bpf_conformance suite, for tests only.

``mov %r0, 1``, ``ldxdw %r2, [%r1+4]``, ``jeq %r1, 0, label``, ``call local func``,
``call %r2``, ``lddw %r1, map_by_fd(counts)``.
Opcodes are RFC 9669's numbers, written down here once more.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bpfpatch import isa

ALU_NAMES = (
    *("add", "sub", "mul", "div", "or", "and", "lsh", "rsh"),
    *("neg", "mod", "xor", "mov", "arsh", "end"),
)
JUMP_NAMES = (
    *("ja", "jeq", "jgt", "jge", "jset", "jne", "jsgt", "jsge"),
    *("call", "exit", "jlt", "jle", "jslt", "jsle"),
)
ALU = {name: number << 4 for number, name in enumerate(ALU_NAMES)}
JUMPS = {name: number << 4 for number, name in enumerate(JUMP_NAMES)}
SIZES = {"w": 0x00, "h": 0x08, "b": 0x10, "dw": 0x18}
ATOMICS = {"add": 0x00, "or": 0x40, "and": 0x50, "xor": 0xA0, "xchg": 0xE1, "cmpxchg": 0xF1}
MEMORY = re.compile(r"\[\s*%?r(\d+)\s*(?:([+-])\s*(\w+))?\s*\]")
LABEL = re.compile(r"([A-Za-z_]\w*):$")
# RFC 9669 section 5.4: what an lddw stands for, by the source register.
PSEUDO = re.compile(r"(map_val\()?map_by_(fd|idx)\((\w+)\)(\))?\s*(?:\+\s*(\w+))?")
PSEUDO_SRC = {("", "fd"): 1, ("map_val(", "fd"): 2, ("", "idx"): 5, ("map_val(", "idx"): 6}


@dataclass(frozen=True, slots=True)
class CaseMap:
    """A map that a file of the suite asks for; its descriptor in the code is its number."""

    type: int
    key_size: int
    value_size: int
    max_entries: int


@dataclass(frozen=True, slots=True)
class Case:
    """One file of the suite.

    Attributes:
        name: the file's name.
        code: the program's bytes, little-endian.
        mem: what R1 points at.
        result: R0, or None where the program must fail.
        maps: what the program's descriptors 1, 2 ... stand for.
    """

    name: str
    code: bytes
    mem: bytes
    result: int | None
    maps: tuple[CaseMap, ...] = ()


def read_case(path: Path) -> Case:
    """Read a file of the suite.

    Raises:
        ValueError: it has what this dialect does not.
    """
    sections: dict[str, list[str]] = {}
    current: list[str] = []
    for raw in path.read_text().splitlines():
        line = raw.split("#")[0].strip()
        if line.startswith("--"):
            current = sections.setdefault(line[2:].strip(), [])
        elif line:
            current.append(line)
    rows = [line.split() for line in sections.get("map", [])]
    maps = tuple(CaseMap(*(int(field, 0) for field in row[1:5])) for row in rows)
    if "asm" in sections:
        code = assemble(sections["asm"], [row[0] for row in rows])
    elif "raw" not in sections:
        raise ValueError("the file has no program")
    else:
        code = b"".join(struct.pack("<Q", int(line, 16)) for line in sections["raw"])
    mem = bytes.fromhex("".join(sections.get("mem", [])))
    result = sections.get("result")
    r0 = None if result is None else int(result[0], 0) & U64
    return Case(path.name, code, mem, r0, maps)


U64 = (1 << 64) - 1


def assemble(lines: list[str], maps: list[str] | None = None) -> bytes:
    """Assemble statements, one a line; maps are those whose descriptors are 1, 2 and so on.

    Raises:
        ValueError: a statement is unknown.
    """
    labels: dict[str, int] = {}
    numbers = {name: number for number, name in enumerate(maps or [], 1)}
    statements: list[tuple[int, str]] = []
    slot = 0
    for line in lines:
        found = LABEL.match(line)
        if found:
            labels[found[1]] = slot
            continue
        statements.append((slot, line))
        slot += 2 if line.split()[0] == "lddw" else 1
    # The dialect's own name for the last exit.
    exits = [at for at, text in statements if text == "exit"]
    if exits:
        labels.setdefault("exit", exits[-1])
    return b"".join(_Statement(at, text, labels, numbers).encode() for at, text in statements)


def _pack(code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    imm &= 0xFFFF_FFFF
    return struct.pack("<BBhI", code, dst | src << 4, off, imm)


class _Statement:
    """One statement, split at spaces and commas."""

    def __init__(self, slot: int, text: str, labels: dict[str, int], maps: dict[str, int]) -> None:
        self.slot = slot
        self.text = text
        self.labels = labels
        self.maps = maps
        self.op, _, rest = text.partition(" ")
        self.rest = rest.strip()
        self.operands = [part.strip() for part in rest.split(",")] if rest.strip() else []

    def encode(self) -> bytes:
        forms: list[Callable[[], bytes | None]] = [
            self._control,
            self._lock,
            self._swap,
            self._lddw,
            self._memory,
            self._movsx,
            self._jump,
            self._alu,
        ]
        for form in forms:
            found = form()
            if found is not None:
                return found
        raise ValueError(f"unknown statement {self.text!r}")

    def _register(self, text: str) -> int | None:
        found = re.fullmatch(r"%?r(\d+)", text)
        return int(found[1]) if found else None

    def _dst(self) -> int:
        found = self._register(self.operands[0])
        assert found is not None, self.text
        return found

    def _place(self, text: str) -> tuple[int, int]:
        found = MEMORY.fullmatch(text)
        assert found, self.text
        off = int(found[3], 0) if found[3] else 0
        return int(found[1]), -off if found[2] == "-" else off

    def _target(self, text: str) -> int:
        if text in self.labels:
            return self.labels[text] - self.slot - 1
        return int(text, 0)

    def _control(self) -> bytes | None:  # noqa: PLR0911 - one return a word
        if self.op == "exit":
            return _pack(0x95)
        if self.op == "ja":
            return _pack(0x05, off=self._target(self.rest))
        if self.op == "ja32":
            return _pack(0x06, imm=self._target(self.rest))
        if self.op == "callx":
            return _pack(0x8D, dst=self._dst())
        if self.op != "call":
            return None
        how, _, callee = self.rest.partition(" ")
        if how == "local":
            return _pack(0x85, src=1, imm=self._target(callee.strip()))
        if how == "runtime":
            return _pack(0x85, src=2, imm=int(callee, 0))
        register = self._register(self.rest)
        if register is not None:
            return _pack(0x8D, dst=register)
        name = callee.strip() if how == "helper" else self.rest
        number = isa.HELPER_IDS.get(name.removeprefix("bpf_"))
        return _pack(0x85, imm=int(name, 0) if number is None else number)

    def _lock(self) -> bytes | None:
        if self.op != "lock":
            return None
        words, place, register = re.fullmatch(
            r"([\w ]+?)\s*(\[.*\])\s*,\s*(\S+)", self.rest
        ).groups()  # type: ignore[union-attr]
        fetch = words.startswith("fetch ")
        op = words.removeprefix("fetch ").strip()
        size = 0x00 if op.endswith("32") else 0x18
        dst, off = self._place(place)
        imm = ATOMICS[op.removesuffix("32")] | fetch
        return _pack(0xC3 | size, dst, self._register(register) or 0, off, imm)

    def _swap(self) -> bytes | None:
        found = re.fullmatch(r"(le|be|swap|bswap)(16|32|64)", self.op)
        if not found:
            return None
        code = {"le": 0xD4, "be": 0xDC}.get(found[1], 0xD7)
        return _pack(code, self._dst(), imm=int(found[2]))

    def _lddw(self) -> bytes | None:
        if self.op != "lddw":
            return None
        found = PSEUDO.fullmatch(self.operands[1])
        if found is None:
            value = int(self.operands[1], 0)
            return _pack(0x18, self._dst(), imm=value) + _pack(0, imm=value >> 32)
        src = PSEUDO_SRC[found[1] or "", found[2]]
        if found[3] not in self.maps or bool(found[1]) != bool(found[4]):
            raise ValueError(f"unknown map in {self.text!r}")
        # The index of a map counts from 0, a descriptor is never 0 here.
        number = self.maps[found[3]] - (found[2] == "idx")
        byte_off = int(found[5] or "0", 0)
        return _pack(0x18, self._dst(), src, imm=number) + _pack(0, imm=byte_off)

    def _memory(self) -> bytes | None:
        found = re.fullmatch(r"(ldxs|ldx|stx|st)(dw|w|h|b)", self.op)
        if not found:
            return None
        size = SIZES[found[2]]
        if found[1] in ("ldx", "ldxs"):
            src, off = self._place(self.operands[1])
            return _pack((0x61 if found[1] == "ldx" else 0x81) | size, self._dst(), src, off)
        dst, off = self._place(self.operands[0])
        if found[1] == "stx":
            return _pack(0x63 | size, dst, self._register(self.operands[1]) or 0, off)
        return _pack(0x62 | size, dst, 0, off, int(self.operands[1], 0))

    def _movsx(self) -> bytes | None:
        found = re.fullmatch(r"movsx(8|16|32)(32|64)", self.op)
        if not found:
            return None
        code = 0xBF if found[2] == "64" else 0xBC
        return _pack(code, self._dst(), self._register(self.operands[1]) or 0, int(found[1]))

    def _jump(self) -> bytes | None:
        code = JUMPS.get(self.op.removesuffix("32"))
        if code is None:
            return None
        base = 0x06 if self.op.endswith("32") else 0x05
        off = self._target(self.operands[2])
        src = self._register(self.operands[1])
        if src is not None:
            return _pack(code | base | 8, self._dst(), src, off)
        return _pack(code | base, self._dst(), 0, off, int(self.operands[1], 0))

    def _alu(self) -> bytes | None:
        name = self.op.removesuffix("32").removesuffix("64")
        off = 1 if name in ("sdiv", "smod") else 0
        code = ALU.get(name.removeprefix("s") if off else name)
        if code is None:
            return None
        base = 0x04 if self.op.endswith("32") else 0x07
        if name == "neg":
            return _pack(code | base, self._dst())
        src = self._register(self.operands[1])
        if src is not None:
            return _pack(code | base | 8, self._dst(), src, off)
        return _pack(code | base, self._dst(), 0, off, int(self.operands[1], 0))
