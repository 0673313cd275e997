"""BTF, the type and line information of BPF programs: read, query, build, write.

``Btf`` is a .BTF section and ``BtfExt`` a .BTF.ext section. Both give back
exactly the bytes that they were parsed from. ``BtfBuilder`` makes changed
copies; ``Btf.edit()`` returns one.

Example::

    btf = Btf.parse(Path("/sys/kernel/btf/vmlinux").read_bytes())
    btf.offset_of("struct sk_buff", "len")
    (func,) = btf.find("tcp_v4_rcv", Kind.FUNC)
    print(btf.c_decl(func))     # static int tcp_v4_rcv(struct sk_buff *skb)
"""

from .btf import Btf, Head
from .builder import BtfBuilder
from .copier import TypeCopier
from .ext import CORE_RELO, FUNC_INFO, LINE_INFO, BtfExt, ExtSection
from .lines import BtfLine, line_col_join, line_col_split, source_line
from .members import BtfPlace
from .types import (
    Array,
    BtfType,
    Const,
    DataSec,
    DeclTag,
    Enum,
    Enum64,
    Enumerator,
    Float,
    Func,
    FuncLinkage,
    FuncProto,
    Fwd,
    Int,
    IntEncoding,
    Member,
    Param,
    Ptr,
    Restrict,
    SecVar,
    Struct,
    Typedef,
    TypeTag,
    Union,
    Unknown,
    Var,
    VarLinkage,
    Void,
    Volatile,
)
from .wire import ByteOrder, Kind

__all__ = [
    "CORE_RELO",
    "FUNC_INFO",
    "LINE_INFO",
    "Array",
    "Btf",
    "BtfBuilder",
    "BtfExt",
    "BtfLine",
    "BtfPlace",
    "BtfType",
    "ByteOrder",
    "Const",
    "DataSec",
    "DeclTag",
    "Enum",
    "Enum64",
    "Enumerator",
    "ExtSection",
    "Float",
    "Func",
    "FuncLinkage",
    "FuncProto",
    "Fwd",
    "Head",
    "Int",
    "IntEncoding",
    "Kind",
    "Member",
    "Param",
    "Ptr",
    "Restrict",
    "SecVar",
    "Struct",
    "TypeCopier",
    "TypeTag",
    "Typedef",
    "Union",
    "Unknown",
    "Var",
    "VarLinkage",
    "Void",
    "Volatile",
    "line_col_join",
    "line_col_split",
    "source_line",
]
