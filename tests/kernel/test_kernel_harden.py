"""Blinding is on for one load only, whatever happens meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from bpfpatch import asm, kernel
from bpfpatch.bpf import harden
from bpfpatch.bpf.harden import SETTING
from bpfpatch.errors import OptionError
from support.machine.tools import need_bpf

pytestmark = pytest.mark.kernel

SECONDS = 20
HOLD = """
import signal, sys, time
from bpfpatch import kernel
# What was started in the background, or by nohup, has them ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
with kernel.harden(2):
    print("set", flush=True)
    {body}
"""


@pytest.fixture(autouse=True)
def _settable() -> None:
    need_bpf()
    if "harden" not in kernel.probe().features:
        pytest.skip("not on this kernel: bpf_jit_harden cannot be set")


def wait_for(value: str) -> None:
    """Wait until the setting is what it should become, a moment after a process has died."""
    end = time.monotonic() + SECONDS
    while setting() != value and time.monotonic() < end:
        time.sleep(0.01)
    assert setting() == value


def setting() -> str:
    """The machine's setting now."""
    return SETTING.read_text().strip()


@pytest.fixture
def before() -> str:
    """The machine's setting before the test, once nobody else has changed it."""
    with kernel.harden(int(setting())):
        return setting()


def started(body: str) -> subprocess.Popen[str]:
    """A process that has set it, and does what follows."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD.format(body=body)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(kernel.__file__).parents[2])},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "set\n"
    return process


def test_constants_are_blinded() -> None:
    """A constant is not in a hardened program's code; without hardening it is."""
    constant = 0x12345678
    program = asm.assemble(f"r0 = {constant}; exit")
    with kernel.load(program) as plain, kernel.load(program, mode="jit+harden") as blinded:
        assert constant in plain.xlated()["imm"]
        assert constant not in blinded.xlated()["imm"]
        if blinded.info().jited_len:
            assert constant.to_bytes(4, "little") not in blinded.jited()
        packet = bytes(64)
        assert plain.test_run(packet).retval == blinded.test_run(packet).retval == constant
    with pytest.raises(OptionError, match="no mode 'fast'"):
        kernel.load(program, mode="fast")  # type: ignore[arg-type]


def test_it_is_put_back(before: str) -> None:
    """After a block the setting is what it was, also within another block."""
    with kernel.harden(2):
        assert setting() == "2"
        with kernel.harden(1):
            assert setting() == "1"
        assert setting() == "2"
    assert setting() == before


def test_it_is_put_back_after_an_error(before: str) -> None:
    """An exception in the block, and a load that fails, put it back."""

    class OwnError(Exception):
        pass

    def fail() -> None:
        with kernel.harden(2):
            raise OwnError

    with pytest.raises(OwnError):
        fail()
    assert setting() == before
    with pytest.raises(kernel.VerifierError):
        kernel.load(asm.assemble("r0 = r9; exit"), mode="jit+harden")
    assert setting() == before


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name
)
def test_it_is_put_back_after_a_signal(number: signal.Signals, before: str) -> None:
    """A process that is told to end puts it back, and ends by that signal."""
    process = started(f"time.sleep({SECONDS})")
    assert setting() == "2"
    process.send_signal(number)
    process.communicate(timeout=SECONDS)
    assert process.returncode == -number
    wait_for(before)


def test_it_is_put_back_at_exit(before: str) -> None:
    """sys.exit in the block puts it back."""
    process = started("sys.exit(3)")
    process.communicate(timeout=SECONDS)
    assert process.returncode == 3
    wait_for(before)


def test_it_is_put_back_after_sigkill(before: str) -> None:
    """The process that waits beside it restores the setting, and only then lets go of the lock."""
    process = started(f"time.sleep({SECONDS})")
    assert setting() == "2"
    process.kill()
    process.communicate(timeout=SECONDS)
    with kernel.harden(1):
        pass
    assert setting() == before


def test_what_an_administrator_sets_meanwhile_stays(before: str) -> None:
    """A value that is not ours is not overwritten, neither by us nor after a kill."""
    try:
        with kernel.harden(2):
            SETTING.write_text("1")
        assert setting() == "1"
        process = started(f"time.sleep({SECONDS})")
        SETTING.write_text("0")
        process.kill()
        process.communicate(timeout=SECONDS)
        with kernel.harden(2):
            pass
        assert setting() == "0"
    finally:
        SETTING.write_text(before)


@pytest.mark.parametrize("planted", ["open folder", "link", "other's file"])
def test_a_lock_of_another_user_is_refused(
    planted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    """A lock that another user made, can write to, or made a link of, is not taken."""
    lock = tmp_path / "run" / "harden.lock"
    lock.parent.mkdir(mode=0o777 if planted == "open folder" else 0o700)
    if planted == "open folder":
        lock.parent.chmod(0o777)
    elif planted == "link":
        lock.symlink_to(tmp_path / "elsewhere")
    else:
        lock.write_text("0")
        os.chown(lock, 12345, 12345)
    monkeypatch.setattr(harden, "LOCK", lock)
    with pytest.raises(kernel.KernelError, match=r"belongs to another|opening the lock"):
        kernel.load(asm.assemble("r0 = 1; exit"), mode="jit+harden")
    assert setting() == before


def test_what_is_written_in_the_lock_is_not_believed(before: str) -> None:
    """A number in the lock file, however it came there, decides nothing."""
    with kernel.harden(2):
        pass
    harden.LOCK.write_text("1" if before == "0" else "0")
    with kernel.harden(2):
        pass
    assert setting() == before


def test_waiting_for_the_lock_has_an_end(monkeypatch: pytest.MonkeyPatch, before: str) -> None:
    """Whoever holds the lock too long is an error that says how to find him."""
    monkeypatch.setattr(harden, "WAIT_S", 0.1)
    process = started(f"time.sleep({SECONDS})")
    try:
        with pytest.raises(kernel.KernelError, match="fuser"), kernel.harden(1):
            pass
    finally:
        process.kill()
        process.communicate(timeout=SECONDS)
    wait_for(before)


def test_processes_take_turns(before: str) -> None:
    """Who comes second waits for the first, and both put back the true value."""
    process = started("time.sleep(0.5)")
    start = time.monotonic()
    with kernel.harden(1):
        waited = time.monotonic() - start
        assert setting() == "1"
    process.communicate(timeout=SECONDS)
    assert waited > 0.1
    assert setting() == before


def test_threads_take_turns(before: str) -> None:
    """Loads from several threads do not undo each other's setting."""
    program = asm.assemble("r0 = 0x12345678; exit")
    blinded: list[bool] = []

    def work() -> None:
        for _ in range(5):
            with kernel.load(program, mode="jit+harden") as prog:
                blinded.append(0x12345678 not in prog.xlated()["imm"])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert blinded == [True] * 20
    assert setting() == before
