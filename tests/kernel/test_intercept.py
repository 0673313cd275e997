"""A command's loads, answered in its place."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from bpfpatch import Body, PatchList, isa, kernel
from bpfpatch.bpf.intercept import Answer, Interception, LoadOutcome
from bpfpatch.bpf.loadrequest import LoadRequest
from support.machine.loader import HERE
from support.machine.tools import need_bpf

pytestmark = pytest.mark.kernel


@pytest.fixture(autouse=True)
def _bpf() -> None:
    need_bpf()


def longer(request: LoadRequest) -> Answer:
    """The program with ``r0 = 1`` in front of it."""
    patches = PatchList(request.program)
    patches.insert_before(0, Body(isa.mov(isa.R0, 1)))
    return patches.linearize()


def loader(mode: str) -> list[str]:
    """The command line of the tests' loader."""
    return [sys.executable, "-S", HERE, mode]


def run_intercepted(
    mode: str, tmp_path: Path, on_load: Any = None
) -> tuple[Any, list[LoadOutcome]]:
    """(what the loader saw, what became of its loads)."""
    outcomes: list[LoadOutcome] = []
    out = tmp_path / "told.json"
    argv = ["sh", "-c", 'out=$1; shift; exec "$@" > "$out"', "sh", str(out), *loader(mode)]
    assert kernel.intercept(argv, on_load, outcomes.append) == 0
    return json.loads(out.read_text()), outcomes


