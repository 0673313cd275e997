"""The same machine, without a compiler: one instruction after the other, by the book.

This is the oracle of the compiled functions, what their speed is compared
with, and what runs functions that are too long to compile. It shares the
machine's memory and helpers with them, but neither arithmetic nor control flow.

Source: RFC 9669; the rest as in `bpfpatch.interp.insncode`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from bpfpatch.isa import HELPER_IDS, Kind, Opcode
from bpfpatch.isa.semantics import compute, holds, signed

from .errors import StrayAccess
from .insncode import POISON
from .memory import FRAME_SIZE, MAX_FRAMES, U64
from .stackargs import PassedArgs

if TYPE_CHECKING:
    from .image import Image

U32: Final = (1 << 32) - 1
_SIZES: Final = {"b": 1, "h": 2, "w": 4, "dw": 8}
_TAIL_CALL: Final = HELPER_IDS["tail_call"]


def run_function(
    image: Image, entry: int, budget: int, depth: int, registers: Sequence[int]
) -> tuple[int, int]:
    """Run one function to its exit.

    Args:
        image: the program.
        entry: the function's first slot.
        budget: how many instructions may run.
        depth: how many functions are open above it.
        registers: R0 to R9.

    Returns:
        R0, and what is left of the budget.
    """
    at = entry
    try:
        if depth >= MAX_FRAMES:
            image.deep(entry)
        step = _Step(image, budget, depth, registers)
        slot: int | None = entry
        while slot is not None:
            if not 0 <= slot < len(image.code):
                image.bad_jump(at, slot)
            if step.budget <= 0:
                image.over(slot)
            at = slot
            if image.hook is not None:
                image.hook(slot, tuple(step.regs[:12]))
            step.budget -= 1
            slot = step.run(slot)
    except StrayAccess as error:
        opcode = image.code.opcodes[at]
        is_call = opcode is not None and opcode.kind is Kind.CALL
        raise image.explain(error if is_call else image.stray(at, error.address), at) from None
    except Exception as error:
        raise image.explain(error, at) from None
    return step.regs[0], step.budget


class _Step:
    """One function's registers, and how an instruction changes them."""

    def __init__(self, image: Image, budget: int, depth: int, registers: Sequence[int]) -> None:
        self.image = image
        self.machine = image.machine
        self.memory = image.machine.memory
        self.budget = budget
        self.depth = depth
        frame = self.memory.frames[depth]
        frame.data[:] = self.memory.fresh(FRAME_SIZE)
        self.regs = [*registers, frame.top, 0, 0]
        self.passed = PassedArgs(image)
        self.may_goto = self.machine.may_goto

    def run(self, slot: int) -> int | None:
        """Run one instruction; the slot of the next one, or None after an exit."""
        code = self.image.code
        opcode = code.opcodes[slot]
        if opcode is None or code.why_unsound(slot):
            self.image.bad_insn(slot)
        kind = opcode.kind
        after = slot + (2 if kind is Kind.LD_IMM64 else 1)
        if kind is Kind.ALU:
            self._alu(opcode, slot)
        elif kind is Kind.LD_IMM64:
            value = self.image.value(slot)
            if value is None:
                self.image.no_value(slot)
            self.regs[code.insns[slot][1]] = value
        elif kind is Kind.LOAD:
            self._load(opcode, slot)
        elif kind is Kind.STORE:
            self._store(opcode, slot)
        elif kind is Kind.ATOMIC:
            self._atomic(opcode, slot)
        elif kind is Kind.PACKET_LOAD:
            return after if self._packet_load(opcode, slot) else None
        elif kind is Kind.JUMP:
            return self._jump(opcode, slot)
        elif kind is Kind.COND_JUMP:
            return self._cond_jump(opcode, slot)
        elif kind is Kind.CALL:
            return self._call(opcode, slot)
        elif kind is Kind.EXIT:
            return None
        return after

    def _alu(self, opcode: Opcode, slot: int) -> None:
        number, dst, src, off, imm = self.image.code.insns[slot]
        regs = self.regs
        if opcode.name in ("addr_space_cast", "mov_percpu"):
            regs[dst] = regs[src]
            return
        if number in (0xD4, 0xDC):  # le and be
            low = regs[dst] & ((1 << imm) - 1)
            target = "little" if number == 0xD4 else "big"
            data = low.to_bytes(imm // 8, self.machine.byteorder)
            regs[dst] = int.from_bytes(data, "little" if target == "little" else "big")
            return
        operand = regs[src] if number & 8 else imm & U64
        value = compute(number, off, regs[dst], operand, imm)
        assert value is not None, opcode.name
        regs[dst] = value

    def _load(self, opcode: Opcode, slot: int) -> None:
        _, dst, src, off, _ = self.image.code.insns[slot]
        how, _, size_name = opcode.name.rpartition("_")
        size = _SIZES[size_name]
        if how.startswith("probe"):
            address = self._probed(how, src, off)
            self.regs[dst] = self.image.probe(address, size, how.endswith("ldsx"))
            return
        if (which := self.image.code.stack_args[slot]) > 0:
            self.regs[dst] = self.passed.load(which, slot)
            return
        value = self.memory.read_int(self._at(src, off), size)
        self.regs[dst] = signed(value, 8 * size) & U64 if how == "ldsx" else value

    def _store(self, opcode: Opcode, slot: int) -> None:
        _, dst, src, off, imm = self.image.code.insns[slot]
        how, _, size_name = opcode.name.rpartition("_")
        value = self.regs[src] if how.endswith("stx") else imm
        if how.startswith("probe"):
            self.image.probe_store(self._probed(how, dst, off), _SIZES[size_name], value & U64)
            return
        if (which := self.image.code.stack_args[slot]) < 0:
            self.passed.store(-which, value & U64)
            return
        self.memory.write_int(self._at(dst, off), _SIZES[size_name], value)

    def _at(self, base: int, off: int) -> int:
        return (self.regs[base] + off) & U64

    def _probed(self, how: str, base: int, off: int) -> int:
        if how.startswith("probe32"):
            return (self.machine.arena + (self.regs[base] & U32) + off) & U64
        return self._at(base, off)

    def _atomic(self, opcode: Opcode, slot: int) -> None:
        _, dst, src, off, _ = self.image.code.insns[slot]
        op, _, size_name = opcode.name.removeprefix("probe_").rpartition("_")
        size, regs = _SIZES[size_name], self.regs
        low = (1 << 8 * size) - 1
        if op == "load_acquire":
            regs[dst] = self.memory.read_int(self._at(src, off), size)
            return
        address = self._at(dst, off)
        if op == "store_release":
            self.memory.write_int(address, size, regs[src])
            return
        if self.memory.writable.get(address >> 28) is None:
            raise StrayAccess(address, size, "write")
        old = self.memory.read_int(address, size)
        if op == "cmpxchg":
            if old == regs[0] & low:
                self.memory.write_int(address, size, regs[src])
            regs[0] = old
            return
        plain = op.removeprefix("atomic_").removeprefix("fetch_")
        new = {
            "add": old + regs[src],
            "or": old | regs[src],
            "and": old & regs[src],
            "xor": old ^ regs[src],
            "xchg": regs[src],
        }[plain]
        self.memory.write_int(address, size, new)
        if "fetch" in op or op == "xchg":
            regs[src] = old

    def _packet_load(self, opcode: Opcode, slot: int) -> bool:
        _, _, src, _, imm = self.image.code.insns[slot]
        base = self.regs[src] if opcode.name.startswith("ld_ind") else 0
        found = self.machine.packet_load(self.regs[6], base + imm, _SIZES[opcode.name[-1]])
        self.regs[0] = 0 if found is None else found
        self._poison()
        return found is not None

    def _jump(self, opcode: Opcode, slot: int) -> int:
        _, dst, _, off, imm = self.image.code.insns[slot]
        if opcode.name == "gotox":
            return self.image.indirect(self.regs[dst], slot)
        return slot + 1 + (imm if opcode.name == "gotol" else off)

    def _cond_jump(self, opcode: Opcode, slot: int) -> int:
        number, dst, src, off, imm = self.image.code.insns[slot]
        if opcode.name == "may_goto":
            self.may_goto -= 1
            return slot + 1 + (off if self.may_goto < 0 else 0)
        operand = self.regs[src] if number & 8 else imm & U64
        return slot + 1 + (off if holds(number, self.regs[dst], operand) else 0)

    def _call(self, opcode: Opcode, slot: int) -> int | None:
        _, dst, _, _, imm = self.image.code.insns[slot]
        regs = self.regs
        taken = self.passed.take()
        if opcode.name == "call_subprog" and not self.image.is_given(slot):
            target = slot + 1 + imm
            if not 0 <= target < len(self.image.code):
                self.image.bad_jump(slot, target)
            self.machine.passed = taken
            self._enter(self.image.at(target), self.depth + 1)
        elif opcode.name == "callx":
            self._enter(self.machine.function_at(regs[dst]), self.depth + 1)
        elif opcode.name == "tail_call" or (opcode.name == "call_helper" and imm == _TAIL_CALL):
            entered = self.machine.tail_call(regs[1], regs[2], regs[3])
            if entered is not None:
                self._enter(entered, self.depth)
                return None
        else:
            self._helper(slot, taken)
        self._poison()
        return slot + 1

    def _enter(self, function: Callable[..., tuple[int, int]], depth: int) -> None:
        self.regs[0], self.budget = function(self.budget, depth, *self.regs[:10])

    def _helper(self, slot: int, taken: dict[int, int]) -> None:
        found = self.image.helper(slot)
        if found is None:
            self.image.no_helper(slot)
        machine = self.machine
        machine.left, machine.depth = self.budget, self.depth
        given = (*self.regs[1 : 1 + min(found.n_args, 5)],)
        more = self.passed.more(taken, found.n_args, slot)
        self.regs[0] = machine.traced(found)(machine, *given, *more) & U64
        self.budget = machine.left

    def _poison(self) -> None:
        for register in range(1, 6):
            self.regs[register] = POISON + register
