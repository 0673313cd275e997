"""Helpers that read memory which may not be there, and that compare and convert strings.

Source: linux v6.18, kernel/trace/bpf_trace.c, mm/maccess.c and kernel/bpf/helpers.c.
"""

from __future__ import annotations

import re
from errno import EFAULT, EINVAL, ERANGE
from typing import TYPE_CHECKING, Final

from ..errors import StrayAccess
from ..registry import helper

if TYPE_CHECKING:
    from ..machine import Machine

_MOST_DIGITS: Final = 64
"""Of a number of 64 bits, in any base; more are out of its range."""
_U32: Final = 0xFFFF_FFFF


@helper("probe_read", "probe_read_kernel", "probe_read_user", "copy_from_user")
def probe_read(machine: Machine, target: int, size: int, source: int) -> int:
    """Copy; where there is nothing to copy the target becomes zeros."""
    size &= _U32
    try:
        content = machine.memory.read(source, size)
    except StrayAccess:
        machine.memory.read(target, size)
        machine.memory.write(target, bytes(size))
        return -EFAULT
    machine.memory.write(target, content)
    return 0


@helper("probe_read_str", "probe_read_kernel_str", "probe_read_user_str")
def probe_read_str(machine: Machine, target: int, size: int, source: int) -> int:
    """Copy a string with its NUL; how many bytes that was."""
    size &= _U32
    if size == 0:
        return 0
    try:
        text = machine.memory.read_string(source, size - 1) + b"\0"
    except StrayAccess:
        machine.memory.read(target, size)
        machine.memory.write(target, bytes(size))
        return -EFAULT
    machine.memory.write(target, text)
    return len(text)


@helper("probe_write_user")
def probe_write_user(machine: Machine, target: int, source: int, size: int) -> int:
    """Copy; where there is no place for it nothing happens."""
    content = machine.memory.read(source, size & _U32)
    try:
        machine.memory.write(target, content)
    except StrayAccess:
        return -EFAULT
    return 0


@helper("strncmp")
def strncmp(machine: Machine, left: int, size: int, right: int) -> int:
    """Compare at most ``size`` bytes of two strings."""
    size &= _U32
    a = machine.memory.read_string(left, size)
    b = machine.memory.read_string(right, size)
    n_bytes = max(len(a), len(b))
    numbers = [int.from_bytes(text.ljust(n_bytes, b"\0"), "big") for text in (a, b)]
    at = n_bytes - -(-(numbers[0] ^ numbers[1]).bit_length() // 8)  # the first byte that differs
    return int.from_bytes(a[at : at + 1], "big") - int.from_bytes(b[at : at + 1], "big")


@helper("strtol")
def strtol(machine: Machine, text: int, size: int, flags: int, target: int) -> int:
    """Read a signed number; how many bytes it takes."""
    return _convert(machine, text, size, flags, target, is_signed=True)


@helper("strtoul")
def strtoul(machine: Machine, text: int, size: int, flags: int, target: int) -> int:
    """Read an unsigned number; how many bytes it takes."""
    return _convert(machine, text, size, flags, target, is_signed=False)


def _convert(
    machine: Machine, text: int, size: int, flags: int, target: int, *, is_signed: bool
) -> int:
    base = flags & 0x1F
    if base not in (0, 8, 10, 16) or flags & ~0x1F:
        return -EINVAL
    content = machine.memory.read(text, size & _U32).split(b"\0")[0]
    match = re.match(rb"[ \t-\r]*(-?)(0[xX](?=[0-9a-fA-F]))?([0-9a-fA-F]*)", content)
    assert match is not None
    minus, prefix, digits = match.groups()
    if base == 0:
        base = 16 if prefix else 8 if digits.startswith(b"0") else 10
    if prefix and base != 16:
        digits, prefix = b"0", None
    allowed = b"0123456789abcdef"[:base]
    length = len(digits) - len(digits.lower().lstrip(allowed))
    if length == 0 or (minus and not is_signed):
        return -EINVAL
    digits = digits[:length].lstrip(b"0")
    if len(digits) > _MOST_DIGITS:
        return -ERANGE
    value = int(digits or b"0", base) * (-1 if minus else 1)
    if not (-(1 << 63) <= value < 1 << 63 if is_signed else value < 1 << 64):
        return -ERANGE
    machine.memory.write_int(target, 8, value)
    return match.start(3) + length
