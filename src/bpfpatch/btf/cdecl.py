"""Types as text, close to C, for messages and dumps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bpfpatch.errors import FormatError

from . import types as t
from .sizes import kind_name, too_deep
from .wire import MAX_DEPTH, MODIFIERS, Kind

if TYPE_CHECKING:
    from .btf import Btf, Head

_PREFIX: dict[int, str] = {
    Kind.STRUCT: "struct ",
    Kind.UNION: "union ",
    Kind.ENUM: "enum ",
    Kind.ENUM64: "enum ",
}
_QUALIFIERS: dict[int, str] = {
    Kind.CONST: "const",
    Kind.VOLATILE: "volatile",
    Kind.RESTRICT: "restrict",
}
#: The same numbers for functions and variables.
_LINKAGE = {0: "static ", 1: "", 2: "extern "}
#: Characters that one declaration may need: room for a name as long as names
#: may be, and for each item.
_BUDGET = 0x20000
_BUDGET_ITEM = 1024


def type_name(btf: Btf, type_id: int) -> str:
    """The type as C writes it, without a name declared."""
    return _Writer(btf, type_id, 0).declare(type_id, "", 0)


def c_decl(btf: Btf, type_id: int) -> str:
    """The declaration of a type, function, variable or data section on one line."""
    found = btf.type(type_id)
    items: tuple[object, ...] = ()
    if isinstance(found, (t.Struct, t.Union)):
        items = found.members
    elif isinstance(found, (t.Enum, t.Enum64)):
        items = found.values
    elif isinstance(found, t.DataSec):
        items = found.variables
    elif isinstance(found, t.FuncProto):
        items = found.params
    return _Writer(btf, type_id, len(items)).define(type_id, found)


def _printable(text: str) -> str:
    """Bytes that were not UTF-8 as backslash escapes, so that any terminal takes them."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


