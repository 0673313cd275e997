"""What a context's table consists of: fields, and how each is really loaded and stored."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final, Self

from bpfpatch.errors import OptionError
from bpfpatch.facts.contexts import Places

SIZES: Final = (1, 2, 4, 8)
WORD: Final = -1
"""As a field's ``unit``: the width of a pointer."""

_LITERAL: Final = re.compile(r"\b[rw]\d+\b|\bcall\b|\bll\b")


@dataclass(frozen=True, slots=True)
class Hit:
    """An access to a field, as its form sees it.

    Attributes:
        byte_off: from the field's start to the accessed element.
        width: bytes that the form accesses.
        cut: bytes from the element's start to the part that is wanted; None where that is
            all of it.
    """

    byte_off: int
    width: int
    cut: int | None = None


@dataclass(frozen=True, slots=True)
class ContextField:
    """A member of a context, and what an access of it really does.

    What is accessed is a form, see `bpfpatch.linux.passes.ctx.form`: members from
    pointer to pointer, such as ``sk_buff.dev ?-> net_device.ifindex``, or
    assembly.

    Attributes:
        name: of the member.
        byte_off: from the context's start; or the member's path, to be found in the types.
        size: bytes; or the member's path.
        load: form of a load; "" where there is none.
        store: form of a store; "" where there is none.
        unit: bytes of one element of an array; 0 for the whole member, `WORD` for a pointer's.
        is_narrow: whether a part of an element can be loaded, too: the whole is loaded, then
            the part is cut out.
        wide: a larger width that accesses may have, up to this many bytes; 0 for none.
        is_sized: whether the final access has the width of the access to the field, not that
            of the member that it stands for.
        result: bytes that count in what a load leaves; 0 where that is what it loads last.
        load_in_place: form of a load into the register that holds the context; "" where
            ``load`` does for both.
        load_absent: form of a load where the kernel lacks a member that ``load`` names.
        store_absent: the same of a store.
        store_below: stores of this value and above do nothing; None for no such bound.
    """

    name: str
    byte_off: int | str
    size: int | str
    load: str = ""
    store: str = ""
    unit: int = 0
    is_narrow: bool = False
    wide: int = 0
    is_sized: bool = False
    result: int = 0
    load_in_place: str = ""
    load_absent: str = ""
    store_absent: str = ""
    store_below: int | None = None

    def __post_init__(self) -> None:
        """Check the forms.

        Raises:
            OptionError: one that names a register by number, calls, or has an ld_imm64.
        """
        forms = (self.load, self.store, self.load_in_place, self.load_absent, self.store_absent)
        for form in forms:
            literal = _LITERAL.search(form)
            if literal:
                raise OptionError(
                    f"field {self.name!r}: a form has no {literal[0]!r}; its registers are dst, "
                    "src, tmp and ax, and it neither calls nor has 64-bit constants"
                )

    def hit(self, byte_off: int, size: int, unit: int, width: int, *, is_load: bool) -> Hit | None:
        """How an aligned access goes, or None if the field does not allow it.

        Args:
            byte_off: from the field's start.
            size: the field's, in bytes.
            unit: that of an element.
            width: of the access.
            is_load: or a store.
        """
        if width == unit or unit < width <= self.wide:
            fits = byte_off + width <= max(size, self.wide if byte_off == 0 else 0)
            return Hit(byte_off, width) if fits else None
        if width > unit or not (is_load and self.is_narrow):
            return None
        return Hit(byte_off - byte_off % unit, unit, byte_off % unit)

    def takes(self, unit: int) -> str:
        """The accesses that it allows, in words; ``unit`` is an element's size."""
        widths = [width for width in SIZES if width == unit or unit < width <= self.wide]
        if self.is_narrow and self.load:
            widths = [width for width in SIZES if width < unit] + widths
        kinds = [kind for kind, form in (("loads", self.load), ("stores", self.store)) if form]
        return f"{' and '.join(kinds)} of {', '.join(map(str, widths))} bytes"


@dataclass(frozen=True, slots=True)
class ContextTable:
    """The context that programs of some kind see, as a table.

    Attributes:
        name: for the pass's option ``context``.
        fields: its members; they may have gaps.
        uapi: the struct that programs are written against, for messages.
        prologue: assembly that comes before a program that writes to packets; "" for none.
        aware_field: a field whose load anywhere in the program shows that the program knows
            more; "" for none.
        aware: the table for such programs.
        is_internal: whether the result is for the kernel alone, and bpf(2) must refuse it.
    """

    name: str
    fields: tuple[ContextField, ...]
    uapi: str = ""
    prologue: str = ""
    aware_field: str = ""
    aware: ContextTable | None = None
    is_internal: bool = False

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            OptionError: two fields of one name, or a field without any form.
        """
        names = [field.name for field in self.fields]
        for field in self.fields:
            if names.count(field.name) > 1:
                raise OptionError(f"context {self.name} has two fields {field.name!r}")
            if not (field.load or field.store):
                raise OptionError(
                    f"field {field.name!r} of context {self.name} has neither load nor store"
                )

    def but(self, name: str, *fields: ContextField, prologue: str = "") -> Self:
        """A like context, in which some fields are others.

        Args:
            name: of the new one.
            fields: they take the place of those of the same names, or are added.
            prologue: of the new one.
        """
        new = {field.name: field for field in fields}
        kept = [new.pop(field.name, field) for field in self.fields]
        return replace(self, name=name, fields=(*kept, *new.values()), prologue=prologue)


def addresses(at: Places, sock: str) -> tuple[ContextField, ...]:
    """The fields of a connection's two addresses, which several contexts have.

    Args:
        at: of the context.
        sock: the path to struct sock_common.
    """
    ip6 = {"remote_ip6": "skc_v6_daddr", "local_ip6": "skc_v6_rcv_saddr"}
    return (
        ContextField("remote_ip4", *at["remote_ip4"], f"{sock}skc_daddr"),
        ContextField("local_ip4", *at["local_ip4"], f"{sock}skc_rcv_saddr"),
        *(
            ContextField(
                name,
                *at[name],
                f"{sock}{member}.in6_u.u6_addr32[0]",
                unit=4,
                load_absent="dst32 = 0",
            )
            for name, member in ip6.items()
        ),
    )
