"""What one method has over another, with intervals over queries and seeds; the tables of ablations and across domains.

Everything is made of `rows` (of results.csv) and `evaluations` (AP of each query), see `results.read` and
`results.read_evaluations`; in a notebook that has just made its rows, `results.evaluations(study, rows)`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from reidlib.results import costs, datasets, digits, label
from reidlib.stats import bootstrap

TAUGHT = "student+kd:moe"
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
    values = [_by_seed(rows, *cell) for cell in cells]
    seeds = sorted(set.intersection(*(set(value.index) for value in values)))
    if not seeds:
        return None
    names = ["|".join(cell) for cell in cells]
    aps = [np.stack([evaluations[f"{name}|{seed}|ap"] for seed in seeds]) for name in names]
    found = bootstrap(statistic, aps, [test for *_, test in cells])
    mean = float(statistic(*(value[seeds].mean() for value in values)))
    return Comparison(mean, found.low + mean - found.mean, found.high + mean - found.mean, len(seeds), aps[0].shape[1])


def _by_seed(rows: pd.DataFrame, method: str, train: str, test: str) -> pd.Series:
    """mAP of one cell by seed."""
    own = rows[(rows["metric"] == "mAP") & (rows["method"] == method)]
    return own[(own["train_dataset"] == train) & (own["test_dataset"] == test)].set_index("seed")["value"]


def gain(rows: pd.DataFrame, evaluations: Evaluations, a: str, b: str, dataset: str) -> Comparison | None:
    """mAP of method `a` minus that of `b`, both trained and tested on `dataset`; None where one wasn't."""
    return compare(rows, evaluations, np.subtract, [(a, dataset, dataset), (b, dataset, dataset)])


def differences(rows: pd.DataFrame, evaluations: Evaluations, methods: Sequence[str], base: str) -> pd.DataFrame:
    """What each method has over `base` on each data set: method, dataset, mean, low, high (fractions of mAP), seeds."""
    found = {(m, d): gain(rows, evaluations, m, base, d) for d in datasets(rows) for m in methods}
    lines = [(*what, *c[:4]) for what, c in found.items() if c is not None]
    return pd.DataFrame(lines, columns=["method", "dataset", "mean", "low", "high", "seeds"])


