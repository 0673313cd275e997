"""Words of a code section that are not instructions: what aligns one function after another.

A function ends at its symbol's value plus size. What stands between functions to align
them belongs to none, and no loader looks at it. A `Program` leaves it out.

Source: llvm 19, BPFAsmBackend.cpp, writeNopData(); linux v6.18, tools/lib/bpf/linker.c,
which aligns sections with zeros; libbpf v1.5, bpf_object__add_programs().
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch.program.refs import read_references

_NOP: Final = 0x1500_0000
"""The 64-bit number that LLVM aligns code with; others take zeros."""

Slots64 = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Padding:
    """Which words of the code sections are padding.

    A word is 8 bytes of the file, as an instruction takes; those that are none are counted, too.

    Attributes:
        is_padding: (w,) of all words of all code sections.
        words: (p,) `isa.INSN` of those that are.
        starts: (s + 1,) first word of each code section, and the number of all.
    """

    is_padding: NDArray[np.bool_]
    words: NDArray[Any]
    starts: Slots64

    @cached_property
    def slot_of_word(self) -> Slots64:
        """(w + 1,) slot of each word; of padding the slot after it."""
        return np.concatenate([[0], np.cumsum(~self.is_padding)]).astype(np.int64)

    @cached_property
    def word_of_slot(self) -> Slots64:
        """(n,) word of each slot."""
        return np.flatnonzero(~self.is_padding)

    def moved(self, bound: NDArray[Any], starts: Slots64) -> Padding:
        """The padding of rewritten code: it stays after the function that it follows.

        Args:
            bound: (n + 1,) where what ended at each old slot ends now.
            starts: (s + 1,) new first slot of each section.
        """
        at = np.flatnonzero(self.is_padding)
        place = np.asarray(bound, np.int64)[self.slot_of_word[at]]
        is_padding = np.insert(np.zeros(int(starts[-1]), bool), place, True)
        n_before = np.searchsorted(at, self.starts)
        return Padding(is_padding, self.words, starts + n_before)

    def put_between(self, insns: NDArray[Any]) -> NDArray[Any]:
        """(w,) all words of rewritten code."""
        out = np.empty(self.is_padding.size, insns.dtype)
        out[~self.is_padding] = insns
        out[self.is_padding] = self.words
        return out


def find_padding(
    words: NDArray[Any],
    second: NDArray[np.bool_],
    is_covered: NDArray[np.bool_],
    is_named: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """(w,) which words are padding.

    Args:
        words: (w,) `isa.INSN` of all code.
        second: (w,) which are the second half of an ld_imm64.
        is_covered: (w,) which are within a function symbol's range, or in a section without one.
        is_named: (w,) at which a symbol stands or a relocation applies.
    """
    out: NDArray[np.bool_] = (words["code"] == 0) & (words["regs"] == 0) & ~second & ~is_covered
    out &= ((words["off"] == 0) & ((words["imm"] == 0) | (words["imm"] == _NOP))) | (
        (words["off"] == _NOP >> 16) & (words["imm"] == 0)
    )
    if not out.any():
        return out
    # What something stands for is not padding, and neither is the rest of such a run.
    run = np.cumsum(np.diff(out, prepend=False))
    out &= ~np.isin(run, run[out & is_named])
    refs = read_references(words, np.zeros(0, np.int32))
    is_jump = ~refs.is_entry & (refs.target >= 0) & (refs.target <= len(words))
    count = np.concatenate([[0], np.cumsum(out)])
    if (count[refs.slot[is_jump]] != count[refs.target[is_jump]]).any():
        out[:] = False  # the symbols' sizes are wrong: a jump goes across
    return out
