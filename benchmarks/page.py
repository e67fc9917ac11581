"""results/benchmarks/: a figure a case and one page, both made of the tables there alone."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from benchmarks import search
from benchmarks.retrieval import OURS, PATIENCE, PRODUCT, numbers
from benchmarks.timing import TIMES
from reidlib.figures.style import INK, LINES, PALETTE, STYLE, WIDTH, write

HEAD = """# Benchmarks

Made by `make benchmark`, on one machine, each case in one run. Methods take turns (A B C A B C); times are medians with
quartiles. Memory is the most that one call takes beyond its inputs, in a process of its own. Peers named with a version
are the published code, where it is installed; "as ... does" are our own few lines that do what it does.

reidlib needs none of the peers. To have them measured too:

    .venv/bin/pip install "cython<3.1" opencv-python-headless h5py gdown tensorboard      # what they import
    .venv/bin/pip install --no-deps --no-build-isolation git+https://github.com/KaiyangZhou/deep-person-reid
    .venv/bin/pip install --no-deps fastreid
    (cd .venv/lib/python3*/site-packages/fastreid/evaluation/rank_cylib && $OLDPWD/.venv/bin/python setup.py build_ext -i)

(The package index's torchreid is a fork without the compiled ranking.)"""
TITLES = {
    "evaluation": "Evaluation: from embeddings to mAP",
    "evaluation_large": "Evaluation with a gallery of a million",
    "reranking": "k-reciprocal re-ranking",
    "search": "Searching a gallery",
    "loading": "From JPEG files to training batches",
    "teacher": "Distillation with a cached and with an online teacher",
    "training": "Training in the paper's configuration",
    "reaching": "Time to accuracy: the student on Market-1501",
}
UNITS = {"loading": "files", "teacher": "a batch", "training": "a batch"}  # what their sizes count
ABOUT = {
    "evaluation": "Sizes are queries x gallery x dimensions. Every method starts from the arrays of embeddings and labels, "
    "so each one's time includes a matrix product; *the product alone* ranks nothing. The difference is that of mAP. "
    f"A method is left out where a call would take over {PATIENCE['evaluation']} seconds.",
    "evaluation_large": "The product is made in blocks of queries, each of them dropped: the whole matrix would not fit.",
    "reranking": "Sizes are queries x gallery x dimensions; from the features on. The difference is the largest between "
    "two distances, and *apart* the share of the Q x G distances that differ by more than 1e-4: where two neighbours are "
    "as near as float32 can tell, one library takes the one and another the other.",
    "search": "Sizes are queries x gallery x dimensions; the ten nearest to each of all queries at once, with one thread for every "
    "method, *the product alone* with the ten largest of each row. Vectors are drawn as a student's of Market-1501 are spread "
    "(`benchmarks.search.draw`). *Found* is the share of the true ten that are among the answers, *of one camera* the same where "
    "only pictures of one camera in six may be answers, a filter that is applied before the search. The index takes what its "
    "file takes. An index that would take over "
    f"{search.PATIENCE // 60} minutes to build is left out.",
    "loading": "Sizes are numbers of files. Epoch 1 decodes and resizes; later epochs give shuffled, augmented batches of "
    "64: torchreid's normalised, reidlib's both as its networks take them (uint8, which they normalise where they run) and "
    "normalised too. Files are in the page cache for all alike.",
    "teacher": "Sizes are pictures a batch. The student of params/paper.yaml on noise, with random weights: values do not "
    "change the time.",
    "training": "Sizes are pictures a batch; networks of params/paper.yaml with random weights, on noise. Whole steps of "
    "reidlib's loop: input, forward, backward, optimizer; torchreid's engine is handed its input ready. On a CPU experts "
    "are left out of large batches. torch.compile's first call, which takes most of a minute, does not count.",
    "reaching": "The study's student, MobileNetV2 with ImageNet's weights, trained on three quarters of Market-1501's training "
    "identities and tested on the others. reidlib: the recipe of params/market1501.yaml cut to so many epochs, each trained "
    "anew with its learning rate brought down to nothing, decoding included. torchreid: its engine, loader and standard recipe "
    "(softmax, smoothed labels, AMSGrad, 256 x 128, five epochs of the classifier alone), after each epoch of one training of 60, "
    "which lowers its learning rate after 20. One training each. Testing does not count; both stop once they reach the goal, "
    "torchreid after six times reidlib's minutes at the latest.",
}


@plt.rc_context(STYLE)
def lay_out(folder: Path) -> None:
    """Figures and README.md of every <case>.csv in `folder`."""
    parts = []
    for case, title in TITLES.items():
        if not (folder / f"{case}.csv").exists():
            continue
        table = pd.read_csv(folder / f"{case}.csv")
        parts += [f"## {title}", ABOUT[case]]
        figure = learning(table) if case == "reaching" else rates(table, UNITS[case]) if case in UNITS else growth(table)
        figure.suptitle(title)
        write(figure, folder, case)
        plt.close(figure)
        parts.append(f"![{title}]({case}.png)")
        where = f"*{'; '.join(table['machine'].unique())}; [{case}.csv]({case}.csv)*"
        parts += [shown(table).to_markdown(index=False), where]
    (folder / "README.md").write_text("\n\n".join([HEAD, *parts]) + "\n")


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """The table as the page has it: what a reader compares, rounded."""
    if "goal" in table:
        out = table[["method", "epochs"]].assign(
            minutes=(table["seconds"] / 60).round(1), mAP=(100 * table["mAP"]).round(1)
        )
        return out.rename(columns={"mAP": "mAP (%), held out"})
    out = table[["size", "method"]].copy()
    times = zip(table["runs"], *(table[c] for c in TIMES))
    out["seconds"] = [f"{s:.3g} ({low:.3g} to {high:.3g})" if runs else "left out" for runs, s, low, high in times]
    out["runs"] = table["runs"]
    if "recall" in table:
        out["queries / s"] = ["" if np.isnan(r) else _number(r) for r in table["items"] / table["seconds"]]
        for name, column, form in (("found", "recall", "{:.3f}"), ("of one camera", "filtered", "{:.3f}"),
                                   ("index (MB)", "index_mb", "{:,.0f}"), ("build (s)", "build_s", "{:,.1f}")):  # fmt: skip
            out[name] = ["" if np.isnan(value) else form.format(value) for value in table[column]]
        return out
    if table["items"].notna().any():
        out["pictures / s"] = [_number(rate) for rate in table["items"] / table["seconds"]]
        return out
    for name in (PRODUCT, OURS):
        if name in set(table["method"]):
            base = table[table["method"] == name].set_index("size")["seconds"]
            ratios = [s / base[size] for s, size in zip(table["seconds"], table["size"])]
            out[f"times {name}"] = ["" if np.isnan(ratio) else f"{ratio:.2f}" for ratio in ratios]
    out["peak memory (MB)"] = ["" if np.isnan(m) else f"{m:.0f}" for m in table["peak_memory_mb"]]
    if table["difference"].notna().any():
        out["difference"] = ["" if np.isnan(d) else f"{d:.1g}" for d in table["difference"]]
    if table["apart"].notna().any():
        out["apart"] = ["" if np.isnan(share) else f"{100 * share:.2g} %" for share in table["apart"]]
    return out


def growth(table: pd.DataFrame) -> Figure:
    """Seconds, and memory or the share found where they were measured, over sizes that grow; a line a method, the band its quartiles."""
    panels = {"seconds": "seconds", "peak_memory_mb": "peak memory beyond the inputs (MB)"}
    panels |= {"recall": "share of the true ten that is found"}
    panels = {column: said for column, said in panels.items() if column in table and table[column].notna().any()}
    figure, grid = plt.subplots(1, len(panels), figsize=(WIDTH, 4), squeeze=False)
    place = {size: numbers(size)[0] * numbers(size)[1] for size in table["size"]}
    for axes, (column, said) in zip(grid[0], panels.items()):
        for i, (method, own) in enumerate(table.groupby("method", sort=False)):
            rest, own = own[own["runs"] == 0], own[own[column].notna()]
            x = own["size"].map(place)
            look = {
                "color": INK if method == PRODUCT else PALETTE[i % len(PALETTE)],
                "linestyle": LINES[i % len(LINES)],
            }
            label = f"{method} (left out beyond {own['size'].iloc[-1]})" if len(rest) and len(own) else method
            axes.plot(x, own[column], label=label, lw=2.6 if method == OURS else 1.4, marker="o", ms=4, **look)
            if column == "seconds":
                axes.fill_between(x, own["low"], own["high"], color=look["color"], alpha=0.15, lw=0)
        axes.set(xscale="log", yscale="linear" if column == "recall" else "log", title=said, xlabel="queries x gallery")
        axes.set_xticks(list(place.values()), [" x\n".join(size.split("x")[:2]) for size in place])
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        if column == "recall":
            axes.set_ylim(0, 1.05)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_minor_locator(NullLocator())
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, handlelength=3.5)
    return figure


