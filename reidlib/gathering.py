"""From a study's units to its tidy results: rows, evaluations, provenance.

rows = accuracy(study, ["expert:clip"])        what a notebook shows: made or found
gather(study)                                  all that the study's params ask for; nothing is made for it
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from reidlib import agenda
from reidlib.agenda import Evaluated
from reidlib.content import digest
from reidlib.methods import ELSEWHERE, parse
from reidlib.provenance import now
from reidlib.results import ACCURACY, COLUMNS, COSTS, Results, precision
from reidlib.shipped import read_record
from reidlib.study import Study
from reidlib.units import FINISHED, Unit


def accuracy(
    study: Study, methods: Sequence[str], datasets: Sequence[str] | None = None, across: bool = False
) -> pd.DataFrame:
    """Every method trained on each data set with each seed, tested there: rows of the results table.

    across: tested on every data set of the study. What is not trained has one row a data set, see `agenda.evaluated`.
    """
    trains, tests = datasets or agenda.trained(study.params), list(study.params.datasets) if across else None
    return _rows(study, [of for method in methods for of in agenda.evaluated(study.params, method, trains, tests)])


def evaluations(study: Study, rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """What `comparisons` need of the evaluations in `rows`, see `results.Results`: AP of each query, whose it is, CMC."""
    found = {}
    for *names, seed in rows.loc[rows["metric"] == "mAP", COLUMNS[1:5]].drop_duplicates().itertuples(index=False):
        of = Evaluated(*names, int(seed))
        evaluation = study.evaluate(of.method, of.train, of.seed, of.test)
        found |= {f"{of}|{name}": getattr(evaluation, name).astype(np.float32) for name in ("ap", "cmc")}
        # whose the queries are: the same for all methods, for the protocol and not the method decides which count
        pid = study.plan.data.frame(of.test, "query")["pid"].to_numpy()
        found[f"{of.test}|pid"] = pid[evaluation.valid].astype(np.int32)
    return found


def cost_rows(study: Study, configuration: str = "") -> pd.DataFrame:
    """What networks cost, see `Study.costs`, as rows of the results table; a spread is a metric "<metric>_iqr"."""
    table = study.costs(configuration)
    spread = table.dropna(subset="spread")
    table = pd.concat([table, spread.assign(metric=spread["metric"] + "_iqr", value=spread["spread"])])
    dataset = agenda.ablated(study.params)[0]
    place = {"study": study.name, "train_dataset": dataset, "test_dataset": dataset, "seed": study.params.seeds[0]}
    return table.assign(**place)[COLUMNS].reset_index(drop=True)


def tried(study: Study) -> pd.DataFrame:
    """What was tried on held-out training identities, `Study.validation_file`: a row a run; empty where nothing was."""
    if not study.validation_file.exists():
        return pd.DataFrame(columns=["dataset", "method", "setting", "mAP"])
    names = {"dataset": str}  # one may be called NA, or 7
    return pd.read_csv(study.validation_file, keep_default_na=False, na_values=[""], dtype=names)


def gather(study: Study) -> Results:
    """Every number of the study, of finished units alone.

    Raises ValueError where units are missing, half done or stale, naming the first of them, and where the study is a
    validation split's.
    """
    if study.validation:
        raise ValueError(f"{study.name}: a validation split gives no results; open the study with validation=0 for them")
    wanted, configurations = list(agenda.evaluations(study.params)), study.plan.configurations
    units = [study.plan.evaluation(*of) for of in wanted] + [study.plan.costs(name) for name in configurations]
    states = [(unit.label, *study.store.state(unit)) for unit in units]
    if unfinished := [(label, state, why) for label, state, why in states if state != FINISHED]:
        first = "\n".join(f"- {label}: {state}" + f" ({why})" * bool(why) for label, state, why in unfinished[:5])
        count = f"{len(unfinished)} of {len(units)} units are not finished"
        raise ValueError(f"{study.name}: {count}:\n{first}\nRun make study STUDY={study.name}")
    rows = pd.concat([_rows(study, wanted), *(cost_rows(study, c) for c in configurations)])
    names = [*dict.fromkeys(of.method for of in wanted), *rows["method"].unique()]
    bases = [*agenda.methods(study.params), *(str(parse(name).base) for name in names)]  # the latter: another study's
    orders = {
        "method": sorted(dict.fromkeys(names), key=lambda name: bases.index(str(parse(name).base))),  # variants after it
        "train_dataset": [*study.params.datasets, agenda.mixed(study.params), ELSEWHERE], "test_dataset": list(study.params.datasets),
        "metric": [*ACCURACY, *COSTS, *(f"{name}_iqr" for name in COSTS)],
    }  # fmt: skip
    order = lambda column: column.map(orders[column.name].index) if column.name in orders else column  # noqa: E731
    rows = rows.sort_values([*COLUMNS[1:6]], key=order, kind="stable")[COLUMNS].reset_index(drop=True)
    return Results(study.name, study.params, rows, evaluations(study, rows), _provenance(study, wanted), study.output)


def _rows(study: Study, wanted: Sequence[Evaluated]) -> pd.DataFrame:
    rows = []
    for of in wanted:
        found = study.evaluate(of.method, of.train, of.seed, of.test)
        values = [found.mAP, found.mINP, *(found.cmc[k - 1] for k in (1, 5, 10))]
        rows += [(study.name, *of, *pair) for pair in zip(ACCURACY, values)]
    return pd.DataFrame(rows, columns=COLUMNS)


def _provenance(study: Study, wanted: Sequence[Evaluated]) -> dict:
    """See `results.read`; without names of users, hosts or folders."""
    environments: list[dict] = []

    def origin(unit: Unit) -> dict:
        """Which unit it is, when and where it was made; the environment by its number."""
        made = study.store.record(unit)["made"]
        if unit.stands_for:
            made = {**read_record(unit.given["file"])["made"], "shipped": unit.given["file"].name}
        environment = made.pop("environment")
        if environment not in environments:
            environments.append(environment)
        return {"unit": f"{unit.kind}/{unit.key}", **made, "environment": str(environments.index(environment))}

    trained = dict.fromkeys((of.method, of.train, of.seed) for of in wanted)
    networks = {"|".join(map(str, of)): study.plan.network(*of) for of in trained}
    units = {name: origin(unit) for name, unit in networks.items() if unit is not None and study.store.record(unit)}
    costs = {configuration: study.plan.costs(configuration) for configuration in study.plan.configurations}
    record = {
        "study": study.name, "gathered": now(), "params": digest(study.params), "seeds": study.params.seeds,
        "precision": precision(study.params), "threads": study.params.threads,
        "data": {
            name: digest([study.plan.pixels(name, part).inputs["bytes"] for part in ("train", "query", "gallery")])
            for name in study.params.datasets
        },
        "units": units,
        "evaluations": {str(of): origin(study.plan.evaluation(*of)) for of in wanted},
        "costs": {name: origin(unit) | {"runs": unit.inputs["runs"].runs} for name, unit in costs.items()},
    }  # fmt: skip
    return record | {"environments": {str(number): environment for number, environment in enumerate(environments)}}
