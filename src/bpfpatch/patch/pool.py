"""Where the instructions of a patch list are kept: the program's, then every body's."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.program import Program
from bpfpatch.program.types import Insns, Slots

from .body import Body
from .change import Change


class Pool:
    """Instructions by node, and which of them are alive.

    A node is the pool slot of its instruction's first slot; an ld_imm64's
    second slot is the next one. What an edit by handle brings goes to a
    tail first, since an array that grows a little is copied as a whole.

    Attributes:
        size: slots in use, those in the tail included.
        alive: one byte a slot: whether it is the first of a live instruction.
        tail: words that are not in the array yet.
    """

    __slots__ = ("_is_own", "_words", "alive", "size", "tail")

    def __init__(self, program: Program) -> None:
        # Until the first edit the array is the program's own.
        self._words: NDArray[np.uint64] = program.insns.view(np.uint64)
        self._is_own = False
        self.size = len(program)
        self.alive = bytearray(len(program))
        np.logical_not(program.second_slots, out=np.frombuffer(self.alive, np.bool_))
        self.tail = array("Q")

    @property
    def words(self) -> NDArray[np.uint64]:
        """(size or more,) all instructions as words."""
        self._settle()
        return self._words

    def word(self, node: int) -> int:
        """One instruction as a word, wherever it is kept."""
        settled = self.size - len(self.tail)
        return int(self._words[node]) if node < settled else self.tail[node - settled]

    def insns(self, nodes: Slots) -> Insns:
        """(n,) first slots of nodes, a copy; see `isa.alone` for what that means."""
        return self.words[nodes].view(isa.INSN)

    def span(self, first: int) -> Insns:
        """All instructions from a slot on, one after the other."""
        return self.words[first : self.size].view(isa.INSN)

    def put_many(self, body: Body, n_times: int, imms: Mapping[int, NDArray[Any]]) -> None:
        """Append a body's instructions a number of times.

        Args:
            body: what to append.
            n_times: how often.
            imms: by slot of the body, the (n_times,) immediates that its copies get, which
                must fit 32 bits.
        """
        n_new = body.n_slots * n_times
        if not n_new:
            return
        first = self.size
        self._settle()
        self._grow(first + n_new, first)
        copies = self._words[first : first + n_new].reshape(n_times, -1)
        fields = copies.view(np.int32)
        for part in isa.portions(n_times):
            for slot in range(body.n_slots):  # a column at a time: rows are too short to copy
                copies[part, slot] = body.words[slot]
            for slot, values in imms.items():
                fields[part, 2 * slot + 1] = values[part]
        self.size += n_new
        for part in isa.portions(n_times):
            self.alive.extend(body.alive * (min(part.stop, n_times) - part.start))

    def kill(self, nodes: Slots) -> None:
        """Mark instructions as gone."""
        alive = np.frombuffer(self.alive, np.uint8)
        for part in isa.portions(nodes.size):
            alive[nodes[part]] = 0

    def first_dead(self, nodes: Slots) -> int | None:
        """The first of these nodes, all below ``size``, that is not a live instruction."""
        alive = np.frombuffer(self.alive, np.bool_)
        for part in isa.portions(nodes.size):
            are_alive = alive[nodes[part]]
            if not are_alive.all():
                return int(nodes[part][np.argmin(are_alive)])
        return None

    def write(self, nodes: Slots, change: Change) -> None:
        """Change the first slots of nodes in place; those that are named twice, twice."""
        self._settle()
        if not self._is_own:
            self._words, self._is_own = self._words.copy(), True
        for part in isa.portions(nodes.size):
            here = nodes[part]
            self._words[here] = change.apply(self._words[here], part)

    def _settle(self) -> None:
        """Move the tail into the array."""
        if not self.tail:
            return
        words = np.frombuffer(self.tail, np.uint64)
        settled = self.size - words.size
        self._grow(self.size, settled)
        self._words[settled : self.size] = words
        self.tail = array("Q")

    def _grow(self, size: int, settled: int) -> None:
        """Make room, by half at least; the first ``settled`` words stay."""
        if self._words.size >= size and self._is_own:
            return
        words = np.empty(max(size, settled + settled // 2), np.uint64)
        words[:settled] = self._words[:settled]
        self._words, self._is_own = words, True
