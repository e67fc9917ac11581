"""The method drawn as boxes and arrows: picture, experts, gate, distillation, student, as a params file has them."""

import textwrap
from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path as Corners

from reidlib.figures.style import COLOURS, INK, WIDTH, styled
from reidlib.methods import Expert, label
from reidlib.params import StudyParams

COMPARED = {  # what teacher and student are compared in, for the terms of distillation that reidlib has
    "logit": "probabilities, T = {temperature:g}",
    "embedding": "embeddings, cosine",
    "relational": "cosines in a batch",
}


@styled
def method_overview(params: StudyParams) -> Figure:
    """The study's method as boxes and arrows, with the names and weights that the params give.

    Top, the teacher: picture, frozen experts, gate, fused embedding; with a router, its shortcut, dashed. Bottom: the
    student and the terms of distillation whose weight is not zero.
    """
    experts, kd, moe = params.experts, params.distillation, params.moe
    terms = {term: weight for term, weight in kd.terms.items() if weight} if "moe" in kd.teachers else {}
    lines = -(-len(terms) // 3)  # of terms
    lane, high, gap, pad = max(1.0, 0.28 + 0.72 * lines), 0.76, 0.12, 0.1  # inches: student, expert, between, in a frame
    low = 0.05 + lane + 0.38  # where the teacher's frame begins
    stack = len(experts) * (high + gap) - gap
    top = low + stack + 2 * pad + 0.26
    middle = low + pad + stack / 2
    height = top + (0.75 if moe.router else 0.05)
    picture, expert, gate, fused = (0.05, 1.0), (1.5, 2.05), (4.05, 1.25), (5.75, 1.5)  # left edge and width of columns
    figure, axes = plt.subplots(figsize=(WIDTH, height + 0.3))
    axes.set(xlim=(0, WIDTH - 0.05), ylim=(0, height), aspect="equal")  # drawn in inches
    axes.set_axis_off()

    _frame(axes, expert[0] - 0.2, low, WIDTH - 0.1 - expert[0] + 0.2, top - low, COLOURS["moe"])
    corner = {"va": "top", "fontsize": 8, "fontweight": "bold"}
    axes.text(WIDTH - 0.2, top - 0.08, "Mixture-of-Experts, the teacher", color=COLOURS["moe"], ha="right", **corner)
    _frame(axes, expert[0] - 0.08, low + 0.04, expert[1] + 0.16, top - low - 0.1, COLOURS["expert"], ":", "white")
    axes.text(expert[0], top - 0.1, "experts, fine-tuned, then frozen", color=COLOURS["expert"], **corner)

    _picture(axes, picture[0], middle - 0.5, picture[1])
    fork = picture[0] + picture[1] + 0.12
    for place, (name, spec) in enumerate(experts.items()):
        bottom = low + pad + (len(experts) - 1 - place) * (high + gap)
        words = [spec.encoder.name] + ([f"stands in for {spec.stands_in_for}"] if spec.stands_in_for else [])
        _box(axes, expert[0], bottom, expert[1], high, label(Expert(name=name)), words, COLOURS["expert"])
        y = bottom + high / 2
        _arrow(axes, (picture[0] + picture[1], middle), (fork, middle), (fork, y), (expert[0], y))
        turn = gate[0] - 0.2
        _arrow(axes, (expert[0] + expert[1], y), (turn, y), (turn, middle), (gate[0], middle))
    words = ["weighs the experts picture by picture", r"$w = \mathrm{softmax}(G\,x)$", "$x$: their embeddings"]
    _box(axes, gate[0], middle - 0.5, gate[1], 1.0, "gate", words, COLOURS["moe"])
    words = ["the experts' projected embeddings, weighed", r"$z = \Sigma_i\; w_i\, P_i\, x_i$"]
    _box(axes, fused[0], middle - 0.5, fused[1], 1.0, "fused embedding", words, COLOURS["moe"])
    _arrow(axes, (gate[0] + gate[1], middle), (fused[0], middle))

    if moe.router:
        y, x = top + 0.42, picture[0] + picture[1] / 2
        wide, entry = 2.05, expert[0] + expert[1] / 2
        _box(axes, picture[0], y - 0.25, wide, 0.5, "router", [moe.router.encoder.name], INK, "--")
        _arrow(axes, (x, middle + 0.5), (x, y - 0.25), linestyle="--")
        _arrow(axes, (picture[0] + wide, y), (entry, y), (entry, top - 0.06), linestyle="--")
        shortcut = "shortcut: looks at the picture first,\nthen only the expert that it picks runs"
        axes.text(entry + 0.12, y, shortcut, va="center", fontsize=7, color=INK)

    x, y = picture[0] + picture[1] / 2, 0.05 + lane / 2
    losses = "identity and triplet loss" if params.student.recipe.triplet else "identity loss"
    words = [params.student.encoder.name, losses, "all that is deployed"]
    _arrow(axes, (x, middle - 0.5), (x, y), (expert[0], y))
    _box(axes, expert[0], 0.05 + 0.05, expert[1], lane - 0.1, "student", words, COLOURS["student+kd"])
    if terms:
        left, width = gate[0] - 0.1, WIDTH - 0.1 - gate[0] + 0.1
        _frame(axes, left, 0.05, width, lane, COLOURS["student+kd"])
        heading = {"cached": "distillation, teacher cached", "online": "distillation, teacher online"}[kd.teacher]
        axes.text(left + pad, 0.05 + lane - 0.07, heading, color=COLOURS["student+kd"], **corner)
        each = (width - pad) / min(len(terms), 3)
        for place, (term, weight) in enumerate(terms.items()):
            line, column = divmod(place, 3)
            words = [COMPARED[term].format(temperature=kd.temperature)] if term in COMPARED else []
            bottom = 0.05 + 0.08 + 0.72 * (lines - 1 - line)
            box = (left + pad + column * each, bottom, each - pad, 0.64)
            _box(axes, *box, term, [*words, f"weight {weight:g}"], COLOURS["student+kd"])
        _arrow(axes, (expert[0] + expert[1], y), (left, y))
        _arrow(axes, (fused[0] + fused[1] / 2, middle - 0.5), (fused[0] + fused[1] / 2, 0.05 + lane))
    return figure


def _frame(axes: plt.Axes, x, y, width, height, colour: str, linestyle: str = "-", face: str | None = None) -> None:
    """A rectangle with round corners, filled with `face` or a tint of its colour."""
    style = {"facecolor": face or (colour, 0.07), "edgecolor": colour, "linestyle": linestyle, "lw": 0.9}
    axes.add_patch(FancyBboxPatch((x, y), width, height, "round,pad=0,rounding_size=0.07", **style))


def _box(axes, x, y, width, height, heading: str, words: Sequence[str], colour: str, linestyle: str = "-") -> None:
    """A box with a bold heading and smaller lines below, all wrapped to its width."""
    _frame(axes, x, y, width, height, colour, linestyle, "white")
    letters = int((width - 0.1) / 0.058)  # a letter at 7 points is about 0.058 inches wide
    lines = [line for text in words for line in ([text] if "$" in text else textwrap.wrap(text, letters))]
    heading = textwrap.fill(heading, int((width - 0.1) / 0.07))
    step, lead = 0.125, 0.145 * (1 + heading.count("\n"))
    top = y + height / 2 + (lead + step * len(lines)) / 2
    at = {"ha": "center", "va": "center", "color": INK}
    axes.text(x + width / 2, top - lead / 2, heading, fontsize=8, fontweight="bold", **at)
    for place, line in enumerate(lines):
        axes.text(x + width / 2, top - lead - step * (place + 0.5), line, fontsize=7, **at)


def _arrow(axes: plt.Axes, *corners: tuple[float, float], linestyle: str = "-") -> None:
    """An arrow along straight pieces, its head at the last corner."""
    style = {"arrowstyle": "-|>", "mutation_scale": 10, "color": INK, "lw": 1.1, "linestyle": linestyle, "fill": True}
    axes.add_patch(FancyArrowPatch(path=Corners(corners), joinstyle="miter", capstyle="butt", **style))


def _picture(axes: plt.Axes, x: float, y: float, size: float) -> None:
    """A photograph of nobody, as a symbol, with its name below."""
    _frame(axes, x, y, size, size, INK)
    centre = x + size / 2
    axes.add_patch(Circle((centre, y + 0.74 * size), 0.11 * size, color=INK, alpha=0.7, lw=0))
    shoulders = FancyBboxPatch((centre - 0.17 * size, y + 0.26 * size), 0.34 * size, 0.33 * size,
                               f"round,pad=0,rounding_size={0.12 * size}", color=INK, alpha=0.7, lw=0)  # fmt: skip
    axes.add_patch(shoulders)
    axes.text(centre, y + 0.12 * size, "picture", ha="center", va="center", fontsize=8, fontweight="bold", color=INK)
