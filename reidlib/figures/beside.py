"""A figure of two studies side by side."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from reidlib.figures.style import INK, PALETTE, WIDTH, method_axis, styled
from reidlib.methods import parse


@styled
def side_by_side(compared: pd.DataFrame, names: tuple[str, str] = ("first", "second")) -> Figure:
    """A panel a data set, a line a method trained and tested there: from the first's mAP to the second's. Variants are left out.

    compared: of `reidlib.beside.accuracy`. Raises ValueError where the two have nothing in common.
    """
    plain = ~compared["method"].map(lambda method: bool(parse(method).changes()))
    both = compared[plain & (compared["train_dataset"] == compared["test_dataset"])].dropna(subset=["first", "second"])
    if both.empty:
        raise ValueError("the two studies have no method, trained and tested on the same set, in common")
    panels, shown = list(both.groupby("test_dataset", sort=False)), list(both["method"].unique())
    size = (min(WIDTH, 2.4 + 2.7 * len(panels)), 1.1 + 0.22 * len(shown))
    figure, grid = plt.subplots(1, len(panels), figsize=size, sharex=True, sharey=True, squeeze=False)
    for axes, (dataset, own) in zip(grid[0], panels):
        places = [shown.index(method) for method in own["method"]]
        before, after = 100 * own["first"], 100 * own["second"]
        axes.hlines(places, before, after, color=INK, lw=1.2)
        axes.plot(before, places, "o", ms=5, mfc="white", mec=INK, mew=1.2, label=names[0])
        axes.plot(after, places, "o", ms=5, color=PALETTE[0], label=names[1])
        axes.set(title=dataset, xlabel="mAP (%)")
        method_axis(axes, shown)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure
