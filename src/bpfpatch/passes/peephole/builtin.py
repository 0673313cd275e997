"""Rules from files: the package's, and users'."""

from __future__ import annotations

import functools
from importlib import resources
from pathlib import Path

from bpfpatch.errors import OptionError

from .rule import Rule
from .rulefile import parse_rules


@functools.cache
def builtin_rules() -> tuple[Rule, ...]:
    """Those that come with the package, in the order in which they are tried."""
    text = resources.files(__package__).joinpath("rules.txt").read_text("utf-8")
    return parse_rules(text, "rules.txt")


def read_rules(path: str) -> tuple[Rule, ...]:
    """A user's rules; they are not proved yet.

    Raises:
        OptionError: the file cannot be read, is no file of rules, or has a name of the package's.
    """
    try:
        text = Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"the rules cannot be read: {error}") from None
    rules = parse_rules(text, path)
    clash = {rule.name for rule in rules} & {rule.name for rule in builtin_rules()}
    if clash:
        raise OptionError(f"{path}: {min(clash)} is a rule of the package; name it otherwise")
    return rules
