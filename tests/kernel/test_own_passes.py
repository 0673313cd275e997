"""The examples of passes of one's own, judged by the kernel and the interpreter."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from bpfpatch import isa, kernel
from bpfpatch.elf import ElfObject
from bpfpatch.interp import Machine, Xdp
from bpfpatch.passes import Pipeline
from bpfpatch.verify import Bounds, verify_objects
from support.inputs import packets
from support.inputs.bpfobjects import fixture_path
from support.inputs.compiled import compile_bpf
from support.machine.tools import need_bpf
from support.session.plugins import EXAMPLES, load_plugin

pytestmark = pytest.mark.kernel

HOST, OTHER = "10.0.0.1", "10.0.0.2"


def frame(proto: int, port: int, *, options: bytes = b"", fragment: int = 0) -> bytes:
    """An IPv4 packet to a port."""
    make = packets.udp if proto == packets.UDP else packets.tcp
    body = packets.ipv4(proto, HOST, OTHER, make(4000, port, HOST, OTHER, b"x" * 16))
    head = bytearray(body[:20])
    head[0] = 0x45 + len(options) // 4
    head[6:8] = fragment.to_bytes(2, "big")
    return packets.eth(packets.ETH_IP, bytes(head) + options + body[20:])


PACKETS = [frame(packets.TCP, 80), frame(packets.UDP, 11211), frame(packets.UDP, 53), bytes(64)]


def rewritten(obj: ElfObject, pipeline: str) -> ElfObject:
    """The object after a pipeline."""
    return Pipeline.parse(pipeline).run_object(obj)[0]


@pytest.mark.parametrize("source", ["xdp_balancer", "xdp_count"])
def test_helpers_are_counted_in_a_map_of_its_own(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The map holds as many calls of each helper as the interpreter sees of the original."""
    need_bpf()
    load_plugin(EXAMPLES / "count_helpers.py", monkeypatch)
    obj = ElfObject.parse(fixture_path(f"{source}.clang-19.v3.el.g.o").read_bytes())
    (info,) = obj.programs
    machine = Machine.of_object(obj, info.name)
    wanted: Counter[str] = Counter()
    with kernel.open_object(rewritten(obj, "sprinkle,count-helpers,sprinkle")) as loaded:
        for packet in PACKETS:
            ran = machine.run(Xdp(packet))
            wanted.update(call.name for call in ran.trace)
            assert loaded.programs[info.name].test_run(packet).retval == ran.r0
        counts = {
            int.from_bytes(key, "little"): int.from_bytes(value, "little")
            for key, value in loaded.maps["helper_calls"].dump().items()
        }
    assert sum(wanted.values()) > len(PACKETS)
    names = {number: name for name, number in isa.HELPER_IDS.items()}
    found = {names[number]: count for number, count in counts.items() if count}
    assert found == {name.removeprefix("bpf_"): count for name, count in wanted.items()}


def test_counting_changes_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the counted program does beside its own map is what the original does."""
    load_plugin(EXAMPLES / "count_helpers.py", monkeypatch)
    obj = ElfObject.parse(fixture_path("xdp_balancer.clang-19.v3.el.g.o").read_bytes())
    after = rewritten(obj, "count-helpers")
    (verdict,) = verify_objects(obj, after, bounds=Bounds(seconds=1, runs=300))
    assert not verdict.differs
    assert verdict.is_wholly_checked


def test_a_rule_drops_what_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes to the port is dropped, with IP options, too; all else gets what it got before."""
    need_bpf()
    load_plugin(EXAMPLES / "drop_rule.py", monkeypatch)
    obj = ElfObject.parse(fixture_path("xdp_balancer.clang-19.v3.el.g.o").read_bytes())
    dropped = [
        frame(packets.UDP, 11211),
        frame(packets.UDP, 11211, options=bytes(8)),
        frame(packets.UDP, 11211, fragment=0x2000),
    ]
    others = [
        *(frame(packets.UDP, 53), frame(packets.TCP, 11211), frame(packets.UDP, 11211, fragment=5)),
        *(bytes(64), frame(packets.UDP, 11211)[:36]),
    ]
    with (
        kernel.open_object(obj) as before,
        kernel.open_object(rewritten(obj, "drop-rule{port=11211}")) as after,
    ):
        old, new = before.programs["balancer"], after.programs["balancer"]
        assert [new.test_run(packet).retval for packet in dropped] == [1] * len(dropped)
        for packet in others:
            assert new.test_run(packet).retval == old.test_run(packet).retval


PRINTING = """
u32 seen;
SEC("xdp") int noisy(struct xdp_md *ctx)
{
    void *data = DATA(ctx), *end = DATA_END(ctx);
    static const char some[] = "got %d bytes, %d so far";
    u32 size = end - data;
    seen += size;
    bpf_trace_printk(some, sizeof(some), size * 3 + 1, seen, 0);
    return size & 1 ? XDP_DROP : XDP_PASS;
}
LICENSE;
"""


@pytest.mark.parametrize("pipeline", ["drop-printk", "drop-printk,dead-stores"])
def test_printing_goes_with_what_only_it_needed(
    pipeline: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls, their arguments and formats are gone, and the program gives what it gave."""
    need_bpf()
    load_plugin(EXAMPLES / "drop_printk.py", monkeypatch)
    obj = ElfObject.read(compile_bpf(tmp_path, PRINTING))
    quiet = rewritten(obj, pipeline)
    assert not isa.is_helper_call(quiet.code.insns).any()
    assert len(obj.code) - len(quiet.code) >= 7  # the call, and five arguments, one of two slots
    assert b"so far" in obj.to_bytes()
    assert b"so far" not in quiet.to_bytes()
    with kernel.open_object(obj) as before, kernel.open_object(quiet) as after:
        for packet in PACKETS:
            ran = [one.programs["noisy"].test_run(packet).retval for one in (before, after)]
            assert ran[0] == ran[1]
