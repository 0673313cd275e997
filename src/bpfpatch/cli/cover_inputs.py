"""What ``bpfpatch cover report`` is given: objects that count, counters, folders of both."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import click

from bpfpatch.coverage import Coverage, cover_map
from bpfpatch.coverage.collect import FORMAT, from_map_id, from_pin, from_program_id, load
from bpfpatch.coverage.united import united
from bpfpatch.elf import ElfObject
from bpfpatch.elf.files import read_all
from bpfpatch.errors import FormatError, OptionError
from bpfpatch.passes.cover import SECTION, CoverMap

from .failure import Failure, blame
from .screen import echo

_ELF: Final = b"\x7fELF"
_MOST_NAMED: Final = 3


@dataclass(frozen=True, slots=True)
class Live:
    """Counters in the kernel, as options name them."""

    pins: tuple[str, ...] = ()
    map_ids: tuple[int, ...] = ()
    prog_ids: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self.pins or self.map_ids or self.prog_ids)


@dataclass(slots=True)
class Subject:
    """Objects and counters that a report is about.

    Attributes:
        objects: (name, what its counters mean) of each.
        files: (name, content) of each file of counters.
        notices: files in folders that are neither.
    """

    objects: list[tuple[str, CoverMap]] = field(default_factory=list)
    files: list[tuple[str, bytes]] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, paths: tuple[str, ...]) -> Subject:
        """Read files and folders.

        Raises:
            UsageError: the standard input is named twice.
            Failure: a file cannot be read, or is an object that does not count.
        """
        if paths.count("-") > 1:
            raise click.UsageError("only one of OBJ and COUNTERS can come from stdin")
        out = cls()
        for path in paths:
            if path != "-" and Path(path).is_dir():
                out._folder(Path(path))
            else:
                out._file(path)
        return out

    @property
    def where(self) -> str:
        """How messages call it."""
        names = [name for name, _ in self.objects] or [name for name, _ in self.files]
        more = len(names) - _MOST_NAMED
        return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")

    @property
    def title(self) -> str:
        """What a report calls it."""
        names = [Path(name).name for name, _ in self.objects or self.files]
        if len(names) <= _MOST_NAMED:
            return ", ".join(names)
        return f"{len(names)} {'objects' if self.objects else 'runs'}"

    def _file(self, path: str) -> None:
        where = "<stdin>" if path == "-" else path
        with blame(where):
            data = read_all(path)
            if not data:
                raise FormatError("it is empty", 0)
            if data.startswith(_ELF):
                self.objects.append((where, cover_map(ElfObject.parse(data))))
            else:
                self.files.append((where, data))

    def _folder(self, folder: Path) -> None:
        """Take the objects that count and the saved counters in a folder, and none of its own."""
        n_before = len(self.objects) + len(self.files)
        with blame(str(folder)):
            places = sorted(place for place in folder.iterdir() if place.is_file())
        for place in places:
            if place.suffix == ".o":
                self._object_in_folder(place)
            elif place.suffix == ".json":
                with blame(str(place)):
                    data = read_all(place)
                if _are_counters(data):
                    self.files.append((str(place), data))
                else:
                    self.notices.append(f"{place} has no counters, and is left out")
        if len(self.objects) + len(self.files) == n_before:
            raise Failure(str(folder), "has neither an object that counts nor saved counters in it")

    def _object_in_folder(self, place: Path) -> None:
        with blame(str(place)):
            obj = ElfObject.read(place)
            if any(section.name == SECTION for section in obj.sections):
                self.objects.append((str(place), cover_map(obj)))
                return
        self.notices.append(f"{place} is not instrumented, and is left out")

    def coverage(self, live: Live) -> Coverage:
        """What ran of all objects together.

        An object that no counters are of has not run. Saved counters need no object.

        Raises:
            UsageError: there are no counters, or nothing to tell what they mean.
            Failure: some cannot be read, or are of no object that is given.
        """
        if not (self.files or live):
            raise click.UsageError("which counters? Give files, --pin, --id or --prog-id")
        found = list(self._each(live))
        counted = {one.cover.identity for one in found}
        for name, cover in self.objects:
            if cover.identity not in counted:
                counted.add(cover.identity)
                found.append(Coverage.of(cover, [0] * cover.n_counters))
                self.notices.append(f"no counters are of {name}, so nothing of it has run")
        with blame(self.where):
            return united(found)

    def tell(self) -> None:
        """Print the notices."""
        for notice in self.notices:
            echo(f"note: {notice}", err=True)

    def _each(self, live: Live) -> Iterator[Coverage]:
        for name, data in self.files:
            with blame(name):
                yield self._loaded(data)
        for pin in live.pins:
            with blame(pin):
                yield self._of_one(partial(_from_pin, pin))
        for map_id in live.map_ids:
            with blame(f"map {map_id}"):
                yield self._of_one(partial(_from_map, map_id))
        for prog_id in live.prog_ids:
            with blame(f"program {prog_id}"):
                yield self._of_one(partial(_from_program, prog_id))

    def _loaded(self, data: bytes) -> Coverage:
        if not self.objects:
            return load(data)
        if _are_counters(data) and len(self.objects) > 1:
            found = load(data)
            if all(cover.identity != found.cover.identity for _, cover in self.objects):
                raise OptionError(
                    f"the file has counters of object {found.cover.identity:016x}, which is none "
                    f"of the {len(self.objects)} that are given"
                )
            return found
        return self._of_one(lambda cover: load(data, cover))

    def _of_one(self, read: Callable[[CoverMap], Coverage]) -> Coverage:
        """Counters that do not say what they are of, by the one object that they fit.

        Raises:
            OptionError: they fit none, or several.
        """
        if not self.objects:
            raise OptionError("give the object whose counters these are")
        if len(self.objects) == 1:
            return read(self.objects[0][1])
        found, why = {}, []
        for name, cover in self.objects:
            try:
                found[cover.identity] = read(cover)
            except OptionError as error:
                why.append(f"{name}: {error}")
        if len(found) == 1:
            return next(iter(found.values()))
        if found:
            raise OptionError(
                f"these counters fit {len(found)} of the objects, and say not of which they are; "
                "give that one alone"
            )
        raise OptionError(f"these are counters of none of the objects: {'; '.join(why)}")


def _from_pin(pin: str, cover: CoverMap) -> Coverage:
    return from_pin(cover, pin)


def _from_map(map_id: int, cover: CoverMap) -> Coverage:
    return from_map_id(cover, map_id)


def _from_program(prog_id: int, cover: CoverMap) -> Coverage:
    return from_program_id(cover, prog_id)


def _are_counters(data: bytes) -> bool:
    """Whether a file is one that ``bpfpatch cover run`` saved."""
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return isinstance(body, dict) and body.get("format") == FORMAT
