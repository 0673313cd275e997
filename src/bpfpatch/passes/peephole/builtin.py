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


def proved_rules(path: str) -> tuple[Rule, ...]:
    """A user's rules, proved; once, as long as the file says the same.

    Raises:
        OptionError: see `read_rules`; one of them has no proof, or z3 is not installed.
    """
    return _proved(path, _text(path))


@functools.lru_cache(8)
def _proved(path: str, text: str) -> tuple[Rule, ...]:
    from .proof import check_rules  # noqa: PLC0415 - few have rules of their own

    rules = _checked(path, text)
    check_rules(rules)
    return rules


def read_rules(path: str) -> tuple[Rule, ...]:
    """A user's rules; they are not proved yet.

    Raises:
        OptionError: the file cannot be read, is no file of rules, or has a name of the package's.
    """
    return _checked(path, _text(path))


def _text(path: str) -> str:
    try:
        return Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"the rules cannot be read: {error}") from None


def _checked(path: str, text: str) -> tuple[Rule, ...]:
    rules = parse_rules(text, path)
    clash = {rule.name for rule in rules} & {rule.name for rule in builtin_rules()}
    if clash:
        raise OptionError(f"{path}: {min(clash)} is a rule of the package; name it otherwise")
    return rules
