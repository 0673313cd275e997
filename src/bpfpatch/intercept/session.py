"""What is done with each load of one command."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from bpfpatch.bpf.intercept import Answer, LoadOutcome
from bpfpatch.bpf.loadrequest import Attempt, LoadRequest
from bpfpatch.bpf.proginfo import prog_info
from bpfpatch.coverage import cover_map
from bpfpatch.errors import BpfPatchError, OptionError
from bpfpatch.facts.kinds import ProgType
from bpfpatch.passes import Pass, Pipeline, Target, Trace
from bpfpatch.passes.cover import Cover, CoverMap
from bpfpatch.passes.trace import MAP_NAME, trace_map
from bpfpatch.passes.trace.places import find_spots

from .captured import captured
from .counters import Counters
from .records import Records
from .refused import refusal_of, repaired
from .rewrite import Rewriter, RewrittenLoad


@dataclass(frozen=True, slots=True)
class Choice:
    """Programs by name and type; of what is not given, all.

    Attributes:
        names: patterns as a shell's, of which a name has to match one.
        types: of which a program has to be one.
    """

    names: tuple[str, ...] = ()
    types: frozenset[ProgType] = frozenset()

    def __contains__(self, request: LoadRequest) -> bool:
        if self.types and request.type not in self.types:
            return False
        known = {request.name, request.short_name}
        return not self.names or any(
            fnmatchcase(name, pattern) for name in known for pattern in self.names
        )


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to do with the loads of a command.

    Attributes:
        choice: the programs that are meant.
        passes: to run on each.
        cover: the pass that counts what runs; None without.
        traces: passes that send records, each run on the programs that have its place.
        folder: where each load is written to as an object; None for nowhere.
        has_why: whether to say why the verifier refuses a load.
        has_repair: whether to mend what it refuses.
        target: for whom passes rewrite.
    """

    choice: Choice = field(default_factory=Choice)
    passes: tuple[Pass, ...] = ()
    cover: Cover | None = None
    traces: tuple[Trace, ...] = ()
    folder: Path | None = None
    has_why: bool = False
    has_repair: bool = False
    target: Target = field(default_factory=Target)

    @property
    def is_nothing(self) -> bool:
        """Whether loads are only looked at."""
        does = (self.passes, self.cover, self.traces, self.folder, self.has_why, self.has_repair)
        return not any(does)


