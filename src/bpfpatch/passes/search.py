"""Find instructions of a few kinds in long code, and sort what was found into equal ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.patch import CodeView
from bpfpatch.program.types import Slots, gather

_Rows = TypeVar("_Rows", bound=np.generic)


class Opcodes:
    """Some rows of the opcode table, to look for with `CodeIndex.find`.

    Args:
        test: which of them. Of an ld_imm64's, all or none.
    """

    __slots__ = ("_is_row", "_maybe", "_surely")

    def __init__(self, test: Callable[[isa.Opcode], bool]) -> None:
        answers = [test(opcode) for opcode in isa.OPCODES]
        by_code: dict[int, set[bool]] = {}
        for opcode, answer in zip(isa.OPCODES, answers, strict=True):
            by_code.setdefault(opcode.code, set()).add(answer)
        assert len(by_code[isa.LD_IMM64]) == 1
        self._maybe = bytes(True in by_code.get(code, ()) for code in range(256))
        self._surely = np.array([by_code.get(code) == {True} for code in range(256)])
        self._is_row = np.array([*answers, False, False])  # of second slots and unknown opcodes

    def slots(self, codes: NDArray[np.uint8], insns: isa.Insns) -> Slots:
        """(k,) slots of such instructions, ascending; see `CodeIndex`."""
        parts = []
        for part in isa.portions(codes.size):
            # Several times as fast as a look-up by NumPy, which makes eight bytes of each index.
            found = codes[part].tobytes().translate(self._maybe)
            at = np.flatnonzero(np.frombuffer(found, bool))
            if at.size:
                parts.append(at.astype(np.int32) + np.int32(part.start))
        out = np.concatenate(parts) if parts else np.zeros(0, np.int32)
        is_it = self._surely[gather(codes, out)]
        if is_it.all():
            return out
        unsure = np.flatnonzero(~is_it)
        is_it[unsure] = self._is_row[isa.rows(insns[out[unsure]])]
        chosen: Slots = out[is_it]
        return chosen


_CALLS: Final = Opcodes(lambda opcode: opcode.code == isa.CALL)
_SRC: Final = {opcode.name: opcode.src for opcode in isa.OPCODES if opcode.code == isa.CALL}


class CodeIndex:
    """The opcode bytes of a view, for passes that look for several kinds of instructions.

    Most kinds are a handful of opcodes, and most code is something else: a search
    reads one byte an instruction, and takes a closer look at what that leaves.

    Args:
        view: the code of a list, which has no unknown opcodes.

    Attributes:
        codes: (n,) opcodes; 0, which is none, at second slots of ld_imm64.
    """

    def __init__(self, view: CodeView) -> None:
        self._insns = view.insns
        self.codes: NDArray[np.uint8] = view.insns["code"].copy()
        self.codes[view.node < 0] = 0

    def find(self, opcodes: Opcodes) -> Slots:
        """(k,) slots of these instructions, ascending."""
        return opcodes.slots(self.codes, self._insns)

    @cached_property
    def helper_calls(self) -> Slots:
        """(k,) slots of calls of helpers, ascending."""
        return self._calls("call_helper")

    @cached_property
    def kfunc_calls(self) -> Slots:
        """(k,) slots of calls of the kernel's own functions, not its modules', ascending."""
        calls = self._calls("call_kfunc")
        own: Slots = calls[self._insns["off"][calls] == 0]
        return own

    @cached_property
    def _all_calls(self) -> Slots:
        return self.find(_CALLS)

    def _calls(self, name: str) -> Slots:
        """(k,) slots of calls of one kind, by the field that tells them apart."""
        calls = self._all_calls
        of_kind: Slots = calls[self._insns["regs"][calls] >> 4 == _SRC[name]]
        return of_kind


def groups(keys: NDArray[Any], rows: NDArray[_Rows]) -> Iterator[tuple[Any, NDArray[_Rows]]]:
    """Rows of equal keys together, by ascending keys; the rows of a key stay in order.

    Args:
        keys: (n,) numbers.
        rows: (n,) what they are the keys of.
    """
    if not keys.size:
        return
    if (keys == keys[0]).all():
        yield keys[0], rows
        return
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    cuts = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
    firsts = np.append(0, cuts)
    yield from zip(ordered[firsts], np.split(rows[order], cuts), strict=True)
