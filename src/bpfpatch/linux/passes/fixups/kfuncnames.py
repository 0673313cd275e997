"""Names of the kernel functions that a program calls."""

from __future__ import annotations

from collections.abc import Iterator

from bpfpatch.program.types import Slots

from .job import Job


def kfunc_calls(job: Job) -> Iterator[tuple[Slots, str]]:
    """Calls of the kernel's own functions, those of one function together.

    Functions of modules, whose calls are left as they are, have no name here.

    Raises:
        OptionError: there are such calls, and the kernel's types were not given.
    """
    for type_id, sites in job.kfunc_calls.items():
        yield sites, job.btf.name_of(type_id)
