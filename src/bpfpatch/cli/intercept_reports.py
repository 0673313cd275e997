"""Reports on what a command's programs have run."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from bpfpatch.coverage import Coverage
from bpfpatch.coverage.formats import format_of, report
from bpfpatch.coverage.profile import Cost, Profile
from bpfpatch.coverage.sources import Sources
from bpfpatch.coverage.totals import of_object
from bpfpatch.elf.files import write_all
from bpfpatch.errors import BpfPatchError
from bpfpatch.intercept import Session
from bpfpatch.text import plural

from .intercept_log import Log

_TOP: Final = 20


class Reports:
    """Writes reports, at the end and whenever it is asked to.

    Args:
        session: what has the counters.
        log: where failures and profiles go.
        path: of the report; None for none.
        has_profile: whether to say where instructions were spent.
    """

    def __init__(self, session: Session, log: Log, path: str | None, *, has_profile: bool) -> None:
        self._session = session
        self._log = log
        self._path = path
        self._has_profile = has_profile
        # Where there is nothing to report, the signal is the command's.
        self.on_signal = self.write if path is not None or has_profile else None

    def write(self) -> None:
        """Write what there is; what cannot be written is said."""
        if self._path is None and not self._has_profile:
            return
        try:
            coverage = self._session.counters.read()
            for notice in coverage.notices:
                self._log.once(notice)
            if self._path is not None:
                self._write(self._path, coverage)
            if self._has_profile:
                self._tell(Profile.of(coverage))
        except BpfPatchError as error:
            self._log.say(f"{self._path or '--profile'}: {error}")
        except OSError as error:
            self._log.say(f"{self._path or '--profile'}: {error.strerror or error}")

    def _write(self, path: str, coverage: Coverage) -> None:
        sources = Sources.find(coverage, ())
        form = format_of(path)
        assert form is not None
        write_all(path, report(form, coverage, sources, Path(path).name))
        name, tally = of_object(coverage).main
        self._log.say(f"{path}: {tally.percent} of the {name} ran")

    def _tell(self, profile: Profile) -> None:
        self._log.say(f"{plural(profile.n_insns, 'instruction')} ran")
        for title, costs in (("function", profile.functions), ("line", profile.lines)):
            for cost in costs[:_TOP]:
                self._log.say(_row(title, cost))


def _row(title: str, cost: Cost) -> str:
    text = f"{title:<8} {cost.n_insns:>12} insns {100 * cost.share:>5.1f} %  {cost.times:>10} times"
    return f"{text}  {cost.name}  {cost.text}".rstrip()
