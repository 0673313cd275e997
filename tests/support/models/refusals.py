"""What becomes of objects in passes that need places: what is refused, left out, and loads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from bpfpatch import kernel
from bpfpatch.coverage import cover_map
from bpfpatch.elf import ElfObject
from bpfpatch.errors import BpfPatchError
from bpfpatch.facts.kinds import ProgType
from bpfpatch.facts.sections import section_kind
from bpfpatch.passes import Pipeline

PASSES = (
    *(
        f"cover{{edges={edges},count={count}}}"
        for count in ("plain", "atomic", "percpu")
        for edges in ("false", "true")
    ),
    "blind",
    "fixup-calls",
)
TRACE = "trace"
"""At each function, into a ring buffer."""


@dataclass
class Outcome:
    """What became of some objects in one pass.

    Attributes:
        accepted: how many objects, or functions to trace.
        refused: why, by object, or by object and function.
        left: blocks or constants that were left out.
        blocks: blocks in all, of what counts blocks.
        loads: programs that load before and after.
        fails: why those do not that loaded before.
        before: instructions that the verifier processed of them before.
        after: the same after.
    """

    accepted: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    left: int = 0
    blocks: int = 0
    loads: int = 0
    fails: dict[str, str] = field(default_factory=dict)
    before: int = 0
    after: int = 0


def try_pass(
    outcome: Outcome, name: str, obj: ElfObject, text: str, loading: dict[str, int]
) -> None:
    """Run a pass over an object, and load what loaded before.

    Args:
        outcome: what to add to.
        name: of the object.
        obj: the object.
        text: the pass.
        loading: programs that load, and how many instructions the verifier processed.
    """
    for where, pipeline in _pipelines(name, obj, text):
        try:
            made, result = Pipeline.parse(pipeline).run_object(obj)
        except BpfPatchError as error:
            outcome.refused[where] = str(error)
            continue
        outcome.accepted += 1
        if text.startswith("cover"):
            functions = cover_map(made).functions
            outcome.left += sum(len(one.left_out()) for one in functions)
            outcome.blocks += sum(b > a for one in functions for a, b in one.blocks)
        elif result.notices:
            outcome.left += len(result.notices) - 1
        for program, found in verified(made, list(loading)).items():
            if isinstance(found, str):
                outcome.fails[f"{where}: {program}"] = found
                continue
            outcome.loads += 1
            outcome.before += loading[program]
            outcome.after += found


def _pipelines(name: str, obj: ElfObject, text: str) -> Iterator[tuple[str, str]]:
    if text != TRACE:
        yield name, text
        return
    for function in dict.fromkeys(obj.code.subprogs.names):
        if function:
            yield f"{name}: {function}", f"trace{{at={function},to=ring}}"


def verified(obj: ElfObject, programs: list[str]) -> dict[str, int | str]:
    """By program the number of instructions that the verifier processed, or why it does not load.

    Sections that do not tell what a program is are taken for those of classifiers.
    """
    if not programs:
        return {}
    try:
        opened = kernel.open_object(obj, [], name="places")
    except BpfPatchError as error:
        return dict.fromkeys(programs, str(error))
    out: dict[str, int | str] = {}
    with opened:
        for program in programs:
            section = next(one.section for one in obj.programs if one.name == program)
            kind = None if section_kind(section).type is not None else ProgType.SCHED_CLS
            try:
                with opened.load(program, prog_type=kind) as loaded:
                    out[program] = loaded.info().verified_insns
            except BpfPatchError as error:
                out[program] = str(error)
    return out
