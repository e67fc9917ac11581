"""Every figure of results, one function each: plain data in, a matplotlib Figure out. One look for all.

A method's colour says what kind it is, its line which of its kind; right or wrong is never told by colour alone.
"""

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import OffsetFrom
from matplotlib.ticker import LogLocator, MaxNLocator
from PIL import Image

from reidlib.data import Dataset
from reidlib.results import costs, label, pairs, summary, title
from reidlib.retrieval import EmbeddingSet
from reidlib.retrieval.evaluation import JUNK, distance_blocks
from reidlib.study import Study

# seaborn's "colorblind"
PALETTE = ["#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#ca9161", "#fbafe4", "#949494", "#ece133", "#56b4e9"]
KINDS = {"pixels": PALETTE[7], "expert": PALETTE[0], "moe": PALETTE[1], "student": PALETTE[4], "student+kd": PALETTE[2]}
MARKERS = {"pixels": "X", "expert": "s", "moe": "D", "student": "o", "student+kd": "^"}  # by kind, as the colours
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))
SHAPES = "os^DvPX*<>hp"  # of identities
INK, RIGHT, WRONG = "#333333", PALETTE[2], PALETTE[3]
PICTURE = 96  # pixels of a shown picture's longer side
WIDTH = 7.5  # inches of a figure
GAP, WORDS = 0.08, 0.22  # inches between two pictures, and above a picture for a line of words
GREY = ".15"
plt.rcParams.update({  # importing this module sets the look of all figures, which is seaborn's "ticks" with changes
    "font.sans-serif": ["Arial", "DejaVu Sans", "Liberation Sans", "Bitstream Vera Sans", "sans-serif"],
    "text.color": GREY, "axes.labelcolor": GREY, "axes.edgecolor": GREY, "xtick.color": GREY, "ytick.color": GREY,
    "lines.solid_capstyle": "round", "patch.edgecolor": "w", "patch.force_edgecolor": True,
    "figure.dpi": 100, "figure.constrained_layout.use": True, "font.size": 9, "axes.titlesize": 10,
    "axes.labelsize": 9, "xtick.labelsize": 9, "ytick.labelsize": 9, "legend.fontsize": 9, "legend.frameon": False,
    "figure.titlesize": 11, "axes.spines.top": False, "axes.spines.right": False, "lines.linewidth": 1.6,
    "axes.grid": True, "axes.axisbelow": True, "grid.color": "#e5e5e5", "svg.hashsalt": "reidlib",
    "image.composite_image": False,  # or SVG would have pictures at 72 dpi
})  # fmt: skip


def _kind(method: str) -> str:
    return KINDS.get(_which(method), INK)


def _which(method: str) -> str:
    """ "student+kd:moe/size=small" -> "student+kd" """
    return method.split("/")[0].partition(":")[0]


def _chosen(rows: pd.DataFrame, methods: Sequence[str] | None) -> pd.DataFrame:
    """The rows of these methods; None: of all but the variants, which have figures of their own."""
    return rows[rows["method"].isin(methods) if methods is not None else ~rows["method"].str.contains("/")]


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
    figure.supxlabel(title(study, name), x=0.995, ha="right", fontsize=7, color="#777777")
    return write(figure, folder, name)


def write(figure: Figure, folder: Path, name: str) -> Figure:
    """<folder>/<name>.png and .svg, the same bytes for the same figure."""
    folder.mkdir(parents=True, exist_ok=True)
    if figure.get_layout_engine() is not None:  # once, not for each file and for the notebook again
        figure.get_layout_engine().execute(figure)
        figure.set_layout_engine("none")
    figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=130, pil_kwargs={"compress_level": 1})
    image = Image.open(buffer).convert("RGB").quantize(256, dither=Image.Dither.NONE)  # a third of the bytes
    image.save(folder / f"{name}.png", optimize=True)
    return figure


# the data