def falls(rows: pd.DataFrame, evaluations: Evaluations, methods: Sequence[str]) -> pd.DataFrame:
    """What each method loses on a data set it was not trained on.

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
        if method not in methods or points is None:
            continue
        relative = compare(rows, evaluations, lambda t, h: 1 - t / h, [there, home])
        own = compare(rows, evaluations, lambda t, o: o - t, [there, (method, train, train)])
        numbers = {"points": points, "relative": relative, "own": own or [np.nan] * 3}
        flat = {f"{k}{end}": x for k, c in numbers.items() for end, x in zip(("", "_low", "_high"), c)}
        lines.append({"method": method, "train": train, "test": test, "mAP": mAP, **flat, "seeds": points.seeds})
    return pd.DataFrame(lines)


def best_expert(rows: pd.DataFrame, dataset: str) -> str:
    """The single expert to beat: that of the highest mean mAP on the data set it was trained on, as "expert:<name>"."""
    own = rows[rows["method"].str.fullmatch("expert:[^/]+") & (rows["metric"] == "mAP")]
    own = own[(own["train_dataset"] == dataset) & (own["test_dataset"] == dataset)]
    return own.groupby("method", sort=False)["value"].mean().idxmax()


# tables


def grid_table(rows: pd.DataFrame, evaluations: Evaluations) -> pd.DataFrame:
    """MoE or single expert, KD or none: mAP in percent, and in points what KD adds and what the MoE adds to it.

    Without KD a student has no teacher, so that column is one number. The last row of each data set is the MoE's minus
    the best single expert's; under "what KD adds" it is the interaction, which the paper calls synergy.
    """
    lines = []
    for dataset in datasets(rows):
        best = best_expert(rows, dataset)
        teachers = {f"{label(best)} (best)": best, "Uniform ensemble": "moe:uniform", "MoE, soft gate": "moe:soft"}
        kd = {teacher: f"student+kd:{_taught_by(teacher)}" for teacher in teachers.values()}
        at = lambda *methods: [(m, dataset, dataset) for m in methods]  # noqa: B023, E731
        mAP = lambda method: _percent(_by_seed(rows, method, dataset, dataset))  # noqa: B023, E731
        of = lambda a, b: _points(gain(rows, evaluations, a, b, dataset))  # noqa: B023, E731
        for name, teacher in teachers.items():
            lines.append((dataset, name, mAP(teacher), mAP("student"), mAP(kd[teacher]), of(kd[teacher], "student")))
        cells = at(kd["moe:soft"], "student", kd[best], "student")
        synergy = compare(rows, evaluations, lambda a, b, c, d: (a - b) - (c - d), cells)
        moe = (of("moe:soft", best), "0.0", of(kd["moe:soft"], kd[best]), _points(synergy))
        lines.append((dataset, "MoE − best expert (points)", *moe))
    columns = ["data set", "", "teacher itself", "student without KD", "student with KD", "what KD adds (points)"]
    return pd.DataFrame(lines, columns=columns).set_index("").rename_axis(index=None)


def _taught_by(teacher: str) -> str:
    """The teacher's name in a student's: "moe:soft" -> "moe", "expert:clip" -> "clip"."""
    return {"moe:soft": "moe", "moe:uniform": "uniform"}.get(teacher, teacher.partition(":")[2])


def gates_table(rows: pd.DataFrame, evaluations: Evaluations) -> pd.DataFrame:
    """Experts and ways to combine them: mAP, what each has over the uniform ensemble in points, and what it costs."""
    methods = _like(rows, "(expert|moe):[^/]+")
    table = _beside(rows, evaluations, dict.fromkeys(methods, "moe:uniform"), "vs uniform")
    return _with_costs(table, rows, methods)


def kd_table(rows: pd.DataFrame, evaluations: Evaluations) -> pd.DataFrame:
    """Variants of distillation from the MoE: mAP, and what each has over the study's own setting, in points.

    Empty where the study has none.
    """
    variants = _like(rows, re.escape(TAUGHT) + "/(terms|temperature|teacher)=[^/]+")
    methods = ["student", TAUGHT, *variants] if variants else []
    return _beside(rows, evaluations, dict.fromkeys(methods, TAUGHT), "vs base")


def sizes_table(rows: pd.DataFrame, evaluations: Evaluations) -> pd.DataFrame:
    """Students of several sizes, alone and taught by the MoE: mAP, what KD adds in points, and what they cost.

    Empty where the study has one size.
    """
    methods = _like(rows, r"student(\+kd:moe)?(/size=[^/]+)?") if _like(rows, ".*/size=.*") else []
    alone = {method: method.replace(TAUGHT, "student") for method in methods}
    return _with_costs(_beside(rows, evaluations, alone, "what KD adds"), rows, methods)


def _like(rows: pd.DataFrame, pattern: str) -> list[str]:
    """The methods whose accuracy was measured and whose name is like `pattern`."""
    methods = rows.loc[rows["metric"] == "mAP", "method"].unique()
    return [method for method in methods if re.fullmatch(pattern, method)]


def _beside(rows: pd.DataFrame, evaluations: Evaluations, bases: dict[str, str], name: str) -> pd.DataFrame:
    """A row a method (a key of `bases`): mAP and the difference to its base, on each data set that has variants."""
    variants = {method for method in bases if "/" in method}
    columns = {}
    for dataset in datasets(rows[rows["method"].isin(variants or bases)]):
        gains = {m: gain(rows, evaluations, m, base, dataset) for m, base in bases.items() if m != base}
        columns[dataset, "mAP (%)"] = {m: _percent(_by_seed(rows, m, dataset, dataset)) for m in bases}
        columns[dataset, f"{name} (points)"] = {m: _points(gains.get(m)) for m in bases}
    return pd.DataFrame(columns, index=[*bases]).rename(index=label)


def _with_costs(table: pd.DataFrame, rows: pd.DataFrame, methods: Sequence[str]) -> pd.DataFrame:
    """The table, and what those of its methods that were measured cost."""
    scales = {"parameters (M)": ("parameters", 1e6), "MACs (G)": ("macs", 1e9), "latency (ms)": ("latency_ms", 1)}
    measured = costs(rows[rows["method"].isin(methods)]).rename(index=label)
    for name, (metric, scale) in scales.items() if len(measured) else ():
        table["cost", name] = (measured[metric] / scale).map(digits)
    return table


def cross_domain_table(rows: pd.DataFrame, evaluations: Evaluations, methods: Sequence[str]) -> pd.DataFrame:
    """Each method on data sets it wasn't trained on: its mAP there and, with intervals, its fall.

    The fall is against the same method trained on that data set, in points and relative, and against its own mAP on the
    data set it was trained on. After training on several at once ("a+b") it is what that costs (or, negative, gives).
    """
    lines = []
    for _, line in falls(rows, evaluations, methods).iterrows():
        home = _by_seed(rows, line["method"], line["test"], line["test"])
        there = _by_seed(rows, line["method"], line["train"], line["test"])
        falls_by = ("points", "relative", "own")
        texts = [_points([line[f"{kind}{end}"] for end in ("", "_low", "_high")]) for kind in falls_by]
        lines.append((label(line["method"]), line["train"], line["test"], _percent(there), _percent(home), *texts))
    columns = ["method", "trained on", "tested on", "mAP (%)", "trained on the target (%)", "fall (points)", "fall (%)",
               "fall from its own test set (points)"]  # fmt: skip
    return pd.DataFrame(lines, columns=columns).set_index("method").rename_axis(index=None)


def _percent(values: pd.Series) -> str:
    """A mean over seeds as "75.2"; "" where there is none."""
    return f"{100 * values.mean():.1f}" if len(values) else ""


def _points(comparison: Sequence[float] | None) -> str:
    """A difference with its interval in points: "+6.5 [1.2, 11.8]"; "" where there is none."""
    if comparison is None or np.isnan(comparison[0]):
        return ""
    mean, low, high = (100 * value for value in comparison[:3])
    return f"{mean:+.1f} [{low:.1f}, {high:.1f}]".replace("-", "−")
