"""Kfuncs that need no kernel: locks that are always free, and casts.

Source: linux v6.18, kernel/bpf/helpers.c, the set common_btf_ids.
"""

from __future__ import annotations

from errno import E2BIG, EINVAL
from typing import TYPE_CHECKING

from ..registry import kfunc

if TYPE_CHECKING:
    from ..machine import Machine


@kfunc("bpf_rcu_read_lock", "bpf_rcu_read_unlock", n_args=0)
@kfunc("bpf_preempt_disable", "bpf_preempt_enable", n_args=0)
def nothing(machine: Machine) -> int:
    """Nothing else runs."""
    return 0


@kfunc("bpf_rdonly_cast", "bpf_cast_to_kern_ctx", n_args=1)
def same(machine: Machine, pointer: int) -> int:
    """The pointer, of another type."""
    return pointer


_MAX_LOOPS = 8 << 20
"""Rounds that an iterator over numbers may make. Source: linux v6.18, BPF_MAX_LOOPS."""


def _signed(number: int) -> int:
    return ((number & 0xFFFF_FFFF) ^ 0x8000_0000) - 0x8000_0000


@kfunc("bpf_iter_num_new", n_args=3)
def iter_num_new(machine: Machine, iterator: int, start: int, end: int) -> int:
    """Start a loop over the numbers from start to end, the latter left out.

    Source: linux v6.18, kernel/bpf/bpf_iter.c, bpf_iter_num_new(), and so for the next two.
    """
    first, after = _signed(start), _signed(end)
    machine.memory.write(iterator, bytes(8))
    if first > after:
        return -EINVAL
    if after - first > _MAX_LOOPS:
        return -E2BIG
    machine.memory.write_int(iterator, 4, first - 1)
    machine.memory.write_int(iterator + 4, 4, after)
    return 0


@kfunc("bpf_iter_num_next", n_args=1)
def iter_num_next(machine: Machine, iterator: int) -> int:
    """Where the next number is, or 0 at the end."""
    current = _signed(machine.memory.read_int(iterator, 4)) + 1
    if current >= _signed(machine.memory.read_int(iterator + 4, 4)):
        machine.memory.write(iterator, bytes(8))
        return 0
    machine.memory.write_int(iterator, 4, current)
    return iterator


@kfunc("bpf_iter_num_destroy", n_args=1)
def iter_num_destroy(machine: Machine, iterator: int) -> int:
    """Leave nothing behind."""
    machine.memory.write(iterator, bytes(8))
    return 0
