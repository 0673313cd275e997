"""Programs of real objects: the machine does with packets what the kernel does."""

from __future__ import annotations

from pathlib import Path

import pytest

from bpfpatch.elf import ElfObject
from bpfpatch.interp import Machine, Skb, Xdp
from support.inputs.bpfobjects import FIXTURES, XDP_TOOLS
from support.inputs.packets import SAMPLES, SKB_SAMPLES
from support.machine.tools import BpftoolError, bpf_run, loaded, need_bpf

pytestmark = pytest.mark.kernel

DEPENDS = ("core_relo.", "kconfig.", "kfuncs.")
"""Starts of names: these depend on the running kernel's types, configuration or functions."""

PATHS = [
    path
    for folder in (FIXTURES / "obj", XDP_TOOLS)
    for path in sorted(folder.glob("*.o"))
    if path.read_bytes()[5] == 1
]
TYPES = {"xdp", "sched_cls", "sched_act", "socket_filter"}


def samples(kind: str) -> dict[str, bytes]:
    """Packets that the kernel takes for this type."""
    return SAMPLES if kind == "xdp" else SKB_SAMPLES


def ours(obj: ElfObject, name: str, kind: str, packet: bytes) -> tuple[int, bytes]:
    """Return value and packet afterwards, by the machine, with maps as they start."""
    machine = Machine.of_object(obj, name)
    context = Xdp(packet) if kind == "xdp" else Skb(packet, is_l2=kind != "socket_filter")
    outcome = machine.run(context)
    assert outcome.packet is not None
    return outcome.r0 & 0xFFFF_FFFF, outcome.packet


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_packets(path: Path) -> None:
    """Return value and packet are the kernel's, for every packet and program."""
    need_bpf()
    obj = ElfObject.read(path)
    kinds = {info.name: info.type for info in obj.programs if info.type in TYPES}
    if not kinds or path.name.startswith(DEPENDS):
        pytest.skip("not on this kernel: no program whose run depends on its packet only")
    differing = []
    for name, kind in kinds.items():
        for label, packet in samples(kind).items():
            try:
                with loaded(path) as what:
                    ran = bpf_run(what.pin(name), packet)
            except (BpftoolError, OSError) as error:
                pytest.skip(f"not on this kernel: {str(error).splitlines()[0][:60]}")
            wanted = (ran.retval, ran.data)
            if ours(obj, name, kind, packet) != wanted:
                differing.append((name, label, wanted, ours(obj, name, kind, packet)))
    assert not differing
