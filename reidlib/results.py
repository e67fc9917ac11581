"""What a study found: written as a whole, read again, and asked.

    r = open_results("params/demo.yaml")       what lies in results/demo
    r.rows, r.evaluations, r.params, r.marks

All that is shown (tables, figures, claims, the report) is made of a `Results`, or of its `rows` (one a number) and
`evaluations` (AP of each query, CMC): neither data nor networks are needed, nor the study that made them.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import load_file, save_file

from reidlib import params
from reidlib.content import differences, output_folder, write_atomically
from reidlib.data.hashes import file_hashes
from reidlib.methods import ELSEWHERE, Expert, Method, label, parse
from reidlib.params import ExpertParams, StudyParams
from reidlib.stats import seed_interval

COLUMNS = ["study", "method", "train_dataset", "test_dataset", "seed", "metric", "value"]
ACCURACY = ("mAP", "mINP", "rank-1", "rank-5", "rank-10")
COSTS = ("parameters", "macs", "latency_ms", "throughput", "peak_memory_mb", "file_mb")  # of `profiling`
FILES = ("results.csv", "evaluations.safetensors", "params.yaml")  # their hashes stand in provenance.json, the fourth


@dataclass(frozen=True, repr=False)
class Results:
    """What a study found and how it is called: all that tables, figures, claims and the report need."""

    study: str  # its name
    params: StudyParams  # those that the numbers were made with
    rows: pd.DataFrame  # COLUMNS
    evaluations: dict[str, np.ndarray]  # "<method>|<train>|<test>|<seed>|ap" of each query, "...|cmc"; "<test>|pid" of each
    provenance: dict  # what provenance.json holds, see `read`
    output: Path  # where figures and tables made of it are written
    marks: tuple[str, ...] = ()  # why these may not be what the study published, a sentence each; shown on every page
    folder: Path | None = None  # where they were read from

    @property
    def warning(self) -> str:
        """The marks and the experts that are broken as a quote in Markdown; "" where there is none."""
        found = [*self.marks, *broken_experts(self.rows)]
        return f"> ⚠️ **Warning:** {'; '.join(found)}." if found else ""

    def __repr__(self) -> str:
        return "; ".join([f"{len(self.rows)} results of {self.study}", *self.marks])

    def _repr_markdown_(self) -> str:  # what Jupyter shows
        return "\n\n".join(filter(None, [self.warning, f"**{self.params.title}**", self.params.remark]))


def write(results: Results, folder: Path, params_file: Path) -> None:
    """results.csv, evaluations.safetensors, params.yaml (a copy of `params_file`) and provenance.json, into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    results.rows[COLUMNS].to_csv(folder / "results.csv", index=False)
    write_atomically(folder / "evaluations.safetensors", lambda path: save_file(results.evaluations, path))
    (folder / "params.yaml").write_bytes(params_file.read_bytes())
    record = results.provenance | {"files": _hashes(folder)}
    (folder / "provenance.json").write_text(json.dumps(record, indent=1) + "\n")


def read(folder: Path, output: Path | None = None, params_file: Path | None = None) -> Results:
    """What `write` wrote, marked where it was edited since.

    output: where figures and tables go, artifacts/<study>/explored by default. params_file: the study's params as they
    are today; where they differ from those that the numbers were made with, the results are marked so.

    provenance.json holds facts of the study (params, seeds, a fingerprint of each data set: "data") and
    environments: by number, commit, whether files differed from it, python, packages, device, threads.
    units: by "<method>|<train>|<seed>", when, in which environment and how long that network was trained.
    evaluations, costs: the same of each "<method>|<train>|<test>|<seed>", and of the costs measured in each
        configuration ("": the study's own networks), with the number of timed runs.
    files: the sha256 of the others.
    Raises ValueError where a file is missing, ParamsError where params.yaml can't be read.
    """
    for name in (*FILES, "provenance.json"):
        if not (folder / name).is_file():
            raise ValueError(f"{folder} has no {name}: run `make study STUDY={folder.name}` first")
    provenance = json.loads((folder / "provenance.json").read_text())
    study, published = provenance["study"], params.load((folder / "params.yaml").resolve())
    was, hashes = provenance.get("files", {}), _hashes(folder)
    marks = [f"{name} was edited after it was published" for name in FILES if hashes[name] != was.get(name)]
    marks += _changed_since(published, params_file)
    evaluations = load_file(folder / "evaluations.safetensors")
    rows = _read_rows(folder / "results.csv", evaluations)
    output = output or Path("artifacts", study, "explored")
    return Results(study, published, rows, evaluations, provenance, output, tuple(marks), folder)


