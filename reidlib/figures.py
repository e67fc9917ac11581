"""Every figure, one function each: plain data in, a matplotlib Figure out. One look for all.

A method's colour says what kind it is, its line which of its kind; right or wrong is never told by colour alone.
"""

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator
from PIL import Image

from reidlib.data import Dataset
from reidlib.results import costs, label, pairs, summary, title
from reidlib.retrieval import EmbeddingSet
from reidlib.retrieval.evaluation import JUNK, distance_blocks
from reidlib.study import Study

PALETTE = sns.color_palette("colorblind").as_hex()
KINDS = {"pixels": PALETTE[7], "expert": PALETTE[0], "moe": PALETTE[1], "student": PALETTE[4], "student+kd": PALETTE[2]}
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))
INK, RIGHT, WRONG = "#333333", PALETTE[2], PALETTE[3]
PICTURE = 128  # pixels of a shown picture's longer side
WIDTH = 7.5  # inches of a figure
sns.set_style("ticks")  # importing this module sets the look of all figures
plt.rcParams.update({
    "figure.dpi": 100, "figure.constrained_layout.use": True, "font.size": 9, "axes.titlesize": 10,
    "axes.labelsize": 9, "xtick.labelsize": 9, "ytick.labelsize": 9, "legend.fontsize": 9, "legend.frameon": False,
    "figure.titlesize": 11, "axes.spines.top": False, "axes.spines.right": False, "lines.linewidth": 1.6,
    "axes.grid": True, "axes.axisbelow": True, "grid.color": "#e5e5e5", "svg.hashsalt": "reidlib",
})  # fmt: skip


def _kind(method: str) -> str:
    return KINDS.get(method.split("/")[0].partition(":")[0], INK)


def _lines(methods: Sequence[str]) -> dict[str, dict]:
    """Colour and dashes of each method."""
    seen, looks = {}, {}
    for method in methods:
        place = seen[_kind(method)] = seen.get(_kind(method), -1) + 1
        looks[method] = {"color": _kind(method), "linestyle": LINES[place % len(LINES)]}
    return looks


def save(study: Study, name: str, figure: Figure) -> Figure:
    """Write results/<study>/figures/<name>.png and .svg; the figure stays open, for the notebook to show.

    It is signed with the study's title, which says where stand-ins are in the place of the paper's experts. Where the
    study has publish_images: false, a figure that shows pictures goes to artifacts/<study>/figures instead.
    """
    shows_pictures = any(axes.images for axes in figure.axes)
    private = shows_pictures and not study.params.publish_images
    folder = (study.artifacts.root if private else study.results) / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    figure.supxlabel(title(study, name), x=0.995, ha="right", fontsize=7, color="#777777")
    figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=130)
    image = Image.open(buffer).convert("RGB").quantize(256, dither=Image.Dither.NONE)  # a third of the bytes
    image.save(folder / f"{name}.png", optimize=True)
    return figure


# the data


def _show(axes: plt.Axes, picture: str | Path | np.ndarray, frame: str | None = None) -> None:
    """A picture (a file, or uint8 [3, h, w]) without ticks, framed in a colour."""
    if isinstance(picture, np.ndarray):
        image = Image.fromarray(picture.transpose(1, 2, 0))
    else:
        image = Image.open(picture).convert("RGB")
    image.thumbnail((PICTURE, PICTURE))
    axes.imshow(image)
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set(visible=frame is not None, color=frame, linewidth=2.5)


def _grid(rows: int, columns: int, path, height: float) -> tuple[Figure, np.ndarray]:
    """Axes for rows x columns pictures like the one at `path`, each of at most `height` inches."""
    with Image.open(path) as image:
        shape = max(0.75, image.width / image.height)  # labels need some width too
    width = min(height * shape, (WIDTH - 0.9) / columns)
    height = max(width / shape, 0.6)
    return plt.subplots(rows, columns, figsize=(columns * width + 0.9, rows * (height + 0.2) + 0.4), squeeze=False)


