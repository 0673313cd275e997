"""Which lines did not run, as ranges.

Source: coverage.py 7, coverage.results.format_lines().
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def missing(lines: Mapping[int, int | None]) -> str:
    """The lines that did not run, as in ``3-5, 9``.

    A range goes on over lines without code, and ends at one that ran or is not known.

    Args:
        lines: how often each ran, by number.
    """
    return ", ".join(
        str(first) if first == last else f"{first}-{last}" for first, last in _ranges(lines)
    )


def _ranges(lines: Mapping[int, int | None]) -> Iterable[tuple[int, int]]:
    out: list[tuple[int, int]] = []
    goes_on = False
    for number in sorted(lines):
        is_missing = lines[number] == 0
        if is_missing:
            first = out.pop()[0] if goes_on else number
            out.append((first, number))
        goes_on = is_missing
    return out
