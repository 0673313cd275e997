"""The rules of peephole: each is proved, and what is not proved is refused."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from bpfpatch.asm import assemble
from bpfpatch.errors import OptionError
from bpfpatch.passes import Pipeline
from bpfpatch.passes.peephole import Rule, builtin_rules, parse_rules
from bpfpatch.passes.peephole.proof import check_rules, prove_rule

BY_NAME = {
    name: tuple(rules) for name, rules in itertools.groupby(builtin_rules(), lambda rule: rule.name)
}


@pytest.mark.parametrize("name", BY_NAME)
def test_every_rule_is_proved(name: str) -> None:
    """Each rule, in each variant, does what was there: for all registers, constants and memory."""
    pytest.importorskip("z3")
    assert BY_NAME[name]
    for rule in BY_NAME[name]:
        prove_rule(rule)  # raises where it finds a difference


def test_no_rule_makes_code_longer() -> None:
    """What comes in takes no more slots than what was there."""
    assert min(rule.saves for rule in builtin_rules()) >= 0


def rule_of(text: str) -> Rule:
    """The only rule of a text, under a head."""
    (rule,) = parse_rules(f"rule planted: For a test.\n{text}")
    return rule


WRONG = {
    "a constant of 32 bits is not sign-extended": """
      from   *(u64 *)(rA + O) = rB
      to     *(u64 *)(rA + O) = {C}
      known  rB = C
    """,
    "w = -1 is stored as 64 bits of ones": """
      from   wB = C; *(u64 *)(rA + O) = rB
      to     *(u64 *)(rA + O) = {C}
      dead   rB
    """,
    "a shift pair of another register": """
      from   rA <<= 32; rB >>= 32; rA += rB
      to     wA = wA; rA += rB
    """,
    "the upper half is dropped": """
      from   rA = rB
      to     wA = wB
    """,
    "an off-by-one": """
      from   rA %= C
      to     rA &= {C}
      if     power2(C)
    """,
    "signed and unsigned": """
      from   rA s/= C
      to     rA >>= {log2(C)}
      if     power2(C)
    """,
    "the jump goes the other way": """
      from   if rA > C goto L
      to     if rA >= C goto L
    """,
    "more is read than before": """
      from   rA = *(u8 *)(rB + O); rA <<= 8
      to     rA = *(u16 *)(rB + O); rA <<= 8
      dead   rA
    """,
    "a dead register is not": """
      from   rB = C; rA += rB
      to     rA += {C}
    """,
    "bytes the other way round": """
      from   rA = *(u8 *)(rB + O); rC = *(u8 *)(rB + P); rC <<= 8; rA |= rC
      to     rA = *(u16 *)(rB + O)
      dead   rC
      if     P == O + 1
    """,
}


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG)
def test_a_wrong_rule_fails(text: str) -> None:
    """A rule that is wrong for some value is refused with one."""
    pytest.importorskip("z3")
    with pytest.raises(OptionError, match=r"is wrong: it changes what the code does with"):
        prove_rule(rule_of(text))


def test_a_proof_that_takes_too_long_is_none() -> None:
    """A true rule that z3 does not decide in time is refused."""
    pytest.importorskip("z3")
    hard = rule_of("""
      from   rC = rA; rC /= rB; rC *= rB; rA -= rC
      to     rA %= rB
      dead   rC
    """)
    with pytest.raises(OptionError, match="did not decide it"):
        prove_rule(hard, seconds=0.05)


def test_a_file_of_rules_is_proved_when_it_is_loaded(tmp_path: Path) -> None:
    """A user's rule is used if it is proved; a wrong one is refused, and nothing is rewritten."""
    pytest.importorskip("z3")
    file = tmp_path / "mine.txt"
    file.write_text("rule mine: Twice nothing.\n  from rA -= rA\n  to rA = 0\n")
    program = assemble("r0 = 5; r0 -= r0; r6 = r0; r0 = r6; exit".replace(";", "\n"))
    result = Pipeline.parse(f"peephole{{rules={file}}}").run(program)
    assert result.report.passes[0].counts["mine"] == 1
    file.write_text("rule mine: Wrong.\n  from rA -= rA\n  to rA = 1\n")
    with pytest.raises(OptionError, match="rule mine is wrong"):
        Pipeline.parse(f"peephole{{rules={file}}}").run(program)


def test_without_z3_no_rule_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without z3 a user's rules are refused with how to install it; the package's work."""
    monkeypatch.setattr("bpfpatch.prove.solver.is_available", lambda: False)
    file = tmp_path / "mine.txt"
    file.write_text("rule mine: Twice nothing.\n  from rA -= rA\n  to rA = 0\n")
    program = assemble("r0 = 5\nexit")
    Pipeline.parse("peephole").run(program)
    with pytest.raises(OptionError, match=r"pip install 'bpfpatch\[prove\]'"):
        Pipeline.parse(f"peephole{{rules={file}}}").run(program)


REFUSED = {
    "from rA += C; rB += D": "a register that a later one reads",
    "to rA = 0": "nothing to look for",
    "from rA = 0\n  to rA = rB": "`to` reads",
    "from rA = 0\n  to rB = 0": "`to` defines",
    "from rA = 0\n  to rA = {X}": "nothing says what X is",
    "from r3 = 0": "registers are rA to rH",
    "from rA = 0\n  to rA = 7 ll": "longer",
    "from rA = 0\n  dead rB": "no register B",
    "from rA += C\n  if power2(C + 1)": "takes a constant of the rule",
    "from rA += C\n  if C ** 2 == 4": "cannot be in a rule",
    "from rA += C\n  if __import__('os')": "no function",
    "from rA = 0\n  when C": "expected",
    "from rA <OP> 0": "no `each OP`",
    "from rA =": "the instruction stops",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_rule_is_refused(text: str) -> None:
    """Text that is no rule, or could never be right, is refused with the rule's name or line."""
    with pytest.raises(OptionError, match=REFUSED[text]):
        parse_rules(f"rule planted: For a test.\n  {text}")


def test_calls_and_atomics_have_no_proof() -> None:
    """A rule about what the semantics does not know is refused."""
    pytest.importorskip("z3")
    with pytest.raises(OptionError, match="has no meaning in proofs"):
        check_rules((rule_of("  from lock *(u64 *)(rA + O) += rB"),))


def test_the_document_names_all_rules() -> None:
    """The table of docs/passes/shrink.md has every rule with its reason, and no others."""
    page = Path(__file__).resolve().parents[3] / "docs" / "passes" / "shrink.md"
    table = page.read_text().partition("<!-- rules -->\n")[2].partition("<!--")[0]
    rows = [row.strip("| ").split(" | ") for row in table.splitlines()[2:]]
    shown = {row[0]: row[1].replace("&#124;", "|") for row in rows}
    assert shown == {rule.name: rule.why for rule in builtin_rules()}
    assert all(row[-1].endswith(" ms") for row in rows)