def sample_sheet(frame: pd.DataFrame, ids: int, per_id: int, seed: int = 0, height: float = 1.0) -> Figure:
    """A row of pictures for each of some random identities, sorted by camera, from as many cameras as possible.

    frame: columns path, pid, camid. height: of a picture, in inches, at most.
    """
    rng = np.random.default_rng(seed)
    known = frame[frame["pid"] > 0]
    chosen = np.sort(rng.permutation(known["pid"].unique())[:ids])
    per_id = min(per_id, known["pid"].value_counts()[chosen].max())
    figure, grid = _grid(len(chosen), per_id, known["path"].iloc[0], height)
    for pid, row in zip(chosen, grid):
        own = known[known["pid"] == pid].sample(frac=1, random_state=rng)
        own = own.assign(turn=own.groupby("camid").cumcount()).sort_values("turn", kind="stable")[:per_id]
        own = own.sort_values("camid", kind="stable")
        for axes in row:
            axes.set_axis_off()
        for axes, path, camid in zip(row, own["path"], own["camid"]):
            axes.set_axis_on()
            _show(axes, path)
            axes.set_title(f"camera {camid}", fontsize=8, pad=2)
        row[0].set_ylabel(f"pid {pid}", rotation=0, ha="right", va="center")
    return figure


def captioned_sheet(pictures: np.ndarray, captions: Sequence[str], columns: int = 4) -> Figure:
    """Pictures uint8 [N, 3, h, w] with their captions below."""
    rows = -(-len(pictures) // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(WIDTH, 2.4 * rows), squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, picture, caption in zip(grid.flat, pictures, captions):
        axes.set_axis_on()
        _show(axes, np.asarray(picture))
        axes.set_xlabel("\n".join(textwrap.wrap(caption, 26)), fontsize=8)
    return figure


def dataset_statistics(datasets: dict[str, Dataset]) -> Figure:
    """For each data set: how many training pictures an identity has, and how many pictures each camera took."""
    figure, grid = plt.subplots(len(datasets), 2, figsize=(WIDTH, 2.5 * len(datasets)), squeeze=False)
    for (name, dataset), (left, right) in zip(datasets.items(), grid):
        counts = dataset.train["pid"].value_counts()
        step = int(np.ptp(counts)) // 20 + 1
        left.hist(counts, np.arange(counts.min(), counts.max() + step + 1, step) - 0.5, color=PALETTE[0], rwidth=0.85)
        left.set(title=f"{name}: training identities", xlabel="pictures per identity", ylabel="identities")
        left.set_xlim(counts.min() - step - 0.5, counts.max() + step + 0.5)
        left.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        bottom = 0
        splits = {split: getattr(dataset, split)["camid"] for split in ("train", "query", "gallery")}
        cameras = sorted(set().union(*splits.values()))
        for (split, camid), place, hatch in zip(splits.items(), (0, 1, 9), ("", "///", "")):
            count = camid.value_counts().reindex(cameras, fill_value=0).to_numpy()
            look = {"color": PALETTE[place], "edgecolor": "white", "hatch": hatch}
            right.bar(range(len(cameras)), count, bottom=bottom, label=split, **look)
            bottom = bottom + count
        right.set(title=f"{name}: cameras", xlabel="camera", ylabel="pictures", xticks=range(len(cameras)))
        right.set_xticklabels(cameras, fontsize=9 if len(cameras) <= 10 else 7)
        left.grid(False, axis="x")
        right.grid(False, axis="x")
    grid[0, 1].legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


# accuracy


def _rows(table: pd.DataFrame) -> pd.DataFrame:
    return summary(table) if "value" in table else table


def _method_axis(axes: plt.Axes, methods: Sequence[str]) -> None:
    axes.set_yticks(range(len(methods)), [label(method) for method in methods])
    axes.set_ylim(len(methods) - 0.4, -0.6)
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)


