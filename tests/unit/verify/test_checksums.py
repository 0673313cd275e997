"""Checksums of inputs: found, judged and put right; and faults that hide behind them."""

from __future__ import annotations

import pytest

from bpfpatch.asm import assemble
from bpfpatch.program import Program
from bpfpatch.verify import Bounds, verify
from bpfpatch.verify.checksums import repaired, right_sums, spoiled, sums_of
from bpfpatch.verify.packets import templates
from support.inputs import packets

BOTH = frozenset({"network", "transport"})
TCP = packets.SAMPLES["tcp_to_balancer"]


@pytest.mark.parametrize("name", packets.SAMPLES)
def test_samples_are_right(name: str) -> None:
    """What another builder of packets says is right is right here, too."""
    packet = packets.SAMPLES[name]
    wanted = {one.name for one in sums_of(packet) if any(packet[one.at : one.at + 2])}
    assert right_sums(packet) == wanted


def test_repair_undoes_a_change() -> None:
    """A change of what a sum covers makes it wrong, and repairing makes it right again."""
    for at in (22, 26, 38, 53):
        changed = TCP[:at] + bytes([TCP[at] ^ 0x41]) + TCP[at + 1 :]
        assert right_sums(changed) != right_sums(TCP)
        assert right_sums(repaired(changed, BOTH)) == BOTH
    assert repaired(TCP, BOTH) == TCP


def test_spoiled_packets_have_no_right_sum() -> None:
    """All sums are wrong afterwards, and no other byte differs."""
    assert right_sums(spoiled(TCP)) == frozenset()
    assert repaired(spoiled(TCP), right_sums(TCP)) == TCP


@pytest.mark.parametrize("size", range(60))
def test_packets_that_are_cut(size: int) -> None:
    """Of a packet that is cut anywhere sums are found only as far as they are there."""
    assert any(sums_of(packet) for packet in templates())
    sums = [one for packet in templates() for one in sums_of(packet[:size])]
    assert all(one.at + 2 <= size and one.end <= size for one in sums)


def checking(then: str, words: int = 10) -> str:
    """An XDP program that drops what has a wrong IPv4 checksum, and then goes on."""
    loads = "; ".join(f"r4 = *(u16 *)(r2 + {14 + 2 * at}); r5 += r4" for at in range(words))
    fold = "r4 = r5; r4 >>= 16; r5 &= 0xffff; r5 += r4"
    return f"""
        r2 = *(u32 *)(r1 + 0); r3 = *(u32 *)(r1 + 4); r0 = 1; r4 = r2; r4 += 34; if r4 > r3 goto out
        r4 = *(u16 *)(r2 + 12); if r4 != 8 goto out; r5 = 0; {loads}; {fold}; {fold}
        if r5 != 0xffff goto out; {then}
        out: exit
    """


def program(text: str) -> Program:
    """A program from lines with ``;`` between them."""
    return assemble(text.replace(";", "\n"))


def test_a_fault_after_a_checksum_is_found() -> None:
    """Inputs are changed such that the checksum stays right: what comes after it is reached."""
    then = "r4 = *(u8 *)(r2 + 22); r0 = 2; if r4 != {} goto out; r0 = 3"
    before, after = (program(checking(then.format(ttl))) for ttl in (46, 47))
    verdict = verify(before, after, kind="xdp", bounds=Bounds(seconds=20))
    assert verdict.differs
    same = verify(before, before, kind="xdp", bounds=Bounds(seconds=20))
    assert same.coverage is not None
    assert same.coverage[0].taken == same.coverage[0].edges
