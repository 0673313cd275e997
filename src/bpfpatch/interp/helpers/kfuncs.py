"""Kfuncs that need no kernel: locks that nobody else wants, and casts.

Source: linux v6.18, kernel/bpf/helpers.c, the set common_btf_ids.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..registry import kfunc

if TYPE_CHECKING:
    from ..machine import Machine


@kfunc("bpf_rcu_read_lock", "bpf_rcu_read_unlock", n_args=0)
@kfunc("bpf_preempt_disable", "bpf_preempt_enable", n_args=0)
def nothing(machine: Machine) -> int:
    """Nobody else runs."""
    return 0


@kfunc("bpf_rdonly_cast", "bpf_cast_to_kern_ctx", n_args=1)
def same(machine: Machine, pointer: int) -> int:
    """The pointer, of another type."""
    return pointer
