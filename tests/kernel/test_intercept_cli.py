"""``bpfpatch intercept`` as a process: what it says, counts, passes on, and leaves behind."""

from __future__ import annotations

import errno
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bpfpatch import coverage, runs
from bpfpatch.coverage.data import to_data
from bpfpatch.elf import ElfObject
from support.inputs.bpfobjects import FIXTURES, fixture_path
from support.machine.loader import HERE
from support.machine.tools import need, need_bpf

pytestmark = pytest.mark.kernel

BPFPATCH = [sys.executable, "-m", "bpfpatch", "intercept"]
NO_ADMIN = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]
LOADER = [sys.executable, "-S", HERE]
SEND = """
import socket, sys
sys.path.insert(0, sys.argv[3])
from bpfpatch.runs import read_pcap
sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
sock.bind((sys.argv[1], 0))
for frame in read_pcap(open(sys.argv[2], "rb").read()).frames:
    sock.send(frame.data)
"""
#: A pair of devices in a network namespace of its own, gone with its last process.
NETWORK = """
set -e
ip link add v0 type veth peer name v1
for name in all default v0 v1; do
  echo 1 > /proc/sys/net/ipv6/conf/$name/disable_ipv6
done
ip link set v0 arp off up
ip link set v1 arp off up
ip link set dev v0 xdp obj "$1" section xdp
"$2" -c "$3" v1 "$4" "$5"
sleep 0.1
"""


@pytest.fixture(autouse=True)
def _bpf() -> None:
    need_bpf()


def run(*args: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """A run of the command."""
    return subprocess.run(
        [*BPFPATCH, *args], capture_output=True, text=True, timeout=60, check=False, **options
    )


def wait_for(what: Callable[[], object]) -> None:
    """Wait until something is so."""
    end = time.monotonic() + 20
    while not what():
        assert time.monotonic() < end, "waited for too long"
        time.sleep(0.01)


def test_nothing_lists_the_loads() -> None:
    """Name, type, instructions, maps, verdict and time of each load go to the standard error."""
    done = run("--", *LOADER, "once")
    assert json.loads(done.stdout)["slots"] == 2
    line, last = done.stderr.splitlines()
    assert "two" in line
    assert "socket_filter" in line
    assert "2 insns   0 maps  loaded, " in line
    assert last == "bpfpatch: 1 load: 1 loaded"


def test_a_pipeline_and_a_log(tmp_path: Path) -> None:
    """What is loaded is rewritten, and the command's streams are its own."""
    log = tmp_path / "log.txt"
    done = run("-p", "sprinkle{every=1}", "-v", "--log", str(log), "--", *LOADER, "log")
    told = json.loads(done.stdout)
    assert done.stderr == ""
    assert "loaded, rewritten" in log.read_text()
    # The kernel takes `ja +0` out again; its log has counted it.
    assert "processed 4 insns" in told["log"]


def test_other_programs_pass_untouched() -> None:
    """--prog and --type choose, and the rest is loaded as it came."""
    options = ["-p", "sprinkle{every=1}", "-q", "-v"]
    assert "rewritten" not in run(*options, "--type", "xdp", "--", *LOADER, "once").stderr
    assert "rewritten" in run(*options, "--prog", "t*", "--", *LOADER, "once").stderr


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["sh", "-c", "exit 7"], 7),
        (["sh", "-c", "kill -KILL $$"], -9),
        (["sh", "-c", "kill -TERM $$"], -15),
        (["/nonexistent"], 127),
        (["/dev/null"], 126),
    ],
)
def test_exit_statuses(command: list[str], status: int) -> None:
    """It ends as the command did; a command that cannot be run is told as by env(1)."""
    assert run("-q", "--", *command).returncode == status


def test_missing_privileges_are_said_first(tmp_path: Path) -> None:
    """Without CAP_SYS_ADMIN the command is not even started."""
    need("setpriv")
    mark = tmp_path / "started"
    done = subprocess.run(
        [*NO_ADMIN, *BPFPATCH, "--", "touch", str(mark)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 125
    assert "CAP_SYS_ADMIN" in done.stderr
    assert not mark.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2, signal.SIGINT])
