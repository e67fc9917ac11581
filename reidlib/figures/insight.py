"""Figures of what is in the data and what networks make of it: statistics, training, gate, embeddings."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reidlib.figures.style import INK, LINES, PALETTE, WIDTH, styled
from reidlib.methods import Expert, label
from reidlib.params import Recipe

if TYPE_CHECKING:  # they load torch, which no figure needs
    from reidlib.data import Dataset
    from reidlib.retrieval import EmbeddingSet

SHAPES = "os^DvPX*<>hp"  # of identities


@styled
def dataset_statistics(datasets: "dict[str, Dataset]", trained: Sequence[str] | None = None) -> Figure:
    """For each data set: how many training pictures an identity has, and how many pictures each camera took.

    trained: the data sets that something is trained on, default: all; of others training pictures are left out.
    """
    kept = {name: name in (datasets if trained is None else trained) for name in datasets}
    figure, grid = plt.subplots(len(datasets), 2, figsize=(WIDTH, 2.5 * len(datasets)), squeeze=False)
    for (name, dataset), (left, right) in zip(datasets.items(), grid):
        left.set(title=f"{name}: training identities", xlabel="pictures per identity", ylabel="identities")
        if kept[name] and len(counts := dataset.train["pid"].value_counts()):
            step = int(np.ptp(counts)) // 20 + 1
            left.hist(counts, np.arange(counts.min(), counts.max() + step + 1, step) - 0.5, color=PALETTE[0], rwidth=0.85)
            left.set_xlim(counts.min() - step - 0.5, counts.max() + step + 0.5)
            left.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        else:
            left.set(xticks=[], yticks=[])
            left.text(0.5, 0.5, "none: it is for testing alone", ha="center", va="center", transform=left.transAxes)
        bottom = 0
        looks = {"train": (PALETTE[0], ""), "query": (PALETTE[1], "///"), "gallery": (PALETTE[9], "")}
        splits = {split: getattr(dataset, split)["camid"] for split in looks if kept[name] or split != "train"}
        cameras = sorted(set().union(*splits.values()))
        for split, camid in splits.items():
            hue, hatch = looks[split]
            count = camid.value_counts().reindex(cameras, fill_value=0).to_numpy()
            style = {"color": hue, "edgecolor": "white", "hatch": hatch}
            right.bar(range(len(cameras)), count, bottom=bottom, label=split, **style)
            bottom = bottom + count
        right.set(title=f"{name}: cameras", xlabel="camera", ylabel="pictures", xticks=range(len(cameras)))
        right.set_xticklabels(cameras, fontsize=9 if len(cameras) <= 10 else 7)
        left.grid(False, axis="x")
        right.grid(False, axis="x")
    grid[0, 1].legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


@styled
def training_curves(histories: dict[str, pd.DataFrame], recipes: Mapping[str, Recipe] | None = None) -> Figure:
    """Loss over epochs, and a panel for each of its terms, times its weight, where there are several.

    histories: by label, columns epoch, loss and one for each term. recipes: by the same labels; where pictures are of another
    size from an epoch on is a dotted line, in the colour of the history where that is not the same for all.
    """
    changes = {name: tuple(np.cumsum([s.epochs for s in recipe.stages])) for name, recipe in (recipes or {}).items()}
    alike = len(set(changes.values())) == 1
    terms = list(dict.fromkeys(c for history in histories.values() for c in history.columns if c != "epoch"))
    terms = ["loss"] if len(terms) == 2 else terms  # a single term is the loss
    columns = min(3, len(terms))
    rows = -(-len(terms) // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(WIDTH, 0.6 + 2.1 * rows), squeeze=False)
    for axes in grid.flat[len(terms) :]:
        axes.set_axis_off()
    for axes, term in zip(grid.flat, terms):
        for place, (name, history) in enumerate(histories.items()):
            style = {"color": PALETTE[place % len(PALETTE)], "linestyle": LINES[place % len(LINES)]}
            if term in history:
                axes.plot(history["epoch"], history[term], label=name, **style)
            for end in changes.get(name, ()):
                hue = INK if alike else style["color"]
                axes.axvline(end + 0.5, color=hue, lw=0.8, ls=":", label="pictures of another size from here on", zorder=1)
        axes.set(title="loss, all terms" if term == "loss" and len(terms) > 1 else term, xlabel="epoch")
        axes.set_ylabel("weighted loss" if axes is grid[axes.get_subplotspec().rowspan.start, 0] else "")
        axes.xaxis.get_major_locator().set_params(integer=True)
    handles, names = grid[0, 0].get_legend_handles_labels()
    shown = dict(zip(names, handles))  # each once
    figure.legend(shown.values(), shown, loc="outside upper center", ncols=2, handlelength=3)
    return figure


@styled
def gate_weights(weights: pd.DataFrame, experts: Sequence[str], by: str | Sequence[str] = "camid") -> Figure:
    """How the gate's weight of the first expert is spread, over all pictures and by group.

    weights: a column for each expert, and those that `by` names: "camid", "type", "color", "domain"; a panel each.
    Pictures without a value there are left out of that panel.
    """
    by = [by] if isinstance(by, str) else list(by)
    for column in by:
        if column not in weights:
            raise ValueError(f"no column '{column}'; group by one of {', '.join(weights.columns.difference(experts))}")
    first, groups = weights[experts[0]], [weights.groupby(column)[experts[0]] for column in by]
    heights = [0.35 + 0.22 * group.ngroups for group in groups]
    size = (WIDTH, max(2.8, 0.6 + sum(heights) + 0.2 * len(by)))
    ratios = {"width_ratios": (1, 1.5), "height_ratios": heights}
    figure, panels = plt.subplot_mosaic([["", column] for column in by], figsize=size, **ratios)
    left = panels.pop("")
    left.hist(first, bins=np.linspace(0, 1, 41), color=PALETTE[0])
    left.axvline(first.mean(), color=INK, ls="--", lw=1.2)
    left.set(title=f"all pictures, mean {first.mean():.2f}", ylabel="pictures")
    ink, mean = {"color": INK}, {"marker": "D", "markerfacecolor": PALETTE[1], "markeredgecolor": INK, "markersize": 4}
    parts = {"boxprops": {"facecolor": PALETTE[9], "edgecolor": INK}, "medianprops": ink | {"linewidth": 1.6},
             "meanprops": mean, "whiskerprops": ink, "capprops": ink, "flierprops": {"markersize": 1}}  # fmt: skip
    for (column, axes), group in zip(panels.items(), groups):
        names = [f"{name} ({len(values)})" for name, values in group]
        boxes = [values.to_numpy() for _, values in group]
        axes.boxplot(boxes, positions=range(len(boxes)), orientation="horizontal", widths=0.6, showmeans=True,
                     patch_artist=True, **parts)  # fmt: skip
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.grid(False, axis="y")
        axes.set_ylabel({"camid": "camera", "domain": "data set", "color": "colour"}.get(column, column))
    figure.align_ylabels(list(panels.values()))
    panels[by[0]].set_title("line: median, diamond: mean (pictures)")
    for axes in (left, *panels.values()):
        axes.set(xlim=(-0.01, 1.01))
    for axes in (left, panels[by[-1]]):
        axes.set(xlabel=f"weight of the {label(Expert(name=experts[0]))}")
    return figure


@styled
def constant_weights(curve: pd.DataFrame, gates: pd.DataFrame, expert: str) -> Figure:
    """mAP over one weight of the first expert for all pictures, and the gates at their mean weights.

    curve: columns weight, mAP (a fraction). gates: those and method. Both as `weighing` has them. expert: the first one's name.
    """
    figure, axes = plt.subplots(figsize=(WIDTH, 3.2))
    best = curve.loc[curve["mAP"].idxmax()]
    axes.plot(curve["weight"], 100 * curve["mAP"], "o-", color=INK, ms=3, label="one weight for all pictures")
    told = f"best: {100 * best['mAP']:.1f} at {best['weight']:.1f}"
    axes.annotate(told, (best["weight"], 100 * best["mAP"]), (0, 7), textcoords="offset points", ha="center", fontsize=8)
    for place, gate in enumerate(gates.itertuples()):
        style = {"marker": "DsPX"[place % 4], "color": PALETTE[(1, 0, 2, 3)[place % 4]], "markeredgecolor": INK}
        named = f"{label(gate.method)}: {100 * gate.mAP:.1f}"
        axes.plot(gate.weight, 100 * gate.mAP, ls="", ms=8, label=named, zorder=3, **style)
    axes.set(xlabel=f"weight of the {label(Expert(name=expert))} (gates: mean over the gallery)", ylabel="mAP (%)")
    axes.margins(y=0.15)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1))
    return figure


@styled
def embedding_map(panels: "dict[str, EmbeddingSet]", ids: int = 12, seed: int = 0) -> Figure:
    """t-SNE (van der Maaten and Hinton 2008) of some identities' embeddings, a panel a method; shape tells identity.

    panels: the same pictures, such as the gallery, as each method embeds them. Junk and distractors are left out, and
    so are identities with a single picture; of the others, `ids` are drawn at random.
    Raises ValueError where panels hold different pictures or fewer than two identities.
    """
    from sklearn.manifold import TSNE  # here, for it takes a second to import and no other figure needs it

    first = next(iter(panels.values()))
    for name, own in panels.items():
        if not (np.array_equal(own.pid, first.pid) and np.array_equal(own.camid, first.camid)):
            raise ValueError(f"{name}: other pictures than {next(iter(panels))}; embed the same with each method")
    pids, counts = np.unique(first.pid[first.pid > 0], return_counts=True)
    known = pids[counts > 1]
    if min(len(known), ids) < 2:
        raise ValueError(f"a map needs at least 2 identities with 2 pictures; there are {len(known)}, asked for {ids}")
    drawn = np.sort(np.random.default_rng(seed).permutation(known)[:ids])
    places = np.flatnonzero(np.isin(first.pid, drawn))
    # neighbours that t-SNE reckons with: more than an identity has, or tight clusters drift apart without end
    perplexity = min(max(12, len(places) / len(drawn)), 30, (len(places) - 1) / 3)
    columns = 2 if len(panels) in (2, 4) else min(3, len(panels))
    rows = -(-len(panels) // columns)
    side = WIDTH / max(columns, 2)
    size = (columns * side, rows * (0.85 * side + 0.2) + 0.6)
    figure, grid = plt.subplots(rows, columns, figsize=size, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    colours = [PALETTE[i] for i in (0, 1, 2, 3, 4, 9, 5, 7)]
    for axes, (method, own) in zip(grid.flat, panels.items()):
        features = own.features[places].cpu().numpy()
        unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)  # distances are cosines'
        fitted = TSNE(perplexity=perplexity, init="pca", method="exact", random_state=seed).fit_transform(unit)
        for i, pid in enumerate(drawn):
            style = {"marker": SHAPES[i % len(SHAPES)], "color": colours[i % len(colours)]}
            shown = fitted[own.pid[places] == pid]
            axes.scatter(*shown.T, s=26, edgecolor=INK, linewidth=0.4, label=f"pid {pid}", **style)
        axes.set(title=label(method), xticks=[], yticks=[])
        axes.margins(0.08)
        axes.spines[:].set(visible=True, color="#999999")  # a frame, not axes: directions and lengths mean nothing
    handles, names = grid[0, 0].get_legend_handles_labels()
    style = {"ncols": min(6, len(names)), "fontsize": 8, "handletextpad": 0.1, "columnspacing": 1.2}
    figure.legend(handles, names, loc="outside upper center", **style)
    return figure
