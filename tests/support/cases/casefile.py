"""Case files: a program before, edits, and the program after, as text.

A file has a sentence that must hold, and then parts, each under a line ``== name``::

    A jump to a subprog's first instruction does not run prepended code again.
    == before
    loop:
        r1 -= 1
        if r1 != 0 goto loop
        exit
    == edits
    prepend loop: r6 = 0
    == after
        r6 = 0
    loop:
        ...

An edit is a verb, sites and, behind a colon, a body; the body goes on in the
lines below that are indented. Sites are labels of ``before``, slots, ranges
``first..last`` of either, or names that an edit has given to its body's first
node (``mine = insert_before loop: ...``, then also ``mine+1``); several sites
are separated by commas. A body may name all of these too, but for slots.
In place of ``after`` a case may have ``error``: what the message must contain.
Comments say what sits on an instruction: see `support.rewrite`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bpfpatch.patch import Body, PatchList
from support.cases.rewrite import labels, listing, program

EDIT = re.compile(
    r"(?:(?P<name>\w+) *= *)?(?P<verb>\w+) +(?P<sites>[^:]+)(?::(?P<body>.*))?$", re.S
)
PARTS = {"before", "edits", "after", "error"}


@dataclass(frozen=True, slots=True)
class Case:
    """One case file."""

    path: Path
    title: str
    parts: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> Case:
        """Split a file into its parts."""
        title, *parts = re.split(r"^== *(\w+) *\n", path.read_text(), flags=re.M)
        found = dict(zip(parts[::2], parts[1::2], strict=True))
        assert {"before", "edits"} < found.keys() <= PARTS, f"{path}: parts {sorted(found)}"
        assert title.strip().endswith("."), f"{path} must begin with a sentence"
        return cls(path, " ".join(title.split()), found)

    def run(self) -> str:
        """The listing of what comes out."""
        patches = PatchList(program(self.parts["before"]))
        names = vars(labels(self.parts["before"]))
        for text in _edits(self.parts["edits"]):
            _apply(patches, names, text)
        return listing(patches.linearize().program)

    def wanted(self) -> str:
        """The listing of what must come out."""
        return listing(program(self.parts["after"]))

    def bless(self, got: str) -> None:
        """Write what came out into the file, as its ``after``."""
        lines = [re.sub(r"^( *)\d+: ", r"        ", line) for line in got.split("\n")]
        lines = [re.sub(r"(, )?func \w+|func \w+, ", "", line) for line in lines]
        lines = [line.rstrip().removesuffix("//").rstrip() for line in lines]
        parts = {**self.parts, "after": "\n".join(lines) + "\n"}
        text = "".join(f"== {name}\n{part}" for name, part in parts.items())
        self.path.write_text(f"{self.title}\n{text}")


def _edits(text: str) -> Iterator[str]:
    edit: list[str] = []
    for line in filter(str.strip, text.splitlines()):
        if not line[0].isspace() and edit:
            yield "\n".join(edit)
            edit = []
        edit.append(line)
    yield "\n".join(edit)


def _apply(patches: PatchList, names: dict[str, int], text: str) -> None:
    found = EDIT.match(text)
    assert found, f"no edit: {text!r}"
    verb, body = found["verb"], found["body"]
    if verb == "delete_subprog":
        patches.delete_subprog(found["sites"].strip())
        return
    sites = [node for part in found["sites"].split(",") for node in _nodes(patches, names, part)]
    given = sites[0] if len(sites) == 1 else np.array(sites)
    if verb == "delete":
        patches.delete(given)
        return
    if verb == "modify":
        fields = dict(field.split("=") for field in body.replace(" ", "").split(","))
        patches.modify(given, **{name: int(value, 0) for name, value in fields.items()})
        return
    if verb == "attach":
        table, _, row = body.strip().partition(" ")
        patches.attach(table, given, row)
        return
    first = getattr(patches, verb)(given, Body.asm(body, **names))
    if found["name"]:
        names[found["name"]] = int(first)


def _nodes(patches: PatchList, names: dict[str, int], text: str) -> Iterator[int]:
    first, is_range, last = (part.strip() for part in text.partition(".."))
    if not is_range:
        yield _node(names, first)
        return
    order = patches.nodes().tolist()
    begin, end = order.index(_node(names, first)), order.index(_node(names, last))
    yield from order[begin : end + 1]


def _node(names: dict[str, int], text: str) -> int:
    name, _, plus = text.partition("+")
    node = int(name) if name.isdigit() else names[name.strip()]
    return node + int(plus or 0)
