"""The tidy results table, and the tables made of it.

rows = keep(study, "02_experts", accuracy(study, ["expert:clip"]))      one part from each notebook
gather(study)                                                           all parts: results/<study>/results.csv
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from reidlib.profiling import METRICS as COSTS
from reidlib.provenance import provenance, write_readme  # noqa: F401  (part of this module's interface)
from reidlib.stats import seed_interval
from reidlib.study import Study

COLUMNS = ["study", "method", "train_dataset", "test_dataset", "seed", "metric", "value"]
ACCURACY = ("mAP", "mINP", "rank-1", "rank-5", "rank-10")
NAMES = {
    "pixels": "Raw pixels", "moe:soft": "MoE, soft gate", "moe:top1": "MoE, top-1 gate", "moe:router": "MoE, router",
    "moe:uniform": "Uniform ensemble", "moe:concat": "Concatenation",
    "student": "Student", "student+kd:moe": "Student + KD from MoE", "student+kd:uniform": "Student + KD from ensemble",
}  # fmt: skip
REDUCTIONS = {"parameters": "parameters vs MoE (% less)", "latency_ms": "time vs MoE (% less)"}
TEX = str.maketrans({c: f"\\{c}" for c in "&%$#_{}"} | {"±": r"$\pm$", "→": r"$\to$", "–": "--", "−": "$-$"})


def label(method: str) -> str:
    """The method's name for readers: "expert:clip" -> "CLIP expert", "student/size=96" -> "Student, size = 96"."""
    base, *variants = method.split("/")
    kind, _, which = base.partition(":")
    which = which.upper() if which in ("clip", "align") else which
    name = NAMES.get(base) or {"expert": f"{which} expert", "student+kd": f"Student + KD from {which}"}.get(kind, base)
    return ", ".join([name, *(variant.replace("=", " = ") for variant in variants)])


def title(study: Study, what: str) -> str:
    """A heading that names the study and says so where stand-ins are in the place of the paper's experts."""
    return f"{what}: {study.params.title}" + (" (experts are stand-ins)" if len(stand_ins(study)) else "")


def stand_ins(study: Study) -> pd.DataFrame:
    """The experts that stand in for the paper's: expert, encoder, stands in for. Empty where all are the paper's."""
    rows = [(label(f"expert:{n}"), e.encoder.name, e.stands_in_for) for n, e in study.params.experts.items()]
    return pd.DataFrame([row for row in rows if row[2]], columns=["expert", "encoder", "stands in for"])


def accuracy(
    study: Study, methods: Sequence[str], datasets: Sequence[str] | None = None, test: str | None = None
) -> pd.DataFrame:
    """Every method trained on each data set with each seed, tested there or on `test`: rows of the results table.

    Raw pixels know no seed: they have one row each, under the first.
    """
    rows = []
    for method in methods:
        for train in datasets or study.params.datasets:
            for seed in study.params.seeds[: 1 if method == "pixels" else None]:
                found = study.evaluate(method, train, seed, test)
                values = [found.mAP, found.mINP, *(found.cmc[k - 1] for k in (1, 5, 10))]
                rows += [(study.name, method, train, test or train, seed, *pair) for pair in zip(ACCURACY, values)]
    return pd.DataFrame(rows, columns=COLUMNS)


def cmc(study: Study, methods: Sequence[str], dataset: str, test: str | None = None) -> dict[str, np.ndarray]:
    """CMC of each method, float [seeds, ranks]."""
    seeds = {method: study.params.seeds[: 1 if method == "pixels" else None] for method in methods}
    return {m: np.stack([study.evaluate(m, dataset, seed, test).cmc for seed in seeds[m]]) for m in methods}


