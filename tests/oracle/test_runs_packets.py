"""The programs of libxdp on packets of all sorts: the same in every mode, before and after passes.

Their maps are made for each run alone: the names under which the tools of that project would
pin and share them are ignored, see docs/kernel.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from bpfpatch.asm import assemble
from bpfpatch.elf import ElfObject, LinkedProgram
from bpfpatch.passes import Pipeline, Target, base
from bpfpatch.runs import (
    MODES,
    Input,
    Outcome,
    PcapFrame,
    Runner,
    available,
    open_runner,
    read_pcap,
)
from support.inputs import capture

FOLDER = Path("/usr/lib/x86_64-linux-gnu/bpf")
PATHS = sorted(FOLDER.glob("*.o"))
PIPELINES = ("sprinkle", "dce,nops", "blind", "zext")
ALL_FLAGS = b"\xff" + bytes(7)
#: What the filters' maps hold, so that some packets match: by map, the keys.
ENTRIES = {
    "filter_ports": [port.to_bytes(2, "big") + bytes(2) for port in (80, 53, 22)],
    "filter_ipv4": [IPv4Address("10.0.0.1").packed, IPv4Address("198.51.100.2").packed],
    "filter_ipv6": [IPv6Address("2001:db8::2").packed],
    "filter_ethernet": [bytes.fromhex("020000000001")],
}

pytestmark = pytest.mark.kernel


def programs() -> Iterator[tuple[Path, str]]:
    """(object, program) of all XDP programs."""
    for path in PATHS:
        for info in ElfObject.read(str(path)).programs:
            if info.section.startswith("xdp"):
                yield path, info.name


def frames() -> tuple[PcapFrame, ...]:
    """The packets of the capture."""
    return read_pcap(capture.PATH.read_bytes()).frames


def outcomes(runner: Runner) -> list[Outcome]:
    """What a program makes of all packets; the maps after the last one."""
    for name in runner.maps():
        for key in ENTRIES.get(name, []):
            runner.put(name, key, ALL_FLAGS)
    out = [runner.run(Input(packet=frame.data), with_maps=False) for frame in frames()]
    return [*out, Outcome(maps=runner.maps())]


def comparable(outcome: Outcome) -> tuple[object, ...]:
    """What all modes tell."""
    return outcome.r0_as(32), outcome.packet, outcome.maps, str(outcome.error or "")


def pipelines() -> list[str]:
    """Those whose passes there are."""
    known = base.registered()
    return [text for text in PIPELINES if all(name in known for name in text.split(","))]


def test_the_capture_is_what_its_script_writes() -> None:
    """The file in the fixtures is what tests/support/inputs/capture.py makes."""
    assert capture.PATH.read_bytes() == capture.capture()


def test_the_objects_are_there() -> None:
    """Whether libxdp is installed is said once, not hidden."""
    if not PATHS:
        pytest.skip(f"not installed: libxdp ({FOLDER})")
    assert len(list(programs())) >= 14


@pytest.mark.parametrize(
    ("path", "name"), list(programs()), ids=lambda value: str(value).rpartition("/")[2]
)
def test_same_in_every_mode_and_after_every_pipeline(path: Path, name: str) -> None:
    """R0, packets and maps are the interpreter's in each mode, rewritten or not."""
    obj = ElfObject.read(str(path))
    linked = obj.link(name)
    with open_runner(linked, "interp", obj=obj) as runner:
        wanted = [comparable(one) for one in outcomes(runner)]
    assert not any(error for *_, error in wanted)
    assert len({r0 for r0, *_ in wanted}) > 1 or "xdpfilt" not in name
    n_compared = 0
    for text in ("", *pipelines()):
        changed = _rewritten(linked, text)
        for mode in MODES:
            if available(mode) is not None or (mode == "jit+harden" and text):
                continue
            with open_runner(changed, mode, obj=obj) as runner:
                assert [comparable(one) for one in outcomes(runner)] == wanted, (mode, text)
            n_compared += 1
    assert n_compared >= len(pipelines()) + 1


def _rewritten(linked: LinkedProgram, text: str) -> LinkedProgram:
    result = Pipeline.parse(text).run(linked.program, target=Target.loadable())
    return linked.with_code(result)


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_takes_part(mode: str) -> None:
    """What is compared above runs in each mode: one that does not work here is a skip."""
    reason = available(mode)
    if reason is not None:
        pytest.skip(f"{mode} is not to be had: {reason}")
    with open_runner(assemble("r0 = 7; exit"), mode, prog_type="xdp") as runner:
        assert runner.run(Input(packet=bytes(64))).r0_as(32) == 7
