"""The kernel as a runner."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

from bpfpatch import kernel
from bpfpatch.bpf.errors import VerifierError
from bpfpatch.bpf.loaded import LoadedProgram
from bpfpatch.bpf.map import Map
from bpfpatch.elf import ElfObject, LinkedProgram
from bpfpatch.elf.setup import PreparedEntry
from bpfpatch.errors import BpfPatchError, OptionError, UnsupportedError
from bpfpatch.facts.kinds import MapType, ProgFlag, ProgType
from bpfpatch.interp.contexts import SKB_SIZE
from bpfpatch.program import Program, Remap

from . import netctx
from .contents import KernelMaps, data_sections
from .memory import MEMORY_TYPES, with_memory, with_result
from .model import Input, Maps, Mode, Outcome
from .netctx import SKB_TYPES, kept_fields
from .runner import Runner, no_such_map

_KEY: Final = bytes(4)
_NO_PACKET_OUT: Final = frozenset({ProgType.NETFILTER})
"""Types whose run takes a packet and gives none back. Source: linux v6.18,
net/bpf/test_run.c, bpf_prog_test_run_nf()."""
_PACKET: Final = bytes(64)
"""What a program on plain memory gets, where its kind asks for a packet."""


@dataclass(frozen=True, slots=True)
class _OnMemory:
    """A program that was loaded for memory of one size."""

    program: LoadedProgram
    memory: Map | None
    result: Map


class KernelRunner(Runner):
    """A program in the kernel: loaded at once where its kind is known, else for its first input."""

    def __init__(
        self,
        program: LinkedProgram | Program,
        obj: ElfObject | None,
        prog_type: ProgType | None,
        mode: Mode,
        *,
        whole_r0: bool = False,
        entries: Sequence[PreparedEntry] = (),
    ) -> None:
        super().__init__(mode, prog_type)
        self._whole_r0 = whole_r0
        self._program = program
        self._obj = obj
        self._cpu = min(os.sched_getaffinity(0))
        self._data = {} if obj is None else data_sections(obj, entries)
        self._entries = entries
        self._open()

    def _open(self) -> None:
        """Make the maps, and load what can be loaded before there is an input."""
        self._stack = ExitStack()
        self._by_type: dict[ProgType, LoadedProgram] = {}
        self._by_size: dict[int, _OnMemory] = {}
        self._results: dict[ProgType, Map] = {}
        self._object = None
        maps: dict[str, Map] = {}
        if self._obj is not None and isinstance(self._program, LinkedProgram):
            self._object = self._stack.enter_context(kernel.open_object(self._obj, []))
            maps = dict(self._object.maps)
        self._maps = KernelMaps(maps, self._data, self._cpu)
        try:
            self._put_entries()
            self._load_tails()
            if self.prog_type is not None:
                self._loaded(self.prog_type)
        except BaseException:
            self.close()
            raise

    def _load_tails(self) -> None:
        """Load the programs that the object's program arrays start with."""
        if self._object is None or not isinstance(self._program, LinkedProgram):
            return
        assert self._obj is not None
        assert self.mode != "interp"
        specs = [one for one in kernel.map_specs(self._obj) if one.type is MapType.PROG_ARRAY]
        names = {name for spec in specs for _, name in spec.values} - {self._program.name}
        for name in sorted(names):
            self._object.load(name, mode=self.mode)

    def run(self, one: Input, *, with_maps: bool = True) -> Outcome:
        """See `Runner.run`."""
        if one.mem is None:
            self._check(one)
        try:
            return self._run(one, with_maps=with_maps)
        except BpfPatchError as error:
            return Outcome(error=error)

    def maps(self) -> Maps:
        """See `Runner.maps`."""
        return self._maps.read()

    def put(self, name: str, key: bytes, value: bytes) -> None:
        """See `Runner.put`."""
        maps = {} if self._object is None else self._object.maps
        if name not in maps:
            raise no_such_map(name, maps)
        maps[name].update(key, value)

    def reset(self) -> None:
        """See `Runner.reset`."""
        if self._maps.can_restore:
            self._maps.restore()
            self._put_entries()
            return
        self.close()
        self._open()

    def _put_entries(self) -> None:
        """Put in what the maps start with beside what the object says."""
        for entry in self._entries:
            self.put(*entry)
        lru = (MapType.LRU_HASH, MapType.LRU_PERCPU_HASH)
        maps = {} if self._object is None else self._object.maps
        for entry in self._entries:
            # The kernel's lists are approximate: they may let go of an entry while there is room.
            if maps[entry.map].type in lru and maps[entry.map].get(entry.key) is None:
                raise UnsupportedError(
                    f"the kernel has dropped {entry.map}[{entry.key.hex()}] to make room for later "
                    "entries: give this LRU map fewer"
                )

    def close(self) -> None:
        """Unload the program and its maps."""
        self._stack.close()

    def _check(self, one: Input) -> None:
        if self.prog_type is None:
            return
        wants = kernel.run_input(self.prog_type)
        if wants == "data" and one.packet is None:
            raise OptionError(f"a {self.prog_type.text} program runs on a packet: give one")
        if wants in ("ctx", "none") and one.packet is not None:
            raise OptionError(f"a {self.prog_type.text} program takes no packet")

    def _run(self, one: Input, *, with_maps: bool) -> Outcome:
        if one.mem is not None:
            return self._run_on_memory(one.mem, with_maps=with_maps)
        kind = self.prog_type or (
            ProgType.SYSCALL if one.packet is None else ProgType.SOCKET_FILTER
        )
        loaded = self._loaded(kind)
        with self._on_cpu():
            ran = loaded.test_run(one.packet or b"", _ctx_in(kind, one))
        has_packet = one.packet is not None and kind not in _NO_PACKET_OUT
        # What comes back begins with the metadata; the context says where that ends.
        meta = netctx.field(ran.ctx, "data", "little") if kind is ProgType.XDP else 0
        stored = self._results.get(kind)
        result = None if stored is None else stored.get(_KEY)
        return Outcome(
            r0=ran.retval if result is None else int.from_bytes(result, "little"),
            r0_bits=32 if result is None else 64,
            packet=ran.data[meta:] if has_packet else None,
            meta=ran.data[:meta] if kind is ProgType.XDP else None,
            ctx=_ctx_out(kind, ran.ctx),
            maps=self.maps() if with_maps else {},
        )

    def _run_on_memory(self, mem: bytes, *, with_maps: bool) -> Outcome:
        on = self._on_memory(len(mem))
        if on.memory is not None:
            on.memory.update(_KEY, mem)
        with self._on_cpu():
            on.program.test_run(b"" if on.program.type is ProgType.SYSCALL else _PACKET)
        result = on.result.get(_KEY)
        after = b"" if on.memory is None else on.memory.get(_KEY)
        assert result is not None
        return Outcome(
            r0=int.from_bytes(result, "little"),
            mem=after,
            maps=self.maps() if with_maps else {},
        )

    def _loaded(self, kind: ProgType) -> LoadedProgram:
        found = self._by_type.get(kind)
        if found is None:
            made = self._load_storing(kind) if self._whole_r0 else self._load(self._program, kind)
            found = self._by_type[kind] = self._stack.enter_context(made)
        return found

    def _load_storing(self, kind: ProgType) -> LoadedProgram:
        """Load the program with code that stores R0 at its end."""
        result = self._stack.enter_context(Map.create(MapType.ARRAY, 4, 8, 1, name="result"))
        self._results[kind] = result
        own = self._program
        flat = own.program if isinstance(own, LinkedProgram) else own
        done = with_result(flat, result.fd)
        ready = own.with_code(done) if isinstance(own, LinkedProgram) else done.program
        try:
            return self._load(ready, kind)
        except VerifierError as error:
            raise _as_written(error, flat, done.remap) from error

    def _load(self, program: LinkedProgram | Program, kind: ProgType) -> LoadedProgram:
        assert self.mode != "interp"
        flags = ProgFlag.SLEEPABLE if kind is ProgType.SYSCALL else 0
        if isinstance(program, LinkedProgram):
            assert self._object is not None
            return self._object.load(program, prog_type=kind, flags=flags, mode=self.mode)
        return kernel.load(program, prog_type=kind, flags=flags, mode=self.mode)

    def _on_memory(self, size: int) -> _OnMemory:
        found = self._by_size.get(size)
        if found is not None:
            return found
        result = self._stack.enter_context(Map.create(MapType.ARRAY, 4, 8, 1, name="result"))
        memory = None
        if size:
            memory = self._stack.enter_context(Map.create(MapType.ARRAY, 4, size, 1, name="mem"))
        flat = self._program.program if isinstance(self._program, LinkedProgram) else self._program
        done = with_memory(flat, None if memory is None else memory.fd, size, result.fd)
        ready: LinkedProgram | Program = done.program
        if isinstance(self._program, LinkedProgram):
            ready = self._program.with_code(done)
        try:
            loaded = self._stack.enter_context(self._load_any(ready))
        except VerifierError as error:
            raise _as_written(error, flat, done.remap) from error
        made = _OnMemory(loaded, memory, result)
        self._by_size[size] = made
        return made

    def _load_any(self, program: LinkedProgram | Program) -> LoadedProgram:
        """Load as the first kind that the verifier takes it as; its first complaint counts."""
        first: VerifierError | None = None
        for kind in MEMORY_TYPES:
            try:
                return self._load(program, kind)
            except VerifierError as error:
                first = first or error
        assert first is not None
        raise first

    @contextmanager
    def _on_cpu(self) -> Iterator[None]:
        """Run on one processor, whose part of per-CPU maps is then the one to read."""
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {self._cpu})
        try:
            yield
        finally:
            os.sched_setaffinity(0, before)


def _ctx_in(kind: ProgType, one: Input) -> bytes:
    if kind is ProgType.XDP:
        return netctx.context(one.ctx, one.packet or b"")
    if kind in SKB_TYPES:
        # Given a context, if only zeros, the kernel gives back what the program left in it.
        return (one.ctx or b"").ljust(SKB_SIZE, b"\0")
    return one.ctx or b""


def _ctx_out(kind: ProgType, ctx: bytes) -> bytes | None:
    if kind in SKB_TYPES:
        return kept_fields(ctx)
    return ctx if kernel.run_input(kind) == "ctx" else None


def _as_written(error: VerifierError, program: Program, remap: Remap) -> VerifierError:
    """A verifier's complaint about a program made fit for memory, in the program's own slots."""
    if error.slot is None:
        return error
    own = remap.orig[error.slot :]
    # What was put in before an exit stands for the exit.
    known = own[own >= 0]
    where = program.where(int(known[0])) if known.size else None
    return VerifierError(error.errno, error.message, error.log, where)
