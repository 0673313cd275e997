"""The path on which the verifier refused a program, from its log.

Level 1 is enough: what the verifier says of paths that turn out fine, it takes back. What is left
is the path from the first instruction to the one that it refused::

    76: (bd) if r1 <= r2 goto pc+12       ; R1=pkt(off=42,r=42) R2=pkt_end()
    97: (55) if r0 != 0x0 goto pc+1 99: R0=map_value(...) R10=fp0
    from 29 to 58: frame1: R1=scalar() R10=fp0

Source: linux v6.18, kernel/bpf/verifier.c, do_check(), push_stack(), pop_stack(); and
kernel/bpf/log.c, print_verifier_state(), print_insn_state().
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from .regstate import RegState, parse_refs, parse_states

_INSN: Final = re.compile(
    r"^(?P<slot>\d+): \((?P<code>[0-9a-f]{2})\) (?P<text>.*?)"
    r"(?:\s+; (?P<after>(?:frame\d+: ?)?(?:R\d|fp-|refs=).*)"
    r"| (?P<at>\d+): (?P<whole>(?:frame\d+: ?)?R\d.*))?$"
)
_WHOLE: Final = re.compile(
    r"^(?:from (?P<origin>\d+) to (?P<target>\d+)(?: \(speculative execution\))?:|(?P<at>\d+):)"
    r" ?(?P<whole>(?:frame\d+: ?)?R\d.*)$"
)
_BARE: Final = re.compile(r"^ ?(?:frame(?P<frame>\d+): ?)?(?=R\d+(?:_\w+)?=)")
_FRAME: Final = re.compile(r"^frame(\d+): ?")
_VALIDATING: Final = re.compile(r"^Validating (\S+)\(\) func#(\d+)")
_CALL, _EXIT = 0x85, 0x95

States = Mapping[str, RegState]


@dataclass(frozen=True, slots=True)
class PathStep:
    """One instruction on the path.

    Attributes:
        slot: of the program that was submitted.
        code: its opcode.
        text: as the log prints it.
        frame: depth of the function that it is in; 0 for the first.
        before: what was known in front of it, in its frame, by ``R1`` or ``fp-8``.
    """

    slot: int
    code: int
    text: str
    frame: int
    before: States


@dataclass(frozen=True, slots=True)
class FailPath:
    """The path on which a program was refused.

    Attributes:
        steps: from the first instruction on; the last is the one that was refused.
        frames: what was known at the end, by frame.
        refs: references that are held at the end, as far as the log tells.
        function: name of the global function that is looked at by itself, or "".
    """

    steps: tuple[PathStep, ...]
    frames: tuple[States, ...]
    refs: tuple[int, ...] = ()
    function: str = ""

    @property
    def last(self) -> PathStep | None:
        """The instruction that was refused."""
        return self.steps[-1] if self.steps else None

    def outcome(self, index: int) -> bool | None:
        """Whether the jump of a step was taken; None for the last, and where it is not a jump."""
        if index + 1 >= len(self.steps) or self.steps[index].code & 7 not in (5, 6):
            return None
        return self.steps[index + 1].slot != self.steps[index].slot + 1


@dataclass
class _Reader:
    """A path in the making."""

    steps: list[PathStep] = field(default_factory=list)
    frames: list[dict[str, RegState]] = field(default_factory=lambda: [{}])
    depth: int = 0
    refs: tuple[int, ...] = ()
    function: str = ""

    def read(self, lines: Iterator[str]) -> None:
        expects_caller = False
        for line in lines:
            insn = _INSN.match(line)
            if insn is not None:
                self._step(insn)
                continue
            whole = _WHOLE.match(line)
            if whole is not None:
                self._whole(whole["whole"])
                continue
            bare = _BARE.match(line)
            if bare is not None:
                self._whole(line[1:] if line.startswith(" ") else line, keeps=expects_caller)
                continue
            validating = _VALIDATING.match(line)
            if validating is not None:
                self.steps, self.frames, self.depth = [], [{}], 0
                self.refs, self.function = (), validating[1]
            expects_caller = line.startswith("caller:")

    def _step(self, insn: re.Match[str]) -> None:
        slot, code = int(insn["slot"]), int(insn["code"], 16)
        before = dict(self.frames[self.depth])
        self.steps.append(PathStep(slot, code, insn["text"].strip(), self.depth, before))
        if insn["whole"] is not None:
            self._whole(insn["whole"])
        elif insn["after"] is not None:
            self._after(insn["after"])
        elif code == _CALL:
            self._forget_args()

    def _forget_args(self) -> None:
        for number in range(1, 6):
            self.frames[self.depth].pop(f"R{number}", None)

    def _after(self, text: str) -> None:
        """What an instruction read or wrote, and what is there now."""
        frame, text = _split(text)
        step = self.steps[-1]
        if step.code == _CALL:
            self._forget_args()
        while len(self.frames) <= frame:
            self.frames.append({})
        for name, state in parse_states(text).items():
            self.frames[frame][name] = state
        refs = parse_refs(f" {text}")
        if refs or step.code == _CALL:
            self.refs = refs or self.refs

    def _whole(self, text: str, *, keeps: bool = False) -> None:
        """A whole state of one frame."""
        frame, text = _split(text)
        while len(self.frames) <= frame:
            self.frames.append({})
        # Before 6.0 a line of its own shows what changed, without all the rest.
        is_whole = "R10" in text
        states = parse_states(text)
        self.frames[frame] = states if is_whole else {**self.frames[frame], **states}
        self.refs = parse_refs(f" {text}")
        if not keeps:
            self.depth = frame
            del self.frames[frame + 1 :]


def _split(text: str) -> tuple[int, str]:
    found = _FRAME.match(text)
    return (0, text) if found is None else (int(found[1]), text[found.end() :])


def read_path(log: str) -> FailPath:
    """The path that a log of level 1 or 2 ends with; of level 2 with all that was tried before."""
    reader = _Reader()
    reader.read(iter(log.splitlines()))
    frames: tuple[States, ...] = tuple(dict(one) for one in reader.frames)
    return FailPath(tuple(reader.steps), frames, reader.refs, reader.function)
