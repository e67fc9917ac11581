"""Figures of how well methods find what they are asked for."""

import textwrap
from collections import Counter
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reidlib.figures.style import INK, LINES, MARKERS, WIDTH, colour, method_axis, styled
from reidlib.methods import ELSEWHERE, TAUGHT, label, parse
from reidlib.results import at_home, select, summary


@styled
def accuracy_bars(results: pd.DataFrame, metric: str = "mAP", methods: Sequence[str] | None = None) -> Figure:
    """A panel a data set, a bar a method: mean and 95 % interval over the seeds; every seed a dot.

    methods: only these; None: all but variants ("student/size=small").
    """
    seeds = at_home(select(results, methods)[lambda t: t["metric"] == metric])
    rows = summary(seeds)
    shown, panels = list(rows["method"].unique()), rows["test_dataset"].unique()
    size = (max(5.0, 1.9 + 2.9 * len(panels)), 0.8 + 0.27 * len(shown))
    figure, grid = plt.subplots(1, len(panels), figsize=size, sharex=True, sharey=True, squeeze=False)
    longest = 0
    for axes, panel in zip(grid[0], panels):
        own = rows[rows["test_dataset"] == panel].set_index("method")
        places = [shown.index(method) for method in own.index]
        mean, low, high = (100 * own[c].to_numpy() for c in ("mean", "low", "high"))
        axes.barh(places, mean, height=0.72, color=[colour(m) for m in own.index], alpha=0.75)
        whiskers = np.nan_to_num([mean - np.maximum(low, 0), high - mean])
        axes.errorbar(mean, places, xerr=whiskers, fmt="none", ecolor=INK, elinewidth=1, capsize=2.5)
        dots = seeds[seeds["test_dataset"] == panel]
        axes.plot(100 * dots["value"], list(map(shown.index, dots["method"])), "o", ms=3, mfc="white", mec=INK, mew=0.8)
        tip = np.maximum(mean + whiskers[1], 100 * dots.groupby("method")["value"].max()[own.index].to_numpy())
        for place, value, end in zip(places, mean, tip):
            axes.annotate(f"{value:.1f}", (end, place), (5, 0), textcoords="offset points", va="center", fontsize=8)
        longest = max(longest, tip.max())
        axes.set(title=panel, xlabel=f"{metric} (%)", xlim=(0, 1.2 * longest))
        method_axis(axes, shown)
    return figure


