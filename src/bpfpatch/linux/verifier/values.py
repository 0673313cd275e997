"""Pointers, and what scalars and pointers have in common as values of registers.

A pointer is a tuple as well::

    (kind, ref, low, high, id, is_maybe_null, obj, trust)

``kind`` is a `MemType`, or one of those below; ``ref`` says more of it: the map, the
type in the kernel's BTF, the frame. It points ``low`` to ``high`` bytes after the
start. Pointers that may be null and share an ``id`` other than 0 are null together or
not at all, so that a check of one holds for all; those of one acquired object share
``obj``, so that they end with it.

Map numbers count a subject's maps; numbers after those are of inner ones that are not
among them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, overload

from bpfpatch.facts.columns import MemType

from . import scalars
from .scalars import SCALAR, UNKNOWN, Number, Partial, Pointer, Scalar, Stored, Value

if TYPE_CHECKING:
    from typing_extensions import TypeIs

FUNC: Final = 100
"""The address of a subprog; ``ref`` is its slot."""
PACKET_END: Final = 101
PARTIAL: Final = -1
"""No pointer: a stack slot that holds less than 8 bytes of a value, see `state`."""

LEGACY, TRUSTED, RCU, UNTRUSTED = range(4)
"""How far a pointer of `MemType.BTF_ID` can be relied on."""

# Of these, one that is not marked as maybe null is known not to be.
# Source: linux v6.18, kernel/bpf/verifier.c, reg_not_null().
_NEVER_NULL: Final = frozenset(
    {
        MemType.SOCKET,
        MemType.TCP_SOCK,
        MemType.MAP_VALUE,
        MemType.MAP_KEY,
        MemType.SOCK_COMMON,
        MemType.MEM,
        MemType.MAP_PTR,
    }
)
_UNBOUNDED: Final = 1 << 40
_PACKETS: Final = frozenset({int(MemType.PACKET), int(MemType.PACKET_META), PACKET_END})
_STACK, _PACKET = int(MemType.STACK), int(MemType.PACKET)
_BTF_ID, _ALLOC = int(MemType.BTF_ID), int(MemType.ALLOC)

LOST_STACK, LOST_FUNC = 1, 2
"""What a value that is no longer followed may still point to: a frame, a function."""

_Tuple = Scalar | Pointer | Partial


def pointer(
    kind: int,
    ref: int = 0,
    byte_off: int = 0,
    ident: int = 0,
    *,
    is_maybe_null: bool = False,
    obj: int = 0,
    trust: int = LEGACY,
) -> Pointer:
    """A pointer to one place."""
    made: Pointer = (  # of the numbers only those of PointerKind are kinds
        int(kind), ref, byte_off, byte_off, ident, is_maybe_null, obj, trust  # type: ignore[assignment]
    )  # fmt: skip
    return made


def is_pointer(value: Stored) -> TypeIs[Pointer]:
    """Whether it is certainly a pointer, null or not."""
    return type(value) is tuple and value[0] > SCALAR  # a part's kind is below


def as_scalar(value: Value) -> Number:
    """The number; of a pointer, or of what is not known, any number."""
    if isinstance(value, int):
        return value
    if value is None or value[0] != SCALAR:
        return UNKNOWN
    return scalars.without_id(value)


def moved(at: Pointer, by: Number, sign: int) -> Pointer | None:
    """A pointer plus or minus a scalar.

    The verifier moves no pointer that may be null. One that is null on some of the paths
    that met here is a small number after that, neither null nor a pointer.
    """
    if at[5]:
        return None
    low, high = _signed_range(by)
    if sign < 0:
        low, high = -high, -low
    # What is beyond the packet's end is not any more, some bytes before.
    is_marked = at[0] != _PACKET or (isinstance(by, int) and low >= 0)
    low, high = at[2] + low, at[3] + high
    if low < -_UNBOUNDED or high > _UNBOUNDED:
        low, high = -_UNBOUNDED, _UNBOUNDED
    return at[0], at[1], low, high, at[4], at[5], at[6], at[7] if is_marked else LEGACY


def lost(value: Stored) -> int:
    """What is lost with a value that is given up: `LOST_STACK`, `LOST_FUNC`, or 0."""
    if not isinstance(value, tuple):
        return 0
    return LOST_STACK if value[0] == _STACK else LOST_FUNC if value[0] == FUNC else 0


def _signed_range(value: Number) -> tuple[int, int]:
    if isinstance(value, int):
        number = value - (1 << 64) if value >> 63 else value
        return number, number
    return value[7], value[8]


def is_never_null(at: Pointer) -> bool:
    """Whether a comparison with 0 is decided."""
    kind, _, _, _, _, is_maybe_null, obj, trust = at
    if is_maybe_null:
        return False
    if kind in (_BTF_ID, _ALLOC):
        return bool(obj) or trust in (TRUSTED, RCU) or kind == _ALLOC
    return kind in _NEVER_NULL and trust != UNTRUSTED


class Ids:
    """Which ids of one state are which of another.

    Attributes:
        n_fresh: the highest id that is in use.
        lost: what joining gave up, see `lost`.
    """

    __slots__ = ("_n_alone", "_pairs", "lost", "n_fresh")

    def __init__(self, n_fresh: int = 0) -> None:
        self._pairs: dict[object, int] = {}
        self._n_alone = _SET
        self.n_fresh = n_fresh
        self.lost = 0

    def matches(self, old: int, new: int) -> bool:
        """Whether the same id of the first has always been the same of the second.

        What has the id 0 in the second is linked to nothing, so that it is the same as nothing
        else.
        """
        if not new:
            self._n_alone -= 1
            new = self._n_alone
        return self._pairs.setdefault(old, new) == new

    def joined(self, left: int, right: int) -> int:
        """The id of what has these two ids; 0 where one has none."""
        if not left or not right:
            return 0
        return left if left == right else self._new((left, right))

    def or_null(self, left: int, right: int) -> int:
        """The id of what may be null on one side, or both; see `_nullness` for the arguments.

        What has the same pair is null together: on either side both are the same. It needs an
        id in any case.
        """
        if not left or not right:
            self.n_fresh += 1
            return self.n_fresh
        return left if left == right else self._new((left, right, "null"))

    def _new(self, key: object) -> int:
        if key not in self._pairs:
            self.n_fresh += 1
            self._pairs[key] = self.n_fresh
        return self._pairs[key]


def covers(old: Stored, new: Stored, ids: Ids) -> bool:  # noqa: PLR0911 - one way out for each kind
    """Whether all that can follow from the new value can follow from the old one."""
    if old is None or old == new:
        # Equal tuples may have an id that means something else for another register.
        return type(old) is not tuple or _ids_match(old, old, ids)
    if new is None or isinstance(old, int):
        return False
    if old[0] == SCALAR:
        if not isinstance(new, int) and new[0] != SCALAR:
            return False
        if old[1] and (isinstance(new, int) or not _ids_match(old, new, ids)):
            return False
        return scalars.covers(old, new)
    if isinstance(new, int):
        return old[0] != PARTIAL and old[5] and new == 0 and _is_null_alike(old, new, ids)
    if old[0] == PARTIAL:
        return (
            new[0] == PARTIAL
            and old[2] == new[2]
            and not old[3] & ~new[3]
            and covers(old[1], new[1], ids)
        )
    if new[0] == SCALAR or new[0] == PARTIAL or old[0] != new[0]:
        return False
    return (
        old[1] == new[1] and old[2] <= new[2] and old[3] >= new[3] and old[5] >= new[5]
        and old[7] == new[7] and bool(old[6]) == bool(new[6]) and _ids_match(old, new, ids)
    )  # fmt: skip


def _ids_match(old: _Tuple, new: _Tuple, ids: Ids) -> bool:
    """Whether the ids of two values of a kind match; equal ones, where a part is in them."""
    if old[0] == SCALAR:
        return not old[1] or (new[0] == SCALAR and old[2] == new[2] and ids.matches(old[1], new[1]))
    if old[0] == PARTIAL:
        return not isinstance(old[1], tuple) or _ids_match(old[1], old[1], ids)
    if new[0] == SCALAR or new[0] == PARTIAL:
        return False
    if old[6] and not ids.matches(old[6], new[6]):
        return False
    return _is_null_alike(old, new, ids)


_NULL, _SET = -1, -2
"""In place of an id: what is null, and what is not."""


def _nullness(value: int | Pointer) -> int:
    """What a pointer, or 0, is null together with: an id, `_NULL` or `_SET`; 0 for nothing."""
    if isinstance(value, int):
        return _NULL
    return value[4] if value[5] else _SET


def _is_null_alike(old: Pointer, new: int | Pointer, ids: Ids) -> bool:
    """Whether what has the old pointer's id was null together with the new one, too."""
    return not old[5] or not old[4] or ids.matches(old[4], _nullness(new))