class _Writer:
    """Builds one text, and stops where hostile types would make it endless."""

    def __init__(self, btf: Btf, root: int, items: int) -> None:
        self._btf = btf
        self._root = root
        self._left = _BUDGET + _BUDGET_ITEM * items

    def _spend(self, text: str) -> str:
        self._left -= len(text) + 1
        if self._left < 0:
            raise FormatError(
                f"type {self._root} is too deeply nested to be written as text",
                self._btf.byte_off_of(self._root),
            )
        return text

    def _name(self, name: str) -> str:
        return self._spend(_printable(name) or "(anon)")

    def declare(self, type_id: int, inner: str, depth: int) -> str:
        """``inner`` declared with a type: from the name outwards, as C is read."""
        qualifiers: list[str] = []
        at = type_id
        for _ in range(MAX_DEPTH + 1):
            # Most types on the way are used by name alone: their members are not read.
            head = self._btf.head(at)
            if head.number in _QUALIFIERS:
                qualifiers.append(_QUALIFIERS[head.number])
            elif head.number == Kind.TYPE_TAG:
                qualifiers.append(self._tag(self._btf.type(at)))
            elif head.number == Kind.PTR:
                inner = "*" + " ".join([*qualifiers, inner]).rstrip()
                if self._has_suffix(head.size_or_type):
                    inner = f"({inner})"
                qualifiers = []
            elif head.number == Kind.FUNC_PROTO:
                inner = f"{inner}({self._params(self._btf.type(at), depth)})"
                qualifiers = []
            elif head.number == Kind.ARRAY:
                # The qualifiers of an array are those of its elements.
                at, count = self._array(at)
                inner = self._spend(f"{inner}[{count}]")
                continue
            else:
                base = " ".join([*qualifiers, self._base(at, head)])
                gap = "" if not inner or inner.startswith("[") else " "
                return f"{base}{gap}{inner}"
            at = head.size_or_type
        raise too_deep(self._btf, type_id)

    def _array(self, type_id: int) -> tuple[int, int]:
        found = self._btf.type(type_id)
        assert isinstance(found, t.Array)
        return found.type_id, found.count

    def _has_suffix(self, type_id: int) -> bool:
        """Whether the type puts something after the name, which binds closer than ``*``."""
        at = type_id
        for _ in range(MAX_DEPTH + 1):
            head = self._btf.head(at)
            if head.number not in MODIFIERS or head.number == Kind.TYPEDEF:
                return head.number in (Kind.ARRAY, Kind.FUNC_PROTO)
            at = head.size_or_type
        raise too_deep(self._btf, type_id)

    def _tag(self, tag: t.BtfType) -> str:
        assert isinstance(tag, (t.TypeTag, t.DeclTag))
        if tag.is_attribute:
            return f"__attribute__(({self._name(tag.name)}))"
        word = "btf_type_tag" if isinstance(tag, t.TypeTag) else "btf_decl_tag"
        return f'__attribute__(({word}("{self._name(tag.name)}")))'

    def _params(self, proto: t.BtfType, depth: int) -> str:
        assert isinstance(proto, t.FuncProto)
        if depth >= MAX_DEPTH:
            raise too_deep(self._btf, self._root)
        if not proto.params:
            return "void"
        last = len(proto.params) - 1
        parts = []
        for at, param in enumerate(proto.params):
            is_dots = at == last and not param.name and param.type_id == 0
            name = self._spend(_printable(param.name))
            parts.append("..." if is_dots else self.declare(param.type_id, name, depth + 1))
        return ", ".join(parts)

    def _base(self, type_id: int, head: Head) -> str:
        """What stands left of the name."""
        name = self._btf.name_of(type_id)
        if head.number == Kind.FWD:
            return ("union " if head.has_flag else "struct ") + self._name(name)
        if head.number >= len(Kind):
            return f"{kind_name(head.number)} {self._name(name)}"
        prefix = _PREFIX.get(head.number, "")
        if prefix and not name:
            return prefix + "{...}"
        return prefix + self._name(name)

    def define(self, type_id: int, found: t.BtfType) -> str:
        """What a dump shows for a type id."""
        if isinstance(found, (t.Struct, t.Union, t.Enum, t.Enum64)):
            return self._aggregate(found)
        if isinstance(found, (t.Typedef, t.Func, t.Var)):
            text = self.declare(found.type_id, self._name(found.name), 0)
            if isinstance(found, t.Typedef):
                return f"typedef {text}"
            return _LINKAGE.get(found.linkage, "") + text
        if isinstance(found, t.DataSec):
            return f"section {self._name(found.name)} {{ {self._variables(found)}}}"
        if isinstance(found, t.DeclTag):
            on = self.declare(found.type_id, "", 0)
            part = "" if found.component < 0 else f" item {found.component}"
            return f"{self._tag(found)} on {on}{part}"
        return self.declare(type_id, "", 0)

    def _aggregate(self, found: t.Struct | t.Union | t.Enum | t.Enum64) -> str:
        prefix = _PREFIX[found.kind]
        head = prefix + self._name(found.name) if found.name else prefix.rstrip()
        if isinstance(found, (t.Struct, t.Union)):
            return f"{head} {{ {self._members(found)}}} /* {found.size} bytes */"
        values = [f"{self._name(value.name)} = {value.value}" for value in found.values]
        return f"{head} {{ {', '.join(values)} }}"

    def _members(self, found: t.Struct | t.Union) -> str:
        out = []
        for member in found.members:
            name = self._spend(_printable(member.name))
            text = self.declare(member.type_id, name, 0)
            out.append(f"{text}:{member.bitfield_size}; " if member.bitfield_size else f"{text}; ")
        return "".join(out)

    def _variables(self, found: t.DataSec) -> str:
        return "".join(
            f"{self._name(self._btf.type(var.type_id).name)} at {var.byte_off}, {var.size} bytes; "
            for var in found.variables
        )
