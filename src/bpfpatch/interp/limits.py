"""What cannot happen on the simulated machine, by the helpers that would tell of it.

docs/interp.md has the whole list.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

_LIMITS: Final[dict[str, str]] = {
    **dict.fromkeys(("timer_start", "timer_set_callback"), "timers never fire"),
    **dict.fromkeys(
        ("perf_event_output", "skb_output", "xdp_output"),
        "no perf event has a reader, as in a test run",
    ),
    **dict.fromkeys(
        ("sk_lookup_tcp", "sk_lookup_udp", "skc_lookup_tcp", "sk_fullsock", "tcp_sock"),
        "there are no sockets",
    ),
    "fib_lookup": "there are no routes, and no device but the loopback",
    **dict.fromkeys(
        ("sk_storage_get", "task_storage_get", "inode_storage_get", "cgrp_storage_get"),
        "no task, socket, inode or cgroup has local storage",
    ),
    **dict.fromkeys(
        ("current_task_under_cgroup", "skb_under_cgroup"), "arrays of cgroups are empty"
    ),
    **dict.fromkeys(("get_stack", "get_stackid"), "there is no stack of callers"),
}


def limits_met(helpers: Iterable[str]) -> list[str]:
    """What the helpers that were called cannot have found, a phrase each, with those helpers.

    Args:
        helpers: names, without ``bpf_``.
    """
    found: dict[str, dict[str, None]] = {}
    for name in helpers:
        if name in _LIMITS:
            found.setdefault(_LIMITS[name], {})[f"bpf_{name}()"] = None
    return [f"in the interpreter {what} ({', '.join(names)})" for what, names in found.items()]
