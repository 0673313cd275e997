"""Objects that people run: everything has a place, and what loads before loads after.

``make cover-table`` does the same for all of them, and all ways to count.
"""

from __future__ import annotations

import pytest

from bpfpatch.elf import ElfObject
from bpfpatch.passes import Pipeline
from support.inputs.bpfobjects import production_objects
from support.machine import tools
from support.models.refusals import PASSES, Outcome, try_pass, verified

HARD = (
    "clang-15_-O1_pping_kern.o",
    "clang-21_-O1_nat64_kern.o",
    "tcp_conn_tuner.bpf.o",
    "xdp_synproxy_kern.bpf.o",
)
"""Small ones in which places are hard to find."""
N_LOADS = 4


def production_object(name: str) -> ElfObject:
    """One of them, or a skip."""
    found = dict(production_objects())
    if name not in found:
        pytest.skip(f"needs {name} in ../shared/objects, or where BPFPATCH_OBJECTS says")
    return ElfObject.parse(found[name])


@pytest.mark.parametrize("name", HARD)
def test_everything_has_a_place(name: str) -> None:
    """No object is refused, and nothing is left out."""
    obj = production_object(name)
    for text in PASSES:
        outcome = Outcome()
        try_pass(outcome, name, obj, text, {})
        assert not outcome.refused
        assert not outcome.left


@pytest.mark.kernel
@pytest.mark.parametrize("text", ["cover", "cover{edges=true,count=percpu}", "blind"])
def test_what_loads_still_loads(text: str) -> None:
    """Some programs of a big object load after the pass, at no more than twice the work."""
    tools.need_bpf()
    name = "clang-19_-O1_bpf_wireguard.o"
    obj = production_object(name)
    some = [info.name for info in obj.programs][:N_LOADS]
    loading = {one: count for one, count in verified(obj, some).items() if isinstance(count, int)}
    assert loading
    outcome = Outcome()
    try_pass(outcome, name, obj, text, loading)
    assert not outcome.refused
    assert not outcome.fails
    assert outcome.after < 2 * outcome.before


@pytest.mark.kernel
def test_configured_object_still_loads() -> None:
    """With its configuration given and folded, cilium's object loads, at no more work."""
    tools.need_bpf()
    obj = production_object("clang-19_-O1_bpf_wireguard.o")
    given = obj.with_values(
        {one.name: one.value for one in obj.variables if one.section == ".rodata.config"}
    )
    folded, _ = Pipeline.parse("const,dce{maps=true},nops").run_object(given)
    assert len(folded.code) < len(obj.code)
    assert {one.name for one in folded.variables} < {one.name for one in obj.variables}
    some = [info.name for info in obj.programs][:N_LOADS]
    before, after = verified(obj, some), verified(folded, some)
    assert all(isinstance(count, int) for count in after.values())
    assert sum(after.values()) <= sum(before.values())
