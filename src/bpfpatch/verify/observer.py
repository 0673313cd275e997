"""The machine that programs are compared on: it notes calls, and gives results as it is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from bpfpatch.interp import Machine, MachineOptions
from bpfpatch.interp.image import CompiledFunction
from bpfpatch.interp.maps import SimulatedMap
from bpfpatch.interp.memory import U64
from bpfpatch.interp.registry import Helper
from bpfpatch.isa import HELPERS
from bpfpatch.program import Program

from .calls import Call, describe, describe_pointer

PERTURBED: Final = frozenset(
    {
        "get_prandom_u32",
        "ktime_get_ns",
        "ktime_get_boot_ns",
        "ktime_get_coarse_ns",
        "ktime_get_tai_ns",
        "jiffies64",
        "get_smp_processor_id",
        "get_numa_node_id",
        "get_current_pid_tgid",
        "get_current_uid_gid",
        "get_current_cgroup_id",
        "get_cgroup_classid",
        "get_route_realm",
        "get_socket_cookie",
        "get_netns_cookie",
        "get_socket_uid",
        "get_hash_recalc",
        "get_attach_cookie",
        "skb_cgroup_id",
        "get_retval",
        "get_func_arg_cnt",
        "fib_lookup",
    }
)
"""Helpers whose results are numbers that the program knows nothing about."""

OTHERWISE: Final = {
    "ringbuf_reserve": 0,
    "ringbuf_output": -11 & U64,
    "perf_event_output": 0,
    "skb_output": 0,
    "xdp_output": 0,
    "map_update_elem": -7 & U64,
    "map_push_elem": -7 & U64,
}
"""Helpers that depend on what is not there in a single run, and what they give then: a buffer or
map that is full, a reader of events. A case that says so has this result, and no effect."""

_MOST_CALLS: Final = 20_000
"""Calls that are noted in a run; a program that makes more is compared in what it leaves."""

_LOOKUPS: Final = frozenset({"map_lookup_elem", "map_lookup_percpu_elem"})
_LOADS: Final = frozenset(
    {"skb_load_bytes", "skb_store_bytes", "xdp_load_bytes", "xdp_store_bytes"}
)
"""Helpers whose second argument is a place in the packet, and whose fourth a size."""

_FARTHEST: Final = 1 << 16


class Observer(Machine):
    """A machine that notes what a program does to the world.

    Attributes:
        calls: helper calls of the run, in order.
        lookups: (map, key, whether it was there) of the run's map look-ups.
        perturbed: (name, which call of it, result) of calls that `PERTURBED` names.
        reaches: bytes of the packet that calls and loads in vain asked for: how many from its
            start.
        called: names of all helpers and kfuncs that any run called.
        stand_ins: helpers and kfuncs that the interpreter lacks, and that gave 0 instead.
        own_maps: maps whose helper calls get no results of a case: those that the original has
            not, which is what a case numbers calls by.
    """

    def __init__(self, program: Program, options: MachineOptions, **given: Any) -> None:
        self.calls: list[Call] = []
        self.lookups: list[tuple[str, bytes, bool]] = []
        self.perturbed: list[tuple[str, int, int]] = []
        self.reaches: list[int] = []
        self.stand_ins: set[str] = set()
        self.own_maps: frozenset[str] = frozenset()
        self._given: dict[tuple[str, int], int] = {}
        self._n_calls: dict[str, int] = {}
        self.called: set[str] = set()
        self._recorders: dict[str, Callable[..., int]] = {}
        super().__init__(program, options, **given)

    def begin(self, results: tuple[tuple[str, int, int], ...], seed: int) -> None:
        """Forget the last run."""
        self.calls = []
        self.lookups = []
        self.perturbed = []
        self.reaches = []
        self.seed = seed
        self._n_calls = {}
        self._given = {(name, number): value for name, number, value in results}

    def helper(self, number: int) -> Helper | None:
        """A helper, or something in its place that gives 0."""
        return super().helper(number) or self._stand_in(f"helper {HELPERS.get(number, number)}")

    def kfunc(self, key: int | str) -> Helper | None:
        """A kfunc, or something in its place that gives 0."""
        return super().kfunc(key) or self._stand_in(f"kfunc {key}")

    def _stand_in(self, name: str) -> Helper:
        def nothing(machine: Machine) -> int:
            self.stand_ins.add(name)
            return 0

        return Helper("".join(c if c.isalnum() else "_" for c in name), nothing, 0)

    def traced(self, found: Helper) -> Callable[..., int]:
        """What runs a helper and notes the call."""
        if found.name not in self._recorders:
            self._recorders[found.name] = self._noting(found)
        return self._recorders[found.name]

    def _noting(self, found: Helper) -> Callable[..., int]:
        name, run = found.name, found.run
        other = OTHERWISE.get(name)
        is_lookup, is_perturbed = name in _LOOKUPS, name in PERTURBED or other is not None
        is_load = name in _LOADS

        def noted(machine: Machine, *args: int) -> int:
            self.called.add(name)
            if len(self.calls) < _MOST_CALLS:
                self.calls.append(describe(machine, name, args))
            is_told = is_perturbed and not (other is not None and self._is_own(args))
            given = self._next(name) if is_told else None
            if other is not None and given != other:
                given = None
            result = (run(machine, *args) if given is None else given) & U64
            if is_told:
                self.perturbed.append((name, self._n_calls[name] - 1, result))
            elif is_lookup:
                self._note_lookup(args, bool(result))
            elif is_load and result:
                self._note_reach(args[1], args[3])
            return result

        return noted

    def _is_own(self, args: tuple[int, ...]) -> bool:
        """Whether some argument is a map that the original has not."""
        if not self.own_maps:
            return False
        names = {describe_pointer(self, arg) for arg in args}
        return any(f"map {name}" in names for name in self.own_maps)

    def _next(self, name: str) -> int | None:
        number = self._n_calls.get(name, 0)
        self._n_calls[name] = number + 1
        return self._given.get((name, number))

    def _note_lookup(self, args: tuple[int, ...], is_there: bool) -> None:
        found: SimulatedMap = self.map_at(args[0])
        self.lookups.append((found.name, self.memory.read(args[1], found.key_size), is_there))

    def _note_reach(self, byte_off: int, size: int) -> None:
        end = (byte_off & 0xFFFF_FFFF) + (size & 0xFFFF_FFFF)
        if end < _FARTHEST:
            self.reaches.append(end)

    def packet_load(self, context: int, byte_off: int, size: int) -> int | None:
        """Note what ld_abs and ld_ind look for beyond the packet's end."""
        loaded = super().packet_load(context, byte_off, size)
        if loaded is None:
            self._note_reach(byte_off, size)
        return loaded

    def tail_call(self, context: int, map_address: int, index: int) -> CompiledFunction | None:
        """Note a tail call, too: it is what a program hands on to."""
        if len(self.calls) < _MOST_CALLS:
            given = describe_pointer(self, context)
            name = self.map_at(map_address).name
            self.calls.append(Call("tail_call", (given, name, index & 0xFFFF_FFFF)))
        return super().tail_call(context, map_address, index)