@overload
def join(
    left: Number | None, right: Number | None, ids: Ids, *, widen: bool = False
) -> Number | None: ...
@overload
def join(left: Value, right: Value, ids: Ids, *, widen: bool = False) -> Value: ...
@overload
def join(left: Stored, right: Stored, ids: Ids, *, widen: bool = False) -> Stored: ...
def join(left: Stored, right: Stored, ids: Ids, *, widen: bool = False) -> Stored:
    """What either value may be."""
    if left == right:
        return left
    both = _joined(left, right, ids, widen=widen)
    if both is None:
        ids.lost |= lost(left) | lost(right)
    return both


def _joined(left: Stored, right: Stored, ids: Ids, *, widen: bool) -> Stored:  # noqa: PLR0911 - one way out for each kind
    if left is None or right is None:
        return None
    if scalars.is_scalar(left) and scalars.is_scalar(right):
        return _join_scalars(left, right, ids, widen=widen)
    if isinstance(left, int):
        return _join_null(left, right, ids, is_left=True)
    if isinstance(right, int):
        return _join_null(right, left, ids, is_left=False)
    if left[0] == PARTIAL:
        return _join_partial(left, right, ids, widen=widen) if right[0] == PARTIAL else None
    if left[0] == SCALAR or right[0] == SCALAR or right[0] == PARTIAL:
        return None
    if left[0] != right[0] or left[1] != right[1]:
        return None
    return _join_pointers(left, right, ids, widen=widen)


