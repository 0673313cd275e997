"""How a counterexample is made small."""

from __future__ import annotations

from bpfpatch.verify import Case, Entry
from bpfpatch.verify.shrink import shrink


def test_packet_shrinks_to_what_counts() -> None:
    """What is left of a packet is its beginning up to the byte that counts, all else zeros."""
    case = Case(packet=bytes(range(1, 101)))
    small = shrink(case, lambda one: (one.packet or b"")[30:31] == b"\x1f")
    assert small.packet == bytes(30) + b"\x1f"


def test_packet_keeps_its_header() -> None:
    """No packet gets shorter than those that the kernel takes."""
    assert shrink(Case(packet=b"\1" * 60), lambda _: True).packet == bytes(14)


def test_entries_go() -> None:
    """Of several map entries only those stay that it takes, their values zeroed."""
    entries = tuple(Entry("m", bytes([key]), b"\7\7\7\7") for key in range(6))
    case = Case(packet=bytes(14), entries=entries, seed=3, results=(("f", 0, 1),))
    small = shrink(case, lambda one: any(entry.key == b"\4" for entry in one.entries))
    assert small.entries == (Entry("m", b"\4", bytes(4)),)
    assert (small.seed, small.results) == (0, ())


def test_two_entries_stay_together() -> None:
    """Entries that only together make the difference both stay."""
    entries = tuple(Entry("m", bytes([key]), b"\1") for key in range(5))

    def differs(case: Case) -> bool:
        return {b"\1", b"\3"} <= {entry.key for entry in case.entries}

    small = shrink(Case(packet=bytes(14), entries=entries), differs)
    assert [entry.key for entry in small.entries] == [b"\1", b"\3"]


def test_tries_are_bounded() -> None:
    """No more is asked than allowed, and what is returned was seen to differ."""
    asked = []

    def differs(case: Case) -> bool:
        asked.append(case)
        return (case.packet or b"")[-1:] != b"\0"

    small = shrink(Case(packet=b"\1" * 500), differs, tries=20)
    assert len(asked) <= 20
    assert differs(small)


def test_context_shrinks() -> None:
    """Plain memory loses its end, and its bytes become zeros."""
    small = shrink(Case(ctx=b"abcdefgh"), lambda one: (one.ctx or b"")[2:3] == b"c")
    assert small.ctx == b"\0\0c"