class Session:
    """Answers for `bpfpatch.bpf.intercept`: `on_load` and `on_done` are its functions.

    Args:
        wanted: what to do.
        say: tells the user something that needs to be said once.
        tell: tells the user something each time.

    Attributes:
        counters: what programs that were loaded count.
    """

    def __init__(
        self, wanted: Wanted, say: Callable[[str], None], tell: Callable[[str], None]
    ) -> None:
        self._wanted = wanted
        self._say = say
        self._tell = tell
        self._rewriter = Rewriter(wanted.target)
        self._lock = threading.Lock()
        self._pending: dict[LoadRequest, RewrittenLoad] = {}
        self._unfound = {trace.at for trace in wanted.traces}
        self._names: set[str] = set()
        self._records = Records(lambda record: tell(str(record)))
        self.counters = Counters()

    def on_load(self, request: LoadRequest) -> Answer:
        """The program to load instead of one; None for the original."""
        wanted = self._wanted
        if request not in wanted.choice:
            return None
        if wanted.folder is not None:
            self._capture(request, wanted.folder)
        if (wanted.has_why or wanted.has_repair) and not request.is_probe:
            tried = request.attempt()
            if not tried.is_loaded:
                return self._refused(request, tried)
            if not (wanted.passes or wanted.traces or wanted.cover):
                return tried
            tried.close()
        passes = self._passes(request)
        if not passes:
            return None
        done = self._rewriter.rewrite(request, Pipeline(passes))
        with self._lock:
            self._pending[request] = done
        return done.program

    def _refused(self, request: LoadRequest, tried: Attempt) -> Answer:
        """Say why, and mend it; what cannot be mended is refused as it was."""
        name = request.name or "a program without a name"
        refusal = refusal_of(request)
        if refusal is None:
            return tried
        if self._wanted.has_why:
            for line in refusal.lines():
                self._tell(f"{name}: {line}")
        if not self._wanted.has_repair:
            return tried
        program, report = repaired(request)
        if program is None:
            why = next((one.reason for one in report.programs if one.reason), refusal.message)
            self._tell(f"{name} is refused, and cannot be repaired: {why}")
            return tried
        for mending in report.mendings:
            self._tell(f"{name} is repaired: {mending}")
        return program

    def on_done(self, outcome: LoadOutcome) -> None:
        """Take what a rewritten program counts and sends, once it is loaded."""
        with self._lock:
            done = None if outcome.request is None else self._pending.pop(outcome.request, None)
        if done is None:
            return
        verdict = outcome.verdict
        is_ours = outcome.is_rewritten and outcome.ending == "loaded"
        if is_ours and verdict is not None and verdict.handle is not None and done.obj is not None:
            self._take(done, prog_info(verdict.handle.fd).id)
        done.close()

    def finish(self) -> None:
        """Tell what traces are left, and which places no program had."""
        self._records.close()
        for at in sorted(self._unfound):
            self._say(f"no program that was loaded has the place {at!r}")

    def close(self) -> None:
        """Close all; a second time is fine."""
        self._records.close()
        self.counters.close()

    def _passes(self, request: LoadRequest) -> tuple[Pass, ...]:
        wanted = self._wanted
        traces = tuple(trace for trace in wanted.traces if self._has(request, trace.at))
        # A loader's question what the kernel can do has no source to report on.
        covers = () if wanted.cover is None or request.is_probe else (wanted.cover,)
        return (*wanted.passes, *traces, *covers)

    def _has(self, request: LoadRequest, at: str) -> bool:
        try:
            find_spots(request.program, at)
        except OptionError:
            return False
        with self._lock:
            self._unfound.discard(at)
        return True

    def _take(self, done: RewrittenLoad, prog_id: int) -> None:
        assert done.obj is not None
        if self._wanted.cover is not None:
            cover = _cover_map(done)
            if cover is not None:
                self.counters.add(cover, done.made.pop(cover.home), prog_id)
        if MAP_NAME in done.made:
            self._records.add(trace_map(done.obj), done.made.pop(MAP_NAME))

    def _capture(self, request: LoadRequest, folder: Path) -> None:
        """Write a load as an object; what cannot be is said, and loaded all the same."""
        if request.is_probe:
            return
        name = request.name or request.type.text
        try:
            made = captured(request)
            path = self._free_path(folder, name)
            made.obj.write(str(path))
        except (BpfPatchError, OSError) as error:
            self._say(f"{name} ({request.type.text}) cannot be captured: {error}")
            return
        for notice in made.notices:
            self._say(f"{path}: {notice}")

    def _free_path(self, folder: Path, name: str) -> Path:
        safe = "".join(char if char.isalnum() or char in "_-." else "_" for char in name)
        safe = safe.lstrip(".") or "prog"
        with self._lock:
            out, number = safe, 1
            while out in self._names:
                number += 1
                out = f"{safe}.{number}"
            self._names.add(out)
        return folder / f"{out}.o"


def _cover_map(done: RewrittenLoad) -> CoverMap | None:
    assert done.obj is not None
    try:
        return cover_map(done.obj)
    except OptionError:
        return None


# Loads as lines of text.


def told_load(outcome: LoadOutcome) -> str:
    """One line: who loads what, how large it is, and what the kernel said."""
    request = outcome.request
    if request is None:
        return f"[{outcome.tid}] a program that was not read: {_ending(outcome)}"
    return (
        f"{request.comm}[{outcome.tid}] {request.name or '-':<24} {request.type.text:<16} "
        f"{request.n_slots:>6} insns {len(request.map_fds):>3} maps  {_ending(outcome)}"
    )


def _ending(outcome: LoadOutcome) -> str:
    verdict = outcome.verdict
    if verdict is None:
        return outcome.ending
    said: str = outcome.ending
    if verdict.errno:
        said += f" ({errno.errorcode.get(verdict.errno, verdict.errno)})"
    if outcome.is_rewritten:
        said += ", rewritten"
    return f"{said}, {1000 * verdict.seconds:.2f} ms"