def _sheet(columns: int, width: float, height: float, left: float = 0.75, above: float = 0) -> tuple[Figure, plt.Axes]:
    """One axes for many pictures, which takes a fraction of the time of many axes; its units are inches, y down.

    columns x width by height inches for the pictures; left, above: inches beside them, for labels and a title.
    """
    figure, axes = plt.subplots(figsize=(columns * width + left, height + above + 0.25))
    axes.set(xlim=(0, columns * width), ylim=(height, 0), aspect="equal")
    axes.set_axis_off()
    return figure, axes


def _show(
    axes: plt.Axes, picture: str | Path | np.ndarray, box: tuple[float, float, float, float], frame: str | None = None,
    **words: dict,
) -> None:  # fmt: skip
    """A picture (a file, or uint8 [3, h, w]) as large as it can be in the middle of a box, framed in a colour.

    box: left, top, width, height. words: what stands "above", "below" or "left" of it, as arguments of `annotate`.
    """
    if isinstance(picture, np.ndarray):
        image = Image.fromarray(picture.transpose(1, 2, 0))
    else:
        image = Image.open(picture).convert("RGB")
    image.thumbnail((PICTURE, PICTURE))
    scale = min(box[2] / image.width, box[3] / image.height)
    width, height = scale * image.width, scale * image.height
    x, y = box[0] + (box[2] - width) / 2, box[1] + (box[3] - height) / 2
    axes.imshow(image, extent=(x, x + width, y + height, y))
    if frame is not None:
        axes.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=frame, linewidth=2.5, clip_on=False))
    places = {
        "above": {"xy": (x + width / 2, y), "xytext": (0, 3), "ha": "center", "va": "baseline"},
        "below": {"xy": (x + width / 2, y + height), "xytext": (0, -4), "ha": "center", "va": "top"},
        "left": {"xy": (x, y + height / 2), "xytext": (-5, 0), "ha": "right", "va": "center"},
    }
    for place, look in words.items():
        axes.annotate(**{"textcoords": "offset points", **places[place], **look})


def _ranked_look(rank: int, hit: bool) -> dict:
    """Frame and words of an answer: a number, ticked green or crossed red."""
    colour = RIGHT if hit else WRONG
    return {
        "frame": colour,
        "above": {"text": f"{rank} {'✓' if hit else '✗'}", "color": colour, "fontsize": 9, "fontweight": "bold"},
    }


def _cell(columns: int, path, height: float, margin: float = 0.75) -> tuple[float, float]:
    """Width and height in inches of each of `columns` pictures like the one at `path`, at most `height` high."""
    with Image.open(path) as image:
        shape = max(0.75, image.width / image.height)  # labels need some width too
    width = min(height * shape, (WIDTH - margin) / columns)
    return width, max(width / shape, 0.6)


def sample_sheet(frame: pd.DataFrame, ids: int, per_id: int, seed: int = 0, height: float = 1.0) -> Figure:
    """A row of pictures for each of some random identities, sorted by camera, from as many cameras as possible.

    frame: columns path, pid, camid. height: of a picture, in inches, at most.
    """
    rng = np.random.default_rng(seed)
    known = frame[frame["pid"] > 0]
    chosen = np.sort(rng.permutation(known["pid"].unique())[:ids])
    per_id = min(per_id, known["pid"].value_counts()[chosen].max())
    width, height = _cell(per_id, known["path"].iloc[0], height)
    figure, axes = _sheet(per_id, width, len(chosen) * (height + WORDS))
    for row, pid in enumerate(chosen):
        own = known[known["pid"] == pid].sample(frac=1, random_state=rng)
        own = own.assign(turn=own.groupby("camid").cumcount()).sort_values("turn", kind="stable")[:per_id]
        own = own.sort_values("camid", kind="stable")
        for column, (path, camid) in enumerate(zip(own["path"], own["camid"])):
            box = (column * width + GAP / 2, row * (height + WORDS) + WORDS, width - GAP, height)
            words = {"above": {"text": f"camera {camid}", "fontsize": 8}}
            if column == 0:
                words["left"] = {"text": f"pid {pid}"}
            _show(axes, path, box, **words)
    return figure


