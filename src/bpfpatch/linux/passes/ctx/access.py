"""One access to a context, and the instructions that it becomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.errors import AsmError, OptionError, UnsupportedError
from bpfpatch.facts.layouts import Layouts

from .form import DST, SRC, TMP, Made, Scene, make, members
from .table import WORD, ContextField, ContextTable, Hit

LDX: Final = 1
ST: Final = 2
STX: Final = 3
MODE: Final = 0xE0
MEM: Final = 0x60
MEMSX: Final = 0x80
_WIDTHS: Final = {0x00: 4, 0x08: 2, 0x10: 1, 0x18: 8}


@dataclass(frozen=True, slots=True)
class Access:
    """A load or store through a context, without its registers' numbers.

    Attributes:
        code: the opcode.
        byte_off: from the context's start.
        is_in_place: whether a load goes into the register that holds the context.
    """

    code: int
    byte_off: int
    is_in_place: bool = False

    @property
    def width(self) -> int:
        """Bytes."""
        return _WIDTHS[self.code & 0x18]

    @property
    def is_load(self) -> bool:
        """Or a store."""
        return self.code & 7 == LDX

    @property
    def is_imm(self) -> bool:
        """Whether it stores an immediate."""
        return self.code & 7 == ST

    def __str__(self) -> str:
        kind = "load" if self.is_load else "store"
        return f"a {kind} of {self.width} bytes at byte {self.byte_off}"


@dataclass(frozen=True, slots=True)
class ContextSpan:
    """A field, and where it is.

    Attributes:
        field: the field.
        byte_off: from the context's start.
        size: bytes.
        unit: bytes of an element.
    """

    field: ContextField
    byte_off: int
    size: int
    unit: int

    def hit(self, access: Access) -> Hit | None:
        """How an access goes, or None if it is not to this field, or not allowed."""
        at = access.byte_off - self.byte_off
        form = self.field.load if access.is_load else self.field.store
        if not form or not 0 <= at < self.size or access.byte_off % access.width:
            return None
        return self.field.hit(at, self.size, self.unit, access.width, is_load=access.is_load)


class Converter:
    """Turns accesses to one context into what they really are.

    Attributes:
        context: the context.
        constants: numbers that forms may name.
        spans: the fields, and where they are.
    """

    def __init__(
        self, context: ContextTable, layouts: Layouts, constants: Mapping[str, int]
    ) -> None:
        """Find out where the fields are.

        Args:
            context: the table.
            layouts: where members are.
            constants: numbers that forms may name.

        Raises:
            UnsupportedError: a field's own place is to be found in the types, and is not there.
        """
        self.context = context
        self._layouts = layouts
        self.constants = constants
        self.spans = [_span(field, layouts) for field in context.fields]

    def span(self, access: Access) -> tuple[ContextSpan, Hit]:
        """The field that an access is to, and how it goes.

        Raises:
            UnsupportedError: the context has no such field, or not for such an access.
        """
        for span in self.spans:
            hit = span.hit(access)
            if hit is not None:
                return span, hit
        name = self.context.uapi or self.context.name
        raise UnsupportedError(f"{name} does not take {access}: {self._nearest(access)}")

    def reads(self, access: Access, name: str) -> bool:
        """Whether an access loads the field of that name."""
        return access.is_load and any(
            span.field.name == name and span.hit(access) is not None for span in self.spans
        )

    def insns(self, access: Access) -> isa.Insns:
        """(n,) instructions that an access becomes, with registers as in `with_registers`.

        The immediate of a store is left 0.

        Raises:
            UnsupportedError: an unknown field, or a member whose place is not known.
            OptionError: the field's form is none.
        """
        span, hit = self.span(access)
        scene = Scene(
            self._layouts,
            self.constants,
            is_load=access.is_load,
            is_imm=access.is_imm,
            at=hit.byte_off,
            width=hit.width if span.field.is_sized else 0,
        )
        try:
            made = make(self._form(span.field, access), scene)
            return made.insns(self._tail(access, span, hit, made))
        except (AsmError, OptionError) as error:
            where = f"field {span.field.name!r} of context {self.context.name}"
            raise OptionError(f"{where}: {error}") from error

    def _form(self, field: ContextField, access: Access) -> str:
        form = field.load if access.is_load else field.store
        absent = field.load_absent if access.is_load else field.store_absent
        if access.is_load and access.is_in_place and field.load_in_place:
            form = field.load_in_place
        if absent and not all(self._layouts.has(path) for path in members(form)):
            return absent
        return form

    def _tail(self, access: Access, span: ContextSpan, hit: Hit, made: Made) -> str:
        """What comes after a load: cut the wanted part out, extend its sign."""
        lines = []
        width = access.width
        result = span.field.result or made.last_width or hit.width
        skipped = hit.cut or 0
        if hit.cut is not None and self._layouts.byteorder == "big":
            skipped = hit.width - width - hit.cut
        # The kernel takes what it loaded for the wanted part where there is no more of it.
        is_cut = width < result or (skipped and not self.context.is_internal)
        if hit.cut is not None and is_cut:
            if skipped:
                lines.append(f"{'r' if hit.width == 8 else 'w'}{DST} >>= {8 * skipped}")
            mask = (1 << 8 * width) - 1
            lines.append(f"w{DST} &= {mask if width < 4 else -1}")
        if access.code & MODE == MEMSX:
            lines.append(f"r{DST} = (s{8 * width})r{DST}")
        return "\n".join(lines)

    def _nearest(self, access: Access) -> str:
        for span in self.spans:
            if span.byte_off <= access.byte_off < span.byte_off + span.size:
                return (
                    f"its field {span.field.name!r}, {span.size} bytes from {span.byte_off} on, "
                    f"takes {span.field.takes(span.unit)}"
                )
        return (
            "no field is there; a context of your own is given with register_context() and the "
            "option context"
        )


def with_registers(insns: isa.Insns, dst: int, src: int, hidden: int) -> isa.Insns:
    """Instructions with an access's registers put in, the hidden one, and one that it may borrow.

    Source: linux v6.18, net/core/filter.c, sock_addr_convert_ctx_access():
    the highest of R9, R8, R7 that is neither.
    """
    tmp = next(register for register in (9, 8, 7) if register not in (dst, src))
    return _renumbered(insns, {DST: dst, SRC: src, TMP: tmp, isa.AX: hidden})


def with_hidden(insns: isa.Insns, hidden: int) -> isa.Insns:
    """Instructions with the hidden register that a kernel has."""
    return _renumbered(insns, {isa.AX: hidden})


def _renumbered(insns: isa.Insns, numbers: Mapping[int, int]) -> isa.Insns:
    table = np.arange(16, dtype=np.uint8)
    table[list(numbers)] = list(numbers.values())
    out = insns.copy()
    out["regs"] = table[insns["regs"] & 0xF] | table[insns["regs"] >> 4] << 4
    return out


def _span(field: ContextField, layouts: Layouts) -> ContextSpan:
    byte_off, size = field.byte_off, field.size
    if isinstance(byte_off, str):
        byte_off = layouts.place(byte_off).byte_off
    if isinstance(size, str):
        size = layouts.place(size).size
    unit = layouts.word_bytes if field.unit == WORD else field.unit or size
    return ContextSpan(field, byte_off, size, unit)
