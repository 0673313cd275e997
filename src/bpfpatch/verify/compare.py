"""What two runs did differently."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from bpfpatch.errors import BpfPatchError
from bpfpatch.interp import BudgetError, HelperError, TrapError

from .calls import Call
from .side import Observation

WHAT: Final = ("r0", "packet", "ctx", "maps", "helpers", "printed", "error")
"""What is compared, and what a caller may leave out of it."""

_MOST: Final = 8
"""Differences of one kind that are listed."""

_GOES_ON: Final = 16
_ENTRY_HELPERS: Final = frozenset(
    {
        "map_lookup_elem",
        "map_lookup_percpu_elem",
        "map_update_elem",
        "map_delete_elem",
        "map_push_elem",
        "ringbuf_output",
        "perf_event_output",
    }
)
"""Helpers that do nothing but read or write a map."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that differs.

    Attributes:
        what: one of `WHAT`.
        where: which of these: a byte of the packet, an entry of a map; or "".
        before: what the original did.
        after: what the rewritten program did.
    """

    what: str
    where: str
    before: str
    after: str

    def __str__(self) -> str:
        """One line."""
        name = {"r0": "R0", "helpers": "helper", "maps": "map"}.get(self.what, self.what)
        place = f"{name} {self.where}" if self.where else name
        return f"{place}: {self.before} before, {self.after} after"

    def to_json(self) -> dict[str, str]:
        """In JSON's types."""
        return {
            "what": self.what,
            "where": self.where,
            "before": self.before,
            "after": self.after,
        }


def is_inconclusive(before: Observation) -> bool:
    """Whether the original itself took too long or too much, so that nothing can be said."""
    return isinstance(before.error, BudgetError) and before.error.unit != "frames"


def differences(
    before: Observation, after: Observation, ignore: Collection[str] = ()
) -> tuple[Difference, ...]:
    """What differs between two runs on the same input.

    Args:
        before: what the original did.
        after: what the rewritten program did.
        ignore: members of `WHAT`, or ``maps:NAME`` for one map, that do not count.
    """
    if _are_equal(before, after):
        return ()
    found: list[Difference] = []
    if "error" not in ignore:
        found += _errors(before.error, after.error)
    both_ended = before.error is None and after.error is None
    if both_ended and before.r0 != after.r0 and "r0" not in ignore:
        found.append(Difference("r0", "", f"{before.r0:#x}", f"{after.r0:#x}"))
    if both_ended:
        for what in ("packet", "ctx"):
            if what not in ignore:
                found += _bytes(what, getattr(before, what), getattr(after, what))
        if "packet" not in ignore and before.meta != after.meta:
            found.append(Difference("packet", "metadata", _hex(before.meta), _hex(after.meta)))
    if "maps" not in ignore and not (found and not both_ended):
        found += _maps(before.maps, after.maps, ignore)
    if "helpers" not in ignore and before.calls is not None and after.calls is not None:
        names = _maps_aside(before, after, ignore)
        found += _sequence("helpers", _calls(before.calls, names), _calls(after.calls, names))
    if "printed" not in ignore and both_ended:
        found += _sequence("printed", before.printed, after.printed)
    return tuple(found)


def _are_equal(before: Observation, after: Observation) -> bool:
    """Whether both ended, and nothing differs at all: so it is for nearly all inputs."""
    return (
        before.error is None
        and after.error is None
        and before.r0 == after.r0
        and before.packet == after.packet
        and before.ctx == after.ctx
        and before.meta == after.meta
        and before.maps == after.maps
        and before.calls == after.calls
        and before.printed == after.printed
    )


def _errors(before: BpfPatchError | None, after: BpfPatchError | None) -> Iterator[Difference]:
    if _key(before) != _key(after):
        yield Difference("error", "", _said(before), _said(after))


def _key(error: BpfPatchError | None) -> tuple[Any, ...] | None:
    """What two programs that go wrong in the same way have in common."""
    if error is None:
        return None
    if isinstance(error, TrapError):
        return ("trap", error.access, error.size)
    if isinstance(error, HelperError):
        return ("helper", error.helper)
    if isinstance(error, BudgetError):
        return ("budget", error.unit)
    return (type(error).__name__, str(error))


def _said(error: BpfPatchError | None) -> str:
    return "none" if error is None else f"{type(error).__name__}: {error}"


def _bytes(what: str, before: bytes | None, after: bytes | None) -> Iterator[Difference]:
    if before == after:
        return
    if before is None or after is None:
        yield Difference(what, "", _hex(before), _hex(after))
        return
    if len(before) != len(after):
        yield Difference(what, "length", f"{len(before)}", f"{len(after)}")
    for at, end in _unequal(before, after):
        yield Difference(what, f"byte {at}", before[at:end].hex(), after[at:end].hex())


def _unequal(a: bytes, b: bytes) -> Iterator[tuple[int, int]]:
    """The first runs of bytes that differ, of what both have."""
    n, at, n_found = min(len(a), len(b)), 0, 0
    while at < n and n_found < _MOST:
        if a[at] == b[at]:
            at += 1
            continue
        end = at
        while end < n and a[end] != b[end] and end - at < _GOES_ON:
            end += 1
        yield at, end
        at, n_found = end, n_found + 1


def _maps(
    before: Mapping[str, Any], after: Mapping[str, Any], ignore: Collection[str]
) -> Iterator[Difference]:
    """Only maps that both have: a rewriting may bring its own."""
    for name in before:
        if name in after and before[name] != after[name] and f"maps:{name}" not in ignore:
            yield from _map(name, before[name], after[name])


def _maps_aside(before: Observation, after: Observation, ignore: Collection[str]) -> frozenset[str]:
    """Maps whose entries do not count, as a call's argument has them."""
    new = after.maps.keys() - before.maps.keys()  # a rewriting may bring its own
    ignored = {what.removeprefix("maps:") for what in ignore if what.startswith("maps:")}
    return frozenset(f"map {name}" for name in new | ignored)


def _calls(calls: tuple[Call, ...], aside: frozenset[str]) -> tuple[Call, ...]:
    """The calls without those that do nothing but read or write these maps."""
    if not aside:
        return calls
    return tuple(
        one for one in calls if not (one.name in _ENTRY_HELPERS and aside.intersection(one.args))
    )


def _map(name: str, before: Any, after: Any) -> Iterator[Difference]:
    if not isinstance(before, dict) or not isinstance(after, dict):
        yield from _sequence("maps", tuple(before or ()), tuple(after or ()), f"{name} ")
        return
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    for key in keys[:_MOST]:
        old, new = before.get(key), after.get(key)
        if old is None or new is None or len(old) <= 2 * _GOES_ON:
            yield Difference("maps", f"{name}[{key.hex()}]", _hex(old), _hex(new))
            continue
        for at, end in _unequal(old, new):
            where = f"{name}[{key.hex()}] byte {at}"
            yield Difference("maps", where, old[at:end].hex(), new[at:end].hex())


def _sequence(
    what: str, before: tuple[Any, ...], after: tuple[Any, ...], name: str = ""
) -> Iterator[Difference]:
    """The first element that differs: what follows it tells little."""
    for at in range(max(len(before), len(after))):
        old = before[at] if at < len(before) else None
        new = after[at] if at < len(after) else None
        if old != new:
            kind = "record" if what == "maps" else "call" if what == "helpers" else "line"
            yield Difference(what, f"{name}{kind} {at}", _element(old), _element(new))
            return


def _element(value: Any) -> str:
    return _hex(value) if value is None or isinstance(value, bytes) else str(value)


def _hex(value: bytes | None) -> str:
    return "none" if value is None else value.hex() or "empty"