def captioned_sheet(pictures: np.ndarray, captions: Sequence[str], columns: int = 4) -> Figure:
    """Pictures uint8 [N, 3, h, w] with their captions below."""
    width, words = WIDTH / columns, 0.55
    height = width * pictures.shape[2] / pictures.shape[3] + words
    figure, axes = _sheet(columns, width, height * -(-len(pictures) // columns), left=0)
    for place, (picture, caption) in enumerate(zip(pictures, captions)):
        box = (place % columns * width + GAP / 2, place // columns * height, width - GAP, height - words)
        below = {"text": "\n".join(textwrap.wrap(caption, 26)), "fontsize": 8}
        _show(axes, np.asarray(picture), box, below=below)
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


def accuracy_bars(
    table: pd.DataFrame, metric: str = "mAP", across: bool = False, methods: Sequence[str] | None = None
) -> Figure:
    """A panel a data set, a bar a method: mean and 95 % interval over the seeds; every seed a dot.

    table: of `results.summary`, or the results themselves, which have the seeds' values.
    across: also the methods tested on another data set than their training's.
    methods: only these; None: all but variants ("student/size=small").
    """
    table = _chosen(table, methods)
    rows = pairs(_rows(table)[lambda t: t["metric"] == metric], across)
    shown, panels = list(rows["method"].unique()), rows["pair"].unique()
    size = (max(5.0, 1.9 + 2.9 * len(panels)), 0.8 + 0.27 * len(shown))
    figure, grid = plt.subplots(1, len(panels), figsize=size, sharex=True, sharey=True, squeeze=False)
    longest = 0
    for axes, panel in zip(grid[0], panels):
        own = rows[rows["pair"] == panel].set_index("method")
        places = [shown.index(method) for method in own.index]
        mean, low, high = (100 * own[c].to_numpy() for c in ("mean", "low", "high"))
        axes.barh(places, mean, height=0.72, color=[_kind(m) for m in own.index], alpha=0.75)
        whiskers = np.nan_to_num([mean - np.maximum(low, 0), high - mean])
        axes.errorbar(mean, places, xerr=whiskers, fmt="none", ecolor=INK, elinewidth=1, capsize=2.5)
        tip = mean + whiskers[1]
        if "value" in table:
            seeds = pairs(table[table["metric"] == metric], across).query("pair == @panel")
            for method, value in zip(seeds["method"], 100 * seeds["value"]):
                axes.plot(value, shown.index(method), "o", ms=3, mfc="white", mec=INK, mew=0.8)
            tip = np.maximum(tip, 100 * seeds.groupby("method")["value"].max()[own.index].to_numpy())
        for place, value, end in zip(places, mean, tip):
            axes.annotate(f"{value:.1f}", (end, place), (5, 0), textcoords="offset points", va="center", fontsize=8)
        longest = max(longest, tip.max())
        axes.set(title=panel, xlabel=f"{metric} (%)", xlim=(0, 1.2 * longest))
        _method_axis(axes, shown)
    return figure


def ablation_bars(differences: pd.DataFrame, title: str = "") -> Figure:
    """What each change makes of mAP, in points: a panel a data set, the interval, a line at zero.

    A filled marker says that the interval leaves out 0, a hollow one that it doesn't or that there is none.

    differences: columns method, mean, low, high (fractions, to the base), dataset.
    """
    shown, panels = list(differences["method"].unique()), differences["dataset"].unique()
    base = {method.partition("/")[0] for method in shown if "/" in method}
    same = len(base) == 1 and all("/" in method for method in shown)  # then the variant alone is name enough
    names = [m.partition("/")[2].replace("=", " = ").replace("+", " + ") if same else label(m) for m in shown]
    to = f"to {label(base.pop())}" if same else "to the base"
    size = (min(WIDTH, 2.6 + 2.6 * len(panels)), 1.2 + 0.27 * len(shown) + 0.25 * bool(title))
    figure, grid = plt.subplots(1, len(panels), figsize=size, sharex=True, sharey=True, squeeze=False)
    for axes, panel in zip(grid[0], panels):
        axes.axvline(0, color=INK, lw=1)
        for row in differences[differences["dataset"] == panel].itertuples():
            mean, low, high, place = 100 * row.mean, 100 * row.low, 100 * row.high, shown.index(row.method)
            look = {"color": _kind(row.method), "mfc": _kind(row.method) if low > 0 or high < 0 else "white"}
            whiskers = np.nan_to_num([[mean - low], [high - mean]])
            axes.errorbar(mean, place, xerr=whiskers, fmt="o", ms=6, mew=1.4, elinewidth=1.4, capsize=3, **look)
            axes.annotate(f"{mean:+.1f}".replace("-", "−"), (1.0, place), (3, 0), xycoords=axes.get_yaxis_transform(),
                          textcoords="offset points", va="center", fontsize=8)  # fmt: skip
        for place, (above, below) in enumerate(zip(shown, shown[1:])):
            if _varied(above) != _varied(below):  # another question begins
                axes.axhline(place + 0.5, color="#bbbbbb", lw=0.8)
        axes.set(title=panel)
        _method_axis(axes, shown)
        axes.set_yticks(range(len(names)), names)
        axes.set_xlabel("\n".join(textwrap.wrap(f"difference in mAP {to} (points)", 72 // len(panels))))
    handles = [Line2D([], [], marker="o", ls="-", color=INK, mfc=face, mew=1.4) for face in (INK, "white")]
    look = {"loc": "outside upper center", "ncols": 2, "title": title or None, "title_fontsize": 11}
    figure.legend(handles, ["95 % interval leaves out 0", "includes 0"], **look)
    return figure


def _varied(method: str) -> str:
    """ "student/size=small" -> "size" """
    return method.partition("/")[2].partition("=")[0]


def cross_domain_heatmap(results: pd.DataFrame, metric: str = "mAP", methods: Sequence[str] | None = None) -> Figure:
    """A map a method, all on one scale: the metric's mean over the seeds, in percent; bold: tested where trained.

    methods: only these; None: all but variants, as far as they were tested on another data set than their training's.
    Raises ValueError where there is none.
    """
    import seaborn as sns  # here, for it takes a second to import and no other figure needs it

    rows = summary(_chosen(results, methods)[lambda t: t["metric"] == metric])
    across = rows["train_dataset"] != rows["test_dataset"]
    rows = rows[rows["method"].isin(rows["method"][across])]
    if not len(rows):
        raise ValueError("no method was tested on another data set than the one it was trained on")
    tests = list(rows["test_dataset"].unique())
    trains = sorted(rows["train_dataset"].unique(), key=lambda name: (name.count("+"), (tests + [name]).index(name)))
    shown = list(rows["method"].unique())
    columns = min(len(shown), min((4, 3), key=lambda wide: -len(shown) % wide))  # whichever leaves fewer gaps
    lines = -(-len(shown) // columns)
    size = (WIDTH, 0.7 + lines * (0.45 + 0.42 * len(trains)))
    figure, grid = plt.subplots(lines, columns, figsize=size, sharex=True, sharey=True, squeeze=False)
    scale = plt.Normalize(100 * rows["mean"].min(), 100 * rows["mean"].max())
    for axes in grid.flat[len(shown) :]:
        axes.set_axis_off()
    for axes, method in zip(grid.flat, shown):
        cells = rows[rows["method"] == method].pivot(index="train_dataset", columns="test_dataset", values="mean")
        cells = 100 * cells.reindex(index=trains, columns=tests)
        # (its cells are a mesh, not an image: `save` keeps figures with images back where pictures must not be published)
        axes.grid(False)
        sns.heatmap(cells, ax=axes, cmap="viridis", norm=scale, cbar=False, linewidths=1, linecolor="white")
        for (row, column), value in np.ndenumerate(cells):
            dark = not np.isnan(value) and scale(value) < 0.6
            text = "–" if np.isnan(value) else f"{value:.1f}"
            weight = "bold" if trains[row] == tests[column] else "normal"
            look = {"ha": "center", "va": "center", "fontsize": 8, "fontweight": weight}
            axes.text(column + 0.5, row + 0.5, text, color="white" if dark else "black", **look)
        axes.set_title("\n".join(textwrap.wrap(label(method), 22)), fontsize=9)
        axes.set_xticks(np.arange(len(tests)) + 0.5, tests, fontsize=8, rotation=0 if len(tests) < 3 else 30)
        axes.set_yticks(np.arange(len(trains)) + 0.5, [name.replace("+", "\n+ ") for name in trains], fontsize=8)
        axes.tick_params(length=0)
        axes.set(xlabel=None, ylabel=None)
    for place, axes in enumerate(grid.flat[: len(shown)]):
        if place + columns >= len(shown):
            axes.set_xlabel("tested on", fontsize=8)
            axes.tick_params(labelbottom=True)
        if place % columns == 0:
            axes.set_ylabel("trained on", fontsize=8)
    figure.colorbar(
        plt.cm.ScalarMappable(scale, "viridis"), ax=grid, label=f"{metric} (%), bold: trained there", aspect=25, pad=0.02
    )
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
    order, correct = _ranked(_part(query, places), gallery, k)
    frames = study.dataset(dataset)
    asked = frames.query.iloc[places].assign(ap=found.ap[chosen]).reset_index(drop=True)
    return asked, frames.gallery.reset_index(drop=True), order, correct


def _part(of: EmbeddingSet, places: np.ndarray) -> EmbeddingSet:
    return EmbeddingSet(of.features[places], of.pid[places], of.camid[places])


def _ranked(query: EmbeddingSet, gallery: EmbeddingSet, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The first k of the gallery for each query, without what the protocol ignores: places, and whether correct."""
    orders, hits = [], []
    for rows, block in distance_blocks(query.features, gallery.features, "cosine"):
        same = query.pid[rows, None] == gallery.pid
        ignored = (gallery.pid == JUNK) | (same & (query.camid[rows, None] == gallery.camid))
        orders.append(np.argsort(np.where(ignored, np.inf, block.cpu().numpy()), axis=1, kind="stable")[:, :k])
        hits.append(np.take_along_axis(same, orders[-1], axis=1))
    return np.concatenate(orders), np.concatenate(hits)


def ranked_lists(
    query: pd.DataFrame, gallery: pd.DataFrame, order: np.ndarray, correct: np.ndarray, title: str = ""
) -> Figure:
    """A row a query: its picture in a black frame, then the first of the gallery, ticked green or crossed red.

    query: rows with path and, to be printed, ap. order, correct: [rows, k], see `retrieval_examples`.
    """
    rows, k = order.shape
    width, height = _cell(k + 1, query["path"].iloc[0], 1.0)
    figure, axes = _sheet(k + 1, width, rows * (height + WORDS), above=0.25)
    for row, (_, asked) in enumerate(query.iterrows()):
        box = lambda column: (column * width + GAP / 2, row * (height + WORDS) + WORDS, width - GAP, height)  # noqa: B023, E731
        words = {"above": {"text": "query"}} if row == 0 else {}
        if "ap" in asked:
            words["left"] = {"text": f"AP {100 * asked['ap']:.0f} %"}
        _show(axes, asked["path"], box(0), INK, **words)
        for rank, (path, hit) in enumerate(zip(gallery["path"].iloc[order[row]], correct[row]), 1):
            _show(axes, path, box(rank), **_ranked_look(rank, hit))
    figure.suptitle(title)
    return figure


class Disagreement(NamedTuple):
    """Queries whose first answer one method has wrong and another right, and what both find: see `paired_lists`."""

    query: pd.DataFrame  # rows of the queries to show
    gallery: pd.DataFrame
    lists: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]  # by method: order, correct [rows, k], AP [rows]
    found: int  # such queries, of which those to show are a part
    reverse: int  # queries where it is the other way round
    queries: int  # all that count


def comparison_lists(
    study: Study, student: str, teacher: str, dataset: str, seed: int, rows: int = 4, k: int = 6
) -> Disagreement:
    """Queries where the first answer of the method `student` is wrong and that of `teacher` right.

    Where there are more than `rows`, they are spread evenly over their ranking by the student's AP, worst to best.
    """
    orders, hits, aps = {}, {}, {}
    for method in (student, teacher):
        query, gallery = (study.embedding_set(method, dataset, seed, None, part) for part in ("query", "gallery"))
        found = study.evaluate(method, dataset, seed)
        orders[method], hits[method] = _ranked(_part(query, np.flatnonzero(found.valid)), gallery, k)
        aps[method] = found.ap
    errs, knows = ~hits[student][:, 0], hits[teacher][:, 0]
    such = np.flatnonzero(errs & knows)
    such = such[np.argsort(aps[student][such], kind="stable")]
    shown = such[np.linspace(0, len(such) - 1, min(rows, len(such))).round().astype(int)]
    frames = study.dataset(dataset)
    return Disagreement(
        frames.query.iloc[np.flatnonzero(found.valid)[shown]].reset_index(drop=True),
        frames.gallery.reset_index(drop=True),
        {method: (orders[method][shown], hits[method][shown], aps[method][shown]) for method in orders},
        len(such), int((~errs & ~knows).sum()), len(errs),
    )  # fmt: skip


def paired_lists(comparison: Disagreement, height: float = 0.85) -> Figure:
    """Beside each query what two methods find, one above the other, ticked green or crossed red.

    height: of a picture, in inches, at most. Where there is no such query, the figure says so.
    """
    worse, better = map(label, comparison.lists)
    said = [
        f"First answer wrong by “{worse}”, right by “{better}”: {comparison.found} of {comparison.queries} queries",
        f"(the other way round: {comparison.reverse})",
    ]
    if not len(comparison.query):
        figure, axes = plt.subplots(figsize=(WIDTH, 1.0))
        axes.set_axis_off()
        axes.text(0.5, 0.5, "\n".join(said), ha="center", va="center")
        return figure
    rows, k = next(iter(comparison.lists.values()))[0].shape
    asked, named = 0.85, 1.1  # inches for the query and for the methods' names
    width, height = _cell(k, comparison.query["path"].iloc[0], height, margin=asked + named)
    line, pair = height + WORDS, 2 * (height + WORDS) + GAP
    figure, axes = _sheet(k, width, rows * pair - GAP, left=asked + named, above=0.55)
    axes.set_xlim(-asked - named, k * width)
    for row, path in enumerate(comparison.query["path"]):
        box = (-asked - named, row * pair + WORDS, asked, 2 * line - WORDS)
        _show(axes, path, box, INK, above={"text": "query"})
        for place, (method, (order, correct, ap)) in enumerate(comparison.lists.items()):
            name = "\n".join([*textwrap.wrap(label(method), 14), f"AP {100 * ap[row]:.0f} %"])
            for rank, (found, hit) in enumerate(zip(order[row], correct[row])):
                box = (rank * width + GAP / 2, row * pair + place * line + WORDS, width - GAP, height)
                words = {} if rank else {"left": {"text": name, "fontsize": 8}}
                _show(axes, comparison.gallery["path"].iloc[found], box, **_ranked_look(rank + 1, hit), **words)
    wide = int(13 * figure.get_figwidth())
    figure.suptitle("\n".join(line for text in said for line in textwrap.wrap(text, wide)), fontsize=10)
    return figure


def embedding_map(panels: dict[str, EmbeddingSet], ids: int = 12, seed: int = 0) -> Figure:
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
    chosen = np.sort(np.random.default_rng(seed).permutation(known)[:ids])
    places = np.flatnonzero(np.isin(first.pid, chosen))
    # neighbours that t-SNE reckons with: more than an identity has, or tight clusters drift apart without end
    perplexity = min(max(12, len(places) / len(chosen)), 30, (len(places) - 1) / 3)
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
        for i, pid in enumerate(chosen):
            look = {"marker": SHAPES[i % len(SHAPES)], "color": colours[i % len(colours)]}
            shown = fitted[own.pid[places] == pid]
            axes.scatter(*shown.T, s=26, edgecolor=INK, linewidth=0.4, label=f"pid {pid}", **look)
        axes.set(title=label(method), xticks=[], yticks=[])
        axes.margins(0.08)
        axes.spines[:].set(visible=True, color="#999999")  # a frame, not axes: directions and lengths mean nothing
    handles, names = grid[0, 0].get_legend_handles_labels()
    look = {"ncols": min(6, len(names)), "fontsize": 8, "handletextpad": 0.1, "columnspacing": 1.2}
    figure.legend(handles, names, loc="outside upper center", **look)
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
    look = {"figsize": (WIDTH, max(2.8, 0.6 + sum(heights) + 0.2 * len(by)))}
    look |= {"width_ratios": (1, 1.5), "height_ratios": heights}
    figure, panels = plt.subplot_mosaic([["", column] for column in by], **look)
    left = panels.pop("")
    left.hist(first, bins=np.linspace(0, 1, 41), color=PALETTE[0])
    left.axvline(first.mean(), color=INK, ls="--", lw=1.2)
    left.set(title=f"all pictures, mean {first.mean():.2f}", ylabel="pictures")
    ink, mean = {"color": INK}, {"marker": "D", "markerfacecolor": PALETTE[1], "markeredgecolor": INK, "markersize": 4}
    parts = {"boxprops": {"facecolor": PALETTE[9], "edgecolor": INK}, "medianprops": ink | {"linewidth": 1.6},
             "meanprops": mean, "whiskerprops": ink, "capprops": ink, "flierprops": {"markersize": 1}}  # fmt: skip
    for axes, group in zip(panels.values(), groups):
        names = [f"{name} ({len(values)})" for name, values in group]
        boxes = [values.to_numpy() for _, values in group]
        axes.boxplot(boxes, positions=range(len(boxes)), orientation="horizontal", widths=0.6, showmeans=True,
                     patch_artist=True, **parts)  # fmt: skip
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.grid(False, axis="y")
    for column, axes in panels.items():
        axes.set(ylabel={"camid": "camera", "domain": "data set", "color": "colour"}.get(column, column))
    figure.align_ylabels(list(panels.values()))
    panels[by[0]].set_title("line: median, diamond: mean (pictures)")
    for axes in (left, *panels.values()):
        axes.set(xlim=(-0.01, 1.01))
    for axes in (left, panels[by[-1]]):
        axes.set(xlabel=f"weight of the {label(f'expert:{experts[0]}')}")
    return figure


# cost


def pareto(table: pd.DataFrame, metric: str = "mAP") -> Figure:
    """Accuracy over latency and over parameters, a row of panels a data set; the Pareto front is a line.

    The front holds the methods that none beats in accuracy without costing more: filled in its panel, others hollow.
    Whiskers: the 95 % interval over the seeds. Of variants, only students of other sizes are shown; one whose costs
    were measured with or without KD only has these, being the same network.

    table: the results, with costs.
    """
    kept = ~table["method"].str.contains("/") | table["method"].str.contains("/size=")
    cost, rows = costs(table[kept]), pairs(summary(table[kept & (table["metric"] == metric)]))
    for method in rows["method"].unique():
        size = method.partition("/")[2]
        twins = [twin for twin in cost.index if size and twin.endswith(f"/{size}")]
        if method not in cost.index and twins:
            cost.loc[method] = cost.loc[twins[0]]
    rows = rows[rows["method"].isin(cost.index)]
    sets, axis = rows["pair"].unique(), {"latency_ms": "latency of one picture (ms)", "parameters": "parameters"}
    most = rows.groupby("pair")["method"].nunique().max()
    size = (WIDTH, 0.4 + len(sets) * max(2.6, 0.7 + 0.17 * most))
    between = 0.25 + 0.062 * max(len(_short_name(method)) for method in rows["method"])  # inches, for the names
    widths = [(WIDTH - 0.8 - between) / 2, between, (WIDTH - 0.8 - between) / 2]
    figure, grid = plt.subplots(len(sets), 3, figsize=size, sharey="row", squeeze=False, width_ratios=widths)
    for (left, names, right), name in zip(grid, sets):
        own = rows[rows["pair"] == name].set_index("method").sort_values("mean", kind="stable")
        mean, low, high = (100 * own[c] for c in ("mean", "low", "high"))
        for axes, (metric_of_cost, text) in zip((left, right), axis.items()):
            x = cost[metric_of_cost][own.index]
            front = _front(x.to_numpy(), mean.to_numpy())
            best = x[front].sort_values()
            axes.step(best, mean[best.index], where="post", color=INK, lw=1.2, label="Pareto front", zorder=2)
            whiskers = np.nan_to_num([mean - low, high - mean])
            axes.errorbar(x, mean, yerr=whiskers, fmt="none", ecolor=INK, elinewidth=0.6, alpha=0.5, zorder=1)
            for method, filled in zip(own.index, front):
                look = {"marker": MARKERS.get(_which(method), "o"), "mec": _kind(method), "mew": 1.4, "ms": 7}
                face = _kind(method) if filled else "white"
                axes.plot(x[method], mean[method], ls="", mfc=face, zorder=3, label=method, **look)
            axes.set(xscale="log", xlabel=text)
            axes.margins(0.12, 0.1)
            axes.minorticks_off()
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if x.max() < 20 * x.min() else (1,)))
            axes.xaxis.set_major_formatter(lambda value, _: _short(value))
        left.set(ylabel=f"{metric} (%)")
        right.tick_params(axis="y", left=False)
        names.set_title(name, pad=12)
        names.set_axis_off()
        bottom, top = left.get_ylim()
        for method, height in zip(own.index, _apart((mean.to_numpy() - bottom) / (top - bottom), len(own) + 1)):
            _named(names, (left, right), method, height, [cost[c][method] for c in axis], mean[method])
    said = "Pareto front: no method is both better and cheaper than these, which are filled"
    figure.legend([grid[0, 0].lines[0]], [said], loc="outside upper center")
    return figure


def _named(names: plt.Axes, beside: Sequence[plt.Axes], method: str, height: float, x: Sequence[float], y) -> None:
    """The method's name between two panels, with a line to its point in each."""
    look = {"ha": "center", "va": "center", "fontsize": 8}
    text = names.text(0.5, height, _short_name(method), transform=names.transAxes, **look)
    text.set_in_layout(False)
    for axes, cost, edge, gap in zip(beside, x, (0, 1), (-2, 2)):
        line = {"arrowstyle": "-", "color": _kind(method), "lw": 0.6, "alpha": 0.6, "shrinkA": 0, "shrinkB": 3}
        start = {"xytext": (gap, 0), "textcoords": OffsetFrom(text, (edge, 0.5), "points")}
        axes.annotate("", (cost, y), **start, arrowprops=line).set_in_layout(False)


def _short_name(method: str) -> str:
    return label(method).replace(", size = ", ", ")


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


def _short(number: float) -> str:
    """1234567 -> "1.23 M"."""
    power = min(3, int(np.log10(max(number, 1)) // 3))
    return f"{number / 1000**power:.3g} {['', 'k', 'M', 'G'][power]}".strip()


def efficiency_bars(efficiency: pd.DataFrame, methods: Sequence[str] | None = None) -> Figure:
    """Parameters, MACs and latency of each method, side by side on log scales.

    efficiency: results, or rows of `profiling.profile`. methods: only these; None: all but variants.
    """
    table = costs(_chosen(efficiency, methods))
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
