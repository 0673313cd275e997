"""The obvious model of a patch list: one object an instruction, every edit done at once.

It says what the words of the project mean, slowly: inserting in front of an
instruction moves every jump and row that sits on it to the body, right away;
deleting moves them to the next object of the same subprog.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np

from bpfpatch import isa
from bpfpatch.patch import Body, To
from bpfpatch.program import DELETED, INSERTED, LOST, REPLACED, Program


@dataclass(eq=False)
class Node:
    """One instruction, as an object."""

    words: list[int]
    subprog: int
    orig: int = INSERTED
    target: Node | None = None
    is_ref: bool = False
    is_entry: bool = False
    site: int = 0
    alive: bool = True
    is_modified: bool = False
    pass_name: str = ""
    marks: list[int] = field(default_factory=list)  # the column's value, a word
    attached: list[int] = field(default_factory=list)  # rows that follow the instruction


@dataclass
class Places:
    """What the model says of every original slot."""

    own: list[int] = field(default_factory=list)
    land: list[int] = field(default_factory=list)
    entry: list[int] = field(default_factory=list)
    bound: list[int] = field(default_factory=list)


class NaiveList:
    """A patch list as a Python list."""

    def __init__(self, program: Program) -> None:
        words = program.insns.view(np.uint64).tolist()
        second = program.second_slots.tolist()
        subprog = program.subprogs.of(np.arange(len(program), dtype=np.int32)).tolist()
        self.nodes: list[Node] = []
        self.by_slot: list[Node | None] = []
        for slot, word in enumerate(words):
            if second[slot]:
                self.nodes[-1].words.append(word)
                self.by_slot.append(None)
                continue
            node = Node([word], subprog[slot], slot, site=slot)
            self.nodes.append(node)
            self.by_slot.append(node)
        refs = program.refs
        for slot, target, is_entry in zip(
            refs.slot.tolist(), refs.target.tolist(), refs.is_entry.tolist(), strict=True
        ):
            node = self.by_slot[slot]
            assert node is not None
            node.target, node.is_ref, node.is_entry = self.by_slot[target], True, is_entry
        self.land: list[Node | None] = list(self.by_slot)
        self.entry: list[Node | None] = list(self.by_slot)
        self.gone: dict[int, int] = {}

    def edit(self, verb: str, site: Node, body: Body, named: dict[int, Node]) -> list[Node]:
        """One edit; ``named`` maps node numbers in the body's references to objects."""
        assert site.alive
        at = self.nodes.index(site)
        fresh = self._instantiate(body, site)
        if verb == "insert_after":
            self.nodes[at + 1 : at + 1] = fresh
            end = self._following(fresh[-1]) if fresh else None
        elif verb == "replace":
            pre, post = fresh[: body.n_pre], fresh[body.n_pre :]
            self.nodes[at : at + 1] = [*pre, site, *post]
            if pre:
                self._move(site, pre[0], land=True, entry=True)
            tail = fresh[-1] if fresh else site
            if body.keeps and not post:
                tail = site
            if not body.keeps:
                heir = self._following(site)
                self.nodes.remove(site)
                site.alive = False
                self._move(site, heir, land=True, entry=True)
                if site.orig >= 0:
                    self.gone[site.orig] = REPLACED if fresh else DELETED
            end = self._following(tail) if body.refs else None
        else:
            self.nodes[at:at] = fresh
            if fresh:
                self._move(site, fresh[0], land=verb == "insert_before", entry=True)
            end = site
        offsets = dict(zip(body.nodes.tolist(), fresh, strict=True))
        for ref in body.refs:
            node = offsets[ref.slot]
            node.is_ref, node.is_entry = True, ref.is_entry
            if ref.to is To.TARGET:
                node.target = site.target  # it has moved with everything else
            else:
                node.target = {
                    To.LOCAL: offsets.get(ref.value),
                    To.ORIG: site,
                    To.END: end,
                    To.NODE: named.get(ref.value),
                }[ref.to]
                if ref.is_entry and node.target is site:  # a call goes where calls to it go
                    captures = verb != "insert_after" and body.n_pre
                    node.target = fresh[0] if captures else site
        return fresh

    def delete(self, site: Node) -> None:
        """Take an object out; what sat on it moves to the next one of its subprog."""
        assert site.alive
        heir = self._following(site)
        self.nodes.remove(site)
        site.alive = False
        self._move(site, heir, land=True, entry=True)
        if site.orig >= 0:
            self.gone[site.orig] = DELETED

    def _instantiate(self, body: Body, site: Node) -> list[Node]:
        words = body.words.tolist()
        starts = [*body.nodes.tolist(), len(words)]
        return [
            Node(words[a:b], site.subprog, site=site.site) for a, b in itertools.pairwise(starts)
        ]

    def _following(self, node: Node) -> Node | None:
        at = self.nodes.index(node) + 1
        if at < len(self.nodes) and self.nodes[at].subprog == node.subprog:
            return self.nodes[at]
        return None

    def _move(self, old: Node, new: Node | None, *, land: bool, entry: bool) -> None:
        for node in self.nodes:
            if node.is_ref and node.target is old and (entry if node.is_entry else land):
                node.target = new
        if land:
            self.land = [new if node is old else node for node in self.land]
        if entry:
            self.entry = [new if node is old else node for node in self.entry]

    # ---- the result

    def has_lost(self) -> bool:
        """Whether a live reference has nowhere to go."""
        return any(node.is_ref and node.target is None for node in self.nodes)

    def slots(self) -> dict[int, int]:
        """The flat slot of each live node, by the object's id."""
        slot_of: dict[int, int] = {}
        slot = 0
        for node in self.nodes:
            slot_of[id(node)] = slot
            slot += len(node.words)
        return slot_of

    def flatten(self) -> tuple[np.ndarray, Places, list[int]]:
        """Instructions with distances, the places of old slots, and the site of each slot."""
        slot_of = self.slots()
        flat = np.array([w for node in self.nodes for w in node.words], np.uint64).view(isa.INSN)
        for node in self.nodes:
            if node.is_ref:
                assert node.target is not None
                slot = slot_of[id(node)]
                distance = slot_of[id(node.target)] - slot - 1
                wide = node.is_entry or flat["code"][slot] == 0x06
                flat["imm" if wide else "off"][slot] = distance
        places = Places(
            own=[
                self.gone.get(slot, 0) or slot_of[id(node)] if node else DELETED
                for slot, node in enumerate(self.by_slot)
            ],
            land=[LOST if node is None else slot_of[id(node)] for node in self.land],
            entry=[LOST if node is None else slot_of[id(node)] for node in self.entry],
        )
        # A range ends in front of the first old instruction behind it that is still entered.
        bound = len(flat)
        places.bound = [bound]
        for place in reversed(places.entry):
            bound = place if place >= 0 else bound
            places.bound.insert(0, bound)
        sites = [
            node.site + (index if node.orig >= 0 else 0)
            for node in self.nodes
            for index in range(len(node.words))
        ]
        return flat, places, sites
