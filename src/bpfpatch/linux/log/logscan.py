"""Walk the verifier's log (log_level 2): which instructions it visited, with what in registers.

The log has a line for each instruction that the verifier processes, with the registers that the
instruction read or wrote after it; and lines with a whole state wherever another path, or another
frame, is taken up::

    7: (61) r2 = *(u32 *)(r1 +0)          ; R1=ctx() R2=pkt(r=0)
    from 29 to 58: frame1: R1=scalar() R2=fp[0]-24 R10=fp0 cb
    to caller at 49:
     R0=0 R6=fp-24 R10=fp0

So what a register holds is what the latest line that shows it says, whatever the path.

Source: linux v6.18, kernel/bpf/verifier.c, do_check(), and kernel/bpf/log.c,
print_verifier_state(), print_insn_state(); seen on v6.18.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch.errors import FormatError
from bpfpatch.program import Program

_KEPT: Final = frozenset("0123456789 f")
_INSN: Final = re.compile(r"(\d+): \(([0-9a-f]{2})\)")
_FROM: Final = re.compile(r"from (\d+) to (\d+)( \(speculative execution\))?:")
_FUNC: Final = re.compile(r"^func#(\d+) @(\d+)$", re.MULTILINE)
_DEPTHS: Final = re.compile(r"^stack depth ([\d+]+)$", re.MULTILINE)
_SHOWN: Final[list[Callable[[str, int], re.Match[str] | None]]] = [
    re.compile(rf" R{reg}(?:_\w+)?=([^ (]+(?:\([^()]*)?)").search for reg in range(11)
]
_RCU_END: Final = "bpf_rcu_read_unlock#"
_RCU: Final = "rcu_"

Wish = tuple[int, bool]
"""A register, and whether what it holds before the instruction is wanted (or else after it)."""


@dataclass(slots=True)
class Scan:
    """What a log shows.

    Attributes:
        seen: (n,) whether the verifier visited a slot.
        shown: by slot and register of the wishes: the texts of what the register held on all
            visits, in the order in which they first came up.
        branches: by slot: where else the verifier went on later from there.
        starts: slot of each subprog.
        depths: stack of each subprog that is left in the end; empty where not told.
    """

    seen: NDArray[np.bool_]
    shown: dict[tuple[int, int], dict[str, None]] = field(default_factory=dict)
    branches: dict[int, set[int]] = field(default_factory=dict)
    starts: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)


def scan_log(log: str, program: Program, wishes: dict[int, tuple[Wish, ...]]) -> Scan:
    """Walk a log once.

    Args:
        log: of log_level 2, or 6 with stack depths.
        program: what was submitted.
        wishes: by slot, which registers are of interest there.

    Raises:
        FormatError: the log is of another program.
    """
    seen = bytearray(len(program))
    out = Scan(np.zeros(0, bool))
    lines = [line for line in log.split("\n") if line[:1] in _KEPT and line]
    codes = [f"{code:02x}" for code in program.insns["code"].tolist()]
    shown, is_speculative = out.shown, False
    for at, line in enumerate(lines):
        insn = _INSN.match(line)
        if insn is None:
            branch = _FROM.match(line)
            if branch:
                out.branches.setdefault(int(branch[1]), set()).add(int(branch[2]))
                is_speculative = branch[3] is not None
            continue
        slot = int(insn[1])
        if slot >= len(codes) or codes[slot] != insn[2]:
            raise _other_program(line, slot, program)
        if not is_speculative:
            seen[slot] = 1
        for reg, is_before in wishes.get(slot, ()):
            found = None if is_before else _SHOWN[reg](line, insn.end())
            text = found[1] if found else _before(lines, at, reg)
            shown.setdefault((slot, reg), {})[text] = None
    out.seen = np.frombuffer(seen, bool).copy()
    head = log[: _head_end(log)]
    out.starts = [int(match[2]) for match in _FUNC.finditer(head)]
    depths = _DEPTHS.search(log, max(len(log) - _TAIL, 0))
    if depths:
        out.depths = [int(depth) for depth in depths[1].split("+")]
    return out


_TAIL: Final = 1 << 16


def _head_end(log: str) -> int:
    """Where the instructions start, which the list of functions comes before."""
    end = log.find("\n0: ")
    return len(log) if end < 0 else end


def _before(lines: list[str], at: int, reg: int) -> str:
    """What a register held before a line: what the last line that shows it says."""
    shown = _SHOWN[reg]
    name = f" R{reg}"
    for back in range(at - 1, -1, -1):
        if name not in lines[back]:
            continue
        found = shown(lines[back], 0)
        if found is None:
            continue
        text = found[1]
        # What RCU protected cannot be relied on after the section, and is not shown again.
        if text.startswith(_RCU) and any(_RCU_END in line for line in lines[back + 1 : at]):
            return "untrusted_" + text.removeprefix(_RCU)
        return text
    return ""


def _other_program(line: str, slot: int, program: Program) -> FormatError:
    has = f"opcode {program.insns['code'][slot]:#04x}" if slot < len(program) else "no such slot"
    return FormatError(
        f"the log is of another program: it has {line[:60]!r}, and the program {has}"
    )
