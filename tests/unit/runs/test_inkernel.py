"""What the kernel gives back, with a kernel that is made up: tests/kernel has the real one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from bpfpatch.asm import assemble
from bpfpatch.facts.kinds import ProgType
from bpfpatch.runs import Input
from bpfpatch.runs.inkernel import KernelRunner
from support.inputs import packets

PACKET = packets.SAMPLES["tcp_to_balancer"]


@pytest.mark.parametrize(
    ("kind", "packet"), [("netfilter", None), ("xdp", b""), ("sched_cls", b"")]
)
def test_netfilter_gives_no_packet(
    monkeypatch: pytest.MonkeyPatch, kind: str, packet: bytes | None
) -> None:
    """A netfilter program's run says nothing of the packet; no other's is taken for that."""

    def test_run(*_: Any) -> SimpleNamespace:
        return SimpleNamespace(retval=1, data=b"", ctx=b"")

    monkeypatch.setattr(KernelRunner, "_load", lambda *_: _Loaded(test_run))
    with KernelRunner(assemble("r0 = 1; exit"), None, ProgType.of(kind), "jit") as runner:
        outcome = runner.run(Input(packet=PACKET))
    assert (outcome.r0, outcome.packet, outcome.error) == (1, packet, None)


class _Loaded:
    """A program that gives what it is told."""

    def __init__(self, test_run: Any) -> None:
        self.test_run = test_run

    def __enter__(self) -> _Loaded:
        return self

    def __exit__(self, *_: object) -> None:
        return None