def alone(mode: str) -> Any:
    """What the loader sees without us."""
    done = subprocess.run(loader(mode), check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


MODES = ["once", "log", "stats", "small-log", "no-log", "old-attr", "refused", "no-insns"]


@pytest.mark.parametrize("mode", [*MODES, "no-log-memory"])
def test_a_loader_sees_what_it_would_see_alone(mode: str, tmp_path: Path) -> None:
    """Result, errno, descriptor, log, its true size, and all memory around it are the same."""
    told, outcomes = run_intercepted(mode, tmp_path)
    expected = alone(mode)
    for one in (told, expected):
        # Statistics have times in them, and descriptors depend on what else is open.
        if mode == "stats":
            one["log"] = one["log"].partition("verification time")[0]
            one.pop("untouched"), one.pop("true_size")
        one.pop("fd", None)
    assert told == expected
    assert len(outcomes) == 1


def test_another_program_is_loaded(tmp_path: Path) -> None:
    """What the function returns is what the command has afterwards."""
    told, (outcome,) = run_intercepted("once", tmp_path, longer)
    assert (told["errno"], told["slots"], told["cloexec"]) == (0, 3, True)
    assert (outcome.ending, outcome.is_rewritten, outcome.note) == ("loaded", True, "")


def test_a_small_log_is_the_commands_to_handle(tmp_path: Path) -> None:
    """ENOSPC with what the log takes, of the rewritten program, as the kernel would say it."""
    told, (outcome,) = run_intercepted("small-log", tmp_path, longer)
    assert told["errno"] == errno.ENOSPC
    assert told["true_size"] > 40
    assert outcome.is_rewritten


def broken(request: LoadRequest) -> Answer:
    """A program that the verifier refuses."""
    patches = PatchList(request.program)
    patches.insert_before(0, Body(isa.load("u64", isa.R0, isa.R9, 0)))
    return patches.linearize()


def failing(request: LoadRequest) -> Answer:
    """No program."""
    raise RuntimeError("no idea")


@pytest.mark.parametrize(
    ("on_load", "why"), [(broken, "R9 !read_ok"), (failing, "RuntimeError: no idea")]
)
def test_the_original_is_loaded_where_we_fail(on_load: Any, why: str, tmp_path: Path) -> None:
    """A function that raises, or a result that is refused, is said and breaks nothing."""
    told, (outcome,) = run_intercepted("once", tmp_path, on_load)
    assert (told["errno"], told["slots"]) == (0, 2)
    assert not outcome.is_rewritten
    assert why in outcome.note


def test_a_program_of_a_million_instructions(tmp_path: Path) -> None:
    """It is read, rewritten to more than the kernel takes, and loaded as it was."""
    told, (outcome,) = run_intercepted("long", tmp_path, longer)
    assert told["errno"] == 0
    assert outcome.request is not None
    assert outcome.request.n_slots == 1_000_000
    assert "the kernel refuses" in outcome.note


def test_eight_threads_load_at_once(tmp_path: Path) -> None:
    """Each of many loads at once gets its own answer."""
    told, outcomes = run_intercepted("threads", tmp_path, longer)
    assert [one["slots"] for one in told] == [3] * 160
    assert [one.ending for one in outcomes] == ["loaded"] * 160


def open_fds() -> set[str]:
    """Descriptors of this process."""
    return {one.name for one in Path("/proc/self/fd").iterdir()}


def test_nothing_is_left_open(tmp_path: Path) -> None:
    """Descriptors, threads and processes are as many afterwards as before."""
    run_intercepted("once", tmp_path, longer)
    before = (len(open_fds()), threading.active_count())
    for mode in ("threads", "refused", "no-insns", "no-log-memory"):
        run_intercepted(mode, tmp_path, longer)
    assert (len(open_fds()), threading.active_count()) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_command_that_is_killed_ends(tmp_path: Path) -> None:
    """A command that is killed in the middle of its loads leaves nothing that waits."""
    started = threading.Event()

    def on_load(request: LoadRequest) -> Answer:
        started.set()
        return longer(request)

    argv = ["sh", "-c", 'exec "$@" > /dev/null', "sh", *loader("forever")]
    before = len(open_fds())
    with Interception(argv, on_load) as running:
        assert started.wait(20)
        os.kill(running.pid, 9)
        assert os.waitpid(running.pid, 0)[1] == 9
        assert running.join(10)
    assert len(open_fds()) == before


def test_loads_fail_with_enosys_where_nobody_listens(tmp_path: Path) -> None:
    """Once we have stopped, the command runs on, and its loads fail."""
    out = tmp_path / "told.json"
    go = tmp_path / "go"
    os.mkfifo(go)
    argv = ["sh", "-c", 'read x < "$1"; shift; exec "$@"', "sh", str(go), *loader("once")]
    out.touch()
    argv = ["sh", "-c", 'out=$1; shift; exec "$@" > "$out"', "sh", str(out), *argv]
    with Interception(argv) as running:
        running.stop()
        go.write_text("now\n")
        assert os.waitpid(running.pid, 0)[1] == 0
    assert json.loads(out.read_text())["errno"] == errno.ENOSYS


def test_the_exit_status_is_the_commands() -> None:
    """Its number, or the negative one of the signal that ended it."""
    assert kernel.intercept(["sh", "-c", "exit 7"]) == 7
    assert kernel.intercept(["sh", "-c", "kill -TERM $$"]) == -15


def test_a_command_that_is_not_there() -> None:
    """It is an OSError with its name, and leaves no child."""
    with pytest.raises(FileNotFoundError) as caught:
        kernel.intercept(["/nonexistent/loader"])
    assert caught.value.filename == "/nonexistent/loader"
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_second_listener_is_said() -> None:
    """The kernel allows one in a process and all that it starts."""
    inner = "import sys; from bpfpatch import kernel; kernel.intercept(['true'])"
    errors = Path(os.devnull)
    argv = ["sh", "-c", f'exec "$@" 2> {errors}', "sh", sys.executable, "-c", inner]
    assert kernel.intercept(argv) == 1


def test_a_process_with_fewer_privileges_is_let_through(tmp_path: Path) -> None:
    """It gets what the kernel says to it, not what it would say to us."""
    outcomes: list[LoadOutcome] = []
    out = tmp_path / "told.json"
    tmp_path.chmod(0o777)
    for folder in tmp_path.parents:
        if folder.owner() == "root" and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--reuid=65534", "--clear-groups"]
    argv = ["sh", "-c", 'out=$1; shift; exec "$@" > "$out"', "sh", str(out), *drop, *loader("once")]
    status = kernel.intercept(argv, longer, outcomes.append)
    if status:
        pytest.skip("setpriv or this Python cannot be run by nobody")
    assert json.loads(out.read_text())["errno"] in (errno.EPERM, 0)
    (outcome,) = outcomes
    assert outcome.ending == "let through"
    assert "fewer privileges" in outcome.note


def test_a_request_says_what_is_loaded(tmp_path: Path) -> None:
    """Name, type, licence, instructions and subject are the load's."""
    seen: list[Any] = []

    def on_load(request: LoadRequest) -> Answer:
        subject = request.subject
        seen.append((request.name, request.type.text, request.license, len(request.program)))
        seen.append((subject.prog_type.text, subject.maps, subject.is_gpl, request.comm))
        return None

    run_intercepted("once", tmp_path, on_load)
    name = Path(sys.executable).resolve().name[:15]
    assert seen[0] == ("two", "socket_filter", "GPL", 2)
    assert seen[1][:3] == ("socket_filter", (), True)
    assert name.startswith(seen[1][3][:6])


def test_an_attempt_can_be_handed_on(tmp_path: Path) -> None:
    """A load that was tried out, with a log of our own, may be the answer."""
    logs: list[str] = []

    def on_load(request: LoadRequest) -> Answer:
        tried = request.attempt(longer(request), log_level=1)
        logs.append(tried.verdict.text)
        assert tried.is_loaded
        return tried

    told, (outcome,) = run_intercepted("once", tmp_path, on_load)
    assert (told["slots"], outcome.is_rewritten) == (3, True)
    assert "processed 3 insns" in logs[0]


def test_a_slow_function_holds_up_no_other_load(tmp_path: Path) -> None:
    """Loads of several threads are worked on at the same time."""
    inside, most = [0], [0]
    lock = threading.Lock()

    def on_load(request: LoadRequest) -> Answer:
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        time.sleep(0.002)
        with lock:
            inside[0] -= 1
        return None

    run_intercepted("threads", tmp_path, on_load)
    assert most[0] > 1
