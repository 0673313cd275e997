"""A program on a machine: what its numbers stand for, and its functions, made when first called."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeAlias

from bpfpatch import isa
from bpfpatch.errors import BpfPatchError, Where
from bpfpatch.facts.functions import CORE_POISON
from bpfpatch.isa import Kind
from bpfpatch.program import Program

from .alucode import divide_signed, remainder_signed
from .code import InterpCode
from .errors import (
    BadHelperUse,
    BudgetError,
    HelperError,
    InterpError,
    OutOfMemory,
    StrayAccess,
    TrapError,
)
from .flow import Function, read_function
from .insncode import InsnCode
from .memory import FRAME_SIZE, MAX_FRAMES, U64, code_address
from .registry import Helper
from .stackargs import PassedArgs
from .translate import Translator

if TYPE_CHECKING:
    from .machine import Machine

CompiledFunction: TypeAlias = Callable[..., tuple[int, int]]
"""(budget, depth, R0 to R9) to (R0, what is left of the budget)."""

_TRANSLATION_FACTOR: Final = 3
_TRANSLATION_FLOOR: Final = 20_000
_MOST_AT_ONCE: Final = 150_000
"""A function longer than this is interpreted: compiling it would take longer than most runs."""
_EAGER: Final = 4_000
"""A function up to this long is compiled before it first runs."""
_WARM: Final = 8
"""Compiling an instruction takes about as long as interpreting it so many times: a long function
is compiled when its runs have taken as long as that would."""

_CAUSES: Final = (StrayAccess, OutOfMemory, BadHelperUse)
_ACCESS_ERRORS: Final = (KeyError, IndexError, struct.error)


class Image:
    """One program, ready to run on one machine.

    Args:
        machine: whose memory, maps and helpers it uses.
        program: the code.
        number: how many programs the machine had before.
        values: what the ld_imm64 at a slot loads, where the instruction does not say it.
        calls: helper or kfunc that the call at a slot reaches, likewise.
    """

    def __init__(
        self,
        machine: Machine,
        program: Program,
        number: int,
        values: Mapping[int, int],
        calls: Mapping[int, Helper | str],
    ) -> None:
        self.machine = machine
        self.program = program
        self.number = number
        self.code = InterpCode(program)
        self._values = values
        self._calls = calls
        self._sources: dict[int, list[int]] = {}
        self._segments: dict[int, dict[int, int]] = {}
        self._credit = max(_TRANSLATION_FACTOR * len(self.code), _TRANSLATION_FLOOR)
        self._insns = InsnCode(
            self.code, self, machine.byteorder, bool(machine.memory.frames[0].wide)
        )
        # Another program's slots say nothing about the branches of the one that is watched.
        self._watch = machine.watch if number == 0 else None
        self.hook = self._watch.hook if self._watch is not None else machine.hook
        self.names = self._namespace()

    def bind(self, values: Mapping[int, int], calls: Mapping[int, Helper | str]) -> None:
        """Say what relocations stand for, before anything has run."""
        self._values, self._calls = values, calls

    # What generated code calls.

    def _namespace(self) -> dict[str, Any]:
        machine, memory = self.machine, self.machine.memory
        mark = "<" if machine.byteorder == "little" else ">"
        names: dict[str, Any] = {
            "__builtins__": {"Exception": Exception, "locals": locals},
            "m": machine,
            "R": memory.readable,
            "W": memory.writable,
            "FRAMES": [
                (frame.top, frame.data, *(frame.wide.get(size) for size in (2, 4, 8)))
                for frame in memory.frames
            ],
            "FRESH": memory.fresh(FRAME_SIZE),
            "SDIV": divide_signed,
            "SMOD": remainder_signed,
            "FROM": int.from_bytes,
            "ARENA": machine.arena,
            "MAY_GOTO": machine.may_goto,
            "HOOK": machine.hook,
            "INDIRECT_SLOT": self.indirect,
            "PROBE": self.probe,
            "PROBE_STORE": self.probe_store,
            "PACKET": machine.packet_load,
            "TAIL_CALL": machine.tail_call,
            "POINTED": machine.function_at,
            "INDIRECT": self._segment,
            "SEGMENTS": self._segments,
            "OVER": self.over,
            "DEEP": self.deep,
            "BADJUMP": self.bad_jump,
            "BADINSN": self.bad_insn,
            "NOVALUE": self.no_value,
            "NOHELPER": self.no_helper,
            "FAIL": self._fail,
            "PASSED": partial(PassedArgs, self),
        }
        if self._watch is not None:
            edges = self._watch.edges
            names |= {"EDGES": edges, "TIMES": edges.get, "COMPARE": self._watch.compare}
        for size, letter in ((2, "H"), (4, "I"), (8, "Q")):
            form = struct.Struct(mark + letter)
            names[f"L{size}"], names[f"P{size}"] = form.unpack_from, form.pack_into
        return names

    def value(self, slot: int) -> int | None:
        """What the ld_imm64 at a slot loads, or None where the machine has no such thing."""
        given = self._values.get(slot)
        if given is not None:
            return given & U64
        opcode = self.code.opcodes[slot]
        assert opcode is not None
        if opcode.name == "ld_imm64":
            return self.code.imm64(slot)
        if opcode.name == "ld_func":
            return code_address(self.number, slot + 1 + self.code.insns[slot][4])
        low, high = self.code.imm64(slot) & 0xFFFF_FFFF, self.code.imm64(slot) >> 32
        return self.machine.pseudo_value(opcode.name, low, high)

    def helper(self, slot: int) -> Helper | None:
        """What the call at a slot reaches, or None where the machine lacks it."""
        given = self._calls.get(slot)
        if isinstance(given, Helper):
            return given
        opcode = self.code.opcodes[slot]
        assert opcode is not None
        imm = self.code.insns[slot][4]
        if given is not None or opcode.name == "call_kfunc":
            return self.machine.kfunc(imm if given is None else given)
        return self.machine.helper(imm)

    def is_given(self, slot: int) -> bool:
        """Whether a relocation says what the call at a slot reaches, and not the call itself."""
        return slot in self._calls

    def callee(self, slot: int) -> tuple[str, Helper] | None:
        """The same, with the name that generated code calls it by."""
        found = self.helper(slot)
        if found is None:
            return None
        name = f"h_{found.name}"
        if name not in self.names:
            self.names[name] = self.machine.traced(found)
        return name, found

    def function(self, slot: int) -> str:
        """The name that generated code calls a function by; it is compiled when first called."""
        name = f"f{slot}"
        if name not in self.names:
            self.names[name] = self._stub(slot)
        return name

    def at(self, slot: int) -> CompiledFunction:
        """The function that starts at a slot.

        Raises:
            TrapError: there is no such slot.
        """
        if not 0 <= slot < len(self.code):
            raise TrapError(
                Where(slot),
                f"the program has {len(self.code)} slots, and this call leads to none of them",
            )
        found = self.names[self.function(slot)]
        assert callable(found)
        return found  # type: ignore[no-any-return]  # the namespace holds other things, too

    def _stub(self, slot: int) -> CompiledFunction:
        name = f"f{slot}"

        def compile_first(*arguments: int) -> tuple[int, int]:
            made = self.names[name]
            if made is compile_first:  # else this was kept, as a program array does
                made = self.names[name] = self._make(slot)
            assert callable(made)
            return made(*arguments)  # type: ignore[no-any-return]  # as in at()

        return compile_first

    def _make(self, slot: int) -> CompiledFunction:
        if self.machine.engine == "reference":
            return self._interpreted(slot)
        shape = read_function(self.code, slot)
        self._credit -= shape.n_insns
        # A hostile program can have as many overlapping functions as instructions.
        if shape.n_insns > _MOST_AT_ONCE or self._credit < 0:
            return self._interpreted(slot)
        return (
            self._compiled(slot, shape) if shape.n_insns <= _EAGER else self._warming(slot, shape)
        )

    def _warming(self, slot: int, shape: Function) -> CompiledFunction:
        """A long function, which is interpreted at first."""
        name, interpreted = f"f{slot}", self._interpreted(slot)
        n_interpreted = 0

        def run(budget: int, *others: int) -> tuple[int, int]:
            nonlocal n_interpreted
            if n_interpreted >= _WARM * shape.n_insns:
                if self.names[name] is run:
                    self.names[name] = self._compiled(slot, shape)
                made = self.names[name]
                assert callable(made)
                return made(budget, *others)  # type: ignore[no-any-return]  # as in at()
            r0, left = interpreted(budget, *others)
            n_interpreted += budget - left
            return r0, left

        return run

    def _compiled(self, slot: int, shape: Function) -> CompiledFunction:
        translator = Translator(
            self.code,
            shape,
            self._insns,
            is_hooked=self.machine.hook is not None,
            is_watched=self._watch is not None,
        )
        source = translator.source()
        self._sources[slot] = source.slots
        self._segments[slot] = shape.index
        exec(compile(source.text, f"<bpf function at {slot}>", "exec"), self.names)
        made = self.names[f"f{slot}"]
        assert callable(made)
        return made  # type: ignore[no-any-return]  # as in at()

    def _interpreted(self, slot: int) -> CompiledFunction:
        from .reference import run_function  # noqa: PLC0415 - it needs this module's types

        def run(budget: int, depth: int, *registers: int) -> tuple[int, int]:
            return run_function(self, slot, budget, depth, registers)

        return run

    def indirect(self, address: int, slot: int) -> int:
        """The slot that an indirect jump reaches."""
        target = (address - code_address(self.number, 0)) // 8
        if address % 8 or target not in self.code.jump_table_targets:
            raise TrapError(
                self.program.where(slot), f"{address:#x} is not an address from a jump table"
            )
        return target

    def _segment(self, address: int, slot: int, segments: Mapping[int, int]) -> int:
        return segments[self.indirect(address, slot)]

    # Memory that may be absent.

    def probe(self, address: int, size: int, signed: bool) -> int:
        """A load that gives 0 where there is nothing to read."""
        try:
            value = self.machine.memory.read_int(address & U64, size)
        except StrayAccess:
            return 0
        sign = 1 << (8 * size - 1)
        return ((value ^ sign) - sign) & U64 if signed else value

    def probe_store(self, address: int, size: int, value: int) -> None:
        """A store that does nothing where there is nothing to write to."""
        try:
            self.machine.memory.write_int(address & U64, size, value)
        except StrayAccess:
            return

    # What can go wrong.

    def over(self, slot: int) -> NoReturn:
        """The budget is used up."""
        budget = self.machine.budget
        raise BudgetError(
            self.program.where(slot),
            f"the budget of {budget} instructions is used up; give budget= more, "
            "or look for a loop without end",
            budget,
            "instructions",
        )

    def deep(self, slot: int) -> NoReturn:
        """Too many open calls."""
        raise BudgetError(
            self.program.where(slot),
            f"more than {MAX_FRAMES} calls are open, as in the kernel no more may be",
            MAX_FRAMES,
            "frames",
        )

    def bad_jump(self, slot: int, target: int | None) -> NoReturn:
        """Control leaves the program."""
        raise TrapError(
            self.program.where(slot), f"control goes to slot {target}, where no instruction starts"
        )

    def bad_insn(self, slot: int) -> NoReturn:
        """An instruction that cannot run."""
        raise TrapError(self.program.where(slot), self.code.why_unsound(slot) or "cannot run")

    def bad_argument(self, slot: int, what: str) -> NoReturn:
        """An argument passed by R11 that is not there."""
        raise TrapError(self.program.where(slot), what)

    def no_value(self, slot: int) -> NoReturn:
        """An address that the machine does not know."""
        raise TrapError(
            self.program.where(slot),
            "the machine does not know what this address stands for; give it maps=, or make it "
            "with Machine.of_object()",
        )

    def no_helper(self, slot: int) -> NoReturn:
        """A helper that the machine lacks."""
        name = self._callee_name(slot)
        if self.code.insns[slot][4] == CORE_POISON:
            raise HelperError(
                self.program.where(slot),
                name,
                "a CO-RE record asked for what the target's types do not have",
            )
        raise HelperError(
            self.program.where(slot),
            name,
            f"the machine has no {name}; give it one with helpers= or kfuncs=",
        )

    def _callee_name(self, slot: int) -> str:
        imm = self.code.insns[slot][4]
        opcode = self.code.opcodes[slot]
        if slot in self._calls or (opcode is not None and opcode.name == "call_kfunc"):
            return f"kfunc {self._calls.get(slot, imm)}"
        return f"helper {isa.HELPERS.get(imm, imm)}"

    def _fail(self, error: Exception, entry: int, local: dict[str, Any]) -> Exception:
        """What a Python exception in a function's code means."""
        trace = error.__traceback__
        assert trace is not None
        line = trace.tb_lineno
        slot = self._sources[entry][line - 1]
        if trace.tb_next is None and isinstance(error, _ACCESS_ERRORS):
            error = self.stray(slot, self._address(slot, local))
        return self.explain(error, slot)

    def explain(self, error: Exception, slot: int) -> Exception:
        """The error to raise for what went wrong at a slot, or below the call there."""
        if isinstance(error, _CAUSES) or not isinstance(error, BpfPatchError):
            error = self._explained(error, slot)
        if isinstance(error, InterpError):
            error.left_through(slot)
        return error

    def _explained(self, error: Exception, slot: int) -> InterpError:
        where, name = self.program.where(slot), self._callee_name(slot)
        if isinstance(error, OutOfMemory):
            return BudgetError(where, str(error), error.limit, "bytes")
        if isinstance(error, StrayAccess):
            return self._trap(slot, error.address, error.size, error.access, f" by {name}")
        if isinstance(error, BadHelperUse):
            return HelperError(where, name, str(error))
        failed = HelperError(where, name, f"{name} failed: {error!r}")
        failed.__cause__ = error
        return failed

    def stray(self, slot: int, address: int) -> TrapError:
        """The error for a load or store at an address where there is no memory for it."""
        opcode = self.code.opcodes[slot]
        assert opcode is not None
        size = {"b": 1, "h": 2, "w": 4, "dw": 8}[opcode.name.rpartition("_")[2]]
        is_load = opcode.kind is Kind.LOAD or "load_acquire" in opcode.name
        return self._trap(slot, address, size, "read" if is_load else "write", "")

    def _address(self, slot: int, local: Mapping[str, Any]) -> int:
        opcode = self.code.opcodes[slot]
        assert opcode is not None
        _, dst, src, byte_off, _ = self.code.insns[slot]
        is_load = opcode.kind is Kind.LOAD or "load_acquire" in opcode.name
        base = int(local[f"r{src if is_load else dst}"])
        return (base + byte_off) & U64

    def _trap(self, slot: int, address: int, size: int, access: str, who: str) -> TrapError:
        memory = self.machine.memory
        near = memory.find(address)
        beside = f"; near it is {near}" if near is not None else "; no memory is near it"
        if access == "write" and near is not None and not near.is_writable:
            beside = f"; {near} is read-only"
        regions = tuple(str(region) for region in memory.regions())
        return TrapError(
            self.program.where(slot),
            f"stray {access}{who} of {size} bytes at {address & U64:#x}{beside}",
            address & U64,
            size,
            access,
            regions,
        )
