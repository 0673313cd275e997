"""The verifier's log: what it complained about, and at which instruction."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_INSN: Final = re.compile(r"^(\d+): \([0-9a-f]{2}\) ")
_NOTED: Final = re.compile(r"\binsn(?: #| )(\d+)\b")
_STATE: Final = re.compile(r"^(\d+: R\d|from \d+ to \d+|func#\d+ |;|\s|R\d+(_\w+)?=|fp-?\d+=)")
_CHATTER: Final = (
    "processed ",
    "verification time",
    "stack depth",
    "Validating ",
    "Func#",
    "caller:",
    "callee:",
    "frame",
    "last_idx",
    "mark_precise",
    "parent ",
    "returning from callee",
    "to caller at",
    "propagating",
    "Processed",
    "-- ",
    "max_states",
    "global function",
    "old state",
    "cur state",
)


EXPLANATION: Final = "\nVerification failed: "
"""Where kernels from 7.3 on begin to explain what they said before."""


@dataclass(frozen=True, slots=True)
class LogSummary:
    """What a log comes down to.

    Attributes:
        message: the complaint, or "" where the log has none.
        slot: the instruction that it is about, or None.
    """

    message: str
    slot: int | None


def summarize(log: str) -> LogSummary:
    """Find the complaint in a verifier's log.

    It is the last line that is neither an instruction nor a state nor statistics. The
    instruction is the one that the complaint names, or the last one printed before it.

    Source: linux v6.1, kernel/bpf/verifier.c, verbose() and its callers; seen on v6.18.
    """
    message, slot, last = "", None, None
    for line in log.split(EXPLANATION, 1)[0].splitlines():
        shown = _INSN.match(line)
        if shown:
            last = int(shown[1])
        elif line.strip() and not _STATE.match(line) and not line.startswith(_CHATTER):
            message, slot = line.strip(), last
    named = _NOTED.search(message)
    return LogSummary(message, int(named[1]) if named else slot)