def accuracy_bars(table: pd.DataFrame, metric: str = "mAP", across: bool = False) -> Figure:
    """A panel a data set, a bar a method: mean and 95 % interval over the seeds; every seed a dot.

    table: of `results.summary`, or the results themselves, which have the seeds' values.
    across: also the methods tested on another data set than their training's.
    """
    rows = pairs(_rows(table)[lambda t: t["metric"] == metric], across)
    methods, panels = rows["method"].unique(), rows["pair"].unique()
    size = (max(5.0, 1.9 + 2.9 * len(panels)), 0.8 + 0.27 * len(methods))
    figure, grid = plt.subplots(1, len(panels), figsize=size, sharex=True, sharey=True, squeeze=False)
    longest = 0
    for axes, panel in zip(grid[0], panels):
        own = rows[rows["pair"] == panel].set_index("method")
        places = [list(methods).index(method) for method in own.index]
        mean, low, high = (100 * own[c].to_numpy() for c in ("mean", "low", "high"))
        axes.barh(places, mean, height=0.72, color=[_kind(m) for m in own.index], alpha=0.75)
        whiskers = np.nan_to_num([mean - np.maximum(low, 0), high - mean])
        axes.errorbar(mean, places, xerr=whiskers, fmt="none", ecolor=INK, elinewidth=1, capsize=2.5)
        tip = mean + whiskers[1]
        if "value" in table:
            seeds = pairs(table[table["metric"] == metric], across).query("pair == @panel")
            for method, value in zip(seeds["method"], 100 * seeds["value"]):
                axes.plot(value, list(methods).index(method), "o", ms=3, mfc="white", mec=INK, mew=0.8)
            tip = np.maximum(tip, 100 * seeds.groupby("method")["value"].max()[own.index].to_numpy())
        for place, value, end in zip(places, mean, tip):
            axes.annotate(f"{value:.1f}", (end, place), (5, 0), textcoords="offset points", va="center", fontsize=8)
        longest = max(longest, tip.max())
        axes.set(title=panel, xlabel=f"{metric} (%)", xlim=(0, 1.2 * longest))
        _method_axis(axes, methods)
    return figure


def cmc_curves(curves: dict[str, np.ndarray], title: str, ranks: int = 20) -> Figure:
    """CMC in percent over rank: the seeds' mean, in a band from the worst to the best seed.

    curves: for each method, fractions float [seeds, at least `ranks`].
    """
    figure, axes = plt.subplots(figsize=(WIDTH, 3.6))
    for method, look in _lines(list(curves)).items():
        values = 100 * np.asarray(curves[method])[:, :ranks]
        places = np.arange(1, values.shape[1] + 1)
        axes.plot(places, values.mean(0), label=label(method), **look)
        axes.fill_between(places, values.min(0), values.max(0), color=look["color"], alpha=0.15, linewidth=0)
    axes.set(title=title, xlabel="rank k", ylabel="queries with a match among the first k (%)", xlim=(1, ranks))
    axes.set_xticks([1, *range(5, ranks + 1, 5)])
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), handlelength=3.2)
    return figure


def retrieval_examples(
    study: Study, method: str, dataset: str, seed: int, rows: int = 5, k: int = 8
) -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray, np.ndarray]:
    """Queries spread evenly over their ranking by AP, worst to best, and what each finds: for `ranked_lists`.

    Returns:
        The queries' rows with a column ap, the gallery's frame, order (int [rows, k], places in the gallery, without
        what the protocol ignores), correct (bool [rows, k]).
    """
    query, gallery = (study.embedding_set(method, dataset, seed, None, part) for part in ("query", "gallery"))
    found = study.evaluate(method, dataset, seed)
    spread = np.linspace(0, found.n_valid - 1, min(rows, found.n_valid)).round().astype(int)
    chosen = np.argsort(found.ap, kind="stable")[spread]
    places = np.flatnonzero(found.valid)[chosen]
    own = EmbeddingSet(query.features[places], query.pid[places], query.camid[places])
    blocks = distance_blocks(own.features, gallery.features, "cosine")
    distances = np.concatenate([block.cpu().numpy().copy() for _, block in blocks])
    same = own.pid[:, None] == gallery.pid
    distances[(gallery.pid == JUNK) | (same & (own.camid[:, None] == gallery.camid))] = np.inf
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    frames = study.dataset(dataset)
    return (
        frames.query.iloc[places].assign(ap=found.ap[chosen]).reset_index(drop=True),
        frames.gallery.reset_index(drop=True), order, np.take_along_axis(same, order, axis=1),
    )  # fmt: skip


