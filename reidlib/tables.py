"""The paper's tables and the study's: made of `rows` (of results.csv) and `evaluations`, written as CSV, Markdown, LaTeX.

`rows` and `evaluations` are those of `results.Results` or, in a notebook that has just made its rows, of
`gathering.accuracy` and `gathering.evaluations`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from pylatexenc.latexencode import UnicodeToLatexEncoder

from reidlib.comparisons import Evaluations, best_expert, by_seed, compare, gain, kd_variants, of_seeds
from reidlib.methods import ELSEWHERE, TAUGHT, Expert, Moe, Student, label, parse, taught_by
from reidlib.params import ExpertParams
from reidlib.results import Results, at_home, clip, configured, costs, datasets, evaluated, select, summary, title


def main_table(
    results: pd.DataFrame, methods: Sequence[str] | None = None,
    metrics: Sequence[str] = ("mAP", "rank-1", "rank-5", "mINP"),
) -> pd.DataFrame:  # fmt: skip
    """A row a method; columns (data set, metric) in percent as "75.2 ± 1.1", the 95 % interval over the seeds.

    methods: these, in this order; None: all but variants. Where only one data set was trained on alone, mAP on the others of
    what was trained on it is there too.
    """
    every, shown = summary(results), datasets(results)
    rows = at_home(every)
    if len(shown) == 1:
        reached = every.loc[every["train_dataset"] == shown[0], "test_dataset"].unique()
        elsewhere = [name for name in reached if name not in shown]
        there = every[every["train_dataset"].isin([shown[0], ELSEWHERE]) & every["test_dataset"].isin(elsewhere)]
        crossed = {name: f"{shown[0]} → {name}" for name in elsewhere}
        rows = pd.concat([rows, there[there["metric"] == "mAP"].replace({"test_dataset": crossed})])
        shown += crossed.values()
    rows = select(rows, methods)[lambda t: t["metric"].isin(metrics)]
    methods = list(rows["method"].unique()) if methods is None else methods
    half = 100 * (rows["high"] - rows["mean"])
    text = [f"{100 * m:.1f}" + ("" if np.isnan(h) else f" ± {h:.1f}") for m, h in zip(rows["mean"], half)]
    table = rows.assign(text=text).pivot(index="method", columns=["test_dataset", "metric"], values="text")
    present = [(dataset, metric) for dataset in shown for metric in metrics if (dataset, metric) in table]
    table = table.loc[[m for m in methods if m in table.index], present].fillna("")
    return table.rename(index=label).rename_axis(index=None, columns=[None, None])


def efficiency_table(
    results: pd.DataFrame, configuration: str | None = None, experts: Mapping[str, ExpertParams] | None = None
) -> pd.DataFrame:
    """A row a method: what it costs, and how much less than the MoE with the soft gate and than CLIP.

    configuration: of the networks measured, e.g. "paper"; by default the study's own. Empty where none was measured.
    experts: the study's, which say what stands in for CLIP.
    """
    rows = select(configured(results, configuration))
    spread = rows[rows["metric"] == "latency_ms_iqr"].groupby("method")["value"].mean()
    table = costs(rows).assign(spread=spread)
    out = pd.DataFrame({
        "parameters (M)": table["parameters"] / 1e6, "MACs (G)": table["macs"] / 1e9,
        "latency (ms)": table["latency_ms"], "latency IQR (ms)": table["spread"],
        "throughput (pictures/s)": table["throughput"], "memory (MB)": table["peak_memory_mb"],
        "file (MB)": table["file_mb"],
    }).map("{:.4g}".format).astype(float)  # fmt: skip
    for method, name in {"moe:soft": "MoE", **{m: label(m) for m in [clip(table.index, experts or {})] if m}}.items():
        for metric, heading in {"parameters": "parameters", "latency_ms": "time"}.items():
            if method in table.index:
                reduction = 100 * (1 - table[metric] / table.loc[method, metric])
                out[f"{heading} vs {name} (% less)"] = reduction.round(1)
    return out.rename(index=label).rename_axis(index=None)


def grid_table(rows: pd.DataFrame, evaluations: Evaluations, chosen: Mapping[str, str] | None = None) -> pd.DataFrame:
    """MoE or single expert, KD or none: mAP in percent, and in points what KD adds and what the MoE adds to it.

    Without KD a student has no teacher, so that column is one number. The last row of each data set is the MoE's minus
    the best single expert's; under "what KD adds" it is the interaction, which the paper calls synergy. chosen: see
    `comparisons.best_expert`.
    """
    lines = []
    for dataset in datasets(rows):
        best = best_expert(rows, dataset, chosen)
        how = "best on held-out identities" if dataset in (chosen or {}) else "best on the test set"
        teachers = {f"{label(best)} ({how})": best, "Uniform ensemble": "moe:uniform", "MoE, soft gate": "moe:soft"}
        kd = {teacher: str(taught_by(teacher)) for teacher in teachers.values()}
        at = lambda *methods: [(m, dataset, dataset) for m in methods]  # noqa: B023, E731
        mAP = lambda method: percent(by_seed(rows, method, dataset, dataset).mean())  # noqa: B023, E731
        of = lambda a, b: points(gain(rows, evaluations, a, b, dataset))  # noqa: B023, E731
        for name, teacher in teachers.items():
            lines.append((dataset, name, mAP(teacher), mAP("student"), mAP(kd[teacher]), of(kd[teacher], "student")))
        cells = at(kd["moe:soft"], "student", kd[best], "student")
        synergy = compare(rows, evaluations, lambda a, b, c, d: (a - b) - (c - d), cells)
        moe = (of("moe:soft", best), "0.0", of(kd["moe:soft"], kd[best]), points(synergy))
        lines.append((dataset, "MoE − best expert (points)", *moe))
    columns = ["data set", "", "teacher itself", "student without KD", "student with KD", "what KD adds (points)"]
    return pd.DataFrame(lines, columns=columns).set_index("").rename_axis(index=None)


def gates_table(rows: pd.DataFrame, evaluations: Evaluations) -> pd.DataFrame:
    """Experts and ways to combine them: mAP, what each has over the uniform ensemble in points, and what it costs.

    "moe:top1/expert=..." is the top-1 gate overruled: every picture goes to that expert.
    """
    methods = evaluated(rows, lambda method: isinstance(method, Expert | Moe))
    table = _beside(rows, evaluations, dict.fromkeys(methods, "moe:uniform"), "vs uniform")
    return _with_costs(table, rows, methods)


def kd_table(rows: pd.DataFrame, evaluations: Evaluations) -> pd.DataFrame:
    """Variants of distillation from the MoE: mAP, and what each has over the study's own setting, in points.

    Empty where the study has none.
    """
    variants = kd_variants(rows)
    methods = ["student", TAUGHT, *variants] if variants else []
    return _beside(rows, evaluations, dict.fromkeys(methods, TAUGHT), "vs base")


def sizes_table(rows: pd.DataFrame, evaluations: Evaluations) -> pd.DataFrame:
    """Students of several sizes, alone and taught by the MoE: mAP, what KD adds in points, and what they cost.

    Empty where the study has one size.
    """
    students = evaluated(rows, lambda m: str(m.base) in ("student", TAUGHT) and m.changes().keys() <= {"size"})
    methods = students if any(parse(m).size for m in students) else []
    alone = {method: str(replace(parse(method), taught_by=None)) for method in methods}
    return _with_costs(_beside(rows, evaluations, alone, "what KD adds"), rows, methods)


def epochs_table(rows: pd.DataFrame, evaluations: Evaluations, epochs: int) -> pd.DataFrame:
    """What KD from the MoE adds to a student that trains for longer and longer: a row a data set and number of epochs.

    Columns alone and taught (mAP in percent), gain, low, high (points, 95 % interval), seeds (how many, the same of all). Where
    the gain shrinks to nothing KD speeds training up and does no more. epochs: of the study's own student. Empty where the
    study has no others.
    """
    varied = evaluated(rows, lambda method: isinstance(method, Student) and method.changes().keys() == {"epochs"})
    lengths = sorted({parse(method).epochs for method in varied} | {epochs}) if varied else []
    rows, lines = of_seeds(rows, varied), []
    for dataset in datasets(rows[rows["method"].isin(varied)]):
        for length in lengths:
            change = {"epochs": None if length == epochs else length}
            alone, taught = str(Student(**change)), str(Student(taught_by="moe", **change))
            found = gain(rows, evaluations, taught, alone, dataset)
            if found is not None:
                means = (by_seed(rows, method, dataset, dataset).mean() for method in (alone, taught))
                lines.append((dataset, length, *(100 * value for value in (*means, *found[:3])), found.seeds))
    columns = ["data set", "epochs", "alone (%)", "taught (%)", "gain (points)", "low", "high", "seeds"]
    return pd.DataFrame(lines, columns=columns).set_index("data set").rename_axis(index=None)


def _beside(rows: pd.DataFrame, evaluations: Evaluations, bases: dict[str, str], name: str) -> pd.DataFrame:
    """A row a method (a key of `bases`): mAP and the difference to its base, on each data set that has variants."""
    variants = [method for method in bases if parse(method).changes()]
    rows, columns = of_seeds(rows, variants), {}
    for dataset in datasets(rows[rows["method"].isin(variants or bases)]):
        gains = {m: gain(rows, evaluations, m, base, dataset) for m, base in bases.items() if m != base}
        columns[dataset, "mAP (%)"] = {m: percent(by_seed(rows, m, dataset, dataset).mean()) for m in bases}
        columns[dataset, f"{name} (points)"] = {m: points(gains.get(m)) for m in bases}
    return pd.DataFrame(columns, index=[*bases]).rename(index=label)


def _with_costs(table: pd.DataFrame, rows: pd.DataFrame, methods: Sequence[str]) -> pd.DataFrame:
    """The table, and what those of its methods that were measured cost."""
    scales = {"parameters (M)": ("parameters", 1e6), "MACs (G)": ("macs", 1e9), "latency (ms)": ("latency_ms", 1)}
    measured = costs(rows[rows["method"].isin(methods)]).rename(index=label)
    for name, (metric, scale) in scales.items() if len(measured) else ():
        table["cost", name] = (measured[metric] / scale).map("{:.4g}".format).astype(float)
    return table


def cross_domain_table(rows: pd.DataFrame, evaluations: Evaluations) -> pd.DataFrame:
    """Each method on data sets it wasn't trained on: its mAP there and, with intervals, its fall.

    The fall is against the same method trained on that data set, in points and relative, and against its own mAP on the
    data set it was trained on. After training on several at once ("a+b") it is what that costs (or, negative, gives). On a
    data set that nothing was trained on, and of a peer, which was trained elsewhere, there is no such fall to tell; a column
    that would be empty is left out.
    """
    lines, keys = [], ["method", "train_dataset", "test_dataset"]
    across = rows[(rows["train_dataset"] != rows["test_dataset"]) & (rows["metric"] == "mAP")]
    for method, train, test in across[keys].drop_duplicates().itertuples(index=False):
        there, target, home = (method, train, test), (method, test, test), (method, train, train)
        falls = [
            compare(rows, evaluations, lambda mAP, target: target - mAP, [there, target]),
            compare(rows, evaluations, lambda mAP, target: 1 - mAP / target, [there, target]),
            compare(rows, evaluations, lambda mAP, home: home - mAP, [there, home]),
            compare(rows, evaluations, lambda mAP, home: 1 - mAP / home, [there, home]),
        ]
        values = (percent(by_seed(rows, *cell).mean()) for cell in (there, target))
        lines.append((label(method), train, test, *values, *map(points, falls)))
    columns = ["method", "trained on", "tested on", "mAP (%)", "trained on the target (%)", "fall (points)", "fall (%)",
               "fall from its own test set (points)", "fall from its own test set (%)"]  # fmt: skip
    table = pd.DataFrame(lines, columns=columns).set_index("method").rename_axis(index=None)
    return table.loc[:, (table != "").any() | table.columns.isin(columns[:4])]


def percent(fraction: float) -> str:
    """0.752 as "75.2"; "" of NaN."""
    return "" if np.isnan(fraction) else f"{100 * fraction:.1f}"


def points(comparison: Sequence[float] | None) -> str:
    """A difference with its interval, as far as it has one, in points: "+6.5 [1.2, 11.8]"; "" where there is none."""
    if comparison is None or np.isnan(comparison[0]):
        return ""
    mean, low, high = (100 * value for value in comparison[:3])
    interval = "" if np.isnan(low) else f" [{low:.1f}, {high:.1f}]"
    return f"{mean:+.1f}{interval}".replace("-", "−")


# as files


def write_table(
    results: Results, name: str, table: pd.DataFrame, caption: str, own_networks: bool = True, best: bool = False
) -> pd.DataFrame:
    """tables/<name>.csv, .md and .tex in `results.output`, the latter two with caption and the study's note; -> `table`.

    An empty table is not written, and a former one by its name is removed.
    results: or a study, which knows its params and output too.
    own_networks: False where the numbers are not of the study's networks, so that title and note would mislead.
    best: set each column's best value in bold in .md and .tex; for tables whose rows compete.
    """
    of_study = f"{title(results.params, caption)}. {results.params.remark}".strip()
    caption = of_study if own_networks else f"{caption}."
    flat = table.copy()
    flat.columns = [" ".join(map(str, c)) if isinstance(c, tuple) else c for c in table.columns]
    folder = results.output / "tables"
    if table.empty:
        for suffix in ("csv", "md", "tex"):
            (folder / f"{name}.{suffix}").unlink(missing_ok=True)
        return table
    folder.mkdir(parents=True, exist_ok=True)
    flat.to_csv(folder / f"{name}.csv")
    marked = _best(flat) if best else flat.map(lambda _: False)
    flat = flat.map(lambda value: "" if pd.isna(value) else value)
    bold = flat.where(~marked, "**" + flat.astype(str) + "**")
    (folder / f"{name}.md").write_text(f"{caption}\n\n{bold.to_markdown(disable_numparse=True)}\n")
    plain = table.rename(index=_tex, columns=_tex).map(_tex)
    plain = plain.where(~marked.to_numpy(), r"\textbf{" + plain.astype(str) + "}")
    latex = plain.to_latex(caption=_tex(caption), label=f"tab:{name}", position="tb", multicolumn_format="c", na_rep="")
    (folder / f"{name}.tex").write_text(latex)
    return table


BETTER = {"mAP|rank-|mINP|throughput": max, "parameters|MACs|latency \\(|memory|file": min}  # by what a column is called


def _best(table: pd.DataFrame) -> pd.DataFrame:
    """Which values are the best of their column, of those where it is known what is better; all that print alike."""
    marked = pd.DataFrame(False, table.index, table.columns)
    for pattern, better in BETTER.items():
        for column in (column for column in table if re.search(rf"(^| )({pattern})", column) and "% less" not in column):
            numbers = (
                table[column].astype(str).str.extract(r"^([+−-]?\d+(?:\.\d+)?)")[0].str.replace("−", "-").astype(float)
            )
            marked[column] = numbers == better(numbers.dropna(), default=np.nan)
    return marked


_ENCODER = UnicodeToLatexEncoder(unknown_char_policy="keep", unknown_char_warning=False)


def _tex(value):
    if isinstance(value, str):
        return _ENCODER.unicode_to_latex(value)
    return value if not isinstance(value, float) else "" if np.isnan(value) else f"{value:g}"
