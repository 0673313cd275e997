"""Give the pieces of a file new places after some of them changed their size."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Mapping

from bpfpatch.errors import UnsupportedError

from .raw import EHDR_PIECE, SHDR_SIZE, SHDRS_PIECE, Buffer, FilePiece, RawElf, pieces


def relayout(
    raw: RawElf, changed: Mapping[int, Buffer], removed: Collection[int] = frozenset()
) -> RawElf:
    """The same file with other contents, and without some sections.

    Every piece keeps its order and, up to its alignment, its distance from
    the piece in front: it moves as far as those in front of it grew, rounded
    so that its place stays congruent modulo its alignment. Where nothing
    changed nothing moves, and growing and shrinking again is not a change.

    Section numbers *inside* of contents and headers (links, symbols, groups)
    are the caller's to renumber; see `bpfpatch.elf.renumber`.

    Args:
        raw: the file.
        changed: new contents by section index.
        removed: indices of sections to leave out.

    Returns:
        A file in which headers, places and sizes agree.
    """
    ordered = pieces(raw)
    gaps = dict(raw.gaps)
    kept = [index for index in range(len(raw.shdrs)) if index not in removed]
    contents = [changed.get(index, raw.contents[index]) for index in kept]
    shdrs = raw.shdrs[kept].copy()
    shdrs["size"] = [
        len(content) if content or raw.contents[index] else size
        for index, content, size in zip(kept, contents, shdrs["size"].tolist(), strict=True)
    ]
    sizes = dict(zip(kept, map(len, contents), strict=True))
    sizes |= {EHDR_PIECE: ordered[0].n_bytes, SHDRS_PIECE: len(kept) * SHDR_SIZE}
    _check_growth(ordered, sizes)
    places, new_gaps = _place(ordered, sizes, gaps)

    header = raw.header.copy()
    header["shoff"] = places[SHDRS_PIECE]
    header["shnum"] = len(kept)
    loose = _Loose(ordered, sizes, places)
    for row, index in enumerate(kept):
        old = int(raw.shdrs["byte_off"][index])
        shdrs["byte_off"][row] = places[index] if index in places else loose.place(old)
    names = tuple(raw.names[index] for index in kept)
    return RawElf(raw.byteorder, header, shdrs, tuple(contents), names, tuple(new_gaps))


def _check_growth(ordered: list[FilePiece], sizes: Mapping[int, int]) -> None:
    placed = {piece.owner for piece in ordered}
    stray = [owner for owner, size in sizes.items() if size and owner not in placed]
    if stray:
        raise UnsupportedError(
            f"section {stray[0]} was empty and lies inside another one, so it has no room to grow"
        )


def _place(
    ordered: list[FilePiece], sizes: Mapping[int, int], gaps: Mapping[int, Buffer]
) -> tuple[dict[int, int], list[tuple[int, Buffer]]]:
    places: dict[int, int] = {}
    new_gaps: list[tuple[int, Buffer]] = []
    old_end = new_end = 0
    for piece in ordered:
        gap, old_end_before = piece.byte_off - old_end, old_end
        old_end = piece.end
        if piece.owner not in sizes:
            continue
        least = new_end + gap - gap % piece.align
        place = least + (piece.byte_off - least) % piece.align
        if place > new_end:
            padding = bytes(gaps.get(old_end_before, b""))[: place - new_end]
            new_gaps.append((new_end, padding.ljust(place - new_end, b"\0")))
        places[piece.owner] = place
        new_end = place + sizes[piece.owner]
    tail = gaps.get(old_end)
    if tail:
        new_gaps.append((new_end, tail))
    return places, new_gaps


class _Loose:
    """Places for sections without bytes of their own: NOBITS, and empty ones inside of others."""

    def __init__(
        self, ordered: list[FilePiece], sizes: Mapping[int, int], places: Mapping[int, int]
    ) -> None:
        self._kept = [piece for piece in ordered if piece.owner in places]
        self._starts = [piece.byte_off for piece in self._kept]
        self._sizes, self._places = sizes, places

    def place(self, old: int) -> int:
        """As far after (or inside of) the piece in front as before.

        Without bytes there is nothing to align, and so the way back is exact, unless a gap
        closed on the way.
        """
        index = bisect_right(self._starts, old) - 1
        # At the very edge an empty section belongs to what ends there, not to what starts;
        # after a gap it is the other way round, since the gap may change its length.
        while index > 0 and self._starts[index] == old and self._kept[index - 1].end == old:
            index -= 1
        piece = self._kept[max(index, 0)]
        start = self._places[piece.owner]
        if old < piece.end:
            return start + min(old - piece.byte_off, self._sizes[piece.owner])
        return min(start + self._sizes[piece.owner] + old - piece.end, (1 << 64) - 1)