def test_signals_are_passed_on(number: signal.Signals, tmp_path: Path) -> None:
    """What is sent to us, the command gets."""
    ready = tmp_path / "ready"
    name = number.name.removeprefix("SIG")
    # SIGINT is ignored by what a shell starts in the background, so it is not by this.
    script = f"trap 'exit 9' {name}; touch {ready}; while :; do sleep 0.02; done"
    with subprocess.Popen([*BPFPATCH, "-q", "--", "bash", "-c", script]) as process:
        wait_for(ready.exists)
        process.send_signal(number)
        assert process.wait(20) == 9


def test_usr1_writes_the_report(tmp_path: Path) -> None:
    """While the command runs, SIGUSR1 makes the report of what has run up to now."""
    need("ip", "unshare")
    report, ready = tmp_path / "now.json", tmp_path / "ready"
    script = NETWORK + f"touch {ready}\nexec sleep 30\n"
    with subprocess.Popen(
        [*BPFPATCH, "-q", "--cover", str(report), "--", *network(script)],
        stderr=subprocess.DEVNULL,
    ) as process:
        wait_for(lambda: ready.exists() or process.poll() is not None)
        process.send_signal(signal.SIGUSR1)
        wait_for(report.exists)
        told = json.loads(report.read_text())
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == -signal.SIGTERM
    assert max(one["calls"] for one in told["functions"]) > 0


def network(script: str = NETWORK) -> list[str]:
    """A command that attaches an XDP program by ip(8)'s loader, and sends it packets."""
    obj = fixture_path("xdp_balancer.clang-19.v3.el.g.o")
    args = [str(obj), sys.executable, SEND, str(FIXTURES / "packets.pcap"), sys.path[0]]
    return ["unshare", "--net", "sh", "-c", script, "sh", *args]


def test_coverage_of_an_attached_program_is_that_of_cover_run(tmp_path: Path) -> None:
    """Packets over a pair of devices give the counts that a test run gives for the same ones."""
    need("ip", "unshare")
    report = tmp_path / "here.json"
    done = run("-q", "--cover", str(report), "--edges", "--", *network())
    assert done.returncode == 0, done.stderr
    obj = ElfObject.read(str(fixture_path("xdp_balancer.clang-19.v3.el.g.o")))
    frames = runs.read_pcap((FIXTURES / "packets.pcap").read_bytes()).frames
    inputs = [runs.Input(packet=frame.data) for frame in frames]
    ran = coverage.run(coverage.instrumented(obj), "balancer", inputs, "jit")
    mine, theirs = json.loads(report.read_text()), json.loads(json.dumps(to_data(ran.coverage)))
    assert by_name(mine) == by_name(theirs)
    assert by_line(mine) == by_line(theirs)


def by_name(report: dict[str, Any]) -> dict[str, tuple[int, list[int]]]:
    """Calls and blocks' counts of each function."""
    return {
        one["name"]: (one["calls"], [block["count"] for block in one["blocks"]])
        for one in report["functions"]
    }


def by_line(report: dict[str, Any]) -> list[Any]:
    """Counts of lines and branches; slots are those of a load here, of an object there."""
    return [
        (
            file["path"],
            line["line"],
            line["count"],
            [(b["taken"], b["not_taken"]) for b in branches],
        )
        for file in report["files"]
        for line in file["lines"]
        for branches in [line["branches"]]
    ]