def keep(study: Study, part: str, rows: pd.DataFrame) -> pd.DataFrame:
    """Keep one notebook's rows, in place of those it kept before, for `gather`; returns them.

    What is missing is filled in: the study's name, its first data set and seed, the test data set from the training
    one. A column `spread` becomes rows of a metric "<metric>_iqr"; other columns are left out.
    """
    if study.validation:
        raise ValueError(f"{part}: a validation split gives no results; open the study with validation=0 for them")
    if "spread" in rows:
        spread = rows.dropna(subset="spread")
        rows = pd.concat([rows, spread.assign(metric=spread["metric"] + "_iqr", value=spread["spread"])])
    first = {"train_dataset": next(iter(study.params.datasets)), "seed": study.params.seeds[0]}
    rows = rows.assign(study=study.name, **{k: v for k, v in first.items() if k not in rows})
    rows = rows if "test_dataset" in rows else rows.assign(test_dataset=rows["train_dataset"])
    file = _parts(study) / f"{part}.csv"
    file.parent.mkdir(parents=True, exist_ok=True)
    rows[COLUMNS].to_csv(file.with_suffix(".partial"), index=False)
    os.replace(file.with_suffix(".partial"), file)
    return rows[COLUMNS].reset_index(drop=True)


def gather(study: Study) -> pd.DataFrame:
    """All kept parts in the study's order, written to results/<study>/results.csv.

    Raises ValueError where there is none, or two parts give different values for the same thing.
    """
    parts = {file.stem: _table(file) for file in sorted(_parts(study).glob("*.csv"))}
    if not parts:
        raise ValueError(f"study {study.name} has no results yet: run `make study STUDY={study.name}` first")
    rows = pd.concat(parts, names=["part"]).reset_index("part")
    what = COLUMNS[:-1]
    spans = rows.groupby(what)["value"].agg(["min", "max"])
    unequal = spans[~np.isclose(spans["min"], spans["max"], rtol=1e-6, atol=1e-9)]
    if len(unequal):
        clash = rows.set_index(what).loc[[unequal.index[0]]]
        given = ", ".join(f"{value:g} in part {part}" for part, value in zip(clash["part"], clash["value"]))
        thing = " ".join(map(str, unequal.index[0]))
        raise ValueError(f"{len(unequal)} values given twice and differently, first {thing}: {given}; run these anew")
    rows = rows.drop_duplicates(what).drop(columns="part")
    orders = {"method": study.methods, "train_dataset": list(study.params.datasets),
              "test_dataset": list(study.params.datasets), "metric": [*ACCURACY, *COSTS]}  # fmt: skip
    place = lambda x: [_place(value, orders[x.name]) for value in x] if x.name in orders else x  # noqa: E731
    rows = rows.sort_values(["method", "train_dataset", "test_dataset", "seed", "metric"], key=place, kind="stable")
    study.results.mkdir(parents=True, exist_ok=True)
    rows.to_csv(study.results / "results.csv", index=False)
    return rows.reset_index(drop=True)


def read(study: Study) -> pd.DataFrame:
    """results/<study>/results.csv as `gather` wrote it."""
    return _table(study.results / "results.csv")


def _parts(study: Study) -> Path:
    return study.artifacts.root / "rows"


def _table(file: Path) -> pd.DataFrame:
    return pd.read_csv(file, converters={"value": float})  # pandas' own parser may round


def _place(value: str, order: Sequence[str]) -> tuple:
    """Sorts by the place in `order`, a variant after what it varies, the unknown last."""
    base = value.split("/")[0]
    return (order.index(base) if base in order else len(order), value)


def summary(results: pd.DataFrame) -> pd.DataFrame:
    """Over the seeds: method, train_dataset, test_dataset, metric, mean, low, high (95 %, Student's t), seeds."""
    what = ["method", "train_dataset", "test_dataset", "metric"]
    groups = results.groupby(what, sort=False)["value"]
    rows = [(*key, *seed_interval(values), len(values)) for key, values in groups]
    return pd.DataFrame(rows, columns=[*what, "mean", "low", "high", "seeds"])


