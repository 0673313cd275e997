"""Assembly text to a `Fragment`.

The syntax is that of clang's assembler, which is llvm-objdump's, with what a
library needs added:

- ``@orig`` on its own is the place of an edit's original instruction.
- A name may stay undefined: the caller resolves it.
- ``call bpf_map_lookup_elem`` is the helper, unless the text has such a label;
  ``call 1`` too. ``call name`` and ``call pc+3`` call a subprog, ``call kfunc
  5`` (or ``5, 1``: fd index 1) a kernel function.
- ``r1 = name ll``, ``r1 = func name ll`` and ``r1 = &name`` load a subprog's
  address for a callback.
- Jumps may be written as the kernel prints them: ``goto pc+3``.
- ``.8byte`` and ``.quad`` give raw slots, the code in the lowest byte.
- ``.subprog name`` starts a function that nothing in the text calls. So do
  ``.globl name`` and ``.type name,@function`` for a label of that name.

Unlike clang, a constant that its field would cut off is an error, and
constants are numbers, not expressions.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

import numpy as np

from bpfpatch.isa import BY_NAME, HELPER_IDS, INSN, LD_IMM64, RefKind

from .encode import REGISTERS, Encoded, encode, error
from .fragment import Fragment, FragmentRef
from .grammar import tree
from .lexer import Token, TokenKind, statements

# What compilers write around code and what means nothing to one program.
_IGNORED: Final = frozenset(
    {
        ".addrsig",
        ".addrsig_sym",
        ".align",
        ".balign",
        ".file",
        ".hidden",
        ".ident",
        ".loc",
        ".local",
        ".p2align",
        ".size",
        ".text",
        ".weak",
    }
)
_DECLARES: Final = frozenset({".globl", ".global", ".type"})
_RAW: Final = frozenset({".8byte", ".quad"})

_CALL_HELPER: Final = BY_NAME["call_helper"]


def parse(text: str) -> Fragment:
    """Read assembly.

    Args:
        text: statements, in the syntax of this module's docstring.

    Returns:
        The instructions with their labels and open references.

    Raises:
        AsmError: what was expected, with line and column.
    """
    parser = _Parser()
    for tokens in statements(text):
        parser.statement(tokens)
    return parser.fragment()


class _Parser:
    """What one `parse` has seen so far."""

    def __init__(self) -> None:
        self._tree = tree()
        self._slots: list[list[int]] = []
        self._lines: list[int] = []
        self._labels: dict[str, int] = {}
        self._label_lines: dict[str, int] = {}
        self._refs: list[tuple[FragmentRef, RefKind]] = []
        self._declared: set[str] = set()
        self._keeps: int | None = None
        self._local_slots: dict[str, int] = {}
        self._ahead: dict[str, list[tuple[Token, int, RefKind]]] = {}

    def statement(self, tokens: list[Token]) -> None:
        """Take in one statement with the labels before it."""
        at = 0
        while len(tokens) > at + 1 and tokens[at + 1].text == ":":
            self._label(tokens[at])
            at += 2
        rest = tokens[at:] if at else tokens
        if not rest:
            return
        first = rest[0]
        if first.text == "@orig":
            self._orig(rest)
        elif first.kind is TokenKind.WORD and first.text.startswith("."):
            self._directive(rest)
        else:
            self._insn(encode(self._tree, rest), first.line)

    def fragment(self) -> Fragment:
        """Resolve what can be resolved and hand all over."""
        for pending in self._ahead.values():
            token = pending[0][0]
            raise error(token, f"there is no label {token.text[:-1]}: after this")
        entries: set[str] = set(self._declared)
        refs = []
        for ref, kind in self._refs:
            if kind >= RefKind.CALL and self._is_helper(ref, kind):
                continue
            refs.append(ref)
            if kind >= RefKind.CALL:
                entries.add(ref.label)
        insns = np.array([tuple(slot) for slot in self._slots], INSN)
        insns.flags.writeable = False
        return Fragment(
            insns,
            tuple(refs),
            MappingProxyType(self._labels),
            self._keeps,
            tuple(self._lines),
            self._subprogs(entries),
        )

    def _subprogs(self, entries: set[str]) -> tuple[tuple[int, str], ...]:
        named: dict[int, str] = {}
        for label, slot in self._labels.items():
            is_better = label in entries and named.get(slot) not in entries
            if is_better or (slot == 0 and slot not in named):
                named[slot] = label
        return tuple(sorted(named.items()))

    def _is_helper(self, ref: FragmentRef, kind: RefKind) -> bool:
        """Turn a call of a name that only the kernel has into a helper call."""
        name = ref.label.removeprefix("bpf_")
        is_kernels = ref.label != name and name in HELPER_IDS and ref.label not in self._labels
        if kind is not RefKind.CALL or not is_kernels:
            return False
        self._slots[ref.slot] = [_CALL_HELPER.code, 0, 0, HELPER_IDS[name]]
        return True

    def _label(self, token: Token) -> None:
        name, here = token.text, len(self._slots)
        if token.kind is TokenKind.NUMBER and name.isdigit():
            self._local_slots[name] = here
            for ref, slot, kind in self._ahead.pop(name, ()):
                self._set_distance(ref, slot, kind, here)
            return
        if token.kind is not TokenKind.WORD or name.startswith("@") or name.lower() in REGISTERS:
            raise error(token, f"{name[:40]!r} cannot be a label")
        if name in self._labels:
            before = self._label_lines[name]
            raise error(token, f"label {name!r} is already defined in line {before}")
        self._labels[name] = here
        self._label_lines[name] = token.line

    def _orig(self, tokens: list[Token]) -> None:
        if len(tokens) > 1:
            raise error(tokens[1], "@orig takes a line of its own")
        if self._keeps is not None:
            raise error(tokens[0], "the original instruction can be kept only once")
        self._keeps = len(self._slots)
        self._emit([0, 0, 0, 0], tokens[0].line)

    def _directive(self, tokens: list[Token]) -> None:
        name = tokens[0].text
        if name in _RAW:
            self._raw(tokens)
        elif name == ".subprog":
            if len(tokens) != 2:
                raise error(tokens[-1], ".subprog takes one name")
            self._label(tokens[1])
            self._declared.add(tokens[1].text)
        elif name in _DECLARES:
            self._declared.update(token.text for token in tokens[1:2])
        elif name not in _IGNORED and not name.startswith(".cfi_"):
            raise error(tokens[0], f"the directive {name[:40]} is not known in a program")

    def _raw(self, tokens: list[Token]) -> None:
        """``.8byte 0x95, 0x95``."""
        for before, token in zip(tokens[:-1:2], tokens[1::2], strict=False):
            is_apart = before is tokens[0] or before.text == ","
            if not is_apart or token.kind is not TokenKind.NUMBER:
                raise error(token, f"expected a number, not {token.text[:40]!r}")
            if not -(1 << 63) <= token.value < 1 << 64:
                raise error(token, f"{token.text} does not fit the 64 bits of a slot")
            code, regs, *rest = (token.value & 0xFFFFFFFFFFFFFFFF).to_bytes(8, "little")
            off = int.from_bytes(rest[:2], "little", signed=True)
            self._emit([code, regs, off, int.from_bytes(rest[2:], "little")], token.line)
        if len(tokens) % 2:
            raise error(tokens[-1], f"a number must follow {tokens[-1].text!r}")

    def _insn(self, insn: Encoded, line: int) -> None:
        opcode = insn.opcode
        slot = len(self._slots)
        self._emit([opcode.code, insn.regs, insn.off, insn.imm], line)
        if opcode.code == LD_IMM64:
            self._emit([0, 0, 0, insn.high], line)
        if insn.label is not None:
            self._ref(insn.label, slot, opcode.ref)

    def _emit(self, slot: list[int], line: int) -> None:
        slot[3] = (slot[3] + (1 << 31)) % (1 << 32) - (1 << 31)
        self._slots.append(slot)
        self._lines.append(line)

    def _ref(self, token: Token, slot: int, kind: RefKind) -> None:
        if token.kind is TokenKind.WORD:
            self._refs.append((FragmentRef(slot, token.text, token.line, token.column), kind))
            return
        name, way = token.text[:-1], token.text[-1]
        if way == "f":
            self._ahead.setdefault(name, []).append((token, slot, kind))
        elif name in self._local_slots:
            self._set_distance(token, slot, kind, self._local_slots[name])
        else:
            raise error(token, f"there is no label {name}: before this")

    def _set_distance(self, token: Token, slot: int, kind: RefKind, target: int) -> None:
        distance = target - slot - 1
        if kind is RefKind.JUMP16:
            if not -(1 << 15) <= distance < 1 << 15:
                raise error(
                    token,
                    f"{token.text} is {distance} slots away, goto holds 16 bits; use gotol",
                )
            self._slots[slot][2] = distance
        else:
            self._slots[slot][3] = distance
