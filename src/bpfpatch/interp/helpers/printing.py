"""Helpers that print.

Source of the conversions: linux v6.18, kernel/bpf/helpers.c, bpf_bprintf_prepare().
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from errno import EINVAL
from typing import TYPE_CHECKING, Final

from ..errors import StrayAccess
from ..registry import helper

if TYPE_CHECKING:
    from ..machine import Machine

_MOST_TEXT: Final = 512
_CONVERSION: Final = re.compile(
    r"%(?:%|(?P<flags>[-+ #0]*)(?P<width>\d{0,4})(?P<long>l{0,2}h{0,2}z?)"
    r"(?P<kind>[diuxXpsc])(?P<more>[A-Za-z0-9]*))"
)
_CONVERSION_WORK: Final = 256
"""Bytes that one conversion counts for."""
_MOST_ARGUMENTS: Final = 12
"""Source: linux v6.18, include/linux/bpf.h, MAX_BPRINTF_VARARGS."""
_POINTER_FORMS: Final = {"I4": 4, "i4": 4, "I6": 16, "i6": 16}


@helper("trace_printk")
def trace_printk(machine: Machine, text: int, size: int, a: int, b: int, c: int) -> int:
    """Print with up to three arguments; how many bytes that was."""
    content = machine.memory.read(text, size & 0xFFFF_FFFF)
    return _print(machine, content, (a, b, c))


@helper("trace_vprintk")
def trace_vprintk(machine: Machine, text: int, size: int, data: int, data_size: int) -> int:
    """Print with arguments from memory."""
    content = machine.memory.read(text, size & 0xFFFF_FFFF)
    return _print(machine, content, _arguments(machine, data, data_size))


@helper("snprintf")
def snprintf(machine: Machine, target: int, size: int, text: int, data: int, data_size: int) -> int:
    """Print into memory; how many bytes it would take with its NUL."""
    size &= 0xFFFF_FFFF
    content = machine.memory.read_string(text, _MOST_TEXT)
    result = _format(machine, content + b"\0", _arguments(machine, data, data_size))
    if result is None:
        return -EINVAL
    encoded = result.encode("latin-1", "replace")
    if size:
        machine.memory.write(target, encoded[: size - 1] + b"\0")
    return len(encoded) + 1


def _arguments(machine: Machine, data: int, size: int) -> tuple[int, ...] | None:
    size &= 0xFFFF_FFFF
    if size % 8 or size > 8 * _MOST_ARGUMENTS:
        return None
    content = machine.memory.read(data, size)
    order = machine.byteorder
    return tuple(int.from_bytes(content[at : at + 8], order) for at in range(0, len(content), 8))


def _print(machine: Machine, content: bytes, arguments: Sequence[int] | None) -> int:
    result = _format(machine, content, arguments)
    if result is None:
        return -EINVAL
    machine.print(result)
    return len(result)


def _format(machine: Machine, content: bytes, arguments: Sequence[int] | None) -> str | None:
    """The text, or None where the kernel would refuse it."""
    if arguments is None or not content.endswith(b"\0"):
        return None
    text = content.split(b"\0")[0].decode("latin-1")
    given = iter(arguments)
    parts: list[str] = []
    at = 0
    while (start := text.find("%", at)) >= 0:
        match = _CONVERSION.match(text, start)
        if match is None:
            return None
        machine.memory.work(_CONVERSION_WORK)
        parts.append(text[at:start])
        try:
            parts.append(_convert(machine, match, given))
        except StopIteration:
            return None
        at = match.end() - len(_unused(match))
    return "".join(parts) + text[at:]


def _unused(match: re.Match[str]) -> str:
    """What follows a conversion without belonging to it."""
    more = match["more"] or ""
    if match["kind"] != "p" or not more:
        return more
    for form in (*_POINTER_FORMS, "ks", "us", "x", "K", "B", "S", "s"):
        if more.startswith(form):
            return more[len(form) :]
    return more


def _convert(machine: Machine, match: re.Match[str], given: Iterator[int]) -> str:
    if match[0] == "%%":
        return "%"
    value, kind = next(given), match["kind"]
    if kind == "p":
        return _pointer(machine, match, value)
    if kind == "s":
        return _padded(match, _string(machine, value))
    if kind == "c":
        return _padded(match, chr(value & 0xFF))
    width = 64 if "l" in match["long"] or "z" in match["long"] else 32
    value &= (1 << width) - 1
    if kind in "di" and value >> (width - 1):
        value -= 1 << width
    flags = match["flags"] + match["width"]
    return f"%{flags}{kind if kind in 'xX' else 'd'}" % value


def _padded(match: re.Match[str], text: str) -> str:
    return f"%{match['flags'].replace('0', '')}{match['width']}s" % text


def _string(machine: Machine, address: int) -> str:
    try:
        return machine.memory.read_string(address, _MOST_TEXT).decode("latin-1")
    except StrayAccess:
        return ""


def _pointer(machine: Machine, match: re.Match[str], value: int) -> str:
    more = match["more"] or ""
    if more.startswith(("ks", "us")):
        return _string(machine, value)
    size = _POINTER_FORMS.get(more[:2])
    if size is None:
        return f"{value:016x}"
    try:
        data = machine.memory.read(value, size)
    except StrayAccess:
        return ""
    if size == 4:
        form = "d" if more[0] == "I" else "03d"
        return ".".join(f"{byte:{form}}" for byte in data)
    words = [f"{data[at]:02x}{data[at + 1]:02x}" for at in range(0, 16, 2)]
    return (":" if more[0] == "I" else "").join(words)
