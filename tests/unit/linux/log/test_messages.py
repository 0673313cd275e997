"""The table of the verifier's sentences, and what docs/load.md says of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bpfpatch.linux.log.messages import Family, Flaw, figures, find_rule

DOCS = Path(__file__).resolve().parents[4] / "docs" / "load.md"
ROW = re.compile(r"^\| `([A-Z_]+)` \| ([a-z, ]+) \| (?:`(.*)`|(.*)) \|$", re.MULTILINE)
ROWS = [(kind, family, text.replace("\\|", "|")) for kind, family, text, _ in
        ROW.findall(DOCS.read_text())]  # fmt: skip


def test_docs_list_every_kind() -> None:
    """The table in the docs has each kind once."""
    assert sorted(kind for kind, _, _ in ROWS) == sorted(kind.name for kind in Flaw)


@pytest.mark.parametrize(("kind", "family", "message"), ROWS, ids=[row[0] for row in ROWS])
def test_examples_of_the_docs_are_understood(kind: str, family: str, message: str) -> None:
    """Each example is of the kind and the family that the docs say."""
    rule, _ = find_rule(message)
    assert rule.kind is Flaw[kind]
    assert rule.family.value in family.split(", ")


@pytest.mark.parametrize(
    ("message", "kind", "words"),
    [
        ("R5 !read_ok", Flaw.UNSET, {"reg": "5"}),
        ("R1 invalid mem access 'inv'", Flaw.SCALAR_ACCESS, {"reg": "1", "got": "inv"}),
        ("invalid access to packet, off=14 size=4, R2(id=1,off=14,r=0)", Flaw.PACKET, {"reg": "2"}),
        ("R0 max value is outside of the array range", Flaw.REGION, {"reg": "0", "want": "max"}),
        ("invalid stack type R2 off=-520 access_size=8", Flaw.STACK_ACCESS, {}),
        ("Possibly NULL pointer passed to trusted arg1", Flaw.ARG_NULL, {"arg": "1"}),
        ("Possibly NULL pointer passed to helper arg2", Flaw.ARG_NULL, {"reg": "2"}),
        ("R0 32-bit pointer arithmetic prohibited", Flaw.POINTER_OP, {"reg": "0"}),
        ("R2 pointer comparison prohibited", Flaw.POINTER_OP, {"reg": "2"}),
        ("attempt to corrupt spilled pointer on stack", Flaw.SPILL, {}),
        ("program of this type cannot use helper bpf_skb_pull_data#39", Flaw.HELPER, {}),
        ("calling kernel function bpf_x is not allowed", Flaw.HELPER, {}),
        ("BPF_EXIT instruction in main prog would lead to reference leak", Flaw.REFERENCE, {}),
        ("helper call might sleep in a non-sleepable prog", Flaw.HELPER, {}),
        ("R1 invalid rdwr buffer access: off=-4, size=4", Flaw.REGION, {"reg": "1"}),
        ("bpf_spin_unlock is missing", Flaw.LOCK, {}),
        ("back-edge from insn 4 to 0", Flaw.LOOP, {}),
        ("the sentence of a kernel to come", Flaw.UNKNOWN, {}),
    ],
)
def test_sentence(message: str, kind: Flaw, words: dict[str, str]) -> None:
    """A sentence is of its kind, whichever kernel says it, and names its register."""
    rule, found = find_rule(message)
    assert rule.kind is kind
    assert words.items() <= found.items()


def test_every_row_says_what_was_needed() -> None:
    """What is understood has a need in words."""
    for kind, _, message in ROWS:
        rule, _ = find_rule(message)
        assert rule.needs or kind == "UNKNOWN"
    assert find_rule("?")[0].family is Family.UNKNOWN


def test_figures_come_from_the_line_above() -> None:
    """Place, size and the region's size are read where the verifier prints them."""
    lines = (
        "invalid access to map value, value_size=501 off=511 size=1",
        "R0 max value is outside of the allowed memory range",
    )
    assert figures(lines) == {"region": 501, "off": 511, "size": 1}
