"""A whole object in the kernel: its maps, its types and its programs."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Final, Self

from bpfpatch.bpf.errors import KernelError
from bpfpatch.bpf.fixedmap import address_of, write_at
from bpfpatch.bpf.loaded import LoadedProgram
from bpfpatch.bpf.loadedbtf import LoadedBtf, load_btf
from bpfpatch.bpf.map import OF_MAPS, Map, possible_cpus
from bpfpatch.bpf.submit import Mode
from bpfpatch.bpf.syscall import Cmd, bpf
from bpfpatch.elf import ElfObject, LinkedProgram
from bpfpatch.errors import BpfPatchError, OptionError, UnsupportedError
from bpfpatch.facts.kinds import AttachType, MapType, ProgType
from bpfpatch.facts.maps import MapDefinition
from bpfpatch.facts.sections import section_kind
from bpfpatch.text import unknown

from .externs import Needs
from .kconfig import kconfig_layout
from .load import load
from .mapspec import WITHOUT_BTF, map_specs, weak_names
from .preparebtf import prepare_btf
from .structops import struct_ops_places

_ZERO_KEY: Final = bytes(4)
ARENA_SECTION: Final = ".addr_space.1"
"""Variables that are in an arena. Source: libbpf v1.5, src/libbpf.c, ARENA_SEC."""


class KernelObject:
    """An object whose maps and types are in the kernel, and programs as they are loaded.

    Use `open_object` to make one. Closing it closes all of its maps and programs.

    Attributes:
        obj: the object.
        maps: by name; data sections by their section's.
        programs: those that are loaded, by name.
        notices: what was left out, as sentences for the user.
    """

    def __init__(self, obj: ElfObject, name: str, kconfig: Mapping[str, str | int] | None) -> None:
        if obj.byteorder != sys.byteorder:
            raise UnsupportedError(
                f"the object is {obj.byteorder}-endian, this machine is not: it cannot be loaded"
            )
        self.obj = obj
        self.notices: tuple[str, ...] = ()
        self._maps: dict[str, Map] = {}
        self._programs: dict[str, LoadedProgram] = {}
        self._stack = ExitStack()
        self._specs = map_specs(obj, name, kconfig)
        self._struct_ops = struct_ops_places(obj)
        self._btf: LoadedBtf | None = None
        try:
            self._load_btf()
            for spec in self._specs:
                self._maps[spec.name] = self._stack.enter_context(self._make_map(spec))
            for spec in self._specs:
                self._fill_map(spec)
        except BaseException:
            self.close()
            raise

    @property
    def maps(self) -> Mapping[str, Map]:
        """The maps, by name."""
        return MappingProxyType(self._maps)

    @property
    def programs(self) -> Mapping[str, LoadedProgram]:
        """The loaded programs, by name."""
        return MappingProxyType(self._programs)

    @property
    def btf(self) -> LoadedBtf | None:
        """The object's types in the kernel."""
        return self._btf

    def autoloaded(self) -> list[str]:
        """Programs that a loader loads by itself; of struct_ops those that a table refers to."""
        out = []
        for info in self.obj.programs:
            kind = section_kind(info.section)
            is_loose = kind.type is ProgType.STRUCT_OPS and info.name not in self._struct_ops
            if kind.is_autoloaded and not is_loose:
                out.append(info.name)
        return out

    def load(
        self,
        program: str | LinkedProgram,
        *,
        prog_type: ProgType | str | None = None,
        attach_type: AttachType | str | int | None = None,
        flags: int = 0,
        log_level: int = 1,
        keep_log: bool = False,
        mode: Mode = "jit",
    ) -> LoadedProgram:
        """Load one program; another of the same name stays loaded until it is closed.

        Args:
            program: the name of one of the object's, or a linked program of this object, for
                example after a rewrite.
            prog_type: see `bpfpatch.loader.load`, here and below.
            attach_type: the same.
            flags: the same.
            log_level: the same.
            keep_log: the same.
            mode: the same.

        Raises:
            VerifierError: the verifier refused it.
            KernelError: the kernel refused it, or something that it needs is not there.
            CoreRelocationError: a CO-RE record does not fit its instruction.
            LinkError: there is no program of this name.
        """
        linked = self.obj.link(program) if isinstance(program, str) else program
        place = self._struct_ops.get(linked.name) if prog_type is None else None
        attach_btf_id = None
        if place is not None and attach_type is None:
            attach_btf_id, attach_type = place.in_kernel()
        loaded = load(
            linked,
            prog_type=prog_type,
            attach_type=attach_type,
            attach_btf_id=attach_btf_id,
            needs=self._needs(),
            btf=self._btf,
            flags=flags,
            log_level=log_level,
            keep_log=keep_log,
            mode=mode,
        )
        self._stack.enter_context(loaded)
        self._programs[linked.name] = loaded
        self._bind(loaded)
        self._fill_slots(linked.name, loaded)
        return loaded

    def close(self) -> None:
        """Close all programs and maps; a second time is fine."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<KernelObject of {len(self._maps)} maps, {len(self._programs)} programs loaded>"

    def _needs(self) -> Needs:
        btf = self.obj.btf
        layout = kconfig_layout(btf) if btf is not None else ()
        kconfig = {row.name: row.byte_off for row in layout}
        maps = dict(self._maps)
        for made in self._maps.values():
            if made.type is MapType.ARENA:
                maps[ARENA_SECTION] = made
        return Needs(maps, weak_names(self.obj), kconfig, btf)

    def _load_btf(self) -> None:
        btf = prepare_btf(self.obj)
        if btf is None:
            return
        try:
            self._btf = self._stack.enter_context(load_btf(btf))
        except KernelError as error:
            # Most programs load without; the verifier says so where one does not.
            self.notices += (f"loaded without its types: {error}",)

    def _make_map(self, spec: MapDefinition) -> Map:
        if spec.type is MapType.STRUCT_OPS:
            raise UnsupportedError(f"map {spec.name!r} is of struct_ops, which is not loaded yet")
        inner = self._make_map(spec.inner) if spec.inner is not None else None
        entries = spec.max_entries
        if spec.type is MapType.PERF_EVENT_ARRAY and not entries:
            entries = possible_cpus()
        types = (0, 0, 0)
        if self._btf is not None and spec.type not in WITHOUT_BTF:
            types = (self._btf.fd, spec.key_type_id, spec.value_type_id)
        try:
            return self._create(spec, entries, inner, types)
        except KernelError:
            if types[1:] == (0, 0):
                raise
            return self._create(spec, entries, inner, (0, 0, 0))
        finally:
            if inner is not None:
                inner.close()

    def _create(
        self, spec: MapDefinition, entries: int, inner: Map | None, types: tuple[int, int, int]
    ) -> Map:
        btf_fd, key_type_id, value_type_id = types
        made = Map.create(
            spec.type,
            spec.key_size,
            spec.value_size,
            entries,
            flags=spec.flags,
            name=spec.kernel_name or spec.name,
            inner=inner,
            extra=spec.extra,
            numa_node=spec.numa_node,
            btf_fd=btf_fd if key_type_id or value_type_id else 0,
            key_type_id=key_type_id,
            value_type_id=value_type_id,
        )
        made.name = spec.name
        if spec.type is MapType.ARENA:
            self._map_arena(made, spec)
        return made

    def _map_arena(self, made: Map, spec: MapDefinition) -> None:
        """Give an arena its addresses, and its first content.

        One of map_extra has them from the start, and its content stays when it is mapped no more;
        another has them once it is mapped.

        Source: libbpf v1.5, src/libbpf.c, bpf_object__create_maps().
        """
        section = self.obj.raw.find(ARENA_SECTION)
        content = b"" if section is None else bytes(self.obj.raw.contents[section])
        size = spec.max_entries * mmap.PAGESIZE
        if len(content) > size:
            raise UnsupportedError(
                f"section {ARENA_SECTION} has {len(content)} bytes, arena {spec.name!r} {size}"
            )
        made.user_address = spec.extra
        try:
            if spec.extra:
                if content:
                    write_at(made.fd, spec.extra, size, content)
                return
            pages = mmap.mmap(made.fd, size)
        except OSError as error:
            raise KernelError(error.errno or 0, f"mapping arena {spec.name!r}") from error
        self._stack.callback(pages.close)
        made.user_address = address_of(pages)
        if content:
            pages[: len(content)] = content

    def _fill_map(self, spec: MapDefinition) -> None:
        made = self._maps[spec.name]
        if spec.content is not None:
            if any(spec.content):
                made.update(_ZERO_KEY, spec.content.ljust(spec.value_size, b"\0"))
            if spec.is_frozen:
                made.freeze()
        if spec.type in OF_MAPS:
            for index, name in spec.values:
                if name not in self._maps:
                    raise UnsupportedError(f"map {spec.name!r} wants {name!r}, which is not a map")
                made.put(index, self._maps[name])

    def _fill_slots(self, name: str, loaded: LoadedProgram) -> None:
        """Put a program where program arrays want it."""
        for spec in self._specs:
            if spec.type is not MapType.PROG_ARRAY:
                continue
            for index, wanted in spec.values:
                if wanted == name:
                    self._maps[spec.name].put(index, loaded)

    def _bind(self, loaded: LoadedProgram) -> None:
        """Tie constants to a program, so that what reads it finds them, used or not."""
        for spec in self._specs:
            if spec.is_frozen and spec.content is not None and spec.name.startswith(".rodata"):
                bpf(Cmd.PROG_BIND_MAP, prog_fd=loaded.fd, map_fd=self._maps[spec.name].fd)


def open_object(
    obj: ElfObject | str | Path,
    programs: Collection[str] | None = None,
    *,
    name: str | None = None,
    kconfig: Mapping[str, str | int] | None = None,
    prog_type: ProgType | str | None = None,
    log_level: int = 1,
    mode: Mode = "jit",
) -> KernelObject:
    """Make an object's maps and load its programs, as libbpf would.

    ::

        with kernel.open_object("lb.o") as lb:
            lb.programs["balance"].test_run(packet)
            print(lb.maps["flows"].dump())

    Args:
        obj: the object, or its file's path.
        programs: names of those to load; by default all but those whose section starts with
            ``?``. An empty list loads none, for `KernelObject.load` to do later.
        name: of the object, for its maps' names in the kernel; the file's up to its first dot
            otherwise.
        kconfig: configuration values, see `kconfig_content`.
        prog_type: for all programs, where sections do not tell.
        log_level: see `bpfpatch.loader.load`.
        mode: the same.

    Raises:
        VerifierError: the verifier refused a program.
        KernelError: the kernel refused something, or something that is needed is not there.
        UnsupportedError: the object has what cannot be loaded.
        FormatError: the object is broken.
        OptionError: it has no program of a name.
    """
    if not isinstance(obj, ElfObject):
        name = Path(obj).name.partition(".")[0] if name is None else name
        obj = ElfObject.read(str(obj))
    known = [info.name for info in obj.programs]
    for missing in set(programs or ()) - set(known):
        raise OptionError(unknown("program", missing, known))
    opened = KernelObject(obj, name or "", kconfig)
    wanted = opened.autoloaded() if programs is None else programs
    program = ""
    try:
        for program in wanted:
            opened.load(program, prog_type=prog_type, log_level=log_level, mode=mode)
    except BpfPatchError as error:
        opened.close()
        error.add_note(f"while loading program {program!r} of section {_section(obj, program)!r}")
        raise
    except BaseException:
        opened.close()
        raise
    return opened


def _section(obj: ElfObject, program: str) -> str:
    return next(info.section for info in obj.programs if info.name == program)
