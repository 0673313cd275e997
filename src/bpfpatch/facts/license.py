"""Which licences let a program call helpers that are for GPL programs only."""

from __future__ import annotations

from typing import Final

GPL_COMPATIBLE: Final = frozenset(
    {
        "GPL",
        "GPL v2",
        "GPL and additional rights",
        "Dual BSD/GPL",
        "Dual MIT/GPL",
        "Dual MPL/GPL",
    }
)


def is_gpl_compatible(license_text: str | None) -> bool:
    """Whether the kernel takes a licence for a GPL one; None is an object that says nothing.

    Source: linux v6.18, include/linux/license.h, license_is_gpl_compatible().
    """
    return license_text in GPL_COMPATIBLE
