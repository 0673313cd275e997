"""What differs between versions of Linux, as far as it matters here: the one place that says so.

Each row holds from the version ``since`` on, up to but without ``until``. The rows of a topic
follow one another, so that every known version has exactly one; a row for one processor goes
before the row for all. Whoever has to know asks `value`, and compares no version.

Two lists say how far this goes. `KNOWN` are the versions for which the rows were looked up; a
`Target` is for one of these. `MODELLED` are those of which all passes together were compared with
a running kernel; `Pipeline.kernel` takes these alone, since the passes of another version would
answer without a word.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeAlias

from bpfpatch.errors import OptionError

Version: TypeAlias = tuple[int, int]


class Topic(StrEnum):
    """What differs. A value's meaning stands beside its rows."""

    HIDDEN_REGISTER = "hidden register"
    N_REGISTERS = "registers of a program"
    XLATED_CALL = "subprog call as it is read back"
    BLINDING = "when constants are blinded"
    TIMED_MAY_GOTO = "may_goto asks the clock"


@dataclass(frozen=True, slots=True)
class VersionRow:
    """What holds for some versions.

    Attributes:
        topic: of what.
        value: what holds.
        since: first version that does so; None for all before ``until``.
        until: first version that no longer does; None for all from ``since`` on.
        arch: for this processor alone, as ``uname -m`` has it; "" for all others.
    """

    topic: Topic
    value: Any
    since: Version | None = None
    until: Version | None = None
    arch: str = ""

    def holds(self, version: Version, arch: str = "") -> bool:
        """Whether the row is for this version and processor."""
        is_since = self.since is None or version >= self.since
        is_until = self.until is None or version < self.until
        return is_since and is_until and self.arch in ("", arch)


ROWS: Final = (
    # The number of the register that is the kernel's own: AX in its sources.
    VersionRow(Topic.HIDDEN_REGISTER, 11, until=(7, 2)),
    VersionRow(Topic.HIDDEN_REGISTER, 12, since=(7, 2)),
    # R0 to R10; then R11, by which arguments from the sixth on are passed.
    VersionRow(Topic.N_REGISTERS, 11, until=(7, 2)),
    VersionRow(Topic.N_REGISTERS, 12, since=(7, 2)),
    # (field of the distance, field of the subprog's index). 16 bits were too few for a distance.
    # Source: kernel/bpf/verifier.c, jit_subprogs(); the first row seen on v6.18.
    VersionRow(Topic.XLATED_CALL, ("off", "imm"), until=(6, 19)),
    VersionRow(Topic.XLATED_CALL, ("imm", "off"), since=(6, 19)),
    # After subprogs are split off, what is read back is not blinded, and line info is shifted.
    VersionRow(Topic.BLINDING, "after subprogs are split", until=(7, 1)),
    VersionRow(Topic.BLINDING, "before subprogs are split", since=(7, 1)),
    # Source: arch/*/net/bpf_jit_comp*.c, bpf_jit_supports_timed_may_goto().
    VersionRow(Topic.TIMED_MAY_GOTO, False, until=(6, 15), arch="x86_64"),
    VersionRow(Topic.TIMED_MAY_GOTO, True, since=(6, 15), arch="x86_64"),
    VersionRow(Topic.TIMED_MAY_GOTO, False, until=(6, 18), arch="aarch64"),
    VersionRow(Topic.TIMED_MAY_GOTO, True, since=(6, 18), arch="aarch64"),
    VersionRow(Topic.TIMED_MAY_GOTO, False),
)

KNOWN: Final[tuple[Version, ...]] = (
    *((6, minor) for minor in range(12, 20)),
    *((7, minor) for minor in range(3)),
)
"""Versions that the rows are for."""

MODELLED: Final[tuple[Version, ...]] = ((6, 18),)
"""Versions of which all that `Pipeline.kernel` makes was compared with a running kernel."""

NEWEST: Final = MODELLED[-1]


def value(topic: Topic, version: Version, arch: str = "x86_64") -> Any:
    """What holds for a version, by the first row that is for it.

    Older and newer versions than `KNOWN` get an answer, too: reading back what a kernel has is
    tried on any. Code is made for known ones alone (`check_known`).
    """
    return next(row.value for row in ROWS if row.topic is topic and row.holds(version, arch))


def parse_version(text: str) -> Version:
    """The first two numbers of a kernel's version: ``"6.18.3-amd64"`` is (6, 18).

    Raises:
        OptionError: it does not start with two numbers.
    """
    match = re.match(r"(\d+)\.(\d+)", text)
    if match is None:
        raise OptionError(f"a kernel's version looks like 6.18, not {text!r}")
    return int(match[1]), int(match[2])


def running() -> Version:
    """The running kernel's version.

    Raises:
        OptionError: this is no Linux.
    """
    return parse_version(os.uname().release)


def check_known(version: Version) -> None:
    """Refuse a version that no row is for.

    Raises:
        OptionError: with those that there are.
    """
    if version not in KNOWN:
        raise OptionError(
            f"what Linux {text(version)} does differently is not known here; "
            f"known are {text(KNOWN[0])} to {text(KNOWN[-1])}"
        )


def check_modelled(version: Version) -> None:
    """Refuse a version of which the passes together were compared with no kernel.

    Raises:
        OptionError: with those that there are.
    """
    if version not in MODELLED:
        raise OptionError(
            f"what Linux {text(version)} makes of a program is not modelled; "
            f"modelled are: {', '.join(map(text, MODELLED))}"
        )


def text(version: Version) -> str:
    """A version as it is written: ``6.18``."""
    return f"{version[0]}.{version[1]}"
