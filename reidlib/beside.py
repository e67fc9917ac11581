"""Two studies, or one at two commits, side by side: what was asked differently, and what came out differently.

first, second = open_place("params/demo.yaml"), open_place("HEAD~20:results/demo")
changed(first, second), accuracy(first, second), verdicts(first, second)
"""

import re
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from reidlib import params
from reidlib.claims import OPEN, claims
from reidlib.comparisons import by_seed, compare
from reidlib.content import differences
from reidlib.methods import label
from reidlib.results import FILES, Results, open_results, read
from reidlib.sources import PROJECT
from reidlib.tables import percent, points

CELL = ["method", "train_dataset", "test_dataset"]


def open_place(place: str, root: Path = PROJECT) -> Results:
    """The results that a place names: a params file, a folder such as results/demo, or "<commit>:<folder>", as git has it.

    root: the folder that relative ones are below. Raises ValueError where no whole results lie there.
    """
    commit = re.fullmatch("([^:]+):(.+)", place)
    if commit and not (root / place).exists():
        return _of_commit(*commit.groups(), root)
    return open_results(place) if place.endswith((".yaml", ".yml")) else read(root / place)


def _of_commit(commit: str, folder: str, root: Path) -> Results:
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / Path(folder).name
        copy.mkdir()
        for name in (*FILES, "provenance.json"):
            shown = subprocess.run(["git", "show", f"{commit}:./{folder}/{name}"], cwd=root, capture_output=True)
            if shown.returncode:
                raise ValueError(f"{commit}:{folder} has no {name} ({shown.stderr.decode().strip()}); the place of results is "
                                 "a params file, a folder of results, or <commit>:<folder>")  # fmt: skip
            (copy / name).write_bytes(shown.stdout)
        try:
            return read(copy)
        except params.ParamsError as error:
            raise ValueError(f"{commit}:{folder} is of other rules, its params can't be read today: {error}") from None


def changed(first: Results, second: Results) -> pd.DataFrame:
    """Where the params of the second differ from the first's, a row a key: "student.recipe.lr was 0.01, is 0.02"."""
    found = differences(*(results.params.model_dump(mode="json") for results in (first, second)))
    return pd.DataFrame({"params, from the first to the second": found})


def accuracy(first: Results, second: Results) -> pd.DataFrame:
    """mAP of everything that either has evaluated, a row a method, training set and test set.

    Columns method, train_dataset, test_dataset; first and second (mean over the seeds, NaN where it has none); difference
    with low and high, its 95 % interval, all of them fractions. Where both were tested on the very same queries the interval
    is over these, paired, and the seeds that both have (see `comparisons.compare`); where not there is none.
    """
    rows, evaluations = _joined(first, second)
    lines = []
    cells = pd.concat([r.rows[r.rows["metric"] == "mAP"][CELL] for r in (first, second)]).drop_duplicates()
    for method, train, test in cells.itertuples(index=False):
        places = [(f"{which} {method}", train, test) for which in ("second", "first")]
        after, before = (by_seed(rows, *place).mean() for place in places)
        found = (after - before, np.nan, np.nan)
        if _same_queries(first, second, test):
            found = compare(rows, evaluations, np.subtract, places) or found
        lines.append((method, train, test, before, after, *found[:3]))
    return pd.DataFrame(lines, columns=[*CELL, "first", "second", "difference", "low", "high"])


def in_common(compared: pd.DataFrame) -> bool:
    """Whether `accuracy` has a method that both studies trained and tested on the same set."""
    return bool((compared["difference"].notna() & (compared["train_dataset"] == compared["test_dataset"])).any())


def _same_queries(first: Results, second: Results, test: str) -> bool:
    """Whether both were tested on the same queries: whose they are, and the data set's fingerprint where both know it."""
    both = [results.evaluations.get(f"{test}|pid") for results in (first, second)]
    prints = {results.provenance.get("data", {}).get(test) for results in (first, second)} - {None}
    return len(prints) < 2 and all(pids is not None for pids in both) and np.array_equal(*both)


def _joined(first: Results, second: Results) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Rows and evaluations of both as if of one study, whose methods are called "first ..." and "second ..."."""
    rows, evaluations = [], {}
    for which, results in {"first": first, "second": second}.items():
        rows.append(results.rows.assign(method=f"{which} " + results.rows["method"]))
        for name, values in results.evaluations.items():
            evaluations[name if name.endswith("|pid") else f"{which} {name}"] = values
    return pd.concat(rows), evaluations


def accuracy_table(compared: pd.DataFrame) -> pd.DataFrame:
    """`accuracy` for reading: mAP in percent, the difference in points with its interval, largest fall first."""
    table = compared.sort_values("difference", na_position="last")
    columns = {"method": [label(m) for m in table["method"]], "trained on": table["train_dataset"].to_list(),
               "tested on": table["test_dataset"].to_list()}  # fmt: skip
    columns |= {f"{which}, mAP (%)": [percent(value) for value in table[which]] for which in ("first", "second")}
    intervals = table[["difference", "low", "high"]].itertuples(index=False)
    columns["difference (points)"] = [points(interval) for interval in intervals]
    return pd.DataFrame(columns).set_index("method").rename_axis(index=None)


def verdicts(first: Results, second: Results) -> pd.DataFrame:
    """The claims whose verdicts differ, a row a claim and what it was measured on; empty where none does.

    Columns claim, measured on, and of each study the verdict and the number it rests on.
    """
    ledgers = []
    for which, results in {"first": first, "second": second}.items():
        ledger = claims(results)
        on = ledger["on"].where(ledger["verdict"].ne(OPEN) | ledger["measured"].notna(), "")
        number = ledger["measured"].map(lambda value: "" if np.isnan(value) else f"{value:.1f}".replace("-", "−"))
        own = pd.DataFrame({"claim": ledger["claim"], "measured on": on, f"{which}: verdict": ledger["verdict"],
                            f"{which}: measured": number})  # fmt: skip
        row = ["claim", "measured on", "nth"]  # two may be measured on what is called alike
        ledgers.append(own.assign(nth=own.groupby(row[:2]).cumcount()))
    both = ledgers[0].merge(ledgers[1], "outer", row).drop(columns="nth").fillna("")
    return both[both["first: verdict"] != both["second: verdict"]].reset_index(drop=True)


def name(results: Results) -> str:
    """What a study is called where two stand side by side: its name and the commits that its numbers come from."""
    commits = dict.fromkeys(str(e.get("commit", "?"))[:7] for e in results.provenance.get("environments", {}).values())
    return f"{results.study} ({' and '.join(commits)})" if commits else results.study