def ranked_lists(
    query: pd.DataFrame, gallery: pd.DataFrame, order: np.ndarray, correct: np.ndarray, title: str = ""
) -> Figure:
    """A row a query: its picture in a black frame, then the first of the gallery, ticked green or crossed red.

    query: rows with path and, to be printed, ap. order, correct: [rows, k], see `retrieval_examples`.
    """
    rows, k = order.shape
    figure, grid = _grid(rows, k + 1, query["path"].iloc[0], 1.0)
    for row, (_, asked), places, hits in zip(grid, query.iterrows(), order, correct):
        _show(row[0], asked["path"], INK)
        if "ap" in asked:
            row[0].set_ylabel(f"AP {100 * asked['ap']:.0f} %", rotation=0, ha="right", va="center")
        for rank, (axes, path, hit) in enumerate(zip(row[1:], gallery["path"].iloc[places], hits), 1):
            colour = RIGHT if hit else WRONG
            _show(axes, path, colour)
            axes.set_title(f"{rank} {'✓' if hit else '✗'}", color=colour, fontsize=9, fontweight="bold", pad=3)
    grid[0, 0].set_title("query", fontsize=9, pad=3)
    figure.suptitle(title)
    return figure


def training_curves(histories: dict[str, pd.DataFrame]) -> Figure:
    """Loss over epochs, and a panel for each of its terms where there are several.

    histories: by label, columns epoch, loss and one for each term.
    """
    terms = list(dict.fromkeys(c for history in histories.values() for c in history.columns if c != "epoch"))
    terms = ["loss"] if len(terms) == 2 else terms  # a single term is the loss
    columns = min(3, len(terms))
    rows = -(-len(terms) // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(WIDTH, 0.6 + 2.1 * rows), squeeze=False)
    for axes in grid.flat[len(terms) :]:
        axes.set_axis_off()
    for axes, term in zip(grid.flat, terms):
        for place, (name, history) in enumerate(histories.items()):
            if term in history:
                look = {"color": PALETTE[place % len(PALETTE)], "linestyle": LINES[place % len(LINES)]}
                axes.plot(history["epoch"], history[term], label=name, **look)
        axes.set(title="loss, all terms" if term == "loss" and len(terms) > 1 else term, xlabel="epoch")
        axes.set_ylabel("loss" if axes is grid[axes.get_subplotspec().rowspan.start, 0] else "")
        axes.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2, handlelength=3)
    return figure


def gate_weights(weights: pd.DataFrame, experts: Sequence[str], by: str = "camid") -> Figure:
    """How the gate's weight of the first expert is spread, over all pictures and by group.

    weights: a column for each expert, and `by`: "camid", "type", ...
    """
    if by not in weights:
        raise ValueError(f"no column '{by}'; group by one of {', '.join(weights.columns.difference(experts))}")
    first = weights[experts[0]]
    size = (WIDTH, max(2.8, 0.9 + 0.2 * weights[by].nunique()))
    figure, (left, right) = plt.subplots(1, 2, figsize=size, width_ratios=(1, 1.5))
    left.hist(first, bins=np.linspace(0, 1, 41), color=PALETTE[0])
    left.axvline(first.mean(), color=INK, ls="--", lw=1.2)
    left.set(title=f"all pictures, mean {first.mean():.2f}", ylabel="pictures")
    mean = {"marker": "D", "markerfacecolor": PALETTE[1], "markeredgecolor": INK, "markersize": 4}
    look = {"color": PALETTE[9], "width": 0.6, "fliersize": 1, "showmeans": True, "meanprops": mean}
    sns.boxplot(weights, x=experts[0], y=by, orient="h", ax=right, **look)
    right.grid(False, axis="y")
    right.set(title="line: median, diamond: mean", ylabel={"camid": "camera"}.get(by, by))
    for axes in (left, right):
        axes.set(xlim=(-0.01, 1.01), xlabel=f"weight of the {label(f'expert:{experts[0]}')}")
    return figure


