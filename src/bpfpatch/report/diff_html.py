"""A diff as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape as escape_html
from typing import Final

import numpy as np

from bpfpatch.text import plural, visible

from .diff import Diff, FunctionDiff, Op
from .diff_text import describe_change
from .lines import DiffLines, LineKind, Lines

_STYLE: Final = """
:root { color-scheme: light dark;
  --back: #fff; --text: #1f2328; --dim: #6a737d; --line: #d0d7de; --head: #f6f8fa;
  --add: #dafbe1; --del: #ffebe9; --source: #0550ae; }
@media (prefers-color-scheme: dark) { :root {
  --back: #0d1117; --text: #e6edf3; --dim: #8b949e; --line: #30363d; --head: #161b22;
  --add: #12361f; --del: #4a1c20; --source: #79c0ff; } }
body { background: var(--back); color: var(--text); font: 14px/1.45 system-ui, sans-serif;
  margin: 1.5rem auto; max-width: 90rem; padding: 0 1rem; }
h1 { font-size: 1.3rem; } .dim { color: var(--dim); }
details { border: 1px solid var(--line); border-radius: 6px; margin: .8rem 0; overflow-x: auto; }
summary { background: var(--head); cursor: pointer; padding: .4rem .8rem; }
table { border-collapse: collapse; width: 100%;
  font: 12.5px/1.5 ui-monospace, "DejaVu Sans Mono", Menlo, monospace; }
td { padding: 0 .5rem; white-space: pre; vertical-align: top; }
td.slot { color: var(--dim); text-align: right; user-select: none; width: 1%; }
tr.added { background: var(--add); } tr.removed { background: var(--del); }
tr.source td { color: var(--source); padding-top: .25rem; }
tr.label td { font-weight: 600; }
tr.skipped td { background: var(--head); color: var(--dim); text-align: center; }
td.note { color: var(--dim); text-align: right; width: 1%; }
"""

_WIDE: Final = (
    '<tr class="{kind}"><td class="slot"></td><td class="slot"></td>'
    '<td colspan="2">{shown}</td></tr>'
)
_ROW: Final = (
    '<tr class="{kind}"><td class="slot">{old}</td><td class="slot">{new}</td>'
    '<td>{sign} %s</td><td class="note">{note}</td></tr>'
)
_END: Final = "</table></details>"


def escape(text: str) -> str:
    """Text of an object as a page may hold it."""
    return escape_html(visible(text))


def diff_html(diff: Diff, title: str, context: int) -> str:
    """The whole page; see `Diff.html`."""
    return "\n".join(_page(diff, title, context)) + "\n"


def _page(diff: Diff, title: str, context: int) -> Iterator[str]:
    yield "<!DOCTYPE html>"
    yield '<html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>"
    yield f"<h1>{escape(title)}</h1>"
    yield f'<p class="dim">{escape(_summary(diff))}</p>'
    functions = [one for one in diff.functions if not one.is_equal]
    for lines in DiffLines(diff, context, functions, escape).portions():
        yield from _rows(lines, functions)
    if functions:
        yield _END
    yield "</body></html>"


def _summary(diff: Diff) -> str:
    if diff.is_equal:
        return f"All {plural(len(diff.functions), 'function')} are the same."
    n_equal = sum(function.is_equal for function in diff.functions)
    return (
        f"{plural(diff.count(Op.ADDED), 'instruction')} added, {diff.count(Op.REMOVED)} removed, "
        f"{diff.count(Op.CHANGED)} changed; {len(diff.functions) - n_equal} of "
        f"{plural(len(diff.functions), 'function')} differ."
    )


def _rows(lines: Lines, functions: list[FunctionDiff]) -> list[str]:
    out = np.empty(lines.kind.size, object)
    heads = lines.of(LineKind.HEAD)
    out[heads] = [_head(functions, at) for at in lines.old[heads].tolist()]
    for kind, template, *columns in (
        (LineKind.SKIPPED, _WIDE.format(kind="skipped", shown="... %s"), lines.text),
        (LineKind.SOURCE, _WIDE.format(kind="source", shown="%s"), lines.text),
        (LineKind.LABEL, _WIDE.format(kind="label", shown="%s"), lines.text),
        (
            LineKind.SAME,
            _ROW.format(kind="same", old="%d", new="%d", sign=" ", note=""),
            *(lines.old, lines.new, lines.text),
        ),
        (
            LineKind.REMOVED,
            _ROW.format(kind="removed", old="%d", new="", sign="-", note=""),
            *(lines.old, lines.text),
        ),
        (
            LineKind.ADDED,
            _ROW.format(kind="added", old="", new="%d", sign="+", note="%s"),
            *(lines.new, lines.text, lines.note),
        ),
    ):
        where = lines.of(kind)
        rows = zip(*(column[where].tolist() for column in columns), strict=True)
        out[where] = [template % row for row in rows]
    shown: list[str] = out.tolist()
    return shown


def _head(functions: list[FunctionDiff], at: int) -> str:
    """What closes the function before, and begins this one."""
    function = functions[at]
    place = f" in {function.section}" if function.section else ""
    begin = (
        f"<details open><summary><b>{escape(function.name)}</b>"
        f'<span class="dim">{escape(place)}: {escape(describe_change(function))}</span></summary>'
        "<table>"
    )
    return f"{_END}\n{begin}" if at else begin
