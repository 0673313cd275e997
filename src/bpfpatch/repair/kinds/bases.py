"""Where a pointer with a part that varies comes from: a base, and what was added to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bpfpatch import isa
from bpfpatch.linux.log.regstate import RegState

from ..site import RepairSite

_MOV_REG, _ADD_REG, _SUB_REG, _ADD_IMM, _SUB_IMM = 0xBF, 0x0F, 0x1F, 0x07, 0x17
_LDX_DW, _STX_DW = 0x79, 0x7B
_FP: Final = 10


@dataclass(frozen=True, slots=True)
class Base:
    """A place at which a register holds a pointer without a part that varies.

    Attributes:
        index: of the step in front of which it holds it; there, something is added.
        register: that holds it.
        state: what is known of it there.
        adds: indices of the steps on which something that varies is added, latest first.
        operand: the register that is added at ``index``, if it is there unchanged; else None.
    """

    index: int
    register: int
    state: RegState
    adds: tuple[int, ...]
    operand: int | None


def base_of(site: RepairSite, register: int, index: int | None = None) -> Base | None:
    """Go back from a step to where a pointer in one of its registers has no varying part.

    Args:
        site: the refusal.
        register: that holds the pointer.
        index: the step; by default the last.

    Returns:
        None where the path does not show one, in the same function.
    """
    start = site.last if index is None else index
    frame = site.steps[start].frame
    at: str = f"R{register}"
    adds: list[int] = []
    for step in site.backward(start, frame):
        fields = site.fields(step)
        slot = site.slot(step)
        if at.startswith("fp"):
            if fields.code == _STX_DW and fields.dst == _FP and f"fp{fields.off}" == at:
                at = f"R{fields.src}"
            continue
        reg = int(at[1:])
        if not int(isa.writes(site.code.view.insns[slot : slot + 1])[0]) >> reg & 1:
            continue
        if fields.code == _MOV_REG and fields.off == 0:
            at = f"R{fields.src}"
        elif fields.code in (_ADD_IMM, _SUB_IMM):
            pass
        elif fields.code == _LDX_DW and fields.src == _FP:
            at = f"fp{fields.off}"
        elif fields.code in (_ADD_REG, _SUB_REG):
            adds.append(step)
            pointer, operand = _sides(site, step, fields.dst, fields.src)
            if pointer is None:
                return None
            state = site.state(step, f"R{pointer}")
            assert state is not None
            if not state.has_variable_part:
                return Base(step, pointer, state, tuple(adds), operand)
            at = f"R{pointer}"
        else:
            return None
    return None


def _sides(site: RepairSite, step: int, dst: int, src: int) -> tuple[int | None, int | None]:
    """Which operand of an addition is the pointer, and which is added."""
    left, right = site.state(step, f"R{dst}"), site.state(step, f"R{src}")
    if left is not None and left.is_pointer:
        return dst, src
    if right is not None and right.is_pointer:
        return src, dst
    return None, None
