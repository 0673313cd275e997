"""The commands of docs/passes/trace.md put a traced program in the place of one that runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.inputs.bpfobjects import fixture_path
from support.machine.tools import BPFFS, need, need_bpf

pytestmark = pytest.mark.kernel
DOCS = Path(__file__).parents[2] / "docs" / "passes" / "trace.md"
NETNS = f"bpfpatch-{os.getpid()}"
DEVICE, PEER = f"bpt{os.getpid() % 10**8}", "bpt1"
PLACE = f"bpfpatch_docs_{os.getpid()}"


@pytest.fixture
def device() -> Iterator[str]:
    """A device on which packets arrive when they are sent in a network namespace."""
    need_bpf()
    need("ip")
    made = [["ip", "netns", "add", NETNS]]
    made += [["ip", "link", "add", DEVICE, "type", "veth", "peer", "name", PEER, "netns", NETNS]]
    made += [["ip", "link", "set", DEVICE, "up"], ["ip", "-n", NETNS, "link", "set", PEER, "up"]]
    made += [["ip", "-n", NETNS, "address", "add", "10.77.0.2/24", "dev", PEER]]
    made += [["ip", "-n", NETNS, "neighbour", "add", "10.77.0.1", "lladdr", "02:00:00:00:00:01"]]
    made[-1] += ["dev", PEER]
    try:
        for command in made:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"no network devices can be made here: {done.stderr.strip()}")
        yield DEVICE
    finally:
        subprocess.run(["ip", "link", "delete", DEVICE], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "delete", NETNS], capture_output=True, check=False)
        for name in ("lb", "lb_traced", "lb_maps"):
            path = BPFFS / f"{PLACE}_{name}"
            if path.is_dir():
                shutil.rmtree(path)
            path.unlink(missing_ok=True)


def commands() -> list[str]:
    """The commands of the page, in order."""
    blocks = re.findall(r"```shell\n(.*?)```", DOCS.read_text(), re.DOTALL)
    return [
        line.removeprefix("$ ")
        for block in blocks
        for line in block.replace("\\\n", "").splitlines()
        if line.startswith("$ ")
    ]


def test_a_traced_program_takes_the_place_of_one_that_runs(device: str, tmp_path: Path) -> None:
    """Each command works; the traced program has the old one's counts, and tells what arrives."""
    shutil.copy(fixture_path("xdp_balancer.clang-19.v3.el.g.o"), tmp_path / "lb.o")
    said = []
    for command in commands():
        if "trace read" in command:
            send()
        said.append((command, run(command, device, tmp_path)))
    told = dict(said)
    (record,) = [text for command, text in said if "trace read" in command]
    assert "xdp_balancer.c:139 r1=0xffff" in record
    assert record.splitlines()[0].endswith("r3=0xe")
    assert any("total_packets" in text for text in told.values())
    # What arrived while the traced program was attached is counted in the old one's variable.
    after = run("bpfpatch info --pin /sys/fs/bpf/lb", device, tmp_path)
    (row,) = [line for line in after.splitlines() if line.startswith("total_packets")]
    assert int(row.split()[-1]) > 0


def run(command: str, device: str, folder: Path) -> str:
    """Run a command of the page, with names of our own for what all processes share."""
    command = command.replace("eth0", device).replace("/sys/fs/bpf/", f"{BPFFS}/{PLACE}_")
    command = re.sub(r"^bpfpatch ", f"{sys.executable} -m bpfpatch ", command)
    done = subprocess.run(
        command, shell=True, cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def send() -> None:
    """Send a packet to the device."""
    code = "import socket; socket.socket(2, 2).sendto(b'hi', ('10.77.0.1', 53))"
    command = ["ip", "netns", "exec", NETNS, sys.executable, "-c", code]
    subprocess.run(command, check=True, capture_output=True)