def rates(table: pd.DataFrame, unit: str) -> Figure:
    """Pictures per second of every method, a panel a size, which counts `unit`; whiskers are the quartiles."""
    sizes = list(dict.fromkeys(table["size"]))
    methods = list(dict.fromkeys(table["method"]))
    size = (WIDTH, 1 + 0.3 * len(methods))
    figure, grid = plt.subplots(1, len(sizes), figsize=size, sharey=True, sharex=True, squeeze=False)
    for axes, wanted in zip(grid[0], sizes):
        own = table[table["size"] == wanted].set_index("method")
        rate, low, high = (own["items"] / own[column] for column in ("seconds", "high", "low"))
        y = [methods.index(method) for method in own.index]
        axes.errorbar(rate, y, xerr=[rate - low, high - rate], fmt="o", color=PALETTE[0], ecolor=INK, elinewidth=0.8)
        for value, place in zip(rate, y):
            look = {"textcoords": "offset points", "ha": "center", "fontsize": 7}
            axes.annotate(_number(value), (value, place), (0, 6), **look)
        axes.set(xscale="log", title=f"{wanted} {unit}", ylim=(len(methods) - 0.5, -0.7))
        axes.set_yticks(range(len(methods)), methods)
        axes.margins(x=0.15)
        axes.xaxis.set_minor_locator(NullLocator())
        every = (table["items"] / table["seconds"]).agg(["min", "max"])
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if every["max"] < 20 * every["min"] else (1,)))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    figure.supxlabel("pictures per second", fontsize=9)
    return figure


def learning(table: pd.DataFrame) -> Figure:
    """mAP on held-out identities over minutes of training; a line a method, a point each training or epoch."""
    figure, axes = plt.subplots(figsize=(WIDTH, 4))
    for i, (method, own) in enumerate(table.groupby("method", sort=False)):
        look = {"color": PALETTE[i], "linestyle": LINES[i], "lw": 2.6 if method == OURS else 1.4}
        axes.plot(own["seconds"] / 60, 100 * own["mAP"], marker="o", ms=4, label=method, **look)
    goal = 100 * table["goal"].iloc[0]
    axes.axhline(goal, color=INK, lw=0.8)
    axes.annotate(f"the goal, {goal:.0f} %", (0.5, goal), (0, 3), xycoords=("axes fraction", "data"),
                  textcoords="offset points", ha="center", fontsize=8)  # fmt: skip
    axes.set(xscale="log", xlabel="minutes of training", ylabel="mAP on held-out identities (%)", ylim=(0, None))
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.legend(loc="lower right")
    return figure


def _number(value: float) -> str:
    """Three digits, and no powers of ten: 1234.5 -> 1,234 and 1.2345 -> 1.23."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