def pairs(results: pd.DataFrame, across: bool = False) -> pd.DataFrame:
    """The rows tested where they were trained, or `across` all, with a column `pair` to print: "a", or "a → b".

    Raises ValueError where there is no such row.
    """
    same = results["train_dataset"] == results["test_dataset"]
    if not across and not same.any():
        raise ValueError("no method was tested on the data set it was trained on; across=True shows the other pairs")
    name = results["train_dataset"].where(same, results["train_dataset"] + " → " + results["test_dataset"])
    return results.assign(pair=name)[same | across]


def main_table(
    results: pd.DataFrame, methods: Sequence[str], metrics: Sequence[str] = ("mAP", "rank-1", "rank-5", "mINP"),
    across: bool = False,
) -> pd.DataFrame:  # fmt: skip
    """A row a method; columns (data set, metric) in percent as "75.2 ± 1.1", the 95 % interval over the seeds.

    across: also the methods tested on another data set than their training's, as "a → b".
    """
    rows = pairs(summary(results), across)
    names = list(dict.fromkeys(rows["pair"]))
    rows = rows[rows["metric"].isin(metrics) & rows["method"].isin(methods)]
    half = 100 * (rows["high"] - rows["mean"])
    text = [f"{100 * m:.1f}" + ("" if np.isnan(h) else f" ± {h:.1f}") for m, h in zip(rows["mean"], half)]
    table = rows.assign(text=text).pivot(index="method", columns=["pair", "metric"], values="text")
    present = [(pair, metric) for pair in names for metric in metrics if (pair, metric) in table]
    table = table.loc[[m for m in methods if m in table.index], present].fillna("")
    return table.rename(index=label).rename_axis(index=None, columns=[None, None])


def costs(results: pd.DataFrame) -> pd.DataFrame:
    """Results or their summary -> a row a method, a column a metric of `profiling`; means where there are several."""
    rows, values = results[results["metric"].isin(COSTS)], "value" if "value" in results else "mean"
    return rows.pivot_table(index="method", columns="metric", values=values, sort=False).reindex(columns=COSTS)


def efficiency_table(results: pd.DataFrame) -> pd.DataFrame:
    """A row a method: what it costs, and how much less than the MoE with the soft gate."""
    table = costs(results)
    out = pd.DataFrame({
        "parameters (M)": table["parameters"] / 1e6, "MACs (G)": table["macs"] / 1e9,
        "latency (ms)": table["latency_ms"], "throughput (pictures/s)": table["throughput"],
        "memory (MB)": table["peak_memory_mb"], "file (MB)": table["file_mb"],
    }).map(lambda value: float(f"{value:.4g}"))  # fmt: skip
    if "moe:soft" in table.index:
        for metric, name in REDUCTIONS.items():
            out[name] = (100 * (1 - table[metric] / table.loc["moe:soft", metric])).round(1)
    return out.rename(index=label).rename_axis(index=None)


def write_table(study: Study, name: str, table: pd.DataFrame, caption: str) -> pd.DataFrame:
    """results/<study>/tables/<name>.csv, .md and .tex, the latter two with caption and the study's note; -> `table`."""
    caption = " ".join([title(study, caption) + ".", study.params.note or ""]).strip()
    flat = table.copy()
    flat.columns = [" ".join(map(str, c)) if isinstance(c, tuple) else c for c in table.columns]
    folder = study.results / "tables"
    folder.mkdir(parents=True, exist_ok=True)
    flat.to_csv(folder / f"{name}.csv")
    (folder / f"{name}.md").write_text(f"{caption}\n\n{flat.to_markdown(disable_numparse=True)}\n")
    plain = table.rename(index=_tex, columns=_tex).map(_tex)
    latex = plain.to_latex(caption=_tex(caption), label=f"tab:{name}", position="tb", multicolumn_format="c", na_rep="")
    (folder / f"{name}.tex").write_text(latex)
    return table


def _tex(value):
    return value.translate(TEX) if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else value
