"""The grammar of instructions, made from the opcode table's own templates.

A template such as ``r{dst} += {imm}`` becomes a path through a tree of token
keys: ``R`` (64-bit register), ``W`` (32-bit register), ``N`` (number), ``I``
(name), ``L`` (numeric label), or the literal token. At the path's end stands
the opcode, and which field each operand goes to. So what is printed can be
read, and there is no second list of instructions.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from bpfpatch.isa import BY_NAME, CPU_INTERNAL, OPCODES, Kind, Opcode, RefKind

Node: TypeAlias = "dict[str, Node | Leaf]"

END: Final = ""
"""The key under which a node holds what a complete statement means."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """What a complete statement means.

    Attributes:
        opcode: the table's row.
        operands: the field of each register, number and name, in order:
            dst, src, off, imm, imm64, jump, label, kind, space_to, space_from,
            zero, or one that is read twice.
    """

    opcode: Opcode
    operands: tuple[str, ...]


# Forms that no template of the table has: clang's, bpftool's and our own.
_EXTRA: Final = (
    # What clang -S prints for a 32-bit move whose zero extension counts.
    ("mov32_reg", "r{dst} = w{src}"),
    ("call_subprog", "call {label}"),
    ("call_kfunc", "call kfunc {imm}"),
    ("call_kfunc", "call kfunc {imm}, {off}"),
    ("call_args", "call_args {imm}, {off}"),
    ("ld_func", "r{dst} = {label} ll"),
    ("ld_func", "r{dst} = func {label} ll"),
    ("ld_func", "r{dst} = &{label}"),
    ("ld_func", "r{dst} = subprog[{imm}]"),
    ("ld_map_fd", "r{dst} = map[id:{imm}]"),
    ("ld_map_value", "r{dst} = map[id:{imm}][{zero}]{high}"),
)

_PIECE: Final = re.compile(
    r"(?P<space>\s+)"
    r"|(?P<reg>[rw]|\{n\})\{(?P<field>dst|src)\}"
    r"|(?P<r0>[rw])0\b"
    r"|\{(?P<operand>\w+)(?::[^}]*)?\}"
    r"|(?P<literal>s?(?:>>=|/=|%=|>=|<=|[<>])|<<=|>>=|[-+*/%|&^=!]=|[-+*/%|&^=()\[\],:]|\w+)"
)

# What may stand for a placeholder; each is a list of (key, field).
_CHOICES: Final = {
    "imm": ([("N", "imm")],),
    "off": ([("N", "off")],),
    "hex": ([("N", "imm")],),
    "mem": ([("N", "off")],),
    "plus": ([], [("N", "imm")]),
    "jump": ([("N", "jump")], [("pc", ""), ("N", "jump")], [("I", "label")], [("L", "label")]),
    "label": ([("I", "label")], [("L", "label")]),
    "imm64": ([("N", "imm64")],),
    "callee": ([("N", "imm")],),
    "low": ([("N", "imm")],),
    "high": ([("N", "high")],),
    "kind": ([("N", "kind")],),
    "fd": ([],),
    "zero": ([("N", "zero")],),
    "space_to": ([("N", "space_to")],),
    "space_from": ([("N", "space_from")],),
}


@functools.cache
def tree() -> Node:
    """The tree of all instructions, built once."""
    root: Node = {}
    for opcode in OPCODES:
        for template in _templates(opcode):
            _insert(root, opcode, template)
    for name, template in _EXTRA:
        _insert(root, BY_NAME[name], template)
    return root


@functools.cache
def keywords() -> frozenset[str]:
    """All words that instructions are made of."""
    found: set[str] = set()
    pending: list[Node] = [tree()]
    while pending:
        for key, child in pending.pop().items():
            if isinstance(child, Leaf):
                continue
            pending.append(child)
            if key.isidentifier() and key not in {"R", "W", "N", "I", "L"}:
                found.add(key)
    return frozenset(found)


def _templates(opcode: Opcode) -> Iterator[str]:
    # ld_pseudo is one form for all; its second operand says which row it is.
    if opcode.kind is Kind.LD_IMM64 and opcode.src not in {0, 1}:
        return
    yield opcode.asm or opcode.text
    # The kernel names no w registers in atomics. Its other forms are the same to
    # a parser, or say too little to be read back.
    if opcode.kind is Kind.ATOMIC and opcode.cpu != CPU_INTERNAL and opcode.xlated:
        yield opcode.xlated


def _insert(root: Node, opcode: Opcode, template: str) -> None:
    for path in itertools.product(*_choices(opcode, template)):
        steps = [step for choice in path for step in choice]
        node = root
        for key, _ in steps:
            child = node.setdefault(key, {})
            assert isinstance(child, dict), template
            node = child
        leaf = Leaf(opcode, tuple(field for _, field in steps if field))
        assert node.setdefault(END, leaf) == leaf, template


def _choices(opcode: Opcode, template: str) -> Iterator[tuple[list[tuple[str, str]], ...]]:
    at = 0
    while at < len(template):
        piece = _PIECE.match(template, at)
        assert piece is not None, template
        at = piece.end()
        if piece["space"]:
            continue
        if piece["reg"]:
            letters = "RW" if piece["reg"] == "{n}" else piece["reg"].upper()
            yield tuple([(letter, piece["field"])] for letter in letters)
        elif piece["r0"]:
            yield ([(piece["r0"].upper(), "zero")],)
        elif piece["operand"]:
            choices = _CHOICES[piece["operand"]]
            is_far = opcode.ref is RefKind.CALL and piece["operand"] == "jump"
            # "call pc+3" has the pc in its template; a label has a form of its own.
            yield choices[:1] if is_far else choices
        else:
            yield ([(piece["literal"], "")],)
