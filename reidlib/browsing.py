"""Ranked lists to browse in JupyterLab: pick a method, an order and a query, see who is found and what the gate thought.

    browse(study, "vehicles", seed=0)

Where nobody can click (under papermill, in a report) it is a figure of some queries instead.
"""

import os
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from reidlib import answers, figures
from reidlib.methods import Moe, label, parse
from reidlib.study import Study

ORDERS = {
    "worst first": lambda frame: frame.sort_values("ap", kind="stable"),
    "best first": lambda frame: frame.sort_values("ap", ascending=False, kind="stable"),
    "by camera": lambda frame: frame.sort_values(["camid", "ap"], kind="stable"),
    "as in the data": lambda frame: frame,
}


def browse(study: Study, dataset: str, seed: int, methods: Sequence[str] | None = None, k: int = 8):
    """A widget to browse what methods find; a Figure of some of the first one's queries where nobody can click.

    methods: of the study, default: those that are evaluated there, without raw pixels.
    """
    known = [m for m in study.methods if parse(m).kind not in ("pixels", "start")]
    methods = list(methods or [m for m in ("student+kd:moe", "student", "moe:soft") if m in known] or known)
    if "REIDLIB_OUTPUT" in os.environ:  # set by scripts/execute.py
        examples = answers.retrieval_examples(study, methods[0], dataset, seed, k=k)
        return figures.ranked_lists(*examples, title=f"What “{label(methods[0])}” finds")
    import ipywidgets
    from IPython.display import display

    method = ipywidgets.Dropdown(options=[(label(m), m) for m in methods], description="method")
    order = ipywidgets.Dropdown(options=list(ORDERS), description="queries")
    number = ipywidgets.IntSlider(1, 1, len(queries(study, methods[0], dataset, seed)), description="query")

    def show(method, order, number):
        display(view(study, method, dataset, seed, order, number, k))

    return ipywidgets.VBox([
        ipywidgets.HBox([method, order, number]),
        ipywidgets.interactive_output(show, {"method": method, "order": order, "number": number}),
    ])  # fmt: skip


def queries(study: Study, method: str, dataset: str, seed: int) -> pd.DataFrame:
    """The queries that count, with their AP by a method and their place among all queries: columns ..., ap, place."""
    found = study.evaluate(method, dataset, seed)
    frame = study.dataset(dataset).query[found.valid].reset_index(drop=True)
    return frame.assign(ap=found.ap, place=np.flatnonzero(found.valid))


def view(study: Study, method: str, dataset: str, seed: int, order: str, number: int, k: int = 8) -> Figure:
    """What a method finds for one query, the `number`th (from 1) in an order of ORDERS; of a gate also how it weighs it."""
    asked = ORDERS[order](queries(study, method, dataset, seed)).iloc[[number - 1]]
    found = answers.ranked(study, method, dataset, seed, asked["place"].to_numpy(copy=True), k)
    row, said = asked.iloc[0], label(method)
    if isinstance(parse(method), Moe) and parse(method).gate in ("soft", "top1"):
        weights = study.gate_weights(parse(method).gate, dataset, seed, part="query").iloc[row["place"]]
        said += ": " + ", ".join(f"{name} {weights[name]:.2f}" for name in study.params.experts)
    title = f"{said}; identity {row['pid']}, camera {row['camid']}"
    gallery = study.dataset(dataset).gallery.reset_index(drop=True)
    return figures.ranked_lists(asked.assign(matches=found.matches), gallery, found.order, found.correct, title)
