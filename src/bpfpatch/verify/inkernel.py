"""The same comparison in the kernel: inputs that the search found worth keeping, run there."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Final

from bpfpatch import runs
from bpfpatch.elf import LinkedProgram
from bpfpatch.elf.setup import Prepared
from bpfpatch.errors import BpfPatchError
from bpfpatch.interp.contexts import ETH_HEADER

from .case import MARK_BITS, POINTER_MARK, Case
from .compare import Difference, differences
from .kinds import PACKET_SHAPES, Shape
from .shrink import shrink
from .side import Observation, RunSubject

_TRIES: Final = 60
"""Runs that shrinking takes in the kernel, where putting maps back takes long."""
_MAPS_EVERY: Final = 16
"""Maps are read and compared after so many inputs."""
_MOST_ARGUMENTS: Final = 96
"""Bytes of a raw tracepoint's arguments. Source: linux v6.18, net/bpf/test_run.c,
bpf_prog_test_run_raw_tp()."""
_CONTROLS: Final = 12
"""How often the original is loaded anew, to see whether it always does the same."""
_MOST_UNSURE: Final = 3
_FROZEN: Final = (".rodata", ".kconfig")
"""Sections that cannot be changed once the program is loaded."""
_R0_BITS: Final = 64
_UNKNOWN: Final = ("helpers", "printed")
"""What the kernel does not tell."""


@dataclass(frozen=True, slots=True)
class KernelResult:
    """What came out of one mode.

    Attributes:
        n_runs: inputs that were compared.
        case: one on which the programs differ, or None.
        differences: what differs on it.
        earlier: inputs to be run before it.
        reason: why nothing could be run, or "".
    """

    n_runs: int = 0
    case: Case | None = None
    differences: tuple[Difference, ...] = ()
    earlier: tuple[Case, ...] = ()
    reason: str = ""


def check_in_kernel(
    before: RunSubject,
    after: RunSubject,
    shape: Shape,
    prog_type: str,
    mode: str,
    cases: Sequence[Case],
    *,
    ignore: Collection[str] = (),
    is_over: Callable[[], bool],
) -> KernelResult:
    """Run both programs on the same inputs in the kernel.

    Maps keep what is in them from input to input, in both programs. On a difference both
    start anew, to see if one input alone does it.

    Args:
        before: the original.
        after: the rewritten program.
        shape: what they are run on.
        prog_type: their kind, as bpftool names it, or "" or ``mem``.
        mode: ``jit`` or ``jit+harden``.
        cases: the inputs.
        ignore: what need not be the same.
        is_over: whether the time is up.
    """
    reason = runs.available(mode)
    if reason is not None:
        return KernelResult(reason=f"{mode}: {reason}")
    plain = [_plain(case, prog_type) for case in cases if is_for_kernel(case, shape)]
    if not plain:
        return KernelResult(reason=f"{mode}: none of the inputs is one that the kernel can make")
    try:
        with ExitStack() as stack:
            opened = []
            for who, subject in (("the original", before), ("the rewritten program", after)):
                try:
                    opened.append(stack.enter_context(_open(subject, prog_type, mode)))
                except BpfPatchError as error:
                    return KernelResult(reason=f"{mode}: {who} is refused: {error}")
            pair = _Pair(
                opened[0],
                opened[1],
                lambda: _open(before, prog_type, mode),
                shape,
                (*ignore, *_UNKNOWN),
            )
            return pair.check(plain, is_over)
    except BpfPatchError as error:
        return KernelResult(reason=f"{mode}: {error}")


def is_for_kernel(case: Case, shape: Shape) -> bool:
    """Whether the kernel can run an input: it makes no pointers, and no results of helpers."""
    if shape in PACKET_SHAPES:
        # A socket buffer needs something behind the header. Source: linux v6.18,
        # net/bpf/test_run.c, bpf_prog_test_run_xdp() and convert___skb_to_skb().
        return len(case.packet or b"") >= ETH_HEADER + (shape is not Shape.XDP)
    words = ((case.ctx or b"")[at : at + 8] for at in range(0, len(case.ctx or b""), 8))
    return shape is Shape.MEM or not any(_is_pointer(word) for word in words)


def _plain(case: Case, prog_type: str) -> Case:
    """An input without what cannot be given to the kernel."""
    entries = tuple(one for one in case.entries if not one.map.startswith(_FROZEN))
    ctx = case.ctx
    if ctx is not None and prog_type == "raw_tracepoint":
        ctx = ctx[:_MOST_ARGUMENTS]
    return Case(packet=case.packet, ctx=ctx, entries=entries)


def _is_pointer(word: bytes) -> bool:
    return int.from_bytes(word, "little") & MARK_BITS == POINTER_MARK


def _open(subject: RunSubject, prog_type: str, mode: str) -> runs.Runner:
    kind = prog_type if prog_type not in ("", "mem") else None
    if isinstance(subject.program, LinkedProgram):
        assert subject.obj is not None
        setup = Prepared(subject.obj, subject.entries)
        return runs.open_runner(subject.program, mode, obj=subject.obj, prog_type=kind, setup=setup)
    return runs.open_runner(subject.program, mode, prog_type=kind)


@dataclass(slots=True)
class _Pair:
    """Both programs, loaded.

    Attributes:
        before: the original.
        after: the rewritten program.
        another: loads the original once more.
        shape: what they are run on.
        ignore: what need not be the same.
        unsure: what the original itself did in more than one way.
    """

    before: runs.Runner
    after: runs.Runner
    another: Callable[[], runs.Runner]
    shape: Shape
    ignore: Collection[str]
    unsure: list[Difference] = field(default_factory=list)

    def check(self, cases: Sequence[Case], is_over: Callable[[], bool]) -> KernelResult:
        """Run all inputs, up to one that makes a difference."""
        mode = self.before.mode
        n_runs, since, first_error = 0, 0, ""
        for number, case in enumerate(cases):
            if is_over() or len(self.unsure) >= _MOST_UNSURE:
                break
            is_last = number == len(cases) - 1
            with_maps = is_last or number % _MAPS_EVERY == _MAPS_EVERY - 1
            pair = self._run(case, with_maps=with_maps)
            if isinstance(pair, BpfPatchError):
                first_error = first_error or str(pair)
                continue
            n_runs += 1
            found = differences(*pair, self.ignore)
            if found:
                done = self._found(cases[since : number + 1], n_runs, found)
                if done is not None:
                    return done
                since = number + 1
        if len(self.unsure) >= _MOST_UNSURE:
            why = "the original itself does not always do the same on the same input"
            return KernelResult(reason=f"{mode}: {why}: {self.unsure[0]}")
        reason = f"{mode}: {first_error}" if not n_runs and first_error else ""
        return KernelResult(n_runs, reason=reason)

    def _run(
        self, case: Case, *, with_maps: bool = True
    ) -> tuple[Observation, Observation] | BpfPatchError:
        """What both did, or why neither could be run."""
        first = self._one(self.before, case, with_maps=with_maps)
        second = self._one(self.after, case, with_maps=with_maps)
        if first.error is not None and second.error is not None:
            return first.error
        bits = min(first.r0_bits, second.r0_bits)
        return _observation(first, bits), _observation(second, bits)

    def _one(self, runner: runs.Runner, case: Case, *, with_maps: bool = True) -> runs.Outcome:
        for entry in case.entries:
            with suppress(BpfPatchError):  # a full map, or a kind that takes none
                runner.put(entry.map, entry.key, entry.value)
        return runner.run(_input(case, self.shape), with_maps=with_maps)

    def _differences(self, case: Case) -> tuple[Difference, ...]:
        """What differs on one input alone."""
        self.before.reset()
        self.after.reset()
        pair = self._run(case)
        return () if isinstance(pair, BpfPatchError) else differences(*pair, self.ignore)

    def _found(
        self, cases: Sequence[Case], n_runs: int, found: tuple[Difference, ...]
    ) -> KernelResult | None:
        """The one input that does it, or all of them; None if it is chance. Both start anew."""
        for case in reversed(cases[-_MAPS_EVERY:]):
            alone = self._differences(case)
            if alone and self._is_sure([case]):
                small = shrink(case, lambda one: bool(self._differences(one)), _TRIES)
                if self._is_sure([small]):
                    return KernelResult(n_runs, small, self._differences(small) or alone)
                return KernelResult(n_runs, case, alone)
        if self._is_sure(cases):
            return KernelResult(n_runs, cases[-1], found, tuple(cases[:-1]))
        self.before.reset()
        self.after.reset()
        return None

    def _is_sure(self, cases: Sequence[Case]) -> bool:
        """Whether the original does the same each time: there are clocks, and hashes of chance."""
        first: Observation | None = None
        for _ in range(_CONTROLS):
            with self.another() as runner:
                for case in cases[:-1]:
                    self._one(runner, case, with_maps=False)
                now = _observation(self._one(runner, cases[-1]), _R0_BITS)
            first = first or now
            found = differences(first, now, self.ignore)
            if found:
                self.unsure.append(found[0])
                return False
        return True


def _input(case: Case, shape: Shape) -> runs.Input:
    if shape is Shape.MEM:
        return runs.Input(mem=case.ctx)
    if shape in PACKET_SHAPES:
        return runs.Input(packet=case.packet)
    return runs.Input(ctx=case.ctx)


def _observation(outcome: runs.Outcome, bits: int) -> Observation:
    return Observation(
        r0=outcome.r0_as(bits),
        packet=outcome.packet,
        ctx=outcome.mem if outcome.ctx is None else outcome.ctx,
        maps=outcome.maps,
        error=outcome.error,
    )
