"""Peephole keeps what programs do, on random code made of what its rules look for."""

from __future__ import annotations

import random

import pytest

from bpfpatch.passes.peephole import Rule, builtin_rules
from support.models.ruled import NAMES, check_rule

N_VARIANTS = 4
"""How many variants of a rule are looked at; all of them are proved."""

LEAST = 8
"""How many programs for each rule."""


def variants(name: str) -> list[Rule]:
    """Some variants of a rule."""
    found = [rule for rule in builtin_rules() if rule.name == name]
    random.Random(name).shuffle(found)
    return found[:N_VARIANTS]


@pytest.mark.parametrize("name", NAMES)
def test_code_does_what_it_did(name: str) -> None:
    """A program gives the same packet and verdict with the rule, and with all rules."""
    found = variants(name)
    n_fitted = 0
    for seed, rule in enumerate(found * (LEAST // len(found))):
        fitted, wrong = check_rule(rule, seed, with_all=not seed % 3)
        assert not wrong
        n_fitted += fitted
    assert n_fitted, "it fits nowhere"
