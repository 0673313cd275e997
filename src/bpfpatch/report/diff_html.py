"""A diff as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape as escape_html
from typing import Final

from bpfpatch.text import visible

from .diff import Diff, FunctionDiff, Op
from .diff_text import describe_change
from .lines import DiffLines, Line

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
_SIGN: Final = {"same": " ", "removed": "-", "added": "+"}


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
    lines = DiffLines(diff, context)
    for function in diff.functions:
        if not function.is_equal:
            yield from _function(function, lines)
    yield "</body></html>"


def _summary(diff: Diff) -> str:
    if diff.is_equal:
        return f"All {len(diff.functions)} functions are the same."
    n_equal = sum(function.is_equal for function in diff.functions)
    return (
        f"{diff.count(Op.ADDED)} instructions added, {diff.count(Op.REMOVED)} removed, "
        f"{diff.count(Op.CHANGED)} changed; {len(diff.functions) - n_equal} of "
        f"{len(diff.functions)} functions differ."
    )


def _function(function: FunctionDiff, lines: DiffLines) -> Iterator[str]:
    place = f" in {function.section}" if function.section else ""
    yield (
        f"<details open><summary><b>{escape(function.name)}</b>"
        f'<span class="dim">{escape(place)}: {escape(describe_change(function))}</span></summary>'
        "<table>"
    )
    for line in lines.of(function):
        yield _row(line)
    yield "</table></details>"


def _row(line: Line) -> str:
    text = escape(line.text)
    if line.kind not in _SIGN:
        shown = f"... {text}" if line.kind == "skipped" else text
        return (
            f'<tr class="{line.kind}"><td class="slot"></td><td class="slot"></td>'
            f'<td colspan="2">{shown}</td></tr>'
        )
    old = "" if line.old < 0 else line.old
    new = "" if line.new < 0 else line.new
    return (
        f'<tr class="{line.kind}"><td class="slot">{old}</td><td class="slot">{new}</td>'
        f'<td>{_SIGN[line.kind]} {text}</td><td class="note">{escape(line.note)}</td></tr>'
    )
