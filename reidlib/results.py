"""The tidy results table: kept part by part, gathered with its evidence, and read again.

rows = keep(study, "02_experts", accuracy(study, ["expert:clip"]))      one part from each notebook
gather(study)                                                           all parts, into results/<study>/
read(study), read_evaluations(study), read_provenance(study)            what lies there: all that tables need

What is shown is made from what is written down: tables, claims and most figures take `rows` (of results.csv) and
`evaluations` (AP of each query, CMC), and no study.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import load_file, save

from reidlib.artifacts import digest, whole
from reidlib.profiling import METRICS as COSTS
from reidlib.provenance import origin, stamp
from reidlib.stats import seed_interval
from reidlib.study import Study

COLUMNS = ["study", "method", "train_dataset", "test_dataset", "seed", "metric", "value"]
EVALUATED = COLUMNS[1:5]  # what one evaluation is of; joined by "|" its name
ACCURACY = ("mAP", "mINP", "rank-1", "rank-5", "rank-10")
NAMES = {
    "pixels": "Raw pixels", "moe:soft": "MoE, soft gate", "moe:top1": "MoE, top-1 gate", "moe:router": "MoE, router",
    "moe:uniform": "Uniform ensemble", "moe:concat": "Concatenation",
    "student": "Student", "student+kd:moe": "Student + KD from MoE", "student+kd:uniform": "Student + KD from ensemble",
}  # fmt: skip


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


# what notebooks keep


def accuracy(
    study: Study, methods: Sequence[str], datasets: Sequence[str] | None = None, test: str | None = None,
    across: bool = False,
) -> pd.DataFrame:  # fmt: skip
    """Every method trained on each data set with each seed, tested there: rows of the results table.

    test: the data set to test on instead; across: test on every data set of the study. AP and CMC of each evaluation
    are kept for `evaluations`. Raw pixels know neither seed nor training: one row a data set, under the first seed.
    """
    rows = []
    for method in methods:
        for train in datasets or study.params.datasets:
            for target in study.params.datasets if across else [test or train]:
                for seed in study.params.seeds[: 1 if method == "pixels" else None]:
                    if method == "pixels" and target != train:
                        continue
                    found = study.evaluate(method, train, seed, target)
                    _keep_evaluation(study, (method, train, target, seed), found)
                    values = [found.mAP, found.mINP, *(found.cmc[k - 1] for k in (1, 5, 10))]
                    rows += [(study.name, method, train, target, seed, *pair) for pair in zip(ACCURACY, values)]
    return pd.DataFrame(rows, columns=COLUMNS)


def keep(study: Study, part: str, rows: pd.DataFrame) -> pd.DataFrame:
    """Keep one notebook's rows, in place of those it kept before, for `gather`; returns them.

    What is missing is filled in: the study's name, its first data set and seed, the test data set from the training
    one. A column `spread` becomes rows of a metric "<metric>_iqr"; other columns are left out. Where and when they were
    made is kept with them.
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
    record = {"params": digest(study.params)} | stamp() | origin()
    file.with_suffix(".json").write_text(json.dumps(record, indent=1))
    whole(file, lambda path: rows[COLUMNS].to_csv(path, index=False))
    return rows[COLUMNS].reset_index(drop=True)


