"""How a program leaves where a guard fires."""

from __future__ import annotations

from typing import Final

from bpfpatch import isa
from bpfpatch.facts.kinds import ProgType
from bpfpatch.patch import Body, PatchList

from .counting import Counting
from .site import RepairSite, SiteCode

_SAFE: Final = {
    ProgType.SCHED_CLS: 2,  # TC_ACT_SHOT
    ProgType.SCHED_ACT: 2,
    ProgType.LWT_IN: 2,  # BPF_DROP
    ProgType.LWT_OUT: 2,
    ProgType.LWT_XMIT: 2,
    ProgType.FLOW_DISSECTOR: 2,
}
"""What drops the packet. 0 for all others: XDP_ABORTED, SK_DROP, NF_DROP, refused, nothing."""
_RELEASES: Final = {
    "sock": isa.HELPER_IDS["sk_release"],
    "sock_common": isa.HELPER_IDS["sk_release"],
    "tcp_sock": isa.HELPER_IDS["sk_release"],
}
_NEAR: Final = 30_000
"""Slots that a jump to a shared exit may span."""


class Exits:
    """Exits that guards jump to: one for each function and value.

    Args:
        patches: the list.
        on_guard: what a program returns where a guard fires; None for what drops the packet.
        counting: how firing guards are counted, or None.
    """

    def __init__(self, patches: PatchList, on_guard: int | None, counting: Counting | None) -> None:
        self._patches = patches
        self._on_guard = on_guard
        self._counting = counting
        self._made: dict[tuple[int, int], int] = {}

    def value(self, site: RepairSite, code: SiteCode, slot: int, prog_type: ProgType | None) -> int:
        """What the function of a slot returns where a guard fires."""
        name = code.name(code.subprog(slot))
        if name not in ("", site.program):
            return 0
        if self._on_guard is not None:
            return self._on_guard
        return 0 if prog_type is None else _SAFE.get(prog_type, 0)

    def leave(self, site: RepairSite, slot: int, prog_type: ProgType | None) -> int | None:
        """A node to jump to, from a slot, that ends its function; None where it may not end there.

        What is held there is released.
        """
        release = _release(site)
        if release is None:
            return None
        code = site.code
        subprog = code.subprog(slot)
        value = self.value(site, code, slot, prog_type)
        key = (int(code.view.starts[subprog]), value)
        head = int(code.view.node[code.view.starts[subprog]])
        known = self._made.get((head, value))
        _, end = code.span(subprog)
        if known is not None and not release and end - slot < _NEAR:
            return known
        text = f"{release}r0 = {value}; exit"
        last = end - 1 if int(code.view.node[end - 1]) >= 0 else end - 2
        node = self._put(code, last, text, slot)
        if not release:
            self._made[head, key[1]] = node
        return node

    def _put(self, code: SiteCode, last: int, text: str, slot: int) -> int:
        """Put an exit after the last instruction of a function."""
        last_node = int(code.view.node[last])
        if self._counting is None:
            return int(self._patches.insert_after(last_node, Body.asm(text)))
        return self._counting.insert_after(self._patches, last_node, text, code, slot)


def _release(site: RepairSite) -> str | None:
    """Assembly that releases what is held; "" for nothing, None where it cannot be released."""
    refs = site.refusal.path.refs
    if not refs:
        return ""
    step = site.steps[site.last]
    out = ""
    for ref in refs:
        held = [(name, state) for name, state in step.before.items() if state.ref_obj_id == ref]
        if not held:
            return None
        name, state = held[0]
        load = (
            f"r1 = r{name[1:]}; "
            if name.startswith("R")
            else f"r1 = *(u64 *)(r10 {int(name[2:]):+d}); "
        )
        if state.kind in _RELEASES:
            call = f"call {_RELEASES[state.kind]}; "
        elif state.kind in ("ringbuf_mem", "alloc_mem"):
            call = f"r2 = 0; call {isa.HELPER_IDS['ringbuf_discard']}; "
        else:
            return None
        if out:
            return None  # the first release clobbers what the next one needs
        out = load + call
    return out