@styled
def ablation_bars(differences: pd.DataFrame, title: str = "", base: str = "") -> Figure:
    """What each change makes of mAP, in points: a panel a data set, the interval, a line at zero.

    A filled marker says that the interval leaves out 0, a hollow one that it doesn't or that there is none.

    differences: columns method, mean, low, high (fractions, to the base), dataset. base: the method that they are to, for
    the axis; without it that is named where all are variants of one.
    """
    shown, panels = list(differences["method"].unique()), differences["dataset"].unique()
    changes, bases = [parse(method).changes() for method in shown], {parse(method).base for method in shown}
    same = len(bases) == 1 and all(changes)  # then the variant alone is name enough
    told = [", ".join(f"{what} = {value.replace('+', ' + ')}" for what, value in change.items()) for change in changes]
    names = told if same else [label(method) for method in shown]
    to = f"to {label(bases.pop())}" if same else f"to {label(base)}" if base else "to the base"
    size = (min(WIDTH, 2.6 + 2.6 * len(panels)), 1.2 + 0.27 * len(shown) + 0.25 * bool(title))
    figure, grid = plt.subplots(1, len(panels), figsize=size, sharex=True, sharey=True, squeeze=False)
    for axes, panel in zip(grid[0], panels):
        axes.axvline(0, color=INK, lw=1)
        for row in differences[differences["dataset"] == panel].itertuples():
            mean, low, high, place = 100 * row.mean, 100 * row.low, 100 * row.high, shown.index(row.method)
            style = {"color": colour(row.method), "mfc": colour(row.method) if low > 0 or high < 0 else "white"}
            whiskers = np.nan_to_num([[mean - low], [high - mean]])
            axes.errorbar(mean, place, xerr=whiskers, fmt="o", ms=6, mew=1.4, elinewidth=1.4, capsize=3, **style)
            axes.annotate(f"{mean:+.1f}".replace("-", "−"), (1.0, place), (3, 0), xycoords=axes.get_yaxis_transform(),
                          textcoords="offset points", va="center", fontsize=8)  # fmt: skip
        for place, (above, below) in enumerate(zip(changes, changes[1:])):
            if above.keys() != below.keys():  # another question begins
                axes.axhline(place + 0.5, color="#bbbbbb", lw=0.8)
        axes.set(title=panel)
        method_axis(axes, shown)
        axes.set_yticks(range(len(names)), names)
        axes.set_xlabel(textwrap.fill(f"difference in mAP {to} (points)", 72 // len(panels)))
    handles = [Line2D([], [], marker="o", ls="-", color=INK, mfc=face, mew=1.4) for face in (INK, "white")]
    style = {"loc": "outside upper center", "ncols": 2, "title": title or None, "title_fontsize": 11}
    figure.legend(handles, ["95 % interval leaves out 0", "includes 0"], **style)
    return figure


@styled
def plateau(table: pd.DataFrame) -> Figure:
    """Does KD lift the plateau or only bring it nearer: mAP of the student alone and under the MoE over the epochs it
    trains, and what KD adds, with its 95 % interval. A row of panels a data set. table: of `tables.epochs_table`."""
    sets = table.index.unique()
    figure, grid = plt.subplots(len(sets), 2, figsize=(WIDTH, 0.5 + 2.5 * len(sets)), squeeze=False)
    for (left, right), name in zip(grid, sets):
        own = table.loc[[name]].set_index("epochs")
        for column, method in (("alone (%)", "student"), ("taught (%)", TAUGHT)):
            style = {"color": colour(method), "marker": MARKERS[parse(method).kind], "label": label(method)}
            left.plot(own.index, own[column], **style)
        gain, seeds = own["gain (points)"], int(own["seeds"].max())
        right.errorbar(
            own.index, gain, yerr=[gain - own["low"], own["high"] - gain], fmt="D-", color=INK, capsize=3, elinewidth=1.2
        )
        right.axhline(0, color=INK, lw=1)
        left.set(title=f"{name}: mAP, {seeds} seed{'s' * (seeds > 1)}", ylabel="mAP (%)")
        right.set(title=f"{name}: what KD adds", ylabel="points of mAP, 95 % interval")
        for axes in (left, right):
            axes.set(xlabel="epochs of training (log scale)", xscale="log")
            axes.set_xticks(own.index, [str(epochs) for epochs in own.index])
            axes.minorticks_off()
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


@styled
def cross_domain_heatmap(results: pd.DataFrame, metric: str = "mAP", methods: Sequence[str] | None = None) -> Figure:
    """A map a method, all on one scale: the metric's mean over the seeds, in percent; bold: tested where trained.

    Where all were trained on one data set, one map with a row a method. methods: only these; None: all but variants, as far
    as they were tested on another data set than their training's; never peers, which were trained elsewhere. Raises
    ValueError where there is none.
    """
    import seaborn as sns  # here, for it takes a second to import and no other figure needs it

    rows = summary(select(results, methods)[lambda t: t["metric"] == metric])
    across = (rows["train_dataset"] != rows["test_dataset"]) & (rows["train_dataset"] != ELSEWHERE)
    rows = rows[rows["method"].isin(rows["method"][across])]
    if not len(rows):
        raise ValueError("no method was tested on another data set than the one it was trained on")
    tests = list(rows["test_dataset"].unique())
    trains = sorted(rows["train_dataset"].unique(), key=lambda name: (name.count("+"), (tests + [name]).index(name)))
    shown = list(rows["method"].unique())
    if len(trains) == 1:
        by = rows.pivot(index="method", columns="test_dataset", values="mean").reindex(index=shown, columns=tests)
        maps = {f"trained on {trains[0]}": by.rename(index=label)}
    else:
        of = {method: rows[rows["method"] == method].pivot(index="train_dataset", columns="test_dataset", values="mean")
              for method in shown}  # fmt: skip
        maps = {textwrap.fill(label(m), 22): cells.reindex(index=trains, columns=tests) for m, cells in of.items()}
    columns = min(len(maps), min((4, 3), key=lambda wide: -len(maps) % wide))  # whichever leaves fewer gaps
    lines, high = -(-len(maps) // columns), len(next(iter(maps.values())))
    size = (WIDTH, 0.7 + lines * (0.45 + (0.42 if len(maps) > 1 else 0.28) * high))
    figure, grid = plt.subplots(lines, columns, figsize=size, sharex=True, sharey=True, squeeze=False)
    scale = plt.Normalize(100 * rows["mean"].min(), 100 * rows["mean"].max())
    for axes in grid.flat[len(maps) :]:
        axes.set_axis_off()
    for axes, (name, cells) in zip(grid.flat, maps.items()):
        # (its cells are a mesh, not an image: `save` keeps figures with images back where pictures must not be published)
        axes.grid(False)
        sns.heatmap(100 * cells, ax=axes, cmap="viridis", norm=scale, cbar=False, linewidths=1, linecolor="white")
        for (row, column), value in np.ndenumerate(100 * cells):
            dark = not np.isnan(value) and scale(value) < 0.6
            text = "–" if np.isnan(value) else f"{value:.1f}"
            there = tests[column] in trains[row % len(trains)].split("+") and not np.isnan(value)
            weight = "bold" if there else "normal"
            style = {"ha": "center", "va": "center", "fontsize": 8, "fontweight": weight}
            axes.text(column + 0.5, row + 0.5, text, color="white" if dark else "black", **style)
        axes.set_title(name, fontsize=9)
        axes.set_xticks(
            np.arange(len(tests)) + 0.5, tests, fontsize=8, rotation=0 if len(tests) < 3 or columns == 1 else 30
        )
        axes.set_yticks(
            np.arange(high) + 0.5, [row.replace("+", "\n+ ") if columns > 1 else row for row in cells.index], fontsize=8
        )
        axes.tick_params(length=0)
        axes.set(xlabel=None, ylabel=None)
    for place, axes in enumerate(grid.flat[: len(maps)]):
        if place + columns >= len(maps):
            axes.set_xlabel("tested on", fontsize=8)
            axes.tick_params(labelbottom=True)
        if place % columns == 0 and len(maps) > 1:
            axes.set_ylabel("trained on", fontsize=8)
    figure.colorbar(
        plt.cm.ScalarMappable(scale, "viridis"), ax=grid, label=f"{metric} (%), bold: trained there", aspect=25, pad=0.02
    )
    return figure


@styled
def cmc_curves(curves: dict[str, np.ndarray], title: str, ranks: int = 20) -> Figure:
    """CMC in percent over rank: the seeds' mean, in a band from the worst to the best seed.

    curves: for each method, fractions float [seeds, at least `ranks`].
    """
    figure, axes = plt.subplots(figsize=(WIDTH, 3.6))
    drawn = Counter()  # lines of each colour
    for method, fractions in curves.items():
        values, hue = 100 * np.asarray(fractions)[:, :ranks], colour(method)
        places = np.arange(1, values.shape[1] + 1)
        axes.plot(places, values.mean(0), label=label(method), color=hue, linestyle=LINES[drawn[hue] % len(LINES)])
        axes.fill_between(places, values.min(0), values.max(0), color=hue, alpha=0.15, linewidth=0)
        drawn[hue] += 1
    axes.set(title=title, xlabel="rank k", ylabel="queries with a match among the first k (%)", xlim=(1, ranks))
    axes.set_xticks([1, *range(5, ranks + 1, 5)])
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), handlelength=3.2)
    return figure
