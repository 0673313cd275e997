"""Run a pipeline on what a command loads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from bpfpatch.bpf.loadrequest import LoadRequest
from bpfpatch.bpf.map import Map
from bpfpatch.bpf.records import func_info, line_info
from bpfpatch.elf import ElfObject
from bpfpatch.errors import OptionError, UnsupportedError
from bpfpatch.facts.maps import MapDefinition
from bpfpatch.loader.externs import Needs
from bpfpatch.loader.mapspec import map_specs
from bpfpatch.loader.relocate import resolve
from bpfpatch.passes import Pipeline, Target
from bpfpatch.program import Program

from .captured import Captured, captured

_ZERO_KEY: Final = bytes(4)


@dataclass(frozen=True, slots=True, eq=False)
class RewrittenLoad:
    """What a pipeline made of a load.

    Attributes:
        program: to load instead, with descriptors of ours.
        obj: the load as an object, rewritten; None where the passes needed none.
        made: maps that the passes have added, by name; open until `close`.
    """

    program: Program
    obj: ElfObject | None
    made: dict[str, Map]

    def close(self) -> None:
        """Close our descriptors of the maps; the loaded program keeps these."""
        for one in self.made.values():
            one.close()


class Rewriter:
    """Runs pipelines on loads.

    A pipeline runs on the flat program. Passes that add maps or variables need an object to add
    them to: where one refuses to run without, the load is made into an object, and the passes'
    maps are made here.

    Args:
        target: for whom.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._need_objects: set[str] = set()

    def rewrite(self, request: LoadRequest, pipeline: Pipeline) -> RewrittenLoad:
        """Run a pipeline on one load.

        Raises:
            BpfPatchError: a pass cannot be run on it, or what it adds cannot be made.
        """
        text = str(pipeline)
        if text in self._need_objects:
            return self._as_object(request, pipeline)
        try:
            result = pipeline.run(request.program, self._target, request.subject)
            return RewrittenLoad(result.program, None, {})
        except OptionError as error:
            refused = error
        try:
            out = self._as_object(request, pipeline)
        except OptionError:
            raise refused from None
        self._need_objects.add(text)
        return out

    def _as_object(self, request: LoadRequest, pipeline: Pipeline) -> RewrittenLoad:
        if request.call.code.core_relo.size:
            raise UnsupportedError("it has CO-RE records for the kernel, which passes would move")
        before = captured(request, is_portable=False)
        after, _ = pipeline.run_object(before.obj, self._target)
        with _made(before, after) as made:
            linked = after.link(before.program)
            program = resolve(linked, Needs({**before.maps, **made}, btf=after.btf))
            _check_records(request, program)
            return RewrittenLoad(program, after, made)


@contextmanager
def _made(before: Captured, after: ElfObject) -> Iterator[dict[str, Map]]:
    """The maps that passes have added; closed after an error."""
    made: dict[str, Map] = {}
    try:
        for spec in map_specs(after):
            theirs = before.maps.get(spec.name)
            if theirs is None:
                made[spec.name] = _create(spec)
            elif spec.content is not None and spec.value_size > theirs.value_size:
                raise UnsupportedError(
                    f"a pass adds a variable to {spec.name}, which is the command's map of "
                    f"{theirs.value_size} bytes; let it take a section of its own"
                )
        yield made
    except BaseException:
        for one in made.values():
            one.close()
        raise


def _create(spec: MapDefinition) -> Map:
    made = Map.create(
        spec.type,
        spec.key_size,
        spec.value_size,
        spec.max_entries,
        flags=spec.flags,
        name=spec.kernel_name or spec.name,
        extra=spec.extra,
    )
    made.name = spec.name
    if spec.content is not None:
        if any(spec.content):
            made.update(_ZERO_KEY, spec.content.ljust(spec.value_size, b"\0"))
        if spec.is_frozen:
            made.freeze()
    return made


def _check_records(request: LoadRequest, program: Program) -> None:
    """Refuse records whose strings and types are not those that the command has loaded."""
    btf, functions, lines = request.btf, func_info(program), line_info(program)
    if btf is None:
        return
    strings = [int(lines[field].max()) for field in ("file_name_off", "line_off") if lines.size]
    most = int(functions["type_id"].max()) if functions.size else 0
    if max(strings, default=0) >= btf.str_end or most >= len(btf.kinds):
        raise UnsupportedError("a pass adds records whose types the command has not loaded")
