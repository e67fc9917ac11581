"""What one method has over another, with intervals over identities, their queries and seeds.

Everything is made of `rows` (of results.csv) and `evaluations` (AP of each query and whose it is): those of
`results.Results`, or, in a notebook that has just made its rows, `gathering.evaluations(study, rows)`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from reidlib.methods import ENSEMBLES, TAUGHT, Expert, Method, Student, parse
from reidlib.results import datasets, evaluated
from reidlib.stats import p_value, percentiles, resamples

Evaluations = Mapping[str, np.ndarray]


class Comparison(NamedTuple):
    """A number made of mAPs with its 95 % interval, how many seeds, queries and identities it rests on, and its p-value.

    identities: 0 where it isn't known whose the queries are, so that they are resampled alone. p: two-sided, against 0.
    """

    mean: float
    low: float
    high: float
    seeds: int
    queries: int
    identities: int
    p: float


def compare(
    rows: pd.DataFrame, evaluations: Evaluations, statistic: Callable[..., np.ndarray],
    cells: Sequence[tuple[str, str, str]],
) -> Comparison | None:  # fmt: skip
    """`statistic` of the mAPs of some cells (method, train, test), such as a difference, with its interval.

    The number is made of the rows, mean over the seeds that all cells have; the interval around it comes from
    `stats.resamples` of identities, their queries and seeds. `queries` and `identities` count the first cell's. None where
    a cell has no rows; interval and p are NaN where a test set has one identity, of which none can be drawn.
    """
    values = [by_seed(rows, *cell) for cell in cells]
    seeds = sorted(set.intersection(*(set(value.index) for value in values)))
    if not seeds:
        return None
    names = ["|".join(cell) for cell in cells]
    aps = [np.stack([evaluations[f"{name}|{seed}|ap"] for seed in seeds]) for name in names]
    tests = [test for *_, test in cells]
    identities = {test: evaluations[f"{test}|pid"] for test in tests if f"{test}|pid" in evaluations}
    mean = float(statistic(*(value[seeds].mean() for value in values)))
    counts = len(seeds), aps[0].shape[1], len(np.unique(identities.get(tests[0], [])))
    if min(len(np.unique(identities.get(test, range(ap.shape[1])))) for ap, test in zip(aps, tests)) < 2:
        return Comparison(mean, np.nan, np.nan, *counts, np.nan)
    of_queries, drawn = resamples(statistic, aps, tests, identities)
    drawn = drawn + (mean - of_queries)
    return Comparison(mean, *percentiles(drawn), *counts, p_value(drawn))


def by_seed(rows: pd.DataFrame, method: str, train: str, test: str) -> pd.Series:
    """mAP of one cell by seed."""
    own = rows[(rows["metric"] == "mAP") & (rows["method"] == method)]
    return own[(own["train_dataset"] == train) & (own["test_dataset"] == test)].set_index("seed")["value"]


def of_seeds(rows: pd.DataFrame, variants: Sequence[str]) -> pd.DataFrame:
    """The rows of the seeds that variants were trained with (see `ablations.seeds`), so that all in a table have the same ones."""
    seeds = rows["seed"][rows["method"].isin(variants)]
    return rows[rows["seed"].isin(seeds)] if len(seeds) else rows


def gain(rows: pd.DataFrame, evaluations: Evaluations, a: str, b: str, dataset: str) -> Comparison | None:
    """mAP of method `a` minus that of `b`, both trained and tested on `dataset`; None where one wasn't."""
    return compare(rows, evaluations, np.subtract, [(a, dataset, dataset), (b, dataset, dataset)])


def differences(rows: pd.DataFrame, evaluations: Evaluations, methods: Sequence[str], base: str) -> pd.DataFrame:
    """What each method has over `base` on each data set: method, dataset, mean, low, high (fractions of mAP), seeds."""
    rows = of_seeds(rows, [method for method in methods if parse(method).changes()])
    found = {(m, d): gain(rows, evaluations, m, base, d) for d in datasets(rows) for m in methods}
    lines = [(*key, *c[:4]) for key, c in found.items() if c is not None]
    return pd.DataFrame(lines, columns=["method", "dataset", "mean", "low", "high", "seeds"])


def best_expert(rows: pd.DataFrame, dataset: str, chosen: Mapping[str, str] | None = None) -> str:
    """The single expert to beat, as "expert:<name>".

    chosen: the study's `best_expert`, by data set, which goes first: chosen before the test set was seen. Else that of the
    highest mean mAP on the test set of the data set it was trained on.
    """
    if dataset in (chosen or {}):
        return str(Expert(name=chosen[dataset]))
    return _best(rows, dataset, _at(rows, dataset, lambda method: isinstance(method, Expert)))


def best_taught(rows: pd.DataFrame, dataset: str) -> str | None:
    """The student to beat of those that a single expert taught: that of the highest mean mAP; None where there is none."""
    return _best(rows, dataset, taught_by_experts(rows, dataset))


def taught_by_experts(rows: pd.DataFrame, dataset: str) -> list[str]:
    """The students that a single expert taught, trained and tested on a data set."""
    others = (None, *ENSEMBLES)
    return _at(rows, dataset, lambda m: isinstance(m, Student) and m.taught_by not in others and not m.changes())


def _at(rows: pd.DataFrame, dataset: str, where: Callable[[Method], bool]) -> list[str]:
    return evaluated(rows[(rows["train_dataset"] == dataset) & (rows["test_dataset"] == dataset)], where)


def _best(rows: pd.DataFrame, dataset: str, methods: Sequence[str]) -> str | None:
    """Of methods trained and tested on a data set, that of the highest mean mAP; None of none."""
    means = {method: by_seed(rows, method, dataset, dataset).mean() for method in methods}
    return max(means, key=means.get) if means else None


def headroom(rows: pd.DataFrame, evaluations: Evaluations, dataset: str) -> float:
    """What the best of the experts and the uniform ensemble for each query, were it known, would have over the latter.

    A fraction of mAP, mean over the seeds: no gate that chooses among these by the query gains more. NaN where the study
    has no uniform ensemble.
    """
    methods = ["moe:uniform", *evaluated(rows, lambda method: isinstance(method, Expert))]
    seeds = set.intersection(*(set(by_seed(rows, method, dataset, dataset).index) for method in methods))
    aps = [np.stack([evaluations[f"{m}|{dataset}|{dataset}|{seed}|ap"] for m in methods]) for seed in seeds]
    return float(np.mean([ap.max(0).mean() - ap[0].mean() for ap in aps])) if aps else np.nan


def kd_variants(rows: pd.DataFrame) -> list[str]:
    """The evaluated variants of distillation from the MoE: other terms, another temperature, the teacher online."""
    varied = {"terms", "temperature", "teacher"}
    return evaluated(rows, lambda method: str(method.base) == TAUGHT and bool(method.changes().keys() & varied))
