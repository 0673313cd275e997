"""The code space: which sections hold code, and which slots of the program they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.errors import FormatError

from .padding import Padding
from .raw import SHF_EXECINSTR, SHT_PROGBITS, RawElf

INSN_SIZE: Final = 8

Slots64 = NDArray[np.int64]

# What the reference field of a relocated instruction holds in the file.
FORM_EXTERNAL: Final = 0
"""Whatever it likes: the relocation is against something that is not code of this object."""
FORM_RELATIVE: Final = 1
"""The distance from the symbol, less 1, in slots (call), or from the symbol in bytes (address).
A call's target is ``symbol / 8 + imm + 1``, an address's ``(symbol + imm) / 8``.
Source: linux v6.1, tools/lib/bpf/libbpf.c, bpf_object__reloc_code()."""
FORM_ABSOLUTE: Final = 2
"""The named symbol's bytes from its section's start, less 1 in a call: the symbol's value twice.
Seen from binutils 2.40's assembler (bpf-gcc 12); against section symbols it is relative."""

RELOC: Final = np.dtype(
    [("section", "<u4"), ("sym", "<u4"), ("type", "<u4"), ("form", "u1"), ("src", "u1")]
)
"""A row of the ``reloc`` table: section of relocations, symbol index, R_BPF_* type, form of the
field, and the source register that the file has in an address's ld_imm64."""

SYMBOL: Final = np.dtype([("sym", "<u4"), ("is_sized", "?")])
"""A row of the ``symbol`` and ``label`` tables."""

ADDRESS: Final = np.dtype(
    [("section", "<u4"), ("byte_off", "<u8"), ("width", "u1"), ("sym", "<i4")]
)
"""A row of the ``code_address`` and ``jump_table`` tables: an integer of ``width`` bytes in a
section's content is the distance in bytes from symbol ``sym``, or from the start of the target's
section where that is -1."""

RELOC_TABLE: Final = "reloc"
SYMBOL_TABLE: Final = "symbol"
LABEL_TABLE: Final = "label"
ADDRESS_TABLE: Final = "code_address"
JUMP_TABLE: Final = "jump_table"
CORE_RELO: Final = "core_relo"


@dataclass(frozen=True, slots=True, eq=False)
class CodeSpace:
    """Code sections as ranges of one program.

    Attributes:
        sections: (s,) ELF index of each code section, ascending.
        starts: (s + 1,) first slot of each, and the program's length.
        code_index: (n_sections,) of each ELF section its place among the code
            sections, or -1.
        names: code section by name; of several with one name the first.
        padding: words between functions that are not slots, where there are any.
    """

    sections: Slots64
    starts: Slots64
    code_index: Slots64
    names: Mapping[str, int]
    padding: Padding | None = None

    def slot(self, code: Any, byte_off: Any) -> Any:
        """Slot of a byte offset in code section ``code``; both may be arrays."""
        slot = self._word_starts[code] + np.asarray(byte_off, np.int64) // INSN_SIZE
        if self.padding is None:
            return slot
        of_word = self.padding.slot_of_word
        return of_word[np.clip(slot, 0, of_word.size - 1)]

    def is_slot(self, code: Any, byte_off: Any) -> NDArray[np.bool_]:
        """Whether byte offsets lie within their sections, on a slot."""
        byte_off = np.asarray(byte_off, np.int64)
        found = (byte_off >= 0) & (byte_off < self.n_bytes(code)) & (byte_off % INSN_SIZE == 0)
        if self.padding is not None:
            word = self._word_starts[code] + np.where(found, byte_off, 0) // INSN_SIZE
            found &= ~np.append(self.padding.is_padding, True)[word]
        return np.asarray(found, np.bool_)

    def n_bytes(self, code: Any) -> Any:
        """Size of a code section in bytes."""
        starts = self._word_starts
        return (starts[np.asarray(code) + 1] - starts[code]) * INSN_SIZE

    def span_bytes(self, start: Slots64, end: Slots64) -> Slots64:
        """Bytes from each slot to the end of what ends in front of another."""
        n_slots = np.maximum(end - start, 0)
        if self.padding is None or not n_slots.size:
            return np.asarray(n_slots * INSN_SIZE, np.int64)
        word = self.padding.word_of_slot
        whole = word[np.maximum(end, start + 1) - 1] + 1 - word[start]
        return np.asarray(np.where(n_slots > 0, whole, 0) * INSN_SIZE, np.int64)

    @property
    def _word_starts(self) -> Slots64:
        return self.starts if self.padding is None else self.padding.starts

    def of_slot(self, slots: Any) -> Slots64:
        """Code section that each slot is in."""
        return np.asarray(np.searchsorted(self.starts, slots, side="right") - 1, np.int64)

    def local_bytes(self, slots: Any) -> Slots64:
        """Byte offset of each slot in its own section."""
        slots = np.asarray(slots, np.int64)
        code = self.of_slot(slots)
        if self.padding is not None and slots.size:
            slots = self.padding.word_of_slot[slots]
        return np.asarray((slots - self._word_starts[code]) * INSN_SIZE, np.int64)


def read_space(raw: RawElf) -> CodeSpace:
    """Find the code sections.

    Raises:
        FormatError: one is not a whole number of instructions.
    """
    is_code = (raw.shdrs["type"] == SHT_PROGBITS) & (raw.shdrs["flags"] & SHF_EXECINSTR != 0)
    sections = np.flatnonzero(is_code).astype(np.int64)
    sizes = np.array([len(raw.contents[section]) for section in sections.tolist()], np.int64)
    if (sizes % INSN_SIZE).any():
        section = int(sections[np.argmax(sizes % INSN_SIZE != 0)])
        raise FormatError(
            f"code section {raw.names[section]} of {len(raw.contents[section])} bytes does not "
            f"hold whole instructions of {INSN_SIZE}",
            raw.byte_off(section),
        )
    starts = np.concatenate([[0], np.cumsum(sizes // INSN_SIZE)]).astype(np.int64)
    code_index = np.full(len(raw.shdrs), -1, np.int64)
    code_index[sections] = np.arange(len(sections))
    names: dict[str, int] = {}
    for code, section in enumerate(sections.tolist()):
        names.setdefault(raw.names[section], code)
    return CodeSpace(sections, starts, code_index, names)


def read_insns(raw: RawElf, space: CodeSpace) -> NDArray[Any]:
    """(n,) `isa.INSN` of all code sections, as the file has them."""
    code = b"".join(raw.contents[section] for section in space.sections.tolist())
    return isa.from_bytes(code, raw.byteorder)
