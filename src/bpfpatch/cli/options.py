"""Options that several commands have, each written down once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import click

from bpfpatch.errors import OptionError

Callback = Callable[..., Any]
Decorator = Callable[[Callback], Callback]


class Real(click.FloatRange):
    """A number in a range; NaN, which compares as in every range, is in none."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read a number."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is no finite number", param, ctx)
        return number


KERNEL_ID: Final = click.IntRange(1, (1 << 32) - 1)
"""An id of a map or program: the kernel starts with 1 and has 32 bits for them."""

cpu_option: Final = click.option(
    "--cpu",
    type=click.Choice(["v1", "v2", "v3", "v4"]),
    help="The highest cpu version that the result may need.",
)

dwarf_option: Final = click.option(
    "--dwarf",
    type=click.Choice(["update", "drop", "refuse"]),
    default="update",
    show_default=True,
    help="What to do with DWARF, which goes stale when code moves.",
)


relax_option: Final = click.option(
    "--no-relax",
    "no_relax",
    is_flag=True,
    help="Refuse jumps that have become too far, instead of making them fit.",
)


def context_option(what: str) -> Decorator:
    """``-U``: how many equal instructions to show around what a command calls ``what``."""
    return click.option(
        "-U",
        "--context",
        metavar="N",
        type=click.IntRange(min=0),
        default=3,
        show_default=True,
        help=f"How many equal instructions to show around a {what}.",
    )


def picture_name(path: str) -> None:
    """Refuse a name that does not say which kind of picture to make; - is text.

    Raises:
        UsageError: it does not.
    """
    from bpfpatch.report.dottext import check_picture  # noqa: PLC0415 - few draw

    try:
        check_picture(path)
    except OptionError as error:
        raise click.UsageError(str(error)) from error
