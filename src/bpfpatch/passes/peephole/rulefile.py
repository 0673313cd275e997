"""Rules as people write them, in our assembler's syntax with variables.

::

    # The rest of a line is a comment.
    rule fold-alu: A constant that a register holds goes into the instruction.
      each   W: r w
      each   OP: += -= *=
      from   <W>A <OP> <W>B
      to     <W>A <OP> {s32(C)}
      known  rB = C
      if     fits(C)
      unsafe

Registers are ``rA`` to ``rH`` (``wA`` for their lower half; different letters are different
registers), R0 and R10. Constants are words in capitals: a number where one may stand in ``from``,
and in braces an expression of them in ``to``. An ``each`` makes a rule of every word, of several
all combinations; with a name such as ``A/B`` its words are pairs. What has no ``to`` is deleted. A
condition is of `bpfpatch.passes.peephole.expr`. See `bpfpatch.passes.peephole.rule.Rule` for what
``known``, ``clear``, ``plain``, ``noctx``, ``dead``, ``low``, ``unsafe`` and ``little`` say.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from bpfpatch import isa
from bpfpatch.asm.parser import parse as parse_asm
from bpfpatch.errors import AsmError, OptionError

from .expr import RuleExpr
from .rule import NUMBER_OF, Operand, Rule, RuleInsn, fields_of

_HEAD: Final = re.compile(r"rule\s+([a-z0-9-]+)\s*:\s*(.+)")
_LINE: Final = re.compile(r"\s+([a-z]+)\b\s*(.*)")
_EACH: Final = re.compile(r"([A-Z0-9/]+)\s*:\s*(.+)")
_WORD: Final = re.compile(r"<([A-Z][A-Z0-9]*)>")
_REGISTER: Final = re.compile(r"\b([rw])([A-H])\b")
_OTHER_REGISTER: Final = re.compile(r"\b[rw]([1-9]|11)\b")
_BRACES: Final = re.compile(r"\{([^{}]*)\}")
_CONSTANT: Final = re.compile(r"\b[A-Z][A-Z0-9]*\b")
_LITERAL: Final = re.compile(r"\b0x[0-9a-f]+|\b[1-9][0-9]*")
_JUMP: Final = re.compile(r"\bgoto\s+([A-Z]+)\b")
_NAME: Final = re.compile(r"[A-Z][A-Z0-9]*")
_FIRST_STAND_IN: Final = 0x5A01
_KEYS: Final = (
    "each", "from", "to", "known", "clear", "plain", "noctx", "dead", "low", "if", "unsafe",
    "little",
)  # fmt: skip


@dataclass(slots=True)
class _Draft:
    """A rule as its lines say it."""

    name: str
    why: str
    line: int
    parts: dict[str, list[str]] = field(default_factory=dict)

    def add(self, key: str, value: str) -> None:
        self.parts.setdefault(key, []).append(value)


def parse_rules(text: str, shown: str = "rules") -> tuple[Rule, ...]:
    """Read rules.

    Args:
        text: see this module's docstring.
        shown: what errors call the text.

    Raises:
        OptionError: what is wrong, with the line.
    """
    rules: list[Rule] = []
    names: set[str] = set()
    for draft in _drafts(text, shown):
        if draft.name in names:
            raise OptionError(f"{shown}, line {draft.line}: there is a rule {draft.name} already")
        names.add(draft.name)
        try:
            rules += _variants(draft)
        except AsmError as error:
            raise OptionError(f"{shown}, rule {draft.name}: {error.args[0]}") from None
        except OptionError as error:
            raise OptionError(f"{shown}, rule {draft.name}: {error}") from None
    return tuple(rules)


def _drafts(text: str, shown: str) -> Iterator[_Draft]:
    draft: _Draft | None = None
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.partition("#")[0].rstrip()
        if not line:
            continue
        head = _HEAD.fullmatch(line)
        if head is not None:
            if draft is not None:
                yield draft
            draft = _Draft(head[1], head[2], number)
            continue
        match = _LINE.fullmatch(line)
        if match is None or draft is None or match[1] not in _KEYS:
            raise OptionError(
                f"{shown}, line {number}: expected `rule name: why`, or, indented, one of "
                f"{', '.join(_KEYS)}, not {line.strip()!r}"
            )
        draft.add(match[1], match[2].strip())
    if draft is not None:
        yield draft


def _variants(draft: _Draft) -> Iterator[Rule]:
    choices = [_choices(one) for one in draft.parts.get("each", [])]
    for picked in itertools.product(*choices):
        words = {name: word for one in picked for name, word in one.items()}

        def spelt(text: str, words: dict[str, str] = words) -> str:
            return _WORD.sub(lambda match: _word(match[1], words), text)

        variant = " ".join(
            "/".join(dict.fromkeys(one.values())) for one in picked if any(one.values())
        )
        parts = {key: [spelt(one) for one in lines] for key, lines in draft.parts.items()}
        yield _rule(draft, variant, parts)


def _word(name: str, words: dict[str, str]) -> str:
    if name not in words:
        raise OptionError(f"no `each {name}` for <{name}>")
    return words[name]


def _choices(text: str) -> list[dict[str, str]]:
    match = _EACH.fullmatch(text)
    if match is None:
        raise OptionError(f"`each NAME: word word`, not {text!r}")
    names = match[1].split("/")
    out = []
    for word in match[2].split():
        # Of a single name the word may be a division.
        values = word.split("/") if len(names) > 1 else [word]
        if len(values) != len(names):
            raise OptionError(f"{word!r} is not one word for each of {match[1]}")
        out.append(dict(zip(names, values, strict=True)))
    return out


def _rule(draft: _Draft, variant: str, parts: dict[str, list[str]]) -> Rule:
    before = _insns("; ".join(parts.get("from", [])), are_exprs=False)
    after = _insns("; ".join(parts.get("to", [])), are_exprs=True)
    rule = Rule(
        name=draft.name,
        variant=variant,
        why=draft.why,
        before=before,
        after=after,
        known=tuple(_known(one) for one in parts.get("known", [])),
        clear=tuple(_clear(one) for one in parts.get("clear", [])),
        plain=_registers(parts, "plain"),
        noctx=_registers(parts, "noctx"),
        dead=_registers(parts, "dead"),
        low=_registers(parts, "low"),
        when=tuple(RuleExpr.parse(one) for one in parts.get("if", [])),
        is_safe="unsafe" not in parts,
        little="little" in parts,
    )
    _check(rule)
    return rule


def _registers(parts: dict[str, list[str]], key: str) -> tuple[str, ...]:
    words = [word for line in parts.get(key, []) for word in line.split()]
    for word in words:
        if not _REGISTER.fullmatch(word):
            raise OptionError(f"{key} names registers such as rA, not {word!r}")
    return tuple(word[1] for word in words)


def _known(text: str) -> tuple[str, str]:
    register, _, name = (part.strip() for part in text.partition("="))
    if not _REGISTER.fullmatch(register) or not _NAME.fullmatch(name):
        raise OptionError(f"`known rB = C`, not {text!r}")
    return register[1], name


def _clear(text: str) -> tuple[str, RuleExpr]:
    register, _, mask = text.partition(" ")
    if not _REGISTER.fullmatch(register):
        raise OptionError(f"`clear rA MASK`, not {text!r}")
    return register[1], RuleExpr.parse(mask)


def _insns(text: str, *, are_exprs: bool) -> tuple[RuleInsn, ...]:
    """Read instructions: numbers and registers stand in for variables while the assembler does."""
    other = _OTHER_REGISTER.search(text)
    if other is not None:
        raise OptionError(f"{other[0]}: registers are rA to rH, r0 and r10")
    stand_ins: dict[int, Operand] = {}
    literals = {int(number, 0) for number in _LITERAL.findall(text)}
    free = (number for number in itertools.count(_FIRST_STAND_IN) if number not in literals)

    def stand_in(value: Operand) -> str:
        number = next(free)
        stand_ins[number] = value
        return str(number)

    letters: dict[int, str] = {}

    def register(match: re.Match[str]) -> str:
        number = NUMBER_OF[match[2]]
        letters[number] = match[2]
        return f"{match[1]}{number}"

    if are_exprs:
        text = _BRACES.sub(lambda match: stand_in(RuleExpr.parse(match[1])), text)
    targets = iter(_JUMP.findall(text))
    text = _JUMP.sub("goto pc+0", text)
    text = _REGISTER.sub(register, text)
    text = _CONSTANT.sub(lambda match: stand_in(match[0]), text)
    insns = parse_asm(text).insns
    is_jump = isa.is_cond_jump(insns).tolist()
    rows = fields_of(insns)
    out = []
    for at, (code, dst, src, off, imm) in enumerate(rows):
        if not code:
            continue  # the second half of an ld_imm64
        value = imm
        if code == isa.LD_IMM64:
            value = rows[at + 1][4] << 32 | imm & 0xFFFFFFFF
        out.append(
            RuleInsn(
                code,
                letters.get(dst, dst),
                letters.get(src, src),
                0 if is_jump[at] else stand_ins.get(off, off),
                stand_ins.get(value, value),
                target=next(targets) if is_jump[at] else "",
            )
        )
    return tuple(out)


def _check(rule: Rule) -> None:
    """Refuse what could not be matched, or would not be right wherever it is.

    Raises:
        OptionError: what is wrong.
    """
    if not rule.before:
        raise OptionError("there is nothing to look for: it needs a `from`")
    _check_registers(rule)
    _check_constants(rule)
    *others, last = rule.before
    for at, insn in enumerate(others):
        later = {reg for one in rule.before[at + 1 :] for reg in one.reads()}
        if insn.is_store or insn.is_jump or not later & set(insn.writes()):
            raise OptionError(
                "each instruction of `from` but the last gives a register that a later one reads, "
                "and only the last may store or jump"
            )
    if any(one.is_jump or one.is_store for one in rule.after[:-1]):
        raise OptionError("only the last instruction of `to` may store or jump")
    if rule.after and rule.after[-1].is_jump and rule.after[-1].target != last.target:
        raise OptionError(f"{rule.after[-1].target}: `to` may jump only where `from` does")
    if rule.saves < 0:
        raise OptionError(f"it would make code longer, by {-rule.saves} slots")
    if rule.after == rule.before:
        raise OptionError("it changes nothing")


def _check_registers(rule: Rule) -> None:
    entry, written = rule.entry_reads, rule.written
    named = {
        *(reg for reg, _ in (*rule.known, *rule.clear)), *rule.plain, *rule.noctx,
        *rule.dead, *rule.low,
    }  # fmt: skip
    strange = named - entry - written
    if strange:
        raise OptionError(f"`from` has no register {', '.join(sorted(strange))}")
    if not {*rule.dead, *rule.low} <= written:
        raise OptionError("`dead` and `low` are of registers that `from` defines")
    defined: set[int | str] = set()
    for insn in rule.after:
        unknown = set(insn.reads()) - entry - defined
        if unknown:
            raise OptionError(f"`to` reads {unknown.pop()}, which `from` does not")
        defined.update(insn.writes())
    if not defined <= written:
        raise OptionError("`to` defines a register that `from` does not")
    if rule.revives and (len(rule.before) > 1 or rule.dead or rule.low):
        raise OptionError(
            "what goes by a register that `from` does not read has one instruction, and no `dead` "
            "or `low`"
        )
    if rule.low and (rule.known or rule.clear):
        raise OptionError("`low` does not go with `known` or `clear`")


def _check_constants(rule: Rule) -> None:
    bound = {field for insn in rule.before for field in (insn.off, insn.imm)}
    names = {one for one in bound if isinstance(one, str)}
    names.update(name for _, name in rule.known)
    exprs = [*rule.when, *(mask for _, mask in rule.clear)]
    used: set[str] = set()
    for insn in rule.after:
        for value in (insn.off, insn.imm):
            if isinstance(value, RuleExpr):
                exprs.append(value)
            elif isinstance(value, str):
                used.add(value)
    used.update(*(expr.names for expr in exprs))
    if used - names:
        raise OptionError(f"nothing says what {', '.join(sorted(used - names))} is")
