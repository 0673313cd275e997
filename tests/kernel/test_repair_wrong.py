"""A wrong repair is found: by the prover, and by running both."""

from __future__ import annotations

import pytest

import bpfpatch as bp
from bpfpatch.repair import Order, repair, rounds
from bpfpatch.repair.check import check, is_fired
from bpfpatch.repair.kinds import scalar
from bpfpatch.repair.kinds.base import Mended, Tools, guard
from bpfpatch.repair.site import RepairSite
from support.inputs.bpfobjects import fixture_path
from support.machine.tools import need_bpf

pytestmark = pytest.mark.kernel


def refused_object() -> bp.ElfObject:
    """The balancer, with an access that goes through NULL on no path that is ever taken."""
    obj = bp.ElfObject.read(fixture_path("xdp_parse.clang-19.v3.el.g.o"))
    patches = bp.PatchList(obj.code)
    body = """
        r2 = *(u32 *)(r1 + 12)
        *(u64 *)(r10 - 256) = 1
        r3 = r10
        r3 += -256
        if r2 == 6 goto keep
        r3 = 0
    keep:
        if r2 != 6 goto @end
        r3 = *(u64 *)(r3 + 0)
    """
    patches.prepend(obj.programs[0].start, bp.Body.asm(body))
    return obj.with_code(patches.linearize())


def too_early(site: RepairSite, tools: Tools) -> Mended | None:
    """A guard where the pointer is made, which ends runs that never use it."""
    if tools.tried:
        return None
    index = next(at for at in site.backward(site.last, 0) if site.fields(at).code == 0x55)
    text = f"if r{site.refusal.register} == 0 goto leave"
    if not guard(site, tools, site.slot(index), text):
        return None
    return Mended("too-early", Order.GUARD, "it is not", key="too-early")


def test_a_right_repair_is_shown_and_not_different() -> None:
    """As a control: the guard is proved, and no input shows a difference."""
    need_bpf()
    obj = refused_object()
    done = repair(obj)
    assert done.report.is_whole, list(done.report.lines())
    assert [mending.order for mending in done.report.mendings] == [Order.SAME]
    assert not any(verdict.differs for verdict in check(obj, done, seconds=0.5))


def test_a_wrong_repair_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guard that ends valid runs is not proved, and running both shows a difference."""
    need_bpf()
    monkeypatch.setattr(rounds, "kinds_for", lambda kind: iter([too_early, scalar.mend]))
    obj = refused_object()
    done = repair(obj)
    assert done.report.is_whole, list(done.report.lines())
    assert done.report.mendings[0].order is Order.GUARD
    verdicts = list(check(obj, done, seconds=1.0))
    assert any(verdict.differs and not is_fired(verdict) for verdict in verdicts)
