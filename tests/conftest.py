"""What all tests share: the path to their helpers, and an account of what was skipped."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

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
