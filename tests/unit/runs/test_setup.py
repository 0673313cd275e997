"""Runs that start with a setup, in the interpreter and in the kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from bpfpatch import runs
from bpfpatch.elf import ElfObject, Setup, SetupEntry
from bpfpatch.errors import OptionError
from bpfpatch.facts.kinds import ProgType
from bpfpatch.interp import Machine, Xdp
from bpfpatch.runs import Input, action_name, open_runner
from bpfpatch.verify import Bounds, verify_objects
from support.inputs import packets
from support.inputs.bpfobjects import fixture_path
from support.inputs.configured import configured

INPUT = Input(packet=bytes(64))
SETUP = Setup(
    {"scale": 2, "start": 1000},
    (
        SetupEntry("ports", 80, 1),
        SetupEntry("cfg", 2, {"limit": 10, "mode": "DROP", "ports": [0, 5]}),
        SetupEntry("counts", 0, 20_000),
        SetupEntry("routes", {"bits": 8, "data": [10, 0, 0, 0]}, 300_000),
    ),
)
WITH = 2 * (1000 + 1 + 10 + 700 + 5 + 20_000 + 300_000)


@pytest.fixture(scope="module")
def obj(tmp_path_factory: pytest.TempPathFactory) -> ElfObject:
    """A program that returns what it finds."""
    return ElfObject.read(configured(tmp_path_factory.mktemp("setup")))


@pytest.fixture(params=runs.MODES)
def mode(request: pytest.FixtureRequest) -> str:
    """A mode that can be had here."""
    reason = runs.available(request.param)
    if reason is not None:
        pytest.skip(f"bpf(2) is not allowed here: {reason}")
    return str(request.param)


@pytest.mark.kernel
def test_all_modes_start_with_the_setup(obj: ElfObject, mode: str) -> None:
    """Variables of each section and maps of each kind hold what the setup says, in every mode."""
    with open_runner(obj.link("run"), mode, obj=obj, setup=SETUP) as runner:
        assert runner.run(INPUT).r0 == WITH
    with open_runner(obj.link("run"), mode, obj=obj) as runner:
        assert runner.run(INPUT).r0 == 0


@pytest.mark.kernel
def test_reset_goes_back_to_the_setup(obj: ElfObject, mode: str) -> None:
    """After a reset there is what the setup says, and not what the object says."""
    with open_runner(obj.link("run"), mode, obj=obj, setup=SETUP) as runner:
        before = runner.maps()
        runner.put("ports", b"\x50\0", bytes(4))
        runner.put(".bss", bytes(4), bytes(4))
        assert runner.run(INPUT).r0 == WITH - 2 * 1001
        runner.reset()
        assert runner.maps() == before
        assert runner.run(INPUT).r0 == WITH


def test_a_machine_takes_one(obj: ElfObject) -> None:
    """The interpreter's machine is made with a setup, too."""
    machine = Machine.of_object(obj, "run", setup=SETUP)
    assert machine.run(Xdp(bytes(64))).r0 == WITH


def test_flat_code_has_no_variables(obj: ElfObject) -> None:
    """A setup for code without an object is an error."""
    with pytest.raises(OptionError, match="flat code"):
        open_runner(obj.code, setup=SETUP)


def test_the_object_stays(obj: ElfObject, tmp_path: Path) -> None:
    """A run with a setup changes nothing of the object."""
    before = obj.to_bytes()
    with open_runner(obj.link("run"), obj=obj, setup=SETUP) as runner:
        runner.run(INPUT)
    assert obj.to_bytes() == before


@pytest.mark.kernel
def test_verify_in_every_mode(obj: ElfObject, mode: str) -> None:
    """Verify starts both programs with the setup, and finds what differs only with it."""
    other = obj.with_values({"scale": 9})
    bounds = Bounds(seconds=1, runs=50)
    alone = Setup(entries=SETUP.entries[:1])

    def differs(setup: Setup) -> bool:
        verdicts = verify_objects(
            obj, other, setup=setup, modes=[mode], bounds=bounds, ignore=["maps:.rodata"]
        )
        (verdict,) = verdicts
        assert verdict.is_checked
        return verdict.differs

    assert differs(alone)
    assert not differs(Setup({"scale": 1}, SETUP.entries))


@pytest.mark.kernel
def test_an_lru_map_keeps_what_it_is_given(obj: ElfObject, mode: str) -> None:
    """All entries of an LRU map are there when the program starts, or the runner says so."""
    setup = Setup(entries=tuple(SetupEntry("recent", key, key + 1) for key in range(4)))
    with open_runner(obj.link("run"), mode, obj=obj, setup=setup) as runner:
        assert len(runner.maps()["recent"]) == 4


@pytest.mark.kernel
def test_targets_of_redirects(mode: str) -> None:
    """A redirect goes to a device that the setup has put into a map, and else falls back."""
    obj = ElfObject.read(str(fixture_path("redirects.clang-19.v3.el.g.o")))
    packet = packets.tcp4("10.0.0.1", "10.0.0.2", 80)
    route = SetupEntry("routes", {"bits": 0}, 2)
    results = []
    for entries in ((route,), (route, SetupEntry("ports", 2, 1))):
        setup = Setup(entries=entries)
        with open_runner(obj.link("route"), mode, obj=obj, setup=setup) as runner:
            results.append(action_name(ProgType.XDP, runner.run(Input(packet=packet)).r0))
    assert results == ["XDP_DROP", "XDP_REDIRECT"]
