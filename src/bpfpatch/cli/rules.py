"""``bpfpatch rules``: the rules of peephole, and proofs of them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click

from .failure import Command, blame
from .screen import echo_json, echo_table

if TYPE_CHECKING:
    from bpfpatch.passes.peephole import Rule

EPILOG: Final = """\b
Examples:
  bpfpatch rules
  bpfpatch rules --prove
  bpfpatch rules mine.txt --prove
  bpfpatch apply -p 'peephole{rules=mine.txt}' lb.o -o lb.small.o
"""
_TITLES: Final = ["rule", "why", "variants", "slots", "cpu", "safe", "proved in"]


@dataclass(frozen=True, slots=True)
class _Row:
    """A rule with all its variants."""

    name: str
    rules: list[Rule]
    milliseconds: float | None

    def cells(self) -> list[str]:
        first = self.rules[0]
        saves = sorted({-rule.saves for rule in self.rules})
        cpus = sorted({rule.cpu for rule in self.rules})
        return [
            self.name,
            first.why,
            str(len(self.rules)),
            " to ".join(dict.fromkeys(str(one) for one in (saves[0], saves[-1]))),
            " to ".join(dict.fromkeys(f"v{one}" for one in (cpus[0], cpus[-1]))),
            "yes" if first.is_safe else "no",
            "" if self.milliseconds is None else f"{self.milliseconds:.0f} ms",
        ]

    def json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "why": self.rules[0].why,
            "safe": self.rules[0].is_safe,
            "milliseconds": None if self.milliseconds is None else round(self.milliseconds, 3),
            "variants": [
                {"variant": rule.variant, "slots": -rule.saves, "cpu": rule.cpu}
                for rule in self.rules
            ],
        }


@click.command("rules", cls=Command, epilog=EPILOG)
@click.argument("file", required=False, type=click.Path(dir_okay=False))
@click.option("--prove", is_flag=True, help="Prove each, which takes z3.")
@click.option("--markdown", is_flag=True, help="Print a table for docs/passes/shrink.md.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(file: str | None, *, prove: bool, markdown: bool, as_json: bool) -> None:
    """List the rules of the pass peephole, or those of FILE."""
    with blame(file or "rules"):
        rows = _rows(file, prove=prove)
    if as_json:
        echo_json([row.json() for row in rows])
    elif markdown:
        cells = [_TITLES, ["---"] * len(_TITLES), *(row.cells() for row in rows)]
        for one in cells:
            click.echo(f"| {' | '.join(cell.replace('|', '&#124;') for cell in one)} |")
    else:
        echo_table("", _TITLES, [tuple(row.cells()) for row in rows])


def _rows(file: str | None, *, prove: bool) -> list[_Row]:
    from bpfpatch.passes.peephole import builtin_rules, read_rules  # noqa: PLC0415 - few ask for it
    from bpfpatch.passes.peephole.proof import check_rules  # noqa: PLC0415 - the same

    rules = builtin_rules() if file is None else read_rules(file)
    rows = []
    for name, group in itertools.groupby(rules, lambda rule: rule.name):
        variants = tuple(group)
        spent = sum(one.milliseconds for one in check_rules(variants)) if prove else None
        rows.append(_Row(name, list(variants), spent))
    return rows