def evaluations(study: Study, rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """What `accuracy` kept of each of its rows' evaluations.

    Returns "<method>|<train>|<test>|<seed>|ap": AP of each query, float32 [queries]; and "...|cmc": float32 [ranks].
    Raises ValueError where a row has no evaluation, or its mAP isn't that evaluation's.
    """
    found = {}
    for _, row in rows[rows["metric"] == "mAP"].drop_duplicates(EVALUATED).iterrows():
        name = "|".join(map(str, row[EVALUATED]))
        file = _evaluation_file(study, name)
        own = load_file(file) if file.exists() else {}
        if f"{name}|ap" not in own or abs(own[f"{name}|ap"].mean(dtype=float) - row["value"]) > 1e-5:
            raise ValueError(f"{name}: no evaluation of mAP {row['value']:.4f} is kept; run its notebook anew")
        found |= own
    return found


def _keep_evaluation(study: Study, what: tuple, found) -> None:
    if study.validation:
        return
    name = "|".join(map(str, what))
    file = _evaluation_file(study, name)
    file.parent.mkdir(parents=True, exist_ok=True)
    arrays = {f"{name}|ap": found.ap.astype(np.float32), f"{name}|cmc": found.cmc.astype(np.float32)}
    whole(file, lambda path: path.write_bytes(save(arrays)))


def _evaluation_file(study: Study, name: str) -> Path:
    return study.artifacts.root / "evaluations" / f"{digest(name)}.safetensors"


def _parts(study: Study) -> Path:
    return study.artifacts.root / "rows"


# what lies in results/<study>/


def gather(study: Study) -> pd.DataFrame:
    """All kept parts, in the study's order: results/<study>/results.csv, evaluations.safetensors, provenance.json.

    Raises ValueError where there is none, two parts give different values for the same thing, or the evaluation of a
    row is not kept.
    """
    parts = {file.stem: _table(file) for file in sorted(_parts(study).glob("*.csv"))}
    if not parts:
        raise ValueError(f"study {study.name} has no results yet: run `make study STUDY={study.name}` first")
    filled = {part: table for part, table in parts.items() if len(table)}  # a study without ablations has none of them
    rows = pd.concat(filled, names=["part"]).reset_index("part")
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
    rows = rows.reset_index(drop=True)
    kept, record = evaluations(study, rows), _provenance(study, rows, parts)
    study.results.mkdir(parents=True, exist_ok=True)
    whole(study.results / "evaluations.safetensors", lambda path: path.write_bytes(save(kept)))
    whole(study.results / "provenance.json", lambda path: path.write_text(json.dumps(record, indent=1) + "\n"))
    whole(study.results / "results.csv", lambda path: rows.to_csv(path, index=False))
    return rows


def _provenance(study: Study, rows: pd.DataFrame, parts: dict[str, pd.DataFrame]) -> dict:
    """What provenance.json holds, see `read_provenance`; without names of users, hosts or folders."""
    file = study.root / "params" / f"{study.name}.yaml"
    environments: list[dict] = []

    def where(record: dict) -> dict:
        """The record with its commit, packages and device replaced by the number of the environment they make up."""
        environment = {key: record[key] for key in origin()}
        if environment not in environments:
            environments.append(environment)
        rest = {key: value for key, value in record.items() if key not in environment}
        return rest | {"environment": environments.index(environment)}

    made = {part: where(json.loads((_parts(study) / f"{part}.json").read_text())) for part in parts}
    for part, table in parts.items():
        made[part] |= {column: table[column].unique().tolist() for column in [*EVALUATED, "metric"]}
    trained = rows[rows["metric"] == "mAP"].drop_duplicates(["method", "train_dataset", "seed"])
    units = {}
    for method, train, seed in trained[["method", "train_dataset", "seed"]].itertuples(index=False):
        if unit := study.origin(method, train, seed):
            units[f"{method}|{train}|{seed}"] = where(unit)
    return {
        "study": study.name,
        "gathered": stamp()["finished"],
        "params": digest(study.params),
        "params file sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "seeds": study.params.seeds,
        "precision": study.params.precision,
        **{f"data set {name}": study.fingerprint(name) for name in study.params.datasets},
        "environments": {str(number): environment for number, environment in enumerate(environments)},
        "parts": made,
        "units": units,
    }


def read(study: Study) -> pd.DataFrame:
    """results/<study>/results.csv as `gather` wrote it."""
    return _table(_written(study, "results.csv"))


def read_evaluations(study: Study) -> dict[str, np.ndarray]:
    """results/<study>/evaluations.safetensors: what `evaluations` returns, of all rows."""
    return load_file(_written(study, "evaluations.safetensors"))


def read_provenance(study: Study) -> dict:
    """results/<study>/provenance.json.

    Facts of the study (params, a fingerprint of each data set, seeds), and
    environments: by number, commit, whether files differed from it, python, packages, device, threads.
    parts: by notebook, when and where it kept its rows, and which methods, data sets, seeds and metrics they are of.
    units: by "<method>|<train>|<seed>", when, where and how long that network was trained, and its folder's name, which
        ends in a hash of all it depends on.
    """
    return json.loads(_written(study, "provenance.json").read_text())


def _written(study: Study, name: str) -> Path:
    file = study.results / name
    if not file.exists():
        raise ValueError(f"study {study.name} has no {name} yet: run `make study STUDY={study.name}` first")
    return file


def trace(provenance: dict, row: pd.Series) -> pd.DataFrame:
    """Where one row of results.csv comes from: its evaluation or measurement, and the training of its network.

    provenance: of `read_provenance`. Returns a row a fact, columns "evaluated" and, if it was trained, "trained".
    """
    facts = {}
    for part, record in provenance["parts"].items():
        if all(row[column] in record[column] for column in [*EVALUATED, "metric"]):
            rest = {key: value for key, value in record.items() if key not in [*EVALUATED, "metric"]}
            facts["evaluated"] = {"part": part} | rest
            break
    unit = provenance["units"].get("|".join(str(row[key]) for key in ("method", "train_dataset", "seed")))
    if unit and row["metric"] in ACCURACY:
        facts["trained"] = dict(unit)
    names = dict.fromkeys([*row["train_dataset"].split("+"), row["test_dataset"]])
    data = {f"data set {name}": provenance[f"data set {name}"] for name in names}
    for record in facts.values():
        environment = provenance["environments"][str(record.pop("environment"))]
        packages = " ".join(f"{name} {version}" for name, version in environment["packages"].items())
        record |= {"seed": row["seed"]} | data | environment | {"packages": packages}
    return pd.DataFrame(facts).fillna("")


def measured_on(provenance: dict) -> str:
    """The machine that costs were measured on, e.g. "Intel Xeon Platinum 8488C, 2 threads, torch 2.8.0"."""
    parts = [part for part in provenance["parts"].values() if "latency_ms" in part["metric"]]
    found = [provenance["environments"][str(part["environment"])] for part in parts]
    threads = {e["threads"]: f"{e['threads']} thread{'s' * (e['threads'] > 1)}" for e in found}
    names = [f"{e['device']}, {threads[e['threads']]}, torch {e['packages']['torch']}" for e in found]
    return " and ".join(dict.fromkeys(names))


def _table(file: Path) -> pd.DataFrame:
    return pd.read_csv(file, converters={"value": float})  # pandas' own parser may round


def _place(value: str, order: Sequence[str]) -> tuple:
    """Sorts by the place in `order`, a variant after what it varies, the unknown last."""
    base = value.split("/")[0]
    return (order.index(base) if base in order else len(order), value)


# what is read from them


def datasets(rows: pd.DataFrame) -> list[str]:
    """The data sets that methods were trained and tested on alike."""
    own = rows[(rows["train_dataset"] == rows["test_dataset"]) & (rows["metric"] == "mAP")]
    return own["train_dataset"].unique().tolist()


def cmc(
    evaluations: dict[str, np.ndarray], methods: Sequence[str], train: str, test: str | None = None
) -> dict[str, np.ndarray]:
    """CMC of each method that was evaluated so, float [seeds, ranks]."""
    curves: dict[str, list] = {method: [] for method in methods}
    for name, values in evaluations.items():
        method, *where, _, what = name.split("|")
        if method in curves and where == [train, test or train] and what == "cmc":
            curves[method].append(values)
    return {method: np.stack(values) for method, values in curves.items() if values}


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


def costs(results: pd.DataFrame) -> pd.DataFrame:
    """Results or their summary -> a row a method, a column a metric of `profiling`; means where there are several."""
    rows, values = results[results["metric"].isin(COSTS)], "value" if "value" in results else "mean"
    return rows.pivot_table(index="method", columns="metric", values=values, sort=False).reindex(columns=COSTS)


def clip(methods: Sequence[str]) -> str:
    """The expert that is CLIP, or is first named and so stands in for it; "" where there is no expert."""
    experts = [method for method in methods if method.startswith("expert:")]
    return "expert:clip" if "expert:clip" in experts else next(iter(experts), "")
