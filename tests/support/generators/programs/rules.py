"""Random programs made of what rules look for, with other code around and between.

All registers and bytes that matter are put out at the end, into the packet.
"""

from __future__ import annotations

import random
from typing import Final

from bpfpatch import isa
from bpfpatch.isa.semantics import U64, signed
from bpfpatch.passes.peephole import Rule, RuleInsn
from bpfpatch.passes.peephole.expr import RuleExpr

PACKET: Final = 160
"""Bytes that a program takes, and no fewer."""
OUT: Final = 64
"""Where results go in it; in front of that is memory for rules."""
_NUMBERS: Final = (
    0, 1, 2, 7, 8, 31, 32, 33, 56, 63, 255, 0xFFFF, 0x7FFFFFFF, -1, -2, -256, -(1 << 31), 1 << 16,
)  # fmt: skip
_OTHERS: Final = ("+=", "-=", "*=", "|=", "&=", "^=", "=")
_FRAME, _NEAR = (-176, -128), (-16, 16)
"""Where rules find memory: in the frame, and around an address in the packet."""
_TRIES: Final = 1000


def program_for(rule: Rule, seed: int) -> str | None:
    """Assembly of an XDP program in which a rule may fit; None where no constants were found."""
    return _Writer(rule, random.Random(f"{rule} {seed}")).text()