# cost


def trade_off(table: pd.DataFrame, efficiency: pd.DataFrame | None = None, metric: str = "mAP") -> Figure:
    """Accuracy over latency, a panel a data set; a marker's area grows with the number of parameters.

    table: results or summary. efficiency: rows with the costs, where `table` hasn't got them.
    """
    cost = costs(table if efficiency is None else efficiency)
    rows = pairs(_rows(table)[lambda t: t["metric"] == metric])
    rows = rows[rows["method"].isin(cost.index)]
    panels = rows["pair"].unique()
    figure, grid = plt.subplots(len(panels), 1, figsize=(WIDTH, 0.4 + 3.1 * len(panels)), sharex=True, squeeze=False)
    for axes, panel in zip(grid[:, 0], panels):
        own = rows[rows["pair"] == panel].set_index("method")["mean"].mul(100).sort_values()
        x, size = cost["latency_ms"][own.index], cost["parameters"][own.index]
        colours, area = [_kind(m) for m in own.index], 30 + 500 * size / cost["parameters"].max()
        axes.scatter(x, own, s=area, c=colours, alpha=0.7, edgecolor=INK, zorder=3)
        axes.set(title=panel, ylabel=f"{metric} (%)", xscale="log")
        axes.margins(0.12, 0.15)
        low, high = axes.get_ylim()
        for method, height in zip(own.index, _apart((own.to_numpy() - low) / (high - low))):
            axes.annotate(
                f"{label(method)} ({_short(size[method])})", (x[method], own[method]), (1.03, height),
                textcoords="axes fraction", va="center", fontsize=8,
                arrowprops={"arrowstyle": "-", "color": _kind(method), "lw": 0.8},
            )  # fmt: skip
        axes.minorticks_off()
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(lambda value, _: _short(value))
    grid[-1, 0].set_xlabel("latency of one picture (ms); in brackets, and as area: parameters")
    return figure


def _apart(heights: np.ndarray) -> np.ndarray:
    """Sorted heights in [0, 1], moved until labels at them don't overlap."""
    step, out = 1 / max(14, len(heights)), heights.astype(float)
    for _ in range(200):
        push = np.maximum(step - np.diff(out), 0) / 2
        out[:-1] -= push
        out[1:] += push
        out = np.clip(out, 0, 1)
    return out


def _short(number: float) -> str:
    """1234567 -> "1.23 M"."""
    power = min(3, int(np.log10(max(number, 1)) // 3))
    return f"{number / 1000**power:.3g} {['', 'k', 'M', 'G'][power]}".strip()


def efficiency_bars(efficiency: pd.DataFrame) -> Figure:
    """Parameters, MACs and latency of each method, side by side on log scales.

    efficiency: results, or rows of `profiling.profile`.
    """
    table = costs(efficiency)
    panels = {"parameters": "parameters", "macs": "MACs per picture", "latency_ms": "latency of one picture (ms)"}
    figure, grid = plt.subplots(1, 3, figsize=(8, 0.8 + 0.27 * len(table)), sharey=True)
    for axes, (metric, name) in zip(grid, panels.items()):
        values = table[metric]
        for place, (method, value) in enumerate(values.items()):
            # dots: the length of a bar means nothing where the axis has no zero
            axes.plot(value, place, "o", ms=8, color=_kind(method))
            axes.annotate(_short(value), (value, place), (8, 0), textcoords="offset points", va="center", fontsize=8)
        low, high = values.min(), values.max()
        axes.set(xscale="log", xlabel=name, xlim=(low / 1.5, high * 1.5 * (1.5 * high / low) ** 0.45))
        _method_axis(axes, table.index)
        axes.grid(True, axis="y")
        axes.minorticks_off()
        axes.xaxis.set_major_formatter(lambda value, _: _short(value))
    return figure
