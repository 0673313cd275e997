"""Helpers of maps.

Source: linux v6.18, kernel/bpf/helpers.c; redirect_map: include/linux/filter.h,
__bpf_xdp_redirect_map().
"""

from __future__ import annotations

from errno import EINVAL, ENOENT
from typing import TYPE_CHECKING, Final

from ..errors import BadHelperUse
from ..maps import DeviceMap, QueueMap, SimulatedMap
from ..registry import helper

if TYPE_CHECKING:
    from ..machine import Machine

XDP_REDIRECT: Final = 4
_REDIRECT_ACTION: Final = 3
_REDIRECT_BROADCAST: Final = 8


def _key(machine: Machine, found: SimulatedMap, address: int) -> bytes:
    return machine.memory.read(address, found.key_size)


@helper("map_lookup_elem")
def map_lookup_elem(machine: Machine, map_address: int, key: int) -> int:
    """The address of a value, or 0."""
    found = machine.map_at(map_address)
    return found.lookup(_key(machine, found, key))


@helper("map_lookup_percpu_elem")
def map_lookup_percpu_elem(machine: Machine, map_address: int, key: int, cpu: int) -> int:
    """The same of one cpu; there is only the machine's own."""
    if cpu & 0xFFFF_FFFF != machine.environment.cpu:
        return 0
    return map_lookup_elem(machine, map_address, key)


@helper("map_update_elem")
def map_update_elem(machine: Machine, map_address: int, key: int, value: int, flags: int) -> int:
    """Store a value."""
    found = machine.map_at(map_address)
    content = machine.memory.read(value, found.value_size)
    return found.update(_key(machine, found, key), content, flags)


@helper("map_delete_elem")
def map_delete_elem(machine: Machine, map_address: int, key: int) -> int:
    """Forget a key."""
    found = machine.map_at(map_address)
    return found.delete(_key(machine, found, key))


def _queue(machine: Machine, map_address: int) -> QueueMap:
    found = machine.map_at(map_address)
    if not isinstance(found, QueueMap):
        raise BadHelperUse(f"{found!r} is not a queue or stack")
    return found


@helper("map_push_elem")
def map_push_elem(machine: Machine, map_address: int, value: int, flags: int) -> int:
    """Put a value into a queue or stack."""
    found = _queue(machine, map_address)
    return found.push(machine.memory.read(value, found.value_size), flags)


@helper("map_pop_elem")
def map_pop_elem(machine: Machine, map_address: int, value: int) -> int:
    """Take the next value."""
    return _take(machine, map_address, value, remove=True)


@helper("map_peek_elem")
def map_peek_elem(machine: Machine, map_address: int, value: int) -> int:
    """Look at the next value."""
    return _take(machine, map_address, value, remove=False)


def _take(machine: Machine, map_address: int, value: int, *, remove: bool) -> int:
    found = _queue(machine, map_address)
    content = found.take(remove=remove)
    machine.memory.write(value, bytes(found.value_size) if content is None else content)
    return -ENOENT if content is None else 0


@helper("redirect_map")
def redirect_map(machine: Machine, map_address: int, key: int, flags: int) -> int:
    """XDP_REDIRECT where the entry is there, else what the flags' low bits say."""
    found = machine.map_at(map_address)
    if not isinstance(found, DeviceMap):
        raise BadHelperUse(f"{found!r} is not a map of redirect targets")
    if flags & ~(_REDIRECT_ACTION | _REDIRECT_BROADCAST | 16):
        return 0
    is_there = found.has(key & 0xFFFF_FFFF) or bool(flags & _REDIRECT_BROADCAST)
    return XDP_REDIRECT if is_there else flags & _REDIRECT_ACTION


@helper("get_local_storage")
def get_local_storage(machine: Machine, map_address: int, flags: int) -> int:
    """The address of a cgroup's storage, of which there is one."""
    found = machine.map_at(map_address)
    if flags:
        raise BadHelperUse(f"flags are {flags:#x}, but this helper has none")
    return found.lookup(bytes(4)) if "cgroup_storage" in found.kind else _unlike(found)


def _unlike(found: SimulatedMap) -> int:
    raise BadHelperUse(f"{found!r} is not a cgroup storage")


@helper("sk_storage_get", "task_storage_get", "inode_storage_get", "cgrp_storage_get")
def storage_get(machine: Machine, map_address: int, owner: int, value: int, flags: int) -> int:
    """Local storage is not simulated: there is none."""
    return 0


@helper("sk_storage_delete", "task_storage_delete", "inode_storage_delete")
@helper("cgrp_storage_delete")
def storage_delete(machine: Machine, map_address: int, owner: int) -> int:
    """Local storage is not simulated: there is none."""
    return -ENOENT


@helper("spin_lock", "spin_unlock")
def spin_lock(machine: Machine, lock: int) -> int:
    """Nothing else runs."""
    machine.memory.read(lock, 4)
    return 0


@helper("kptr_xchg")
def kptr_xchg(machine: Machine, place: int, pointer: int) -> int:
    """Exchange a pointer in a map's value."""
    old = machine.memory.read_int(place, 8)
    machine.memory.write_int(place, 8, pointer)
    return old


@helper("per_cpu_ptr")
def per_cpu_ptr(machine: Machine, pointer: int, cpu: int) -> int:
    """A variable of one cpu; there is only the machine's own."""
    return pointer if cpu & 0xFFFF_FFFF == machine.environment.cpu else 0


@helper("this_cpu_ptr")
def this_cpu_ptr(machine: Machine, pointer: int) -> int:
    """A variable of this cpu."""
    return pointer


@helper("timer_init")
def timer_init(machine: Machine, timer: int, map_address: int, flags: int) -> int:
    """Timers can be set; they never fire."""
    machine.memory.read(timer, 16)
    return 0


@helper("timer_set_callback")
def timer_set_callback(machine: Machine, timer: int, callback: int) -> int:
    """Timers can be set; they never fire."""
    machine.memory.read(timer, 16)
    return 0


@helper("timer_start")
def timer_start(machine: Machine, timer: int, delay: int, flags: int) -> int:
    """Timers can be set; they never fire."""
    machine.memory.read(timer, 16)
    return 0 if flags <= 3 else -EINVAL


@helper("timer_cancel")
def timer_cancel(machine: Machine, timer: int) -> int:
    """Timers never run, so that none was stopped."""
    machine.memory.read(timer, 16)
    return 0
