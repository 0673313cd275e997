"""What inputs are made of, and how they are changed."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest

from bpfpatch.asm import assemble
from bpfpatch.facts import MapDefinition, MapType
from bpfpatch.verify.case import MEMORY_SIZE, POINTER_MARK, Case, Entry, place_pointers
from bpfpatch.verify.entries import filled, hits
from bpfpatch.verify.generate import MAX_PACKET, MIN_PACKET, Mutator, first_cases, resized
from bpfpatch.verify.kinds import Shape, r0_bits, shape_of
from bpfpatch.verify.packets import checksum, templates
from bpfpatch.verify.side import RunSubject, Side


def test_templates_cover_the_protocols() -> None:
    """There is a packet of each ethertype and protocol that parsers look for, no two alike."""
    packets = list(templates())
    assert len(set(packets)) == len(packets)
    types = {packet[12:14].hex() for packet in packets}
    assert {"0800", "86dd", "0806", "8100", "88a8"} <= types
    protocols = {packet[23] for packet in packets if packet[12:14] == b"\x08\0"}
    assert {1, 4, 6, 17, 47} <= protocols


def test_template_checksums_are_right() -> None:
    """The checksum over an IPv4 header, its own included, is 0 (RFC 1071)."""
    packets = [packet for packet in templates() if packet[12:14] == b"\x08\0"]
    assert packets
    for packet in packets:
        size = 4 * (packet[14] & 15)
        assert checksum(packet[14 : 14 + size]) == 0


def test_checksum_is_that_of_the_standard() -> None:
    """The example of RFC 1071, section 3: the sum of these bytes is ddf2."""
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xDDF2 ^ 0xFFFF


@pytest.mark.parametrize("shape", Shape)
def test_there_are_first_cases_of_each_shape(shape: Shape) -> None:
    """Each shape of input has some to begin with, the same ones for the same seed."""
    first = list(first_cases(shape, random.Random(1)))
    assert len(first) > 5
    assert first == list(first_cases(shape, random.Random(1)))
    assert all((case.packet is None) == (shape in (Shape.CTX, Shape.MEM)) for case in first)


def test_mutants_stay_within_bounds() -> None:
    """However often a packet is changed, it is one that the kernel takes."""
    mutator = Mutator(random.Random(3), Shape.XDP, [0x0800])
    case = Case(packet=next(templates()))
    sizes = set()
    for _ in range(2000):
        case = mutator.mutate(case)
        assert case.packet is not None
        sizes.add(len(case.packet))
    assert min(sizes) >= MIN_PACKET
    assert max(sizes) <= MAX_PACKET
    assert len(sizes) > 10


def test_mutants_hold_the_programs_numbers() -> None:
    """A number that the program compares with gets into packets, in both byte orders."""
    mutator = Mutator(random.Random(4), Shape.XDP, [0x1234567])
    case = Case(packet=bytes(64))
    made = b"".join(mutator.mutate(case).packet or b"" for _ in range(3000))
    assert bytes.fromhex("01234567") in made
    assert bytes.fromhex("67452301") in made


def test_resized_fills_with_zeros() -> None:
    """A longer packet has zeros at its end, a shorter one lost its end."""
    assert resized(b"\1" * 20, 22) == b"\1" * 20 + bytes(2)
    assert resized(b"\1" * 20, 15) == b"\1" * 15
    assert len(resized(b"\1" * 20, 3)) == MIN_PACKET


def test_buffers_can_be_put_back() -> None:
    """Each buffer of an input can be replaced, and nothing else changes by that."""
    case = Case(
        packet=b"packet",
        fields=(("mark", 7),),
        ctx=b"ctx",
        memory=b"mem",
        entries=(Entry("m", b"key!", b"value"),),
        results=(("get_prandom_u32", 0, 9),),
    )
    buffers = case.buffers()
    assert len(buffers) == 6
    for number, content in enumerate(buffers):
        assert case.with_buffer(number, content) == case
        other = case.with_buffer(number, b"\5" + content[1:])
        changed = [
            at
            for at, pair in enumerate(zip(other.buffers(), buffers, strict=True))
            if len({*pair}) > 1
        ]
        assert changed == [number]


def test_marked_words_become_pointers() -> None:
    """Words with the mark point into memory, all others stay."""
    content = (POINTER_MARK + 24).to_bytes(8, "little") + b"unmarked"
    placed = place_pointers(content, 1 << 40, "little")
    assert int.from_bytes(placed[:8], "little") == (1 << 40) + 24
    assert placed[8:] == b"unmarked"
    beyond = (POINTER_MARK + MEMORY_SIZE + 8).to_bytes(8, "big")
    assert place_pointers(beyond, 1 << 40, "big") == ((1 << 40) + 8).to_bytes(8, "big")


def test_hits_fill_maps() -> None:
    """A key that was looked up in vain is put in, with several values."""
    text = "r1 = map[id:1]; r2 = r10; r2 += -4; *(u32 *)(r10 - 4) = 5; call bpf_map_lookup_elem"
    subject = RunSubject(
        assemble(text + "; r0 = 0; exit"), maps={1: MapDefinition("m", MapType.HASH, 4, 8, 4)}
    )
    side = Side(subject, Shape.MEM, budget=1000)
    side.run(Case(ctx=b""))
    assert side.machine.lookups == [("m", b"\5\0\0\0", False)]
    made = list(hits(Case(ctx=b""), side.machine.lookups, side.state, random.Random(0)))
    assert len({case.entries[0].value for case in made}) >= 3
    assert {(case.entries[0].map, case.entries[0].key) for case in made} == {("m", b"\5\0\0\0")}
    side.run(made[0])
    assert side.machine.lookups == [("m", b"\5\0\0\0", True)]


def test_read_only_data_is_left_alone_if_asked() -> None:
    """Without vary_rodata read-only sections keep what they hold."""
    state = SimpleNamespace(sections={".rodata": b"\1" * 8, ".bss": bytes(8)})
    rng = random.Random(0)
    for vary, names in ((True, {".rodata", ".bss"}), (False, {".bss"})):
        changes = filled(state, rng, vary_rodata=vary)  # type: ignore[arg-type]
        assert {change(Case()).entries[0].map for change in changes} == names


def test_shapes_of_program_types() -> None:
    """XDP and socket buffers have packets and 32 bits of R0, tracing programs neither."""
    assert shape_of("xdp") is Shape.XDP
    assert shape_of("socket_filter") is Shape.SKB_NETWORK
    assert shape_of("kprobe") is shape_of("") is Shape.CTX
    assert (r0_bits(Shape.SKB), r0_bits(Shape.CTX)) == (32, 64)
