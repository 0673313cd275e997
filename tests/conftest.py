"""What all tests share: the path to their helpers, turns at the kernel, an account of skips."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from collections.abc import Generator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from support.session.kernelgroup import KernelGuard

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling

NO_SKIPS = os.environ.get("BPFPATCH_NO_SKIPS") == "1"
"""Set where every tool is installed: then a skip is a failure, but for those below."""

FINE_TO_SKIP = (
    "not on this kernel",
    "the original does not load here",
    "bpftool does not load the original",
    "no such case: ",
)
"""How the reasons start that no installation can mend: what the kernel or the stock loader
refuses before we touch it, and combinations of a test with an object that mean nothing."""

_skipped: Counter[str] = Counter()


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # What a shell starts in the background ignores SIGINT, and so would the commands that are
    # tested here.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist, which need not be there
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Side by side go files, but those that share the kernel go to one process."""
    from support.session.sidebyside import KernelInOneProcess

    return KernelInOneProcess(config, log)


@cache
def _guard() -> KernelGuard:
    return KernelGuard()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None]:
    """Let a test without the mark fail where it touches what the kernel shares."""
    with _guard().listening(item):
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """The same, once its fixtures are there."""
    with _guard().listening(item):
        yield


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Count the reasons of skipped tests."""
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        _skipped[reason.removeprefix("Skipped: ")] += 1


def _forbidden() -> dict[str, int]:
    if not NO_SKIPS:
        return {}
    return {why: n for why, n in _skipped.items() if not why.startswith(FINE_TO_SKIP)}


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run in which something was skipped that should run here."""
    if _forbidden() and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many tests were skipped, and why."""
    if not _skipped:
        return
    terminalreporter.section(f"{sum(_skipped.values())} skipped")
    forbidden = _forbidden()
    for reason, count in _skipped.most_common():
        note = "  <- should run here" if reason in forbidden else ""
        terminalreporter.line(f"{count:6}  {reason}{note}")