def test_traces_profiles_and_files(tmp_path: Path) -> None:
    """Each packet is a line with its registers; costs follow; programs are files by their names."""
    need("ip", "unshare")
    folder = tmp_path / "objects"
    options = ["--trace", "balancer", "--regs", "r1", "--profile", "--capture", str(folder)]
    done = run("-q", *options, "--trace", "nowhere", "--", *network())
    n_packets = sum(" r1=0x" in line for line in done.stderr.splitlines())
    assert n_packets > 5
    assert " instructions ran" in done.stderr
    assert "no program that was loaded has the place 'nowhere'" in done.stderr
    (path,) = folder.iterdir()
    assert path.name == "balancer.o"
    (info,) = ElfObject.read(str(path)).programs
    assert (info.name, info.section) == ("balancer", "xdp")


def test_a_refusal_is_said_and_repaired() -> None:
    """--why says what the verifier wants; --repair gives the command a program that loads."""
    done = run("-q", "--why", "--", *LOADER, "refused")
    assert json.loads(done.stdout) == json.loads(
        subprocess.run([*LOADER, "refused"], check=True, capture_output=True, text=True).stdout
    )
    assert "two: refused: R0 !read_ok" in done.stderr
    done = run("-q", "--repair", "--", *LOADER, "refused")
    assert json.loads(done.stdout)["errno"] == 0
    assert "two is repaired: " in done.stderr


def test_killing_us_leaves_the_command_running(tmp_path: Path) -> None:
    """After SIGKILL the command goes on, and its later loads fail with ENOSYS."""
    out, go = tmp_path / "out.json", tmp_path / "go"
    os.mkfifo(go)
    script = 'touch "$1.ready"; read x < "$1"; shift; exec "$@"'
    argv = ["sh", "-c", script, "sh", str(go), *LOADER, "once"]
    with out.open("w") as stdout, subprocess.Popen([*BPFPATCH, "--", *argv], stdout=stdout) as us:
        wait_for(Path(f"{go}.ready").exists)
        us.kill()
        us.wait()
    go.write_text("now\n")
    wait_for(lambda: out.read_text().endswith("\n"))
    assert json.loads(out.read_text())["errno"] == errno.ENOSYS


def test_the_terminal_is_the_commands(tmp_path: Path) -> None:
    """The command has the terminal; ^C reaches it once; ^Z stops both, and fg goes on."""
    need("bash")
    bash = shutil.which("bash")
    assert bash is not None
    script = "trap 'echo got-int; exit 5' INT; test -t 0 && echo is-terminal\n"
    script += "while :; do sleep 0.02; done"
    line = " ".join([*BPFPATCH, "-q", "--", "bash", str(tmp_path / "command.sh")])
    (tmp_path / "command.sh").write_text(script)
    pid, fd = pty.fork()
    if not pid:
        # No codes around the prompt.
        plain = {**os.environ, "TERM": "dumb"}
        os.execve(bash, ["bash", "--norc", "--noprofile", "--noediting", "-i"], plain)
    seen = b""

    def until(text: bytes) -> None:
        nonlocal seen
        end = time.monotonic() + 20
        while text not in seen:
            if not select.select([fd], [], [], 0.1)[0]:
                assert time.monotonic() < end, seen
                continue
            seen += os.read(fd, 4096)
        seen = seen.partition(text)[2]

    try:
        os.write(fd, b"PS1='rea''dy> '\n")
        until(b"ready> ")
        os.write(fd, line.encode() + b"\n")
        until(b"is-terminal")
        os.write(fd, b"\x1a")
        until(b"ready> ")
        os.write(fd, b"jobs; fg\n")
        until(b"Stopped")
        until(b"command.sh")
        time.sleep(0.1)
        os.write(fd, b"\x03")
        until(b"got-int")
        until(b"ready> ")
        assert b"got-int" not in seen
        os.write(fd, b"echo status=$?\n")
        until(b"status=5")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.close(fd)
        os.waitpid(pid, 0)


def test_what_a_command_leaves_behind_is_answered() -> None:
    """A process that outlives the command has its loads answered, and is waited for."""
    line = " ".join(["(sleep 1;", *LOADER, "once) &"])
    done = run("--", "sh", "-c", line)
    assert done.returncode == 0
    assert json.loads(done.stdout)["errno"] == 0
    assert "go on: waiting for these" in done.stderr
