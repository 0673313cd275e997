"""What the verifier knows of a register or stack slot, from the way its log prints it.

Two forms: that of 5.18 and later (``R1=scalar(smin=0,umax=255)``), and that of before
(``R1_w=inv(id=0,umax_value=255)``).

Source: linux v6.18 and v5.15, kernel/bpf/log.c and verifier.c, print_reg_state().
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

_NUMBER: Final = re.compile(r"-?(?:0x[0-9a-f]+|\d+)$")
_OLD_NUMBER: Final = re.compile(r"inv(-?\d+)$")
_STACK: Final = re.compile(r"fp(?:\[(\d+)\])?(-?\d+)?$")
_BYTES: Final = re.compile(r"([m?0]{4,8})(?![0-9a-fx])(.*)$")
_PLACE: Final = re.compile(r"(?<![\w\[])(R\d+|fp-?\d+)(?:_[a-zA-Z]+)?=")
_TRAILER: Final = re.compile(r" (?:refs=[\d,]+|cb|async_cb|D\w+)\b.*$")
_REFS: Final = re.compile(r" refs=([\d,]+)")
_VAR_OFF: Final = re.compile(r"\((-?(?:0x)?[0-9a-f]+); ?(-?(?:0x)?[0-9a-f]+)\)")
_OLD_NAMES: Final = {
    "smin_value": "smin",
    "smax_value": "smax",
    "umin_value": "umin",
    "umax_value": "umax",
    "s32_min_value": "smin32",
    "s32_max_value": "smax32",
    "u32_min_value": "umin32",
    "u32_max_value": "umax32",
}
_OR_NULL: Final = "_or_null"
SCALAR: Final = "scalar"
U64_MAX: Final = (1 << 64) - 1
S64_MIN, S64_MAX = -(1 << 63), (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class RegState:
    """A register or stack slot, as the verifier knows it.

    Attributes:
        text: as printed, without the mark of a precise one.
        kind: ``scalar``, ``fp``, ``ctx``, ``pkt``, ``pkt_end``, ``map_value``, ``mem``,
            ``sock``, ``ptr_task_struct`` and so on, without what `is_or_null` says; "" for stack
            bytes without a value that is known.
        is_or_null: whether it may be NULL.
        id: what it shares with copies of itself; 0 for none.
        ref_obj_id: the reference that it is; 0 for none.
        off: bytes that were added to a pointer for certain; from the frame's top for the stack.
        frame: of a pointer to the stack of another frame, that; else None.
        value: of a constant.
        bounds: smin, smax, umin, umax of a scalar, or of what was added to a pointer.
        var_off: known bits of the same: value, and mask of what is not known.
        range: bytes of the packet, from where its id starts, that may be looked at.
        map_name: of a map; up to 15 characters.
        size: bytes of the map's value, or of the memory, that it points to; None if not told.
    """

    text: str
    kind: str
    is_or_null: bool = False
    id: int = 0
    ref_obj_id: int = 0
    off: int = 0
    frame: int | None = None
    value: int | None = None
    bounds: tuple[int, int, int, int] = (S64_MIN, S64_MAX, 0, U64_MAX)
    var_off: tuple[int, int] = (0, U64_MAX)
    range: int = 0
    map_name: str = ""
    size: int | None = None

    @property
    def is_scalar(self) -> bool:
        """Whether it is a number."""
        return self.kind == SCALAR

    @property
    def is_pointer(self) -> bool:
        """Whether it points somewhere, or may be NULL."""
        return self.kind not in (SCALAR, "")

    @property
    def has_variable_part(self) -> bool:
        """Whether something that is not known was added to a pointer."""
        return self.is_pointer and self.value is None and self.bounds[:2] != (0, 0)

    def __str__(self) -> str:
        return self.text


@lru_cache(maxsize=1 << 14)
def parse_state(text: str) -> RegState:
    """Read what the log prints of one register or stack slot."""
    shown = text.strip()
    bytes_ = _BYTES.match(shown)
    if bytes_ is not None:
        if not bytes_[2]:
            return RegState(shown, "")
        shown = bytes_[2]
    bare = shown.replace("invP", "inv", 1) if shown.startswith("invP") else shown
    bare = bare.removeprefix("P")
    old = _OLD_NUMBER.match(bare)
    if old is not None or _NUMBER.match(bare):
        return _constant(shown, int(old[1] if old else bare, 0))
    head, _, args = bare.partition("(")
    fields = dict(_fields(args.removesuffix(")")))
    stack = _STACK.match(head)
    if stack is not None:
        fields.setdefault("off", stack[2] or "0")
        return _of("fp", shown, fields, frame=None if stack[1] is None else int(stack[1]))
    kind = SCALAR if head in ("inv", "scalar", "unknown") else head
    return _of(kind, shown, fields)


def parse_states(text: str) -> dict[str, RegState]:
    """Read registers and slots as the log lists them: by name, as ``R1`` or ``fp-8``."""
    text = _TRAILER.sub("", f" {text}")
    places = list(_PLACE.finditer(text))
    ends = [*[place.start() for place in places[1:]], len(text)][: len(places)]
    return {
        place[1]: parse_state(text[place.end() : end].rstrip())
        for place, end in zip(places, ends, strict=True)
    }


def parse_refs(text: str) -> tuple[int, ...]:
    """The references that a state says are held."""
    found = _REFS.search(text)
    return () if found is None else tuple(int(one) for one in found[1].split(",") if one)


def _constant(shown: str, value: int) -> RegState:
    unsigned = value & U64_MAX
    signed = unsigned - (1 << 64) if unsigned >> 63 else unsigned
    bounds = (signed, signed, unsigned, unsigned)
    return RegState(shown, SCALAR, value=signed, bounds=bounds, var_off=(unsigned, 0))


def _fields(args: str) -> Iterator[tuple[str, str]]:
    """``smin=smin32=0,var_off=(0x0; 0xff)`` as pairs."""
    depth, start = 0, 0
    for at, char in enumerate(f"{args},"):
        if char == "(":
            depth += 1
        elif char == ")":
            depth -= 1
        elif char == "," and depth <= 0:
            *names, value = args[start:at].split("=")
            yield from ((_OLD_NAMES.get(name.strip(), name.strip()), value) for name in names)
            start = at + 1


def _of(kind: str, shown: str, fields: dict[str, str], frame: int | None = None) -> RegState:
    is_or_null = kind.endswith(_OR_NULL) or "ptr_or_null_" in kind
    kind = kind.removesuffix(_OR_NULL).replace("ptr_or_null_", "ptr_", 1)
    is_pointer = kind != SCALAR
    bounds, var_off = _bounds(fields, is_pointer)
    size = fields.get("vs", fields.get("sz", fields.get("mem_size")))
    return RegState(
        text=shown,
        kind=kind,
        is_or_null=is_or_null,
        id=_number(fields.get("id", "0")),
        ref_obj_id=_number(fields.get("ref_obj_id", "0")),
        off=_number(fields.get("off", "0")),
        frame=frame,
        value=None,
        bounds=bounds,
        var_off=var_off,
        range=_number(fields.get("r", "0")),
        map_name=fields.get("map", ""),
        size=None if size is None else _number(size),
    )


def _bounds(
    fields: dict[str, str], is_pointer: bool
) -> tuple[tuple[int, int, int, int], tuple[int, int]]:
    """The bounds: what is not printed follows from what is, or is as wide as can be."""
    shown = [fields.get(name) for name in ("smin", "smax", "umin", "umax")]
    text = fields.get("var_off")
    if is_pointer and text is None and not any(shown):
        return (0, 0, 0, 0), (0, 0)
    found = _VAR_OFF.match(text or "")
    var_off = (0, U64_MAX)
    if found is not None:
        var_off = (int(found[1], 0) & U64_MAX, int(found[2], 0) & U64_MAX)
    smin, smax, umin, umax = (None if one is None else _number(one) for one in shown)
    low, high = var_off[0], var_off[0] | var_off[1]
    umin = low if umin is None else umin & U64_MAX
    umax = high if umax is None else umax & U64_MAX
    is_positive = umax <= S64_MAX
    smin = (umin if is_positive else S64_MIN) if smin is None else smin
    smax = (umax if is_positive else S64_MAX) if smax is None else smax
    return (smin, smax, umin, umax), var_off


def _number(text: str) -> int:
    """A number, or the first of ``5-1``: an id and what was added to it since."""
    found = re.match(r"-?(?:0x[0-9a-f]+|\d+)", text)
    return 0 if found is None else int(found[0], 0)
