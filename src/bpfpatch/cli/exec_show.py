"""How ``bpfpatch exec`` shows what came out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bpfpatch.asm import format_insns
from bpfpatch.elf import LinkedProgram
from bpfpatch.facts.kinds import ProgType
from bpfpatch.interp import HelperCall
from bpfpatch.interp.contexts import SKB_FIELDS, SKB_SIZE
from bpfpatch.isa import Syntax
from bpfpatch.program import Program
from bpfpatch.runs import Input, Outcome, action_name
from bpfpatch.runs.netctx import KEPT, kept_fields, n_meta

from .screen import echo, echo_lines, echo_table

_ROW: Final = 16
_MAX_ENTRIES: Final = 50
"""Entries of one map that are printed; JSON has all."""

Maps = Mapping[str, Mapping[bytes, bytes]]


@dataclass(frozen=True)
class Shown:
    """All that there is to show.

    Attributes:
        runs: inputs and what they gave.
        prog_type: the kind of program.
        mode: where it ran.
        before: the maps at first.
        after: the maps in the end.
    """

    runs: Sequence[tuple[Input, Outcome]]
    prog_type: ProgType | None
    mode: str
    before: Maps
    after: Maps


class Tracer:
    """Shows instructions as they run, each with the registers that it changed.

    Args:
        program: what runs.
        to_screen: print them; else they are kept.

    Attributes:
        steps: what was kept.
    """

    def __init__(self, program: LinkedProgram | Program, *, to_screen: bool) -> None:
        flat = program.program if isinstance(program, LinkedProgram) else program
        self._texts = format_insns(flat.insns, Syntax.ASM)
        self._to_screen = to_screen
        self._registers: tuple[int, ...] = ()
        self._slot = -1
        self._run = -1
        self.steps: list[dict[str, Any]] = []

    def start(self) -> None:
        """A run begins."""
        self._registers = ()
        self._slot = -1
        self._run += 1

    def __call__(self, slot: int, registers: tuple[int, ...]) -> None:
        """See `bpfpatch.interp.Machine`'s hook: it is called before an instruction runs."""
        before = self._registers or (0,) * len(registers)
        changes = enumerate(zip(registers, before, strict=True))
        self._tell({f"r{number}": now for number, (now, was) in changes if now != was})
        self._registers, self._slot = registers, slot

    def finish(self, r0: int | None) -> None:
        """The run is over; R0 is None where it failed."""
        if self._registers:
            self._tell({} if r0 in (None, self._registers[0]) else {"r0": r0})

    def _tell(self, changed: dict[str, Any]) -> None:
        """Show the instruction that has just run; before the first, the registers."""
        slot = self._slot
        is_known = 0 <= slot < len(self._texts)
        text = self._texts[slot] if is_known else "(start)" if slot < 0 else "(another program's)"
        if not self._to_screen:
            self.steps.append({"run": self._run, "slot": slot, "text": text, "changed": changed})
            return
        values = " ".join(f"{name}={value:#x}" for name, value in changed.items())
        echo(f"{'' if slot < 0 else slot:>6}: {text:<40}  {values}".rstrip())


def show_one(shown: Shown, *, with_maps: bool, with_helpers: bool) -> None:
    """Print one run."""
    ((one, outcome),) = shown.runs
    if outcome.error is None:
        for name, value in _facts(shown, one, outcome):
            echo(f"{name}: {value}")
        for what, old, new in _memories(one, outcome):
            echo_lines(_changes(what, old, new))
        changed = list(_field_changes(one, outcome))
        if changed:
            echo("context changes:")
            echo_lines(f"  {name}: {was:#x} -> {now:#x}" for name, was, now in changed)
        if with_helpers and outcome.helpers:
            echo("helpers:")
            echo_lines(f"  {_call(call)}" for call in outcome.helpers)
        echo_lines(f"printed: {line}" for line in outcome.printed)
    if with_maps:
        _show_maps(shown)


def show_many(shown: Shown, *, with_maps: bool) -> None:
    """Print a row for each run."""
    rows: list[tuple[object, ...]] = []
    for number, (one, outcome) in enumerate(shown.runs):
        data = next(iter(_memories(one, outcome)), ("", b"", b""))
        names = [name for name, _, _ in _field_changes(one, outcome)]
        if outcome.error is not None:
            rows.append((number, _size(one), "", f"error: {outcome.error}", "", ""))
            continue
        action = action_name(shown.prog_type, outcome.r0)
        n_insns = "" if outcome.n_insns is None else outcome.n_insns
        changed = ", ".join([_short(data[1], data[2]), *names])
        rows.append((number, _size(one), outcome.r0, action, changed, n_insns))
    echo_table("", ["#", "bytes#", "r0#", "action", "changed", "insns#"], rows)
    if with_maps:
        _show_maps(shown)


def _facts(shown: Shown, one: Input, outcome: Outcome) -> Iterator[tuple[str, str]]:
    yield "mode", shown.mode
    action = action_name(shown.prog_type, outcome.r0)
    bits = "" if outcome.r0_bits == 64 else f", low {outcome.r0_bits} bits"
    yield "r0", f"{outcome.r0} ({outcome.r0:#x}{bits}{', ' + action if action else ''})"
    for what, old, new in _memories(one, outcome):
        yield what, f"{len(new)} bytes, {_short(old, new)}"
    if outcome.n_insns is not None:
        yield "instructions", str(outcome.n_insns)
    if outcome.helpers is not None:
        yield "helper calls", str(len(outcome.helpers))