def _join_null(number: int, at: int | _Tuple, ids: Ids, *, is_left: bool) -> Value:
    """A number, on the left or on the right, and what the other side is: a pointer or null."""
    # A packet's pointers are compared with its end, which null must not be.
    if number != 0 or isinstance(at, int) or at[0] == SCALAR or at[0] == PARTIAL:
        return None
    if at[0] in _PACKETS:
        return None
    first, second = (_NULL, _nullness(at)) if is_left else (_nullness(at), _NULL)
    return (*at[:4], ids.or_null(first, second), True, *at[6:])


def _join_partial(left: Partial, right: Partial, ids: Ids, *, widen: bool) -> Partial | None:
    zeros = left[3] & right[3]
    if left[2] == right[2]:
        return PARTIAL, join(left[1], right[1], ids, widen=widen), left[2], zeros
    return (PARTIAL, None, 0, zeros) if zeros else None


def _join_pointers(left: Pointer, right: Pointer, ids: Ids, *, widen: bool) -> Pointer:
    low, high = min(left[2], right[2]), max(left[3], right[3])
    if widen and (low, high) != left[2:4]:
        low, high = -_UNBOUNDED, _UNBOUNDED
    is_maybe_null = left[5] or right[5]
    if is_maybe_null:
        ident = ids.or_null(_nullness(left), _nullness(right))
    else:
        ident = ids.joined(left[4], right[4])
    obj = ids.joined(left[6], right[6])
    trust = left[7] if left[7] == right[7] else LEGACY
    return left[0], left[1], low, high, ident, is_maybe_null, obj, trust


def _join_scalars(left: Number, right: Number, ids: Ids, *, widen: bool) -> Number:
    if scalars.covers(left, right):
        both = scalars.without_id(left)
    else:
        both = scalars.union(scalars.without_id(left), scalars.without_id(right))
        if widen:
            both = scalars.widened(both)
    if isinstance(left, int) or isinstance(right, int) or isinstance(both, int):
        return both
    if left[2] != right[2]:
        return both
    return SCALAR, ids.joined(left[1], right[1]), left[2], *both[3:]
