"""Short runs of instructions, rewritten by rules that are data and proved."""

from .builtin import builtin_rules, read_rules
from .peephole import Peephole
from .rule import Rule, RuleInsn
from .rulefile import parse_rules

__all__ = ["Peephole", "Rule", "RuleInsn", "builtin_rules", "parse_rules", "read_rules"]