def _read_rows(file: Path, evaluations: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """results.csv. Raises ValueError naming the line of a row that is there twice, is no number, or has no evaluation."""
    # names stay what they are: one may be a number, or NA; and pandas' own parser of numbers may round
    kinds = dict.fromkeys(("study", "method", "train_dataset", "test_dataset", "metric", "value"), str)
    rows = pd.read_csv(file, keep_default_na=False, dtype=kinds)
    odd, twice = pd.to_numeric(rows["value"], errors="coerce").isna(), rows.duplicated(COLUMNS[:-1])
    wrong = [(i, f"the value '{rows['value'][i]}' is no number") for i in np.flatnonzero(odd)]
    wrong += [(i, "this row stands in the file before") for i in np.flatnonzero(twice)]
    of_queries = rows[rows["metric"] == "mAP"]
    names = ["|".join(map(str, key)) + "|ap" for key in of_queries[COLUMNS[1:5]].itertuples(index=False)]
    wrong += [(i, f"evaluations.safetensors has no {n}") for i, n in zip(of_queries.index, names) if n not in evaluations]
    if wrong:
        place, why = min(wrong)
        raise ValueError(f"{file}, line {place + 2}: {why}; take the row out or mend it, or run `make study` again")
    return rows.assign(value=rows["value"].map(float))


def open_results(study: str | Path, folder: str | Path = "") -> Results:
    """The results of a params file (see `params.find`), compared with it.

    folder: where they lie, below the folder that holds params/; "": results/<study>. Their figures and tables go to the
    folder that the environment variable REIDLIB_OUTPUT names, else to artifacts/<study>/explored.
    """
    file = params.find(study)
    root = file.parent.parent
    return read(root / (folder or Path("results", file.stem)), output_folder(root, file.stem), file)


def _changed_since(published: StudyParams, file: Path | None) -> list[str]:
    if file is None or not file.is_file():
        return []
    name = f"{file.parent.name}/{file.name}"
    try:
        today = params.load(file.resolve())
    except params.ParamsError:
        return [f"{name} has changed since and can't be read now"]
    changes = differences(published.model_dump(mode="json"), today.model_dump(mode="json"))
    return [f"{name} has changed since: {', '.join(changes)}"] if changes else []


def _hashes(folder: Path) -> dict[str, str]:
    return dict(zip(FILES, file_hashes([folder / name for name in FILES])))


# what it was made of


def title(study: StudyParams, text: str) -> str:
    """A heading that names the study and says so where stand-ins are in the place of the paper's experts."""
    return f"{text}: {study.title}" + (" (experts are stand-ins)" if len(stand_ins(study)) else "")


def stand_ins(study: StudyParams) -> pd.DataFrame:
    """The experts that stand in for the paper's: expert, encoder, stands in for. Empty where all are the paper's."""
    rows = [(label(Expert(name=n)), e.encoder.name, e.stands_in_for) for n, e in study.experts.items() if e.stands_in_for]
    return pd.DataFrame(rows, columns=["expert", "encoder", "stands in for"])


def trace(provenance: dict, row: pd.Series) -> pd.DataFrame:
    """Where one row of results.csv comes from: its evaluation or measurement, and the training of its network.

    Returns a row a fact, columns "evaluated" and, if it was trained, "trained"; of a cost "measured".
    Raises ValueError where provenance.json knows nothing of it.
    """
    method, train, test, seed = (row[key] for key in COLUMNS[1:5])
    if row["metric"] in ACCURACY:
        records = {"evaluated": provenance["evaluations"].get(f"{method}|{train}|{test}|{seed}"),
                   "trained": provenance["units"].get(f"{method}|{train}|{seed}")}  # fmt: skip
    else:
        records = {"measured": provenance["costs"].get(parse(method).configuration or "")}
    facts = {made: dict(record) for made, record in records.items() if record}
    if not facts:
        raise ValueError(f"provenance.json knows no {row['metric']} of {method} trained on {train}, seed {seed}")
    names = dict.fromkeys([*(train.split("+") if train != ELSEWHERE else []), test])
    for record in facts.values():
        environment = provenance["environments"][str(record.pop("environment"))]
        packages = " ".join(f"{name} {version}" for name, version in environment["packages"].items())
        record |= {"seed": seed} | {f"data set {name}": provenance["data"][name] for name in names}
        record |= environment | {"packages": packages}
    return pd.DataFrame(facts).fillna("")


def precision(study: StudyParams) -> str:
    """What the study's networks are trained and run in, e.g. "float32, vit_s trained in bf16"."""
    own = [f"{name} trained in {_in_words(e.precision)}" for name, e in study.experts.items() if e.precision]
    return ", ".join([_in_words(study.precision), *own])


def _in_words(precision: str) -> str:
    return "float32" if precision == "no" else precision


def measured_on(results: Results) -> str:
    """How costs were measured, e.g. "Intel Xeon Platinum 8488C, 2 threads, float32, torch 2.8.0"."""
    environments, records = results.provenance["environments"], results.provenance["costs"].values()
    found = [environments[str(record["environment"])] for record in records]
    threads = [f"{e['threads']} thread{'s' * (e['threads'] > 1)}" for e in found]
    names = [
        f"{e['device']}, {t}, {_in_words(results.params.precision)}, torch {e['packages']['torch']}"
        for e, t in zip(found, threads)
    ]
    return " and ".join(dict.fromkeys(names))


# what is read from rows and evaluations


def broken_experts(rows: pd.DataFrame) -> list[str]:
    """The experts that are no part to build an ensemble of, a sentence each: no better, where they were trained, than
    their own start or than the student alone."""
    own = rows[(rows["metric"] == "mAP") & (rows["train_dataset"] == rows["test_dataset"])]
    mAP = own.groupby(["train_dataset", "method"])["value"].mean()
    found = []
    for (dataset, method), value in mAP.items():
        expert = parse(method)
        others = {f"start:{expert.name}": "before it was fine-tuned", "student": "of the student alone"}
        for other, words in others.items() if isinstance(expert, Expert) else ():
            if mAP.get((dataset, other), -1) >= value:
                less = f"{100 * value:.1f} % mAP, no more than the {100 * mAP[dataset, other]:.1f} {words}"
                found.append(f"{label(expert)} on {dataset} has {less}")
    return found


def evaluated(rows: pd.DataFrame, where: Callable[[Method], bool]) -> list[str]:
    """The methods of which there is an accuracy and for which `where` holds, in the order of the rows."""
    return [name for name in rows.loc[rows["metric"] == "mAP", "method"].unique() if where(parse(name))]


def select(rows: pd.DataFrame, methods: Sequence[str] | None = None) -> pd.DataFrame:
    """The rows of these methods; None: of all but the variants, which have figures and tables of their own."""
    if methods is None:
        methods = [name for name in rows["method"].unique() if not parse(name).changes()]
    return rows[rows["method"].isin(methods)]


def configured(rows: pd.DataFrame, configuration: str | None) -> pd.DataFrame:
    """The rows of another study's networks ("paper"; None: of the study's own), named as the study's own are."""
    parsed = {name: parse(name) for name in rows["method"].unique()}
    names = {n: str(replace(m, configuration=None)) for n, m in parsed.items() if m.configuration == configuration}
    return rows.assign(method=rows["method"].map(names)).dropna(subset="method")


def at_home(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of methods that were tested on the data set they were trained on, and of peers that were tested there too.

    Raises ValueError where no method was.
    """
    own = rows["train_dataset"] == rows["test_dataset"]
    if not own.any():
        raise ValueError("no method was tested on the data set it was trained on; figures across domains show other pairs")
    return rows[own | (rows["train_dataset"] == ELSEWHERE) & rows["test_dataset"].isin(rows["test_dataset"][own])]


def datasets(rows: pd.DataFrame) -> list[str]:
    """The data sets that methods were trained and tested on alike."""
    own = rows[(rows["train_dataset"] == rows["test_dataset"]) & (rows["metric"] == "mAP")]
    return own["train_dataset"].unique().tolist()


def cmc(evaluations: dict[str, np.ndarray], methods: Sequence[str], dataset: str) -> dict[str, np.ndarray]:
    """CMC of each method that was trained and tested on `dataset`, float [seeds, ranks]."""
    curves: dict[str, list] = {method: [] for method in methods}
    for name in (name for name in evaluations if name.endswith("|cmc")):
        method, train, test, _, _ = name.split("|")
        if method in curves and train == test == dataset:
            curves[method].append(evaluations[name])
    return {method: np.stack(values) for method, values in curves.items() if values}


def summary(results: pd.DataFrame) -> pd.DataFrame:
    """Over the seeds: method, train_dataset, test_dataset, metric, mean, low, high (95 %, Student's t), seeds."""
    keys = ["method", "train_dataset", "test_dataset", "metric"]
    groups = results.groupby(keys, sort=False)["value"]
    rows = [(*key, *seed_interval(values), len(values)) for key, values in groups]
    return pd.DataFrame(rows, columns=[*keys, "mean", "low", "high", "seeds"])


def costs(results: pd.DataFrame) -> pd.DataFrame:
    """A row a method, a column a metric of COSTS; means where there are several."""
    rows = results[results["metric"].isin(COSTS)]
    return rows.pivot_table(index="method", columns="metric", values="value", sort=False).reindex(columns=COSTS)


def clip(methods: Sequence[str], experts: Mapping[str, ExpertParams]) -> str:
    """The expert that is CLIP or, by the params, stands in for it, else the first of `methods`; "" where there is none."""
    there = [method for method in methods if isinstance(parse(method), Expert)]
    named = (str(Expert(name=name)) for name, spec in experts.items() if "clip" in (spec.stands_in_for or "").lower())
    return next((method for method in ("expert:clip", *named, *there) if method in there), "")
