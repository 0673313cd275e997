"""Helpers that call back.

Source: linux v6.18, kernel/bpf/bpf_iter.c, bpf_loop(), bpf_for_each_map_elem();
kernel/bpf/arraymap.c, bpf_for_each_array_elem().
"""

from __future__ import annotations

from errno import E2BIG, EINVAL
from typing import TYPE_CHECKING, Final

from ..registry import helper

if TYPE_CHECKING:
    from ..machine import Machine

_MAX_LOOPS: Final = 8 * 1024 * 1024
_FRAME_OF_CALLBACKS: Final = "key of for_each_map_elem"


@helper("loop")
def loop(machine: Machine, count: int, callback: int, context: int, flags: int) -> int:
    """Call until a callback returns something; how often that was."""
    count &= 0xFFFF_FFFF
    if flags:
        return -EINVAL
    if count > _MAX_LOOPS:
        return -E2BIG
    for index in range(count):
        if machine.call_back(callback, index, context):
            return index + 1
    return count


@helper("for_each_map_elem")
def for_each_map_elem(
    machine: Machine, map_address: int, callback: int, context: int, flags: int
) -> int:
    """Call with each key and value until a callback returns something; how often that was."""
    if flags:
        return -EINVAL
    found = machine.map_at(map_address)
    key_region = machine.memory.add(_FRAME_OF_CALLBACKS, found.key_size)
    n_calls = 0
    try:
        for key in found.visit():
            value = found.lookup(key)
            if not value:
                continue
            key_region.data[:] = key
            n_calls += 1
            if machine.call_back(callback, map_address, key_region.address, value, context):
                break
    finally:
        machine.memory.remove(key_region)
    return n_calls
