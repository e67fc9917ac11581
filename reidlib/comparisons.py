"""What one method has over another, with intervals over queries and seeds.

Everything is made of `rows` (of results.csv) and `evaluations` (AP of each query): those of `results.Results`, or, in a
notebook that has just made its rows, `gathering.evaluations(study, rows)`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from reidlib.methods import TAUGHT, Expert
from reidlib.results import datasets, evaluated
from reidlib.stats import bootstrap

Evaluations = Mapping[str, np.ndarray]


class Comparison(NamedTuple):
    """A number made of mAPs with its 95 % interval, and how many seeds and queries it rests on."""

    mean: float
    low: float
    high: float
    seeds: int
    queries: int


def compare(
    rows: pd.DataFrame, evaluations: Evaluations, statistic: Callable[..., np.ndarray],
    cells: Sequence[tuple[str, str, str]],
) -> Comparison | None:  # fmt: skip
    """`statistic` of the mAPs of some cells (method, train, test), such as a difference, with its interval.

    The number is made of the rows, mean over the seeds that all cells have; the interval around it comes from
    `stats.bootstrap` over queries and seeds. `queries` counts the first cell's. None where a cell has no rows.
    """
    values = [by_seed(rows, *cell) for cell in cells]
    seeds = sorted(set.intersection(*(set(value.index) for value in values)))
    if not seeds:
        return None
    names = ["|".join(cell) for cell in cells]
    aps = [np.stack([evaluations[f"{name}|{seed}|ap"] for seed in seeds]) for name in names]
    found = bootstrap(statistic, aps, [test for *_, test in cells])
    mean = float(statistic(*(value[seeds].mean() for value in values)))
    return Comparison(mean, found.low + mean - found.mean, found.high + mean - found.mean, len(seeds), aps[0].shape[1])


def by_seed(rows: pd.DataFrame, method: str, train: str, test: str) -> pd.Series:
    """mAP of one cell by seed."""
    own = rows[(rows["metric"] == "mAP") & (rows["method"] == method)]
    return own[(own["train_dataset"] == train) & (own["test_dataset"] == test)].set_index("seed")["value"]


def gain(rows: pd.DataFrame, evaluations: Evaluations, a: str, b: str, dataset: str) -> Comparison | None:
    """mAP of method `a` minus that of `b`, both trained and tested on `dataset`; None where one wasn't."""
    return compare(rows, evaluations, np.subtract, [(a, dataset, dataset), (b, dataset, dataset)])


def differences(rows: pd.DataFrame, evaluations: Evaluations, methods: Sequence[str], base: str) -> pd.DataFrame:
    """What each method has over `base` on each data set: method, dataset, mean, low, high (fractions of mAP), seeds."""
    found = {(m, d): gain(rows, evaluations, m, base, d) for d in datasets(rows) for m in methods}
    lines = [(*key, *c[:4]) for key, c in found.items() if c is not None]
    return pd.DataFrame(lines, columns=["method", "dataset", "mean", "low", "high", "seeds"])


def falls(rows: pd.DataFrame, evaluations: Evaluations, methods: Sequence[str] | None = None) -> pd.DataFrame:
    """What each method loses on a data set it was not trained on.

    methods: only these; None: all that were tested so.

    Returns:
        A row for each method, train, test; columns mAP (fraction), and with "_low" and "_high" each: points, what it is
        below the same method trained on `test`; relative, the same as a share of the latter; own, what it is below its
        own mAP on `train` (NaN after mixed training).
    """
    lines = []
    across = rows[(rows["train_dataset"] != rows["test_dataset"]) & (rows["metric"] == "mAP")]
    groups = across.groupby(["method", "train_dataset", "test_dataset"], sort=False)["value"].mean()
    for (method, train, test), mAP in groups.items():
        there, home = (method, train, test), (method, test, test)
        points = compare(rows, evaluations, lambda t, h: h - t, [there, home])
        if points is None or methods is not None and method not in methods:
            continue
        relative = compare(rows, evaluations, lambda t, h: 1 - t / h, [there, home])
        own = compare(rows, evaluations, lambda t, o: o - t, [there, (method, train, train)])
        numbers = {"points": points, "relative": relative, "own": own or [np.nan] * 3}
        flat = {f"{k}{end}": x for k, c in numbers.items() for end, x in zip(("", "_low", "_high"), c)}
        lines.append({"method": method, "train": train, "test": test, "mAP": mAP, **flat, "seeds": points.seeds})
    return pd.DataFrame(lines)


def best_expert(rows: pd.DataFrame, dataset: str) -> str:
    """The single expert to beat: that of the highest mean mAP on the data set it was trained on, as "expert:<name>"."""
    own = rows[(rows["train_dataset"] == dataset) & (rows["test_dataset"] == dataset) & (rows["metric"] == "mAP")]
    own = own[own["method"].isin(evaluated(own, lambda method: isinstance(method, Expert)))]
    return own.groupby("method", sort=False)["value"].mean().idxmax()


def kd_variants(rows: pd.DataFrame) -> list[str]:
    """The evaluated variants of distillation from the MoE: other terms, another temperature, the teacher online."""
    varied = {"terms", "temperature", "teacher"}
    return evaluated(rows, lambda method: str(method.base) == TAUGHT and bool(method.changes().keys() & varied))
