"""One frozen dataclass for each kind of type record.

Type ids and names are already resolved against the section that the record
comes from: a name is text, and a type id is within the range of known types.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import ClassVar

from .wire import Kind


class IntEncoding(IntFlag):
    """How an integer's bits are meant."""

    NONE = 0
    SIGNED = 1
    CHAR = 2
    BOOL = 4


class FuncLinkage(IntEnum):
    """Where a function is visible."""

    STATIC = 0
    GLOBAL = 1
    EXTERN = 2


class VarLinkage(IntEnum):
    """Where a variable is visible."""

    STATIC = 0
    GLOBAL = 1
    EXTERN = 2


@dataclass(frozen=True, slots=True)
class Void:
    """Type id 0."""

    kind: ClassVar[Kind] = Kind.VOID
    name: ClassVar[str] = "void"


@dataclass(frozen=True, slots=True)
class Int:
    """An integer.

    Attributes:
        name: "" only in odd input.
        size: bytes.
        bits: how many of them count; 8 * size except for old-style bitfields.
        encoding: the bits of IntEncoding.
        bit_off: where the bits start; 0 in all that compilers write.
    """

    kind: ClassVar[Kind] = Kind.INT
    name: str
    size: int
    bits: int
    encoding: IntEncoding = IntEncoding.NONE
    bit_off: int = 0


@dataclass(frozen=True, slots=True)
class Ptr:
    """A pointer to ``type_id``."""

    kind: ClassVar[Kind] = Kind.PTR
    name: ClassVar[str] = ""
    type_id: int


@dataclass(frozen=True, slots=True)
class Array:
    """``count`` elements of ``type_id``, indexed by ``index_type_id``."""

    kind: ClassVar[Kind] = Kind.ARRAY
    name: ClassVar[str] = ""
    type_id: int
    index_type_id: int
    count: int


@dataclass(frozen=True, slots=True)
class Member:
    """One member of a struct or union.

    Attributes:
        name: "" for an anonymous struct or union.
        type_id: its type.
        bit_off: bits from the start of the struct.
        bitfield_size: bits, or 0 where it is not a bitfield.
    """

    name: str
    type_id: int
    bit_off: int
    bitfield_size: int = 0


@dataclass(frozen=True, slots=True)
class Struct:
    """A struct of ``size`` bytes.

    ``kind_flag`` tells how the members' places are encoded; bitfields need it.
    """

    kind: ClassVar[Kind] = Kind.STRUCT
    name: str
    size: int
    members: tuple[Member, ...] = ()
    kind_flag: bool = False


@dataclass(frozen=True, slots=True)
class Union:
    """A union of ``size`` bytes; see Struct."""

    kind: ClassVar[Kind] = Kind.UNION
    name: str
    size: int
    members: tuple[Member, ...] = ()
    kind_flag: bool = False


@dataclass(frozen=True, slots=True)
class Enumerator:
    """One constant of an enum."""

    name: str
    value: int


@dataclass(frozen=True, slots=True)
class Enum:
    """An enum whose values fit 32 bits."""

    kind: ClassVar[Kind] = Kind.ENUM
    name: str
    size: int
    values: tuple[Enumerator, ...] = ()
    is_signed: bool = False


@dataclass(frozen=True, slots=True)
class Enum64:
    """An enum with values of up to 64 bits."""

    kind: ClassVar[Kind] = Kind.ENUM64
    name: str
    size: int
    values: tuple[Enumerator, ...] = ()
    is_signed: bool = False


@dataclass(frozen=True, slots=True)
class Fwd:
    """A struct or union that is declared and not defined."""

    kind: ClassVar[Kind] = Kind.FWD
    name: str
    is_union: bool = False


@dataclass(frozen=True, slots=True)
class Typedef:
    """A name for ``type_id``."""

    kind: ClassVar[Kind] = Kind.TYPEDEF
    name: str
    type_id: int


@dataclass(frozen=True, slots=True)
class Volatile:
    """``type_id``, volatile."""

    kind: ClassVar[Kind] = Kind.VOLATILE
    name: ClassVar[str] = ""
    type_id: int


@dataclass(frozen=True, slots=True)
class Const:
    """``type_id``, const."""

    kind: ClassVar[Kind] = Kind.CONST
    name: ClassVar[str] = ""
    type_id: int


@dataclass(frozen=True, slots=True)
class Restrict:
    """``type_id``, restrict."""

    kind: ClassVar[Kind] = Kind.RESTRICT
    name: ClassVar[str] = ""
    type_id: int


@dataclass(frozen=True, slots=True)
class Func:
    """A function, no type; ``type_id`` is its FuncProto, ``linkage`` a FuncLinkage."""

    kind: ClassVar[Kind] = Kind.FUNC
    name: str
    type_id: int
    linkage: int = FuncLinkage.STATIC


@dataclass(frozen=True, slots=True)
class Param:
    """One parameter; name "" and type 0 in the last place stand for ``...``."""

    name: str
    type_id: int


@dataclass(frozen=True, slots=True)
class FuncProto:
    """A function's signature; ``type_id`` is what it returns."""

    kind: ClassVar[Kind] = Kind.FUNC_PROTO
    name: ClassVar[str] = ""
    type_id: int
    params: tuple[Param, ...] = ()


@dataclass(frozen=True, slots=True)
class Var:
    """A variable; ``linkage`` is a VarLinkage."""

    kind: ClassVar[Kind] = Kind.VAR
    name: str
    type_id: int
    linkage: int = VarLinkage.STATIC


@dataclass(frozen=True, slots=True)
class SecVar:
    """A variable's place in a data section.

    Attributes:
        type_id: a Var, or a Func for an extern function.
        byte_off: from the section's start; 0 as clang writes it.
        size: bytes.
    """

    type_id: int
    byte_off: int
    size: int


@dataclass(frozen=True, slots=True)
class DataSec:
    """A data section; its size is 0 as clang writes it, a loader fills it in."""

    kind: ClassVar[Kind] = Kind.DATASEC
    name: str
    size: int
    variables: tuple[SecVar, ...] = ()


@dataclass(frozen=True, slots=True)
class Float:
    """A floating-point type of ``size`` bytes."""

    kind: ClassVar[Kind] = Kind.FLOAT
    name: str
    size: int


@dataclass(frozen=True, slots=True)
class DeclTag:
    """A tag on a declaration.

    Attributes:
        name: the tag's text.
        type_id: what it is on.
        component: index of a member or parameter, or -1 for the whole.
        is_attribute: the text is a compiler attribute, not a tag (linux v6.15).
    """

    kind: ClassVar[Kind] = Kind.DECL_TAG
    name: str
    type_id: int
    component: int = -1
    is_attribute: bool = False


@dataclass(frozen=True, slots=True)
class TypeTag:
    """A tag on a type; see DeclTag for ``is_attribute``."""

    kind: ClassVar[Kind] = Kind.TYPE_TAG
    name: str
    type_id: int
    is_attribute: bool = False


@dataclass(frozen=True, slots=True)
class Unknown:
    """A record of a kind that is not known here, but whose size the layout section tells.

    Attributes:
        name: from the head that all records share.
        number: the kind's number.
        words: the whole record, head included.
    """

    kind: ClassVar[None] = None
    name: str
    number: int
    words: tuple[int, ...]


BtfType = (
    Void
    | Int
    | Ptr
    | Array
    | Struct
    | Union
    | Enum
    | Fwd
    | Typedef
    | Volatile
    | Const
    | Restrict
    | Func
    | FuncProto
    | Var
    | DataSec
    | Float
    | DeclTag
    | TypeTag
    | Enum64
    | Unknown
)
