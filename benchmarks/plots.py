"""Draw a plot as SVG and PNG, where matplotlib is installed."""

from __future__ import annotations

import io
from importlib import import_module
from typing import Any, Final

from .report import Line, Plot

_COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#444444")
_MARKERS: Final = "osD^vPX"
_COLUMNS: Final = 3
_LETTERS, _MARK = 15, 8
"""Letters of a legend to an inch, and as how many the mark in front of a text counts."""
_FORMS: Final[dict[str, dict[str, Any]]] = {
    "svg": {"metadata": {"Date": None}},
    "png": {"dpi": 110},
}


def draw(plot: Plot) -> dict[str, bytes]:
    """Draw a plot's two files.

    Returns:
        What is in each, by its name; nothing where matplotlib is not installed.
    """
    try:
        matplotlib: Any = import_module("matplotlib")
    except ImportError:
        return {}
    matplotlib.use("Agg")
    # Text stays text, and the same figures give the same file.
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": plot.name, "font.size": 9})
    pyplot: Any = import_module("matplotlib.pyplot")
    figure = _figure(pyplot, plot)
    out = {}
    for kind, options in _FORMS.items():
        file = io.BytesIO()
        figure.savefig(file, format=kind, **options)
        out[f"{plot.name}.{kind}"] = file.getvalue()
    pyplot.close(figure)
    return out


def _figure(pyplot: Any, plot: Plot) -> Any:
    groups = list(dict.fromkeys(line.group for line in plot.lines))
    labels = list(dict.fromkeys(line.label for line in plot.lines))
    columns = min(len(groups), _COLUMNS)
    rows = -(-len(groups) // columns)
    size = (7.0, 4.6) if len(groups) == 1 else (3.7 * columns, 3.0 * rows + 0.9)
    figure, axes = pyplot.subplots(
        rows, columns, figsize=size, sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    for panel, group in zip(axes.flat, groups, strict=False):
        for line in plot.lines:
            if line.group == group:
                _draw_line(panel, line, labels.index(line.label))
        _dress(panel, group)
    for panel in list(axes.flat)[len(groups) :]:
        panel.set_visible(False)
    figure.suptitle(plot.title)
    for panel in axes[-1]:
        panel.set_xlabel(plot.x)
    figure.supylabel(plot.y, fontsize=9)
    handles: dict[str, Any] = {}
    for panel in axes.flat:
        found, names = panel.get_legend_handles_labels()
        handles.update(zip(names, found, strict=True))
    if len(handles) > 1:
        fit = int(size[0] * _LETTERS / (max(map(len, handles)) + _MARK))
        figure.legend(
            handles.values(),
            handles.keys(),
            loc="outside lower center",
            ncols=max(1, min(len(handles), fit, 4)),
        )
    return figure


def _draw_line(panel: Any, line: Line, row: int) -> None:
    x, y = [point[0] for point in line.points], [point[1] for point in line.points]
    look: dict[str, Any] = {"linewidth": 1.4, "markersize": 4}
    if line.style == "points":
        look = {"linestyle": "none", "markersize": 3.5, "alpha": 0.7}
    colour, marker = _COLOURS[row % len(_COLOURS)], _MARKERS[row % len(_MARKERS)]
    panel.plot(x, y, marker=marker, color=colour, label=line.label, **look)


def _dress(panel: Any, title: str) -> None:
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_title(title, fontsize=9)
    panel.grid(which="major", linewidth=0.5, alpha=0.5)
    panel.spines[["top", "right"]].set_visible(False)
