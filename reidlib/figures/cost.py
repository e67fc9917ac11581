"""Figures of what methods cost, and of what accuracy costs."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.text import OffsetFrom
from matplotlib.ticker import LogLocator

from reidlib.figures.style import INK, MARKERS, WIDTH, colour, method_axis, short_number, styled
from reidlib.methods import Student, label, parse
from reidlib.results import at_home, costs, select, summary


@styled
def pareto(table: pd.DataFrame, metric: str = "mAP") -> Figure:
    """Accuracy over latency and over parameters, a row of panels a data set; the Pareto front is a line.

    The front holds the methods that none beats in accuracy without costing more: filled in its panel, others hollow.
    Whiskers: the 95 % interval over the seeds; a method of fewer seeds than others says of how many it is. Of variants, only
    students of other sizes are shown. Students of one size are one network, whoever taught them: its costs are the median of
    those that were measured of them.

    table: the results, with costs.
    """
    changes = {method: parse(method).changes() for method in table["method"].unique()}
    kept = select(table, [method for method, change in changes.items() if change.keys() <= {"size"}])
    cost, rows = costs(kept), at_home(summary(kept[kept["metric"] == metric]))
    sizes = {method: parse(method).size for method in changes if isinstance(parse(method), Student)}
    for size in set(sizes.values()):
        one = [method for method in sizes if sizes[method] == size]
        measured = [method for method in one if method in cost.index]
        if measured:
            median = cost.loc[measured].median()
            for method in one:
                cost.loc[method] = median
    rows = rows[rows["method"].isin(cost.index)]
    names = {m: _short_name(m) for m in rows["method"]} | _few_seeds(rows)
    sets, axis = rows["test_dataset"].unique(), {"latency_ms": "latency of one picture (ms)", "parameters": "parameters"}
    most = rows.groupby("test_dataset")["method"].nunique().max()
    size = (WIDTH, 0.4 + len(sets) * max(2.6, 0.7 + 0.17 * most))
    between = 0.25 + 0.062 * max(map(len, names.values()))  # inches, for the names
    widths = [(WIDTH - 0.8 - between) / 2, between, (WIDTH - 0.8 - between) / 2]
    figure, grid = plt.subplots(len(sets), 3, figsize=size, sharey="row", squeeze=False, width_ratios=widths)
    for (left, middle, right), name in zip(grid, sets):
        own = rows[rows["test_dataset"] == name].set_index("method").sort_values("mean", kind="stable")
        mean, low, high = (100 * own[c] for c in ("mean", "low", "high"))
        for axes, (metric_of_cost, text) in zip((left, right), axis.items()):
            x = cost[metric_of_cost][own.index]
            front = _front(x.to_numpy(), mean.to_numpy())
            best = x[front].sort_values()
            axes.step(best, mean[best.index], where="post", color=INK, lw=1.2, label="Pareto front", zorder=2)
            whiskers = np.nan_to_num([mean - low, high - mean])
            axes.errorbar(x, mean, yerr=whiskers, fmt="none", ecolor=INK, elinewidth=0.6, alpha=0.5, zorder=1)
            for method, filled in zip(own.index, front):
                style = {"marker": MARKERS[parse(method).kind], "mec": colour(method), "mew": 1.4, "ms": 7}
                face = colour(method) if filled else "white"
                axes.plot(x[method], mean[method], ls="", mfc=face, zorder=3, label=method, **style)
            axes.set(xscale="log", xlabel=text)
            axes.margins(0.12, 0.1)
            axes.minorticks_off()
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if x.max() < 20 * x.min() else (1,)))
            axes.xaxis.set_major_formatter(lambda value, _: short_number(value))
        left.set(ylabel=f"{metric} (%)")
        right.tick_params(axis="y", left=False)
        middle.set_title(name, pad=12)
        middle.set_axis_off()
        middle.set_zorder(left.get_zorder() + 1)  # or lines to the points would cross out names
        bottom, top = left.get_ylim()
        for method, height in zip(own.index, _apart((mean.to_numpy() - bottom) / (top - bottom), len(own) + 1)):
            _named(
                middle, (left, right), names[method], colour(method), height, [cost[c][method] for c in axis], mean[method]
            )
    handles = {"Pareto front: no method is both better and cheaper than these, which are filled": grid[0, 0].lines[0]}
    if peers := [line for line in grid[0, 0].lines if line.get_marker() == MARKERS["peer"]]:
        handles["peer: trained elsewhere, by others; timed in OpenVINO, all else in PyTorch"] = peers[0]
    figure.legend(handles.values(), handles.keys(), loc="outside upper center")
    return figure


@styled
def efficiency_bars(efficiency: pd.DataFrame, methods: Sequence[str] | None = None) -> Figure:
    """Parameters, MACs and latency of each method, side by side on log scales.

    efficiency: results, or rows of `profiling.profile`. methods: only these; None: all but variants.
    """
    table = costs(select(efficiency, methods))
    runtimes = "\n(peers in OpenVINO)" * any(parse(method).kind == "peer" for method in table.index)
    panels = {
        "parameters": "parameters",
        "macs": "MACs per picture",
        "latency_ms": f"latency of one picture (ms){runtimes}",
    }
    figure, grid = plt.subplots(1, 3, figsize=(8, 0.8 + 0.27 * len(table)), sharey=True)
    for axes, (metric, name) in zip(grid, panels.items()):
        values = table[metric]
        for place, (method, value) in enumerate(values.items()):
            # dots: the length of a bar means nothing where the axis has no zero
            axes.plot(value, place, "o", ms=8, color=colour(method))
            axes.annotate(short_number(value), (value, place), (8, 0), textcoords="offset points", va="center", fontsize=8)
        low, high = values.min(), values.max()
        axes.set(xscale="log", xlabel=name, xlim=(low / 1.5, high * 1.5 * (1.5 * high / low) ** 0.45))
        method_axis(axes, table.index)
        axes.grid(True, axis="y")
        axes.minorticks_off()
        axes.xaxis.set_major_formatter(lambda value, _: short_number(value))
    return figure


def _named(
    middle: plt.Axes, beside: Sequence[plt.Axes], name: str, hue: str, height: float, x: Sequence[float], y: float
) -> None:
    """A method's name between two panels, with a line to its point in each."""
    style = {"ha": "center", "va": "center", "fontsize": 8, "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 0.5}}
    text = middle.text(0.5, height, name, transform=middle.transAxes, **style)
    text.set_in_layout(False)
    for axes, cost, edge, gap in zip(beside, x, (0, 1), (-2, 2)):
        line = {"arrowstyle": "-", "color": hue, "lw": 0.6, "alpha": 0.6, "shrinkA": 0, "shrinkB": 3}
        start = {"xytext": (gap, 0), "textcoords": OffsetFrom(text, (edge, 0.5), "points")}
        axes.annotate("", (cost, y), **start, arrowprops=line).set_in_layout(False)


def _short_name(method: str) -> str:
    return ", ".join([label(parse(method).base), *parse(method).changes().values()])


def _few_seeds(rows: pd.DataFrame) -> dict[str, str]:
    """What methods of fewer trainings than others are called: with how many they have. rows: see `summary`."""
    trained = rows[~rows["method"].map(lambda method: parse(method).kind in ("pixels", "start", "peer"))]
    few = trained[trained["seeds"] < trained["seeds"].max()].drop_duplicates("method")
    return {m: f"{_short_name(m)} ({n} seed{'s' * (n > 1)})" for m, n in zip(few["method"], few["seeds"])}


def _front(cost: np.ndarray, value: np.ndarray) -> np.ndarray:
    """bool [N]: which points no other beats, by a higher value at no higher cost or the same value at a lower one."""
    beaten = (cost[:, None] >= cost) & (value[:, None] <= value) & ((cost[:, None] > cost) | (value[:, None] < value))
    return ~beaten.any(axis=1)


def _apart(heights: np.ndarray, room: int = 14) -> np.ndarray:
    """Sorted heights in [0, 1], moved until labels at them don't overlap; there is room for `room` of them or more."""
    step, out = 1 / max(room, len(heights)), heights.astype(float)
    for _ in range(200):
        push = np.maximum(step - np.diff(out), 0) / 2
        out[:-1] -= push
        out[1:] += push
        out = np.clip(out, 0, 1)
    return out
