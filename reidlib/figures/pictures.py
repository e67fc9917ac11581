"""Figures that show pictures of the data: sample sheets, captions, ranked lists."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from reidlib.figures.style import INK, RIGHT, WIDTH, WRONG, styled
from reidlib.methods import label

if TYPE_CHECKING:  # it loads torch, which no figure needs
    from reidlib.answers import Disagreement

DONE = "#bbbbbb"  # of answers when all right ones are found
PICTURE = 96  # pixels of a shown picture's longer side
GAP, WORDS = 0.08, 0.22  # inches between two pictures, and above a picture for a line of words


@styled
def sample_sheet(frame: pd.DataFrame, ids: int, per_id: int, seed: int = 0) -> Figure:
    """A row of pictures for each of some random identities, sorted by camera, from as many cameras as possible.

    frame: columns path, pid, camid.
    """
    rng = np.random.default_rng(seed)
    known = frame[frame["pid"] > 0]
    drawn = np.sort(rng.permutation(known["pid"].unique())[:ids])
    per_id = min(per_id, known["pid"].value_counts()[drawn].max())
    width, height = _cell(per_id, known["path"].iloc[0])
    figure, axes = _sheet(per_id, width, len(drawn) * (height + WORDS))
    for row, pid in enumerate(drawn):
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


@styled
def captioned_sheet(pictures: np.ndarray, captions: Sequence[str], columns: int = 4) -> Figure:
    """Pictures uint8 [N, 3, h, w] with their captions below."""
    texts = [textwrap.fill(caption, 26) for caption in captions]
    width, words = WIDTH / columns, 0.12 + 0.14 * (1 + max(text.count("\n") for text in texts))
    height = width * pictures.shape[2] / pictures.shape[3] + words
    figure, axes = _sheet(columns, width, height * -(-len(pictures) // columns), left=0)
    for place, (picture, text) in enumerate(zip(pictures, texts)):
        box = (place % columns * width + GAP / 2, place // columns * height, width - GAP, height - words)
        _show(axes, np.asarray(picture), box, below={"text": text, "fontsize": 8})
    return figure


@styled
def ranked_lists(
    query: pd.DataFrame, gallery: pd.DataFrame, order: np.ndarray, correct: np.ndarray, title: str = ""
) -> Figure:
    """A row a query: its picture in a black frame, then the first of the gallery, ticked green or crossed red.

    query: rows with path and, to be printed, ap; with matches (how many right ones there are) answers after the last of them
    are grey, for nothing else could stand there. order, correct: [rows, k], see `retrieval_examples`.
    """
    rows, k = order.shape
    width, height = _cell(k + 1, query["path"].iloc[0])
    figure, axes = _sheet(k + 1, width, rows * (height + WORDS), above=0.25)
    for row, (_, asked) in enumerate(query.iterrows()):
        box = lambda column: (column * width + GAP / 2, row * (height + WORDS) + WORDS, width - GAP, height)  # noqa: B023, E731
        words = {"above": {"text": "query"}} if row == 0 else {}
        if "ap" in asked:
            words["left"] = {"text": f"AP {100 * asked['ap']:.0f} %"}
        _show(axes, asked["path"], box(0), INK, **words)
        for rank, (path, look) in enumerate(zip(gallery["path"].iloc[order[row]], _looks(correct[row], asked)), 1):
            _show(axes, path, box(rank), **look)
    figure.suptitle(title)
    return figure


@styled
def search_lists(found: pd.DataFrame, title: str = "") -> Figure:
    """A row a query: its picture in a black frame, then who looks most like it, with the similarity; nobody knows who is right.

    found: columns query, rank, similarity, path, see `folders.search`; the same number of answers to each query. Where it is
    empty, the figure says so.
    """
    if found.empty:
        return _said("Nothing to compare with: there is no picture but the query")
    queries = list(dict.fromkeys(found["query"]))
    columns = 1 + int(found["rank"].max())
    width, height = _cell(columns, queries[0])
    figure, axes = _sheet(columns, width, len(queries) * (height + WORDS), left=0.25, above=0.25)
    for row, query in enumerate(queries):
        box = lambda column: (column * width + GAP / 2, row * (height + WORDS) + WORDS, width - GAP, height)  # noqa: B023, E731
        _show(axes, query, box(0), INK, **({"above": {"text": "query"}} if row == 0 else {}))
        for answer in found[found["query"] == query].itertuples():
            _show(axes, answer.path, box(answer.rank), above={"text": f"{answer.similarity:.2f}", "fontsize": 9})
    figure.suptitle(title)
    return figure


@styled
def paired_lists(comparison: "Disagreement") -> Figure:
    """Beside each query what two methods find, one above the other, ticked green or crossed red.

    Where there is no such query, the figure says so.
    """
    worse, better = map(label, comparison.lists)
    said = f"First answer wrong by “{worse}”, right by “{better}”: {comparison.found} of {comparison.queries} queries"
    caption = [said, f"(the other way round: {comparison.reverse})"]
    if not len(comparison.query):
        return _said("\n".join(caption))
    rows, k = next(iter(comparison.lists.values()))[0].shape
    wide, named = 0.85, 1.1  # inches for the query and for the methods' names
    width, height = _cell(k, comparison.query["path"].iloc[0], 0.85, margin=wide + named)
    line, pair = height + WORDS, 2 * (height + WORDS) + GAP
    figure, axes = _sheet(k, width, rows * pair - GAP, left=wide + named, above=0.55)
    axes.set_xlim(-wide - named, k * width)
    for row, (_, asked) in enumerate(comparison.query.iterrows()):
        box = (-wide - named, row * pair + WORDS, wide, 2 * line - WORDS)
        _show(axes, asked["path"], box, INK, above={"text": "query"})
        for place, (method, (order, correct, ap)) in enumerate(comparison.lists.items()):
            name = f"{textwrap.fill(label(method), 14)}\nAP {100 * ap[row]:.0f} %"
            for rank, (found, look) in enumerate(zip(order[row], _looks(correct[row], asked))):
                box = (rank * width + GAP / 2, row * pair + place * line + WORDS, width - GAP, height)
                words = {} if rank else {"left": {"text": name, "fontsize": 8}}
                _show(axes, comparison.gallery["path"].iloc[found], box, **look, **words)
    letters = int(13 * figure.get_figwidth())
    figure.suptitle("\n".join(textwrap.fill(text, letters) for text in caption), fontsize=10)
    return figure


def _said(text: str) -> Figure:
    """A line of words where there are no pictures."""
    figure, axes = plt.subplots(figsize=(WIDTH, 1.0))
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center")
    return figure


def _sheet(columns: int, width: float, height: float, left: float = 0.75, above: float = 0) -> tuple[Figure, plt.Axes]:
    """One axes for many pictures, which takes a fraction of the time of many axes; its units are inches, y down.

    columns x width by height inches for the pictures; left, above: inches beside them, for labels and a title.
    """
    figure, axes = plt.subplots(figsize=(columns * width + left, height + above + 0.25))
    axes.set(xlim=(0, columns * width), ylim=(height, 0), aspect="equal")
    axes.set_axis_off()
    return figure, axes


def _show(
    axes: plt.Axes, picture: str | Path | np.ndarray, box: tuple[float, ...], frame: str | None = None, **words: dict
) -> None:
    """A picture (a file, or uint8 [3, h, w]) as large as it can be in the middle of a box, framed in a colour.

    box: left, top, width, height. words: what stands "above", "below" or "left" of it, as arguments of `annotate`.
    """
    if isinstance(picture, np.ndarray):
        image = Image.fromarray(picture.transpose(1, 2, 0))
    else:
        image = _opened(picture)
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
    for place, style in words.items():
        axes.annotate(**{"textcoords": "offset points", **places[place], **style})


def _opened(path: str | Path) -> Image.Image:
    """A picture as networks are given it: upright, what is transparent on black, grey of many bits stretched."""
    from reidlib.data.store import open_image  # here, for it imports torch, which other figures do without

    return open_image(path, (PICTURE, PICTURE))


def _looks(correct: np.ndarray, query: pd.Series) -> list[dict]:
    """Frame and words of a query's answers: the rank, ticked green or crossed red; grey when all its matches were found before.

    query: with matches, how many there are; without, none is grey.
    """
    looks, found = [], 0
    for rank, hit in enumerate(correct, 1):
        done = found == query.get("matches")
        colour = DONE if done else RIGHT if hit else WRONG
        words = {"text": str(rank)} if done else {"text": f"{rank} {'✓' if hit else '✗'}", "fontweight": "bold"}
        looks.append({"frame": colour, "above": words | {"color": colour, "fontsize": 9}})
        found += hit
    return looks


def _cell(columns: int, path, height: float = 1.0, margin: float = 0.75) -> tuple[float, float]:
    """Width and height in inches of each of `columns` pictures like the one at `path`, at most `height` high."""
    image = _opened(path)
    shape = max(0.75, image.width / image.height)  # labels need some width too
    width = min(height * shape, (WIDTH - margin) / columns)
    return width, max(width / shape, 0.6)