class _Writer:
    def __init__(self, rule: Rule, rng: random.Random) -> None:
        self.rule = rule
        self.rng = rng
        letters = sorted({reg for reg in rule.entry_reads | rule.written if isinstance(reg, str)})
        free = [number for number in range(10) if number not in rule.entry_reads | rule.written]
        rng.shuffle(free)
        self.number = dict(zip(letters, free, strict=False))
        self.other = [number for number in free if number not in self.number.values()]
        self.bases = {
            reg
            for insn in (*rule.before, *rule.after)
            if insn.is_load or insn.is_store
            for reg in (insn.src if insn.is_load else insn.dst,)
        }
        for insn in reversed(rule.before):  # what an address is computed from is one
            adds = insn.code in (0xBF, 0x07, 0x0F) and insn.dst in self.bases
            if adds and insn.code == 0xBF:
                self.bases.add(insn.src)
        self.has_alu32 = max(insn.cpu for insn in (*rule.before, *rule.after)) > 1

    def text(self) -> str | None:
        constants = self._constants()
        if constants is None:
            return None
        rng, rule = self.rng, self.rule
        lines = [
            "r2 = *(u32 *)(r1 + 0)", "r3 = *(u32 *)(r1 + 4)", "r4 = r2", f"r4 += {PACKET}",
            "if r4 > r3 goto out", "*(u64 *)(r10 - 8) = r2",
        ]  # fmt: skip
        # Where the value matters, both ways to get to the code bring it.
        lines += [f"r0 = *(u64 *)(r2 + {OUT})", "r9 = r2"]
        for at in range(_FRAME[0], _FRAME[1] + 8, 8) if isa.R10 in self.bases else ():
            lines += [f"r0 = *(u64 *)(r9 + {OUT + (at & 63)})", f"*(u64 *)(r10 - {-at}) = r0"]
        for number in sorted({*self.number.values(), *self.other}, key=lambda one: one == 9):
            lines += self._start(number, constants)
        body = [self._insn(insn, constants) for insn in rule.before]
        for index, line in enumerate(body):
            if rng.random() < 0.5 and self.other:
                lines += self._between(index)
            lines.append(line)
        ends_in_jump = rule.before[-1].is_jump
        if ends_in_jump:
            lines += [self._mark(1), "goto on", "taken:", self._mark(2), "on:"]
        else:
            lines += [self._mark(3)]
        return "\n".join([*lines, *self._results(), "out:", "r0 = 2", "exit"])

    def _mark(self, number: int) -> str:
        return f"*(u64 *)(r10 - 16) = {number}"

    def _start(self, number: int, constants: dict[str, int]) -> list[str]:
        """Give a register a value: known, clear in bits, an address, or anything."""
        rng = self.rng
        letter = next((key for key, value in self.number.items() if value == number), None)
        place = f"*({{}} *)(r9 + {rng.randrange(OUT, OUT + 64, 8)})"
        if letter is not None and letter in self.bases:
            return [f"r{number} = r9", f"r{number} += 24"]
        if letter is None:
            return [f"r{number} = {place.format('u64')}"]
        for register, name in self.rule.known:
            if register == letter:
                value = constants[name]
                if rng.random() < 0.5 and -(1 << 31) <= value < 1 << 31:
                    return [f"r{number} = {value}"]
                return [f"r{number} = {value & U64:#x} ll"]
        for register, mask in self.rule.clear:
            if register == letter:
                return self._clear(number, mask.run(constants) & U64, place)
        return [f"r{number} = {place.format('u64')}"]

    def _clear(self, number: int, mask: int, place: str) -> list[str]:
        """Any value without some bits."""
        size = next((bits for bits in (64, 32, 16, 8) if not mask & ((1 << bits) - 1)), 0)
        if self.rng.random() < 0.5 or not size:
            kept = ~mask & U64
            value = signed(kept, 64)
            if -(1 << 31) <= value < 1 << 31:
                return [f"r{number} = {place.format('u64')}", f"r{number} &= {value}"]
            if not size:
                return [f"r{number} = {self.rng.getrandbits(64) & kept:#x} ll"]
        return [f"r{number} = {place.format(f'u{size}')}"]

    def _between(self, index: int) -> list[str]:
        """Code that a rule may find between its instructions; sometimes what it must not."""
        rng = self.rng
        out = []
        for _ in range(rng.randint(1, 2)):
            left, right = rng.choice(self.other), rng.choice(self.other)
            kind = rng.choice("rw" if self.has_alu32 else "r")
            choice = rng.random()
            if choice < 0.15 and index:
                values = [one for key, one in self.number.items() if key not in self.bases]
                right = rng.choice(values or [right])
            out.append(f"{kind}{left} {rng.choice(_OTHERS)} {kind}{right}")
        return out

    def _results(self) -> list[str]:
        """Put out all registers, in their order, and what was marked.

        An address is another one in every run: of those it is how far they point.
        """
        rule = self.rule
        lines: list[str] = []
        dead = {self.number[reg] for reg in rule.dead}
        low = {self.number[reg] for reg in rule.low}
        numbers = sorted({*self.number.values(), *self.other} - dead)
        addresses = [number for number in numbers if number in self._addresses()]
        plain = [number for number in numbers if number not in addresses]
        spare = plain[0]
        for number in [*plain, *addresses]:
            size = "u32" if number in low else "u64"
            place = f"*({size} *)(r10 - {24 + 8 * number})"
            if number in addresses:
                lines += [f"r{spare} = *(u64 *)(r10 - 8)", f"r{number} -= r{spare}"]
            lines.append(f"{place} = {'w' if number in low else 'r'}{number}")
        lines += ["r1 = *(u64 *)(r10 - 8)", "r0 = *(u64 *)(r10 - 16)", f"*(u64 *)(r1 + {OUT}) = r0"]
        for at, number in enumerate(numbers, 1):
            size = "u32" if number in low else "u64"
            lines.append(f"r0 = *({size} *)(r10 - {24 + 8 * number})")
            lines.append(f"*(u64 *)(r1 + {OUT + 8 * at}) = r0")
        return lines

    def _addresses(self) -> set[int]:
        """Registers that hold an address afterwards."""
        loaded = {reg for insn in self.rule.before if insn.is_load for reg in insn.writes()}
        return {self.number[reg] for reg in self.bases - loaded if isinstance(reg, str)}

    # Instructions of the rule.

    def _constants(self) -> dict[str, int] | None:
        """Numbers for which the rule's conditions hold."""
        rule, rng = self.rule, self.rng
        names = {
            operand: (index, field, insn)
            for insn in rule.before
            for index, (field, operand) in enumerate((("off", insn.off), ("imm", insn.imm)))
            if isinstance(operand, str)
        }
        known = {name for _, name in rule.known}
        for _ in range(_TRIES):
            values: dict[str, int] = {}
            for name in sorted({*names, *known}):
                if name in names and names[name][1] == "off":
                    values[name] = rng.randrange(*(_FRAME if isa.R10 in self.bases else _NEAR))
                elif rng.random() < 0.4 and values:
                    values[name] = rng.choice(list(values.values())) + rng.randrange(-1, 2)
                elif self._is_address(name):
                    values[name] = rng.randrange(-8, 8)
                else:
                    wide = name not in names or names[name][2].code == isa.LD_IMM64
                    value = rng.choice((rng.choice(_NUMBERS), rng.getrandbits(64 if wide else 32)))
                    values[name] = signed(value, 64 if wide else 32)
            if self._is_fine(values):
                return values
        return None

    def _is_address(self, name: str) -> bool:
        return any(insn.imm == name and insn.dst in self.bases for insn in self.rule.before)

    def _is_fine(self, values: dict[str, int]) -> bool:
        if not all(condition.run(values) for condition in self.rule.when):
            return False
        for insn in self.rule.before:
            is_shift = insn.code & 7 in (4, 7) and insn.code & 0xF0 in (0x60, 0x70, 0xC0)
            bits = 64 if insn.code & 7 == 7 else 32
            imm = insn.imm
            is_ours = not insn.code & 8 and isinstance(imm, str)
            if is_shift and is_ours and not 0 <= values[imm] < bits:
                return False
            is_division = insn.code & 7 in (4, 7) and insn.code & 0xF0 in (0x30, 0x90)
            if is_division and is_ours and not values[imm]:
                return False
            low, high = _FRAME if isa.R10 in self.bases else _NEAR
            if isinstance(insn.off, str) and not low <= values[insn.off] <= high:
                return False
        return True

    def _insn(self, insn: RuleInsn, constants: dict[str, int]) -> str:
        def number(operand: int | str | RuleExpr) -> int:
            if isinstance(operand, int):
                return operand
            assert isinstance(operand, str)
            return constants[operand]

        def register(operand: int | str) -> int:
            return operand if isinstance(operand, int) else self.number[operand]

        dst, src = register(insn.dst), register(insn.src)
        if insn.is_jump:
            one = isa.make(insn.code, dst, src, 2, signed(number(insn.imm), 32))
            return f".8byte {int(isa.words(one)[0]):#x}"
        if insn.code == isa.LD_IMM64:
            return f"r{dst} = {number(insn.imm) & U64:#x} ll"
        one = isa.make(insn.code, dst, src, number(insn.off), signed(number(insn.imm), 32))
        return f".8byte {int(isa.words(one)[0]):#x}"
