"""One function of a program as the source of one Python function.

The segments of the function (see `bpfpatch.interp.flow`) are written one
after the other, in the order of their slots, so that control falls through as
it does in the program. A loop is a ``while True`` around its segments, whose
``continue`` is the jump back. A jump forward sets ``k`` to the number of the
segment that it goes to; the segments in between are guarded by ``if k <=
number``, in groups, so that a far jump passes few guards. Where control joins,
``k`` is never more than the segment's number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bpfpatch.isa import Kind

from .alucode import Ranges, condition
from .code import InterpCode
from .flow import Block, Function, Loop, live_after
from .insncode import InsnCode

ARGUMENTS: Final = ", ".join(f"r{register}" for register in range(10))
"""Registers that a function takes, in order; what its caller leaves in them is seen."""

_ARGUMENT_REGISTERS: Final = 0b11_1110
"""A hook sees what a call leaves in R1 to R5, whether the program reads it or not."""

_GROUP: Final = 4
"""Guards side by side; more are put under a guard of their own."""


@dataclass(frozen=True, slots=True)
class PythonSource:
    """The Python source of one function.

    Attributes:
        text: it.
        slots: the instruction that each line belongs to; line 1 is index 0.
    """

    text: str
    slots: list[int]


@dataclass(frozen=True, slots=True)
class _Route:
    """How control gets from a segment to a target.

    Attributes:
        statements: Python statements.
        falls: whether the target is reached by going on after the segment.
    """

    statements: tuple[str, ...]
    falls: bool


class Translator:
    """Writes one function.

    Args:
        code: the program.
        function: its shape.
        insns: writes single instructions.
        is_hooked: call ``HOOK`` before each instruction.
        is_watched: note branches in ``EDGES`` and by ``COMPARE``.
    """

    def __init__(
        self,
        code: InterpCode,
        function: Function,
        insns: InsnCode,
        *,
        is_hooked: bool = False,
        is_watched: bool = False,
    ) -> None:
        self._code = code
        self._function = function
        self._insns = insns
        self._is_hooked = is_hooked
        self._is_watched = is_watched
        self._lines: list[str] = []
        self._slots: list[int] = []
        self._ranges = Ranges()
        last = len(function.segments) - 1
        self._loops = list(function.loops)
        if function.has_gotox:
            self._loops = [Loop(0, last)]
        self._stacks = self._nesting(last + 1)
        # Differences of how many jumps pass over each segment.
        self._passes = [0] * (last + 2)
        self._leaves_back: set[Loop] = set()
        self._is_guarded = self._find_guards()

    def _nesting(self, n_segments: int) -> list[tuple[Loop, ...]]:
        """The loops around each segment, outermost first."""
        stacks: list[tuple[Loop, ...]] = []
        stack: list[Loop] = []
        pending = iter(self._loops)
        following = next(pending, None)
        for number in range(n_segments):
            while stack and stack[-1].last < number:
                stack.pop()
            while following is not None and following.head == number:
                stack.append(following)
                following = next(pending, None)
            stacks.append(tuple(stack))
        return stacks

    def _find_guards(self) -> list[bool]:
        for number, segment in enumerate(self._function.segments):
            for block in segment:
                for slot in (block.jumps_to, block.falls_to):
                    if slot in self._function.index:
                        self._note(number, self._function.index[slot])
        entry = self._function.index[self._function.entry]
        self._pass_over(0, entry)
        if self._function.has_gotox:
            self._pass_over(0, len(self._function.segments))
        guarded, depth = [], 0
        for change in self._passes[:-1]:
            depth += change
            guarded.append(depth > 0)
        return guarded

    def _pass_over(self, first: int, end: int) -> None:
        if first < end:
            self._passes[first] += 1
            self._passes[end] -= 1

    def _note(self, number: int, target: int) -> None:
        """Mark the segments that a jump passes over, and the loops that it leaves backwards."""
        stack = self._stacks[number]
        if target > number:
            is_out = bool(stack) and target > stack[-1].last
            self._pass_over(stack[-1].last + 1 if is_out else number + 1, target)
            return
        inner = len(stack) - 1
        while not stack[inner].head <= target <= stack[inner].last:
            self._leaves_back.add(stack[inner])
            inner -= 1
        self._pass_over(stack[inner].head, target)

    def _route(self, number: int, slot: int | None, site: int) -> _Route:
        """The way from a segment to a slot that starts another."""
        target = None if slot is None else self._function.index.get(slot)
        if target is None:
            return _Route((f"BADJUMP({site}, {slot})",), falls=False)
        stack = self._stacks[number]
        loop = stack[-1] if stack else None
        if target > number:
            if loop is None or target <= loop.last:
                statements = () if target == number + 1 else (f"k = {target}",)
                return _Route(statements, falls=True)
            first = () if target == loop.last + 1 else (f"k = {target}",)
            return _Route((*first, "break"), falls=False)
        assert loop is not None
        if loop.head <= target:
            needs_k = target != loop.head or self._uses_k(loop)
            return _Route((*((f"k = {target}",) if needs_k else ()), "continue"), falls=False)
        return _Route((f"k = {target}", "break"), falls=False)

    def _uses_k(self, loop: Loop) -> bool:
        return loop in self._leaves_back or any(self._is_guarded[loop.head : loop.last + 1])

    def source(self) -> PythonSource:
        """The whole function."""
        function, site = self._function, self._function.entry
        self._put(0, f"def f{site}(n, d, {ARGUMENTS}):", site)
        self._put(1, "try:", site)
        self._put(2, f"if d > 7: DEEP({site})", site)
        self._put(2, f"if n < 0: OVER({site})", site)
        for line in self._insns.prologue(function):
            self._put(2, line, site)
        self._put(2, f"k = {function.index[function.entry]}", site)
        self._range(0, len(function.segments) - 1, 2, 0)
        self._put(1, "except Exception as e:", site)
        self._put(2, f"raise FAIL(e, {site}, locals()) from None", site)
        return PythonSource("\n".join(self._lines) + "\n", self._slots)

    def _put(self, indent: int, text: str, slot: int) -> None:
        self._lines.append(" " * indent + text)
        self._slots.append(slot)

    def _range(self, first: int, last: int, indent: int, depth: int) -> None:
        """Write these segments; ``depth`` loops are around all of them."""
        units: list[tuple[int, int]] = []
        number = first
        while number <= last:
            stack = self._stacks[number]
            end = stack[depth].last if len(stack) > depth else number
            units.append((number, end))
            number = end + 1
        self._units(units, indent, depth)

    def _units(self, units: list[tuple[int, int]], indent: int, depth: int) -> None:
        if len(units) <= _GROUP:
            for first, last in units:
                self._unit(first, last, indent, depth)
            return
        middle = len(units) // 2
        for part in (units[:middle], units[middle:]):
            inner = indent
            if self._is_guarded[part[0][0]]:
                self._put(indent, f"if k <= {part[-1][1]}:", self._site(part[0][0]))
                inner += 1
            self._units(part, inner, depth)

    def _site(self, number: int) -> int:
        return self._function.segments[number][0].start

    def _unit(self, first: int, last: int, indent: int, depth: int) -> None:
        if len(self._stacks[first]) <= depth:
            self._segment(first, indent)
            return
        loop = self._stacks[first][depth]
        site = self._site(first)
        if self._is_guarded[first]:
            self._put(indent, f"if k <= {last}:", site)
            indent += 1
        if loop in self._leaves_back:
            self._put(indent, f"if k < {first}: k = {first}", site)
        self._put(indent, "while True:", site)
        self._put(indent + 1, f"if n < 0: OVER({site})", site)
        self._range(first, last, indent + 1, depth + 1)
        self._put(indent + 1, "break", site)
        if loop in self._leaves_back:
            outer = self._stacks[first][depth - 1]
            self._put(indent, f"if k < {first}:", site)
            if outer in self._leaves_back:
                self._put(indent + 1, f"if k < {outer.head}: break", site)
            self._put(indent + 1, "continue", site)

    def _segment(self, number: int, indent: int) -> None:
        self._ranges.forget()
        segment = self._function.segments[number]
        if self._is_guarded[number]:
            self._put(indent, f"if k <= {number}:", segment[0].start)
            indent += 1
        for position, block in enumerate(segment):
            is_last = position == len(segment) - 1
            self._body(block, indent)
            indent = self._end(number, block, indent, is_last)

    def _body(self, block: Block, indent: int) -> None:
        self._put(indent, f"n -= {len(block.slots)}", block.start)
        live = live_after(self._code, block)
        for slot in block.slots:
            if self._is_hooked:
                self._put(indent, f"HOOK({slot}, ({ARGUMENTS}, r10, r11))", slot)
            if self._is_watched:
                self._watch(slot, indent)
            wanted = _ARGUMENT_REGISTERS if self._is_hooked else live.get(slot, 0)
            for line in self._insns.lines(slot, self._ranges, wanted):
                self._put(indent, line, slot)

    def _watch(self, slot: int, indent: int) -> None:
        """Note what a branch compares, and where it goes."""
        opcode = self._code.opcodes[slot]
        if opcode is None or opcode.name == "may_goto" or self._code.why_unsound(slot):
            return
        _, dst, src, off, imm = self._code.insns[slot]
        if opcode.name == "gotox":
            self._put(indent, f"COMPARE({slot}, r{dst}, 0)", slot)
            edge = f"({slot}, INDIRECT_SLOT(r{dst}, {slot}))"
        elif opcode.kind is Kind.COND_JUMP:
            bits = 32 if opcode.name.split("_")[0].endswith("32") else 64
            right = f"r{src}" if opcode.name.endswith("_reg") else f"{imm & (1 << bits) - 1:#x}"
            self._put(indent, f"COMPARE({slot}, r{dst}, {right})", slot)
            edge = f"({slot}, {slot + 1 + off}) if {self._test(slot)[0]} else ({slot}, {slot + 1})"
        else:
            return
        self._put(indent, f"e = {edge}", slot)
        self._put(indent, "EDGES[e] = TIMES(e, 0) + 1", slot)

    def _end(self, number: int, block: Block, indent: int, is_last: bool) -> int:
        """Write what leads from a block to others; the indentation of the next one."""
        site = block.slots[-1]
        opcode = self._code.opcodes[site]
        if opcode is None or self._code.why_unsound(site):
            return indent  # the instruction has trapped
        if opcode.name == "gotox":
            self._put(indent, "continue", site)
        elif block.jumps_to is None:
            if is_last and opcode.kind is not Kind.EXIT:
                self._go(self._route(number, block.falls_to, site), indent, site)
        elif block.falls_to is None:
            self._go(self._route(number, block.jumps_to, site), indent, site)
        else:
            return self._branch(number, block, indent, is_last)
        return indent

    def _go(self, route: _Route, indent: int, site: int) -> None:
        for statement in route.statements:
            self._put(indent, statement, site)

    def _branch(self, number: int, block: Block, indent: int, is_last: bool) -> int:
        site = block.slots[-1]
        test, opposite = self._test(site)
        taken = self._route(number, block.jumps_to, site)
        other = self._route(number, block.falls_to, site) if is_last else _Route((), falls=True)
        if not taken.statements:
            if is_last and not other.statements:
                return indent
            self._put(indent, f"if {opposite}:", site)
            self._go(other, indent + 1, site)
            return indent + 1
        self._put(indent, f"if {test}:", site)
        self._go(taken, indent + 1, site)
        if not taken.falls:
            self._go(other, indent, site)
            return indent
        if is_last and not other.statements:
            return indent
        self._put(indent, "else:", site)
        self._go(other, indent + 1, site)
        return indent + 1

    def _test(self, site: int) -> tuple[str, str]:
        opcode = self._code.opcodes[site]
        assert opcode is not None
        if opcode.name == "may_goto":
            return "mg < 0", "mg >= 0"
        _, dst, src, _, imm = self._code.insns[site]
        is_register = opcode.name.endswith("_reg")
        return condition(opcode.name, dst, src if is_register else None, imm, self._ranges)
