"""One table says what differs between kernels, and refuses those of which it knows nothing."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from bpfpatch.errors import OptionError
from bpfpatch.linux import versions
from bpfpatch.linux.versions import KNOWN, MODELLED, ROWS, Topic, value
from bpfpatch.passes import Pipeline, Target


@pytest.mark.parametrize("topic", Topic)
def test_every_version_has_one_row_of_each_topic(topic: Topic) -> None:
    """Of a topic's rows for one processor, exactly one holds for each known version."""
    arches = {row.arch for row in ROWS if row.topic is topic}
    assert arches
    for arch in arches:
        mine = [row for row in ROWS if row.topic is topic and row.arch == arch]
        for version in KNOWN:
            assert sum(row.holds(version, arch) for row in mine) == 1, (version, arch)


def test_rows_meet() -> None:
    """A row ends where the next one of its topic and processor begins."""
    keys = [(row.topic, row.arch) for row in ROWS]
    changes = [
        pair
        for pair, (key, next_key) in zip(pairwise(ROWS), pairwise(keys), strict=True)
        if key == next_key
    ]
    assert changes
    for one, other in changes:
        assert one.until == other.since


@pytest.mark.parametrize(
    ("topic", "version", "wanted"),
    [
        (Topic.HIDDEN_REGISTER, (7, 1), 11),
        (Topic.HIDDEN_REGISTER, (7, 2), 12),
        (Topic.N_REGISTERS, (6, 18), 11),
        (Topic.N_REGISTERS, (7, 2), 12),
        (Topic.XLATED_CALL, (6, 18), ("off", "imm")),
        (Topic.XLATED_CALL, (6, 19), ("imm", "off")),
        (Topic.BLINDING, (7, 0), "after subprogs are split"),
        (Topic.BLINDING, (7, 1), "before subprogs are split"),
        (Topic.TIMED_MAY_GOTO, (6, 14), False),
        (Topic.TIMED_MAY_GOTO, (6, 15), True),
    ],
)
def test_what_differs(topic: Topic, version: versions.Version, wanted: object) -> None:
    """A row holds for its first version, and not for the one at its end."""
    assert value(topic, version) == wanted


def test_processors_have_rows_of_their_own() -> None:
    """Who asks the clock in a may_goto depends on the processor, too."""
    assert [value(Topic.TIMED_MAY_GOTO, (6, 17), arch) for arch in ("x86_64", "aarch64")] == [
        True,
        False,
    ]
    assert not value(Topic.TIMED_MAY_GOTO, (7, 2), "s390x")


@pytest.mark.parametrize("version", ["4.4", "7.9", "6.17", "7.0"])
def test_a_kernel_that_is_not_modelled_is_refused(version: str) -> None:
    """No kernel gets the passes of another; the error lists those that there are."""
    with pytest.raises(OptionError, match=rf"Linux {version} .*modelled are: 6\.18"):
        Pipeline.kernel(version)


@pytest.mark.parametrize("version", ["4.4", "7.9"])
def test_a_target_of_which_nothing_is_known_is_refused(version: str) -> None:
    """The same for single passes, which have rows for more versions."""
    with pytest.raises(OptionError, match=rf"Linux {version} .*known are 6\.12 to 7\.2"):
        Target.internal(version)


def test_details_of_a_version_do_not_matter() -> None:
    """6.18.3-amd64 is 6.18."""
    assert Pipeline.kernel("6.18.3-amd64") == Pipeline.kernel("6.18")
    with pytest.raises(OptionError, match=r"looks like 6\.18, not 'new'"):
        Pipeline.kernel("new")


def test_modelled_versions_are_known() -> None:
    """What is modelled as a whole has rows."""
    assert set(MODELLED) <= set(KNOWN)


def test_kernel_diff_on_a_kernel_that_is_not_modelled(
    monkeypatch: pytest.MonkeyPatch, demo: Any
) -> None:
    """Where the running kernel's version is not modelled, kernel-diff says how to choose."""
    pytest.importorskip("click")
    from click.testing import CliRunner

    from bpfpatch.cli.app import cli

    monkeypatch.setattr(versions.os, "uname", lambda: SimpleNamespace(release="6.1.0-42-amd64"))
    done = CliRunner().invoke(cli, ["kernel-diff", str(demo)])
    assert done.exit_code == 2
    assert "runs Linux 6.1, which is not modelled; choose one that is with --kernel: 6.18" in (
        done.stderr
    )
    done = CliRunner().invoke(cli, ["kernel-diff", "--kernel", "7.9", str(demo)])
    assert done.exit_code == 2
    assert "--kernel: what Linux 7.9 makes of a program is not modelled" in done.stderr


@pytest.fixture
def demo() -> Any:
    """An object's path."""
    from support.inputs.bpfobjects import fixture_path

    return fixture_path("xdp_count.clang-14.v1.el.o")
