"""One style for all figures, and how they become files.

A method's colour tells its kind, its line the one of its kind; right or wrong is never told by colour alone.
"""

import io
import textwrap
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from IPython.core.interactiveshell import InteractiveShell
from IPython.display import Image as Picture
from IPython.display import display
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator
from PIL import Image

from reidlib.methods import label, parse
from reidlib.results import Results, title

# seaborn's "colorblind"
PALETTE = ["#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#ca9161", "#fbafe4", "#949494", "#ece133", "#56b4e9"]
INK, RIGHT, WRONG = "#333333", PALETTE[2], PALETTE[3]
COLOURS = {
    "pixels": PALETTE[7],
    "start": PALETTE[9],
    "expert": PALETTE[0],
    "moe": PALETTE[1],
    "student": PALETTE[4],
    "student+kd": PALETTE[2],
    "peer": INK,
}
MARKERS = {
    "pixels": "X",
    "start": "v",
    "expert": "s",
    "moe": "D",
    "student": "o",
    "student+kd": "^",
    "peer": "P",
}  # by kind of method, as the colours
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))
WIDTH = 7.5  # inches of a figure
FILE_DPI = 130  # of a figure's PNG
GREY = ".15"
STYLE = {  # seaborn's "ticks" with changes
    "font.sans-serif": ["Arial", "DejaVu Sans", "Liberation Sans", "Bitstream Vera Sans", "sans-serif"],
    "text.color": GREY, "axes.labelcolor": GREY, "axes.edgecolor": GREY, "xtick.color": GREY, "ytick.color": GREY,
    "lines.solid_capstyle": "round", "patch.edgecolor": "w", "patch.force_edgecolor": True,
    "figure.dpi": 100, "figure.constrained_layout.use": True, "font.size": 9, "axes.titlesize": 10,
    "axes.labelsize": 9, "xtick.labelsize": 9, "ytick.labelsize": 9, "legend.fontsize": 9, "legend.frameon": False,
    "figure.titlesize": 11, "axes.spines.top": False, "axes.spines.right": False, "lines.linewidth": 1.6,
    "axes.grid": True, "axes.axisbelow": True, "grid.color": "#e5e5e5", "svg.hashsalt": "reidlib",
    "image.composite_image": False,  # or SVG would have pictures at 72 dpi
}  # fmt: skip
# now: taken by the first figure, within STYLE's context, Jupyter's backend would be silent from that context's end on
plt.switch_backend(matplotlib.get_backend())


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """A function that draws a figure, drawing it in STYLE; matplotlib's own settings stay as they are."""

    @wraps(draw)
    def drawn(*args, **kwargs) -> Figure:
        with plt.rc_context(STYLE):
            figure = draw(*args, **kwargs)
            for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
                if not isinstance(axis.get_major_locator(), FixedLocator):
                    # ticks are made, and spaced by their labels' size, only when a figure is drawn: settled here
                    axis.set_tick_params(labelsize=STYLE["xtick.labelsize"])
            return figure

    return drawn


def colour(method: str) -> str:
    return COLOURS[parse(method).kind]


def method_axis(axes: plt.Axes, methods: Sequence[str]) -> None:
    axes.set_yticks(range(len(methods)), [label(method) for method in methods])
    axes.set_ylim(len(methods) - 0.4, -0.6)
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)


def short_number(number: float) -> str:
    """1234567 -> "1.23 M"."""
    power = min(3, int(np.log10(max(number, 1)) // 3))
    return f"{number / 1000**power:.3g} {['', 'k', 'M', 'G'][power]}".strip()


def save(results: Results, name: str, figure: Figure) -> None:
    """Write figures/<name>.png and .svg in `results.output`, and in a notebook show that file.

    It is signed with the study's title, which says where stand-ins are in the place of the paper's experts. Where the
    study has publish_images: false, a figure that shows pictures goes to private/figures instead. What is shown is the file
    itself, so that whoever publishes the notebook can tell which pictures in it are published figures.
    results: or a study, which knows its params and output too.
    """
    shows_pictures = any(axes.images for axes in figure.axes)
    private = shows_pictures and not results.params.publish_images
    folder = results.output / "private" / "figures" if private else results.output / "figures"
    with plt.rc_context(STYLE):
        signature = textwrap.fill(title(results.params, name), int(17 * figure.get_figwidth()))
        figure.supxlabel(signature, x=0.995, ha="right", fontsize=7, color="#777777")
    write(figure, folder, name)
    plt.close(figure)  # or the notebook would show it twice
    if InteractiveShell.initialized():
        display(show(folder / f"{name}.png"))


def show(file: Path) -> Picture:
    """A figure's file as a notebook shows it, as wide as it was drawn."""
    with Image.open(file) as image:
        return Picture(filename=str(file), width=round(image.width * STYLE["figure.dpi"] / FILE_DPI), alt=file.stem)


@plt.rc_context(STYLE)
def write(figure: Figure, folder: Path, name: str) -> None:
    """<folder>/<name>.png and .svg, the same bytes for the same figure."""
    folder.mkdir(parents=True, exist_ok=True)
    if figure.get_layout_engine() is not None:  # once, not for each file
        figure.get_layout_engine().execute(figure)
        figure.set_layout_engine("none")
    figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=FILE_DPI, pil_kwargs={"compress_level": 1})
    image = Image.open(buffer).convert("RGB").quantize(256, dither=Image.Dither.NONE)  # a third of the bytes
    image.save(folder / f"{name}.png", optimize=True)
