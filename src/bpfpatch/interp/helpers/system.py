"""Helpers that tell time, task, processor and chance."""

from __future__ import annotations

from errno import EFAULT, EINVAL
from typing import TYPE_CHECKING, Final

from ..registry import helper

if TYPE_CHECKING:
    from ..machine import Machine

_HZ: Final = 250
_JIFFIES_AT_BOOT: Final = (1 << 32) - 300 * _HZ


@helper("ktime_get_ns", "ktime_get_boot_ns", "ktime_get_coarse_ns", "ktime_get_tai_ns")
def ktime_get_ns(machine: Machine) -> int:
    """The time, which goes on by one tick with each look at it."""
    now = machine.now
    machine.now += machine.environment.tick_ns
    return now


@helper("jiffies64")
def jiffies64(machine: Machine) -> int:
    """The time in ticks of the simulated kernel."""
    return _JIFFIES_AT_BOOT + machine.now * _HZ // 1_000_000_000


@helper("get_prandom_u32")
def get_prandom_u32(machine: Machine) -> int:
    """A number that the seed decides."""
    return machine.random.getrandbits(32)


@helper("get_smp_processor_id")
def get_smp_processor_id(machine: Machine) -> int:
    """The machine's only processor."""
    return machine.environment.cpu


@helper("get_numa_node_id", "get_cgroup_classid", "get_route_realm")
def zero(machine: Machine, *context: int) -> int:
    """There is only one, or none."""
    return 0


@helper("get_current_pid_tgid")
def get_current_pid_tgid(machine: Machine) -> int:
    """Process id in the upper half, thread id in the lower."""
    return machine.environment.pid_tgid


@helper("get_current_uid_gid")
def get_current_uid_gid(machine: Machine) -> int:
    """Group id in the upper half, user id in the lower."""
    return machine.environment.uid_gid


@helper("get_current_task", "get_current_task_btf")
def get_current_task(machine: Machine) -> int:
    """An address at which nothing can be read."""
    return machine.environment.task


@helper("get_current_cgroup_id")
def get_current_cgroup_id(machine: Machine) -> int:
    """The task's control group."""
    return machine.environment.cgroup_id


@helper("get_netns_cookie", "get_socket_cookie")
def cookie(machine: Machine, context: int) -> int:
    """A number that stands for the network namespace, or the only socket."""
    return machine.environment.netns_cookie


@helper("get_current_comm")
def get_current_comm(machine: Machine, target: int, size: int) -> int:
    """The task's name, cut and padded with NULs."""
    size &= 0xFFFF_FFFF
    if size == 0:
        return -EINVAL
    text = machine.environment.comm[: min(size, 16) - 1]
    machine.memory.read(target, size)
    machine.memory.write(target, text.ljust(size, b"\0"))
    return 0


@helper("get_func_ip", "get_attach_cookie")
def attached(machine: Machine, context: int) -> int:
    """The program is attached to nothing."""
    return 0


@helper("get_stackid")
def get_stackid(machine: Machine, context: int, map_address: int, flags: int) -> int:
    """There is no stack of callers to look at."""
    machine.map_at(map_address)
    return -EFAULT


@helper("get_stack")
def get_stack(machine: Machine, context: int, target: int, size: int, flags: int) -> int:
    """There is no stack of callers to look at: what it would fill becomes zeros."""
    machine.memory.write(target, bytes(len(machine.memory.read(target, size & 0xFFFF_FFFF))))
    return 0
