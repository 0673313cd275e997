"""Which of a command's programs are meant."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from bpfpatch.bpf.loadrequest import LoadRequest
from bpfpatch.facts.kinds import ProgType


@dataclass(frozen=True, slots=True)
class Choice:
    """Programs by name and type; of what is not given, all.

    Attributes:
        names: patterns as a shell's, of which a name has to match one.
        types: of which a program has to be one.
    """

    names: tuple[str, ...] = ()
    types: frozenset[ProgType] = frozenset()

    def __contains__(self, request: LoadRequest) -> bool:
        if self.types and request.type not in self.types:
            return False
        known = {request.name, request.short_name}
        return not self.names or any(
            fnmatchcase(name, pattern) for name in known for pattern in self.names
        )
