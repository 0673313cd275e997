"""Draw a plot as SVG and PNG, where matplotlib is installed."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, Final

from .report import Line, Plot

_COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#444444")
_MARKERS: Final = "osD^vPX"
_COLUMNS: Final = 3


def draw(plot: Plot, folder: Path) -> list[Path]:
    """Write a plot's two files.

    Returns:
        What was written; nothing where matplotlib is not installed.
    """
    try:
        matplotlib: Any = import_module("matplotlib")
    except ImportError:
        return []
    matplotlib.use("Agg")
    # Text stays text, and the same figures give the same file.
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": plot.name, "font.size": 9})
    pyplot: Any = import_module("matplotlib.pyplot")
    figure = _figure(pyplot, plot)
    out = [folder / f"{plot.name}.{kind}" for kind in ("svg", "png")]
    figure.savefig(out[0], metadata={"Date": None})
    figure.savefig(out[1], dpi=110)
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
        figure.legend(
            handles.values(), handles.keys(), loc="outside lower center", ncols=min(len(handles), 4)
        )
    return figure


def _draw_line(panel: Any, line: Line, row: int) -> None:
    x, y = list(line.points), list(line.points.values())
    colour = _COLOURS[row % len(_COLOURS)]
    if line.style == "estimated":
        panel.plot(x, y, "--", color=colour, linewidth=1, alpha=0.7, label=line.label)
        return
    marker = _MARKERS[row % len(_MARKERS)]
    panel.plot(x, y, marker=marker, markersize=4, color=colour, linewidth=1.4, label=line.label)


def _dress(panel: Any, title: str) -> None:
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_title(title, fontsize=9)
    panel.grid(which="major", linewidth=0.5, alpha=0.5)
    panel.spines[["top", "right"]].set_visible(False)
