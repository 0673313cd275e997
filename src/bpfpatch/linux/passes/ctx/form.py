"""Forms: how a field is really loaded or stored, as text, and what instructions that makes.

A form is lines, or statements between semicolons. Each is one of:

- members from pointer to pointer: ``sk_buff.dev -> net_device.ifindex``. With ``?->`` a null
  pointer is the result, and what follows is left out. A number with a width may stand for a
  member: ``16:8 -> 0:4`` loads 4 bytes from where the pointer at byte 16 points. For a store
  one member, into which the value goes.
- an instruction of `bpfpatch.asm`, in which ``dst``, ``src``, ``tmp`` and ``ax`` are registers
  (``dst32`` their lower halves), ``val`` what is stored, ``dst->sk_buff.len`` is memory at a
  member's place and of its width, and ``{...}`` a number (below). A member with ``@`` after it
  is the one that the access is about: moved by the place within the field. ``:4`` after it
  gives the width.
- a label, such as ``done:``. ``end`` comes after the last one.

In front of a statement may be a condition: ``little?`` and ``big?`` are byte orders,
``register?`` is a store of a register, ``pointer(sk_buff.end)?`` and ``integer(sk_buff.end)?``
ask for a member's type.

The numbers: ``{sk_buff.pkt_type}`` is a bitfield's mask within its byte,
``{~sk_buff.pkt_type}`` its complement, ``{>>sk_buff.pkt_type}`` how far it is shifted, other
names are constants that the pass gives.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from bpfpatch import isa
from bpfpatch.asm import assemble
from bpfpatch.errors import OptionError
from bpfpatch.facts.layouts import Layouts

DST: Final = 1
SRC: Final = 2
TMP: Final = 3
"""Registers that stand for those of an access, until it is known."""

_REGISTERS: Final = {"dst": DST, "src": SRC, "tmp": TMP, "ax": isa.AX}
_ONE: Final = r"[A-Za-z_]\w*(?:\.[\w\[\]]+)+"
_MEMBER: Final = rf"(?:\d+|{_ONE}(?:\s*\+\s*{_ONE})*)"
_CHAIN: Final = re.compile(rf"{_MEMBER}(?::\d)?(?:\s*\??->\s*{_MEMBER}(?::\d)?)*")
_MEMORY: Final = re.compile(
    rf"\b(?P<reg>dst|src|tmp|ax|r\d)->(?P<path>{_MEMBER})(?P<at>@?)(?::(?P<width>\d))?"
)
_GUARD: Final = re.compile(r"(\w+)(?:\(([^)]*)\))?\?\s+(.*)")
_NUMBER: Final = re.compile(r"\{([^}]*)\}")
_REGISTER: Final = re.compile(r"\b(dst|src|tmp|ax|val)(32)?\b")


@dataclass(frozen=True, slots=True)
class Scene:
    """What a form's instructions depend on beside its text.

    Attributes:
        layouts: where members are.
        constants: numbers by name.
        is_load: or a store.
        is_imm: a store of an immediate: its place is left 0.
        at: bytes that the member with ``@`` is moved by.
        width: bytes of its access; 0 for the member's own.
    """

    layouts: Layouts
    constants: Mapping[str, int] = field(default_factory=dict)
    is_load: bool = True
    is_imm: bool = False
    at: int = 0
    width: int = 0


@dataclass(frozen=True, slots=True)
class Made:
    """A form's instructions.

    Attributes:
        text: as assembly, without the label at the end.
        last_width: bytes of the last member that is accessed; 0 if there is none.
    """

    text: str
    last_width: int

    def insns(self, more: str = "") -> isa.Insns:
        """(n,) instructions, followed by more assembly, which ``end`` is in front of."""
        return assemble(f"{self.text}\nend:\n{more}").insns


def make(form: str, scene: Scene) -> Made:
    """Work out a form.

    Raises:
        OptionError: text that is not a form.
        AsmError: text that is not assembly.
        UnsupportedError: a member whose place is not known.
    """
    lines: list[str] = []
    last_width = 0
    for statement in statements(form):
        text = _kept(statement, scene)
        if text is None:
            continue
        for line in _chain(text, scene) if _CHAIN.fullmatch(text) else (text,):
            done, width = _memory(line, scene)
            last_width = width or last_width
            lines.append(_operands(done, scene))
    return Made("\n".join(lines), last_width)


def statements(form: str) -> list[str]:
    """The statements of a form."""
    return [part.strip() for part in re.split(r"[;\n]", form) if part.strip()]


def members(form: str) -> set[str]:
    """The paths that a form names, in whatever statement."""
    found = {match["path"] for match in _MEMORY.finditer(form)}
    for statement in statements(form):
        if _CHAIN.fullmatch(statement):
            found.update(part.partition(":")[0].strip() for part in re.split(r"\??->", statement))
    return {path for path in found if not path[0].isdigit()}


def _kept(statement: str, scene: Scene) -> str | None:
    """A statement without its condition, or None where that does not hold."""
    guard = _GUARD.fullmatch(statement)
    if guard is None:
        return statement
    name, path, rest = guard.groups()
    if name in ("little", "big"):
        holds = name == scene.layouts.byteorder
    elif name == "register":
        holds = not scene.is_imm
    elif name in ("pointer", "integer") and path:
        holds = scene.layouts.place(path).is_pointer == (name == "pointer")
    else:
        raise OptionError(f"{statement!r}: there is no condition {name!r}")
    return _kept(rest, scene) if holds else None


def _chain(text: str, scene: Scene) -> list[str]:
    """Members from pointer to pointer, as statements."""
    if not scene.is_load:
        if "->" in text:
            raise OptionError(f"{text!r}: a store goes to one member; write more as assembly")
        return [f"dst->{_about(text)} = val"]
    parts = re.split(r"\s*(\??->)\s*", text)
    lines = []
    base = "src"
    for index in range(0, len(parts), 2):
        if index and parts[index - 1] == "?->":
            lines.append("if dst == 0 goto end")
        is_last = index == len(parts) - 1
        lines.append(f"dst = {base}->{_about(parts[index]) if is_last else parts[index]}")
        base = "dst"
    return lines


def _about(part: str) -> str:
    """A member of a chain, marked as the one that the access is about."""
    path, colon, width = part.partition(":")
    return f"{path.strip()}@{colon}{width}"


def _memory(line: str, scene: Scene) -> tuple[str, int]:
    """A statement with members' places put in, and the width of the last one."""
    width = 0

    def place(match: re.Match[str]) -> str:
        nonlocal width
        path = match["path"]
        if path[0].isdigit():
            byte_off, own = int(path, 0), 0
        else:
            member = scene.layouts.place(path)
            byte_off, own = member.byte_off, member.size
        if match["at"]:
            byte_off += scene.at
            own = scene.width or own
        width = int(match["width"] or own)
        if width not in (1, 2, 4, 8):
            raise OptionError(
                f"{match[0]!r}: {width} bytes are not an access; give a width, as in :4"
            )
        return f"*(u{8 * width} *)({match['reg']} + {byte_off})"

    return _MEMORY.sub(place, line), width


def _operands(line: str, scene: Scene) -> str:
    """A statement with numbers and registers put in."""

    def number(match: re.Match[str]) -> str:
        return str(_number(match[1].strip(), scene))

    def register(match: re.Match[str]) -> str:
        name = match[1]
        if name == "val":
            if scene.is_imm:
                return "0"
            name = "src"
        return f"{'w' if match[2] else 'r'}{_REGISTERS[name]}"

    return _REGISTER.sub(register, _NUMBER.sub(number, line))


def _number(text: str, scene: Scene) -> int:
    if text.startswith(">>"):
        return scene.layouts.place(text[2:]).shift
    if text.startswith("~"):
        return ~scene.layouts.place(text[1:]).mask
    if "." in text:
        return scene.layouts.place(text).mask
    if text not in scene.constants:
        known = ", ".join(sorted(scene.constants)) or "none"
        raise OptionError(f"there is no number {{{text}}}; there are members' masks, and: {known}")
    return scene.constants[text]
