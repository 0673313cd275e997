"""``python tests/conformance``: how many bpf_conformance vectors pass, by mode and pass."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.inputs import conformance


def main() -> int:
    """Print the table; 1 where a vector gave a wrong result."""
    vectors = conformance.cases()
    skipped = conformance.unreadable()
    if not vectors and not skipped:
        print(f"skipped: {conformance.absent()}")
        return 0
    cells = conformance.table(vectors)
    for line in conformance.lines(cells, len(vectors), skipped):
        print(line)
    return int(any(cell.wrong for row in cells.values() for cell in row.values()))


if __name__ == "__main__":
    sys.exit(main())