def _memories(one: Input, outcome: Outcome) -> Iterator[tuple[str, bytes, bytes]]:
    """What came in and what came out of it: packet, memory or context."""
    if one.packet is not None and outcome.packet is not None:
        size = 0 if outcome.meta is None else n_meta(one.ctx, one.packet, "little")
        yield "packet", one.packet[size:], outcome.packet
        if size or outcome.meta:
            yield "metadata", one.packet[:size], outcome.meta or b""
    elif one.mem is not None and outcome.mem is not None:
        yield "memory", one.mem, outcome.mem
    elif one.packet is None and outcome.ctx:
        yield "context", one.ctx or b"", outcome.ctx


def _field_changes(one: Input, outcome: Outcome) -> Iterator[tuple[str, int, int]]:
    """(name, before, after) of fields of a socket buffer's context that the program changed."""
    if one.packet is None or outcome.ctx is None:
        return
    before = kept_fields((one.ctx or b"").ljust(SKB_SIZE, b"\0"))
    for name in KEPT:
        at, size = SKB_FIELDS[name]
        was, now = (int.from_bytes(ctx[at : at + size], "little") for ctx in (before, outcome.ctx))
        if was != now:
            yield f"cb[{name[2:]}]" if name.startswith("cb") else name, was, now


def _size(one: Input) -> int:
    return len(one.packet or one.mem or one.ctx or b"")


def _short(old: bytes, new: bytes) -> str:
    n_changed = sum(a != b for a, b in zip(old, new, strict=False))
    grown = len(new) - len(old)
    words = [f"{n_changed} changed"] if n_changed else []
    if grown:
        words.append(f"{abs(grown)} {'more' if grown > 0 else 'less'}")
    return ", ".join(words) or "as it was"


def _changes(what: str, old: bytes, new: bytes) -> Iterator[str]:
    """Rows of 16 bytes that are not the same, as in a diff."""
    if old == new:
        return
    yield f"{what} changes:"
    for at in range(0, max(len(old), len(new)), _ROW):
        was, now = old[at : at + _ROW], new[at : at + _ROW]
        if was == now:
            continue
        if was:
            yield f"  - {at:04x}  {was.hex(' ')}"
        if now:
            yield f"  + {at:04x}  {now.hex(' ')}"


def _call(call: HelperCall) -> str:
    args = ", ".join(f"{arg:#x}" for arg in call.args)
    return f"{call.name}({args}) = {call.result:#x}"


def _map_changes(before: Maps, after: Maps) -> Iterator[tuple[str, str, bytes, bytes | None]]:
    """(map, sign, key, value) of entries that are gone or new; a change is both."""
    for name in sorted(set(before) | set(after)):
        old, new = before.get(name, {}), after.get(name, {})
        for key in sorted(set(old) | set(new)):
            if old.get(key) == new.get(key):
                continue
            if key in old:
                yield name, "-", key, old[key]
            if key in new:
                yield name, "+", key, new[key]


def _show_maps(shown: Shown) -> None:
    n_of: dict[str, int] = {}
    for name, sign, key, value in _map_changes(shown.before, shown.after):
        n_of[name] = n_of.get(name, 0) + 1
        if n_of[name] == 1:
            echo(f"map {name}:")
        if n_of[name] <= _MAX_ENTRIES:
            assert value is not None
            echo(f"  {sign} {key.hex(' ')}: {value.hex(' ')}")
    for name, count in n_of.items():
        if count > _MAX_ENTRIES:
            echo(f"map {name}: {count - _MAX_ENTRIES} more lines; --json has all")
    if not n_of:
        echo("maps: nothing changed")


def to_json(file: str, mode: str, shown: Shown, tracer: Tracer | None) -> dict[str, Any]:
    """Everything, with the keys that docs/cli.md promises."""
    out: dict[str, Any] = {
        "file": file,
        "mode": mode,
        "type": None if shown.prog_type is None else shown.prog_type.text,
        "runs": [_run_json(shown.prog_type, outcome) for _, outcome in shown.runs],
        "maps": {name: _hex_map(entries) for name, entries in shown.after.items()},
        "map_changes": [
            {"map": name, "sign": sign, "key": key.hex(), "value": (value or b"").hex()}
            for name, sign, key, value in _map_changes(shown.before, shown.after)
        ],
    }
    if tracer is not None:
        out["trace"] = tracer.steps
    return out


def _hex_map(entries: Mapping[bytes, bytes]) -> list[dict[str, str]]:
    return [{"key": key.hex(), "value": value.hex()} for key, value in entries.items()]


def _run_json(prog_type: ProgType | None, outcome: Outcome) -> dict[str, Any]:
    if outcome.error is not None:
        return {"error": str(outcome.error)}
    return {
        "r0": outcome.r0,
        "r0_bits": outcome.r0_bits,
        "action": action_name(prog_type, outcome.r0) or None,
        "packet": None if outcome.packet is None else outcome.packet.hex(),
        "metadata": None if outcome.meta is None else outcome.meta.hex(),
        "memory": None if outcome.mem is None else outcome.mem.hex(),
        "context": None if outcome.ctx is None else outcome.ctx.hex(),
        "insns": outcome.n_insns,
        "helpers": None
        if outcome.helpers is None
        else [
            {"name": call.name, "args": list(call.args), "result": call.result}
            for call in outcome.helpers
        ],
        "printed": list(outcome.printed),
        "error": None,
    }
