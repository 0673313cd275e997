"""The figures at the end of the verifier's log.

Source: linux v6.18, kernel/bpf/verifier.c, print_verification_stats().
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self

_PROCESSED: Final = re.compile(
    r"^processed (\d+) insns \(limit (\d+)\) max_states_per_insn (\d+) "
    r"total_states (\d+) peak_states (\d+) mark_read (\d+)",
    re.MULTILINE,
)
_DEPTHS: Final = re.compile(r"^stack depth ([\d+]+)", re.MULTILINE)
_TIME: Final = re.compile(r"^verification time (\d+) usec", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class VerifierStats:
    """What verifying a program took.

    Attributes:
        processed: instructions that the verifier looked at, again for each state.
        limit: the most that it looks at.
        states_per_insn: the most states that it kept for one instruction.
        states: states that it kept.
        peak_states: the most of them at one time.
        stack: bytes of stack of each subprog; empty where the log does not tell.
        microseconds: time; None where the log does not tell.
    """

    processed: int
    limit: int
    states_per_insn: int
    states: int
    peak_states: int
    stack: tuple[int, ...] = ()
    microseconds: int | None = None

    @classmethod
    def from_log(cls, log: str) -> Self | None:
        """The figures of a log of level 4, or of level 1 or 2 without stack and time.

        None where the verifier did not get as far.
        """
        all_found = list(_PROCESSED.finditer(log))
        if not all_found:
            return None
        found = all_found[-1]
        processed, limit, per_insn, states, peak, _ = map(int, found.groups())
        depths = _DEPTHS.search(log)
        stack = () if depths is None else tuple(map(int, depths[1].split("+")))
        time = _TIME.search(log)
        return cls(
            processed, limit, per_insn, states, peak, stack, None if time is None else int(time[1])
        )
