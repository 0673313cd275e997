"""What the text of a place means."""

from __future__ import annotations

import pytest

from bpfpatch.asm import assemble
from bpfpatch.elf import ElfObject
from bpfpatch.errors import OptionError
from bpfpatch.passes.trace import TraceSpot, find_spots
from support.inputs.bpfobjects import fixture_path

CODE = assemble("main: r1 = 1 ll; call inner; exit; inner: r0 = 1; exit")


def balancer() -> ElfObject:
    """A committed object with line records."""
    return ElfObject.parse(fixture_path("xdp_balancer.clang-19.v3.el.g.o").read_bytes())


@pytest.mark.parametrize(
    ("at", "spots"),
    [
        ("#3", [TraceSpot(3)]),
        ("inner", [TraceSpot(4, is_call=True)]),
        ("inner+0", [TraceSpot(4)]),
        ("inner+1", [TraceSpot(5)]),
        ("main+0x2", [TraceSpot(2)]),
    ],
)
def test_functions_and_slots(at: str, spots: list[TraceSpot]) -> None:
    """A function is each call of it; a number counts slots."""
    assert list(find_spots(CODE, at)) == spots


def test_a_line_is_all_its_places() -> None:
    """A line that was inlined in several functions is found in each, once a block."""
    code = balancer().code
    spots = find_spots(code, "xdp_balancer.c:117")
    assert {code.subprog_name(spot.slot) for spot in spots} == {"parse_ip4", "parse_ip6"}
    for spot in spots:
        source = code.source(spot.slot)
        assert source is not None
        assert source.line == 117


def test_a_line_that_goes_on_counts_once() -> None:
    """Of records of one line in a row, the first is the place."""
    code = balancer().code
    slots = [spot.slot for spot in find_spots(code, "xdp_balancer.c:110")]
    records = [
        slot for slot in code.tables["line_info"].insn.tolist() if code.source(slot).line == 110
    ]
    assert len(slots) < len(records)
    assert set(slots) < set(records)


@pytest.mark.parametrize(
    ("at", "message"),
    [
        ("nothing", "'nothing' is no place: give FILE:LINE, .* there are: main, inner"),
        ("main+4", "'main\\+4' is behind the end: the last slot there is 3"),
        ("#6", "'#6' is behind the end: the last slot there is 5"),
        ("#1", "'#1' is the second slot of an instruction; give 0 there"),
        ("lb.c:1", "lb.c:1 cannot be found: the code has no line records; compile it with -g"),
    ],
)
def test_no_such_place(at: str, message: str) -> None:
    """What names nothing says what there is."""
    with pytest.raises(OptionError, match=message):
        find_spots(CODE, at)


def test_no_such_line() -> None:
    """A line without code names its neighbours, an unknown file the files."""
    code = balancer().code
    with pytest.raises(OptionError, match=r"line 1 of xdp_balancer\.c has no code; lines nearby"):
        find_spots(code, "xdp_balancer.c:1")
    with pytest.raises(OptionError, match=r"there is no file with code 'lb\.c'; there are: xdp_b"):
        find_spots(code, "lb.c:117")
