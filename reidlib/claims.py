"""The ledger: what the paper's abstract claims, and whether it holds on a study's data.

Each claim is data: what it says, the paper's number, how ours is computed, and what counts as holding. `claims`
measures all of them from results.csv and the evaluations beside it, a row for each claim and data set.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from reidlib.comparisons import TAUGHT, Comparison, Evaluations, best_expert, compare, gain
from reidlib.params import StudyParams
from reidlib.results import clip, costs, datasets, label
from reidlib.stats import seed_interval
from reidlib.study import Study

COLUMNS = ["claim", "paper", "measured", "low", "high", "verdict", "basis"]
HOLDS, FAILS, OPEN = "holds", "does not hold", "not measured"
PUBLISHED = {"veri776": ("VeRi-776", 1678), "market1501": ("Market-1501", 3368)}  # by layout: name, queries
MEDIAN = 1.2533 / 1.349  # a median's standard error times the square root of the runs, over the interquartile range


@dataclass(frozen=True)
class Evidence:
    """What a study measured. machine: what times were measured on, see `results.measured_on`."""

    params: StudyParams
    rows: pd.DataFrame
    evaluations: Evaluations
    machine: str

    @property
    def stand_ins(self) -> str:
        names = [name for name, expert in self.params.experts.items() if expert.stands_in_for]
        return f"; {' and '.join(names)} stand in for the paper's experts" if names else ""

    def data(self, dataset: str) -> str:
        spec = self.params.datasets[dataset]
        return (spec.title or dataset) + (" (drawn by the library)" if spec.builtin else "")

    def basis(self, data: str, found: Comparison, detail: str = "") -> str:
        """What a comparison rests on, in words."""
        of = "over queries and seeds" if found.seeds > 1 else "over queries only, for there is one seed"
        counts = f"{found.queries} queries, {found.seeds} seed{'s' * (found.seeds > 1)}"
        return f"{data}: {detail}{counts}, 95 % interval {of} (paired bootstrap){self.stand_ins}"


@dataclass(frozen=True)
class Claim:
    """One part of the abstract.

    number: of the abstract's claim, and a letter for each part of it. measured: how, for readers; measure: the same,
    which yields (measured, low, high, holds, basis) for each data set or configuration; holds is None where it is not
    measured.
    """

    number: str
    says: str
    paper: str
    measured: str
    holds: str
    measure: Callable[[Evidence, "Claim"], Iterator[tuple]]


def claims(params: StudyParams, rows: pd.DataFrame, evaluations: Evaluations, machine: str = "") -> pd.DataFrame:
    """The ledger: a row for each part of a claim and each data set or configuration it was measured on.

    Args:
        rows, evaluations: see `results.read` and `results.read_evaluations`; machine: see `results.measured_on`.
    Returns:
        Columns claim, paper, measured, low, high (percent or points, as the claim says; low and high bound the 95 %
        interval, NaN where nothing varies), verdict ("holds", "does not hold", "not measured"), basis.
    """
    evidence, lines = Evidence(params, rows, evaluations, machine), []
    for claim in CLAIMS:
        for measured, low, high, holds, basis in claim.measure(evidence, claim):
            verdict = OPEN if holds is None else HOLDS if holds else FAILS
            lines.append((f"{claim.number} {claim.says}", claim.paper, measured, low, high, verdict, basis))
    return pd.DataFrame(lines, columns=COLUMNS)


def write_claims(study: Study, ledger: pd.DataFrame) -> pd.DataFrame:
    """results/<study>/claims.csv; returns the ledger."""
    study.results.mkdir(parents=True, exist_ok=True)
    ledger.round(2).to_csv(study.results / "claims.csv", index=False)
    return ledger


def definitions() -> pd.DataFrame:
    """What each claim is, how it is measured and what counts as holding: the ledger's rules."""
    rules = [(c.number, c.says, c.paper, c.measured, c.holds) for c in CLAIMS]
    return pd.DataFrame(rules, columns=["", "claim", "paper", "measured as", "holds where"]).set_index("")


# how they are measured: each yields (measured, low, high, holds, basis)


def _open(basis: str) -> tuple:
    return np.nan, np.nan, np.nan, None, basis


def _scaled(found: Comparison) -> tuple:
    """In percent or points, and whether all of the interval is above zero."""
    return 100 * found.mean, 100 * found.low, 100 * found.high, bool(found.low > 0)


def _gains(evidence: Evidence, claim: Claim, better: str, worse: str) -> Iterator[tuple]:
    """mAP of one method minus another's. "best" in a name is the data set's best single expert."""
    for dataset in datasets(evidence.rows):
        best = best_expert(evidence.rows, dataset).removeprefix("expert:")
        a, b = (method.replace("best", best) for method in (better, worse))
        found = gain(evidence.rows, evidence.evaluations, a, b, dataset)
        if found is None:
            yield _open(f"{evidence.data(dataset)}: the study has not both {label(a)} and {label(b)}")
        else:
            yield *_scaled(found), evidence.basis(evidence.data(dataset), found, f"{label(a)} − {label(b)}, ")


def _reaches(evidence: Evidence, claim: Claim, layout: str) -> Iterator[tuple]:
    """mAP on a published data set, with the paper's own experts."""
    name, queries = PUBLISHED[layout]
    for dataset in datasets(evidence.rows):
        spec = evidence.params.datasets[dataset]
        own = evidence.rows.query("method == @TAUGHT and train_dataset == @dataset and test_dataset == @dataset")
        values = own.query("metric == 'mAP'")["value"]
        found = compare(evidence.rows, evidence.evaluations, np.positive, [(TAUGHT, dataset, dataset)])
        if spec.builtin is None and spec.layout == layout and found is not None and found.queries == queries:
            if evidence.stand_ins:
                yield _open(f"{name} was run with other experts than the paper's{evidence.stand_ins}")
                return
            low, high = seed_interval(values)[1:] if found.seeds > 1 else (found.low, found.high)
            over = f"{found.seeds} seeds, Student's t" if found.seeds > 1 else "one seed, bootstrap over queries"
            basis = f"{name}: {queries} queries, {over}"
            yield 100 * found.mean, 100 * low, 100 * high, bool(100 * high >= float(claim.paper)), basis
            return
    has = ", ".join(evidence.data(dataset) for dataset in evidence.params.datasets)
    yield _open(f"{name} was not run; this study's data: {has}")


def _reductions(evidence: Evidence, claim: Claim, metric: str, than: str) -> Iterator[tuple]:
    """How much less the distilled student costs than another method, for this study's networks and the paper's."""
    table, plan = costs(evidence.rows), evidence.params.profiling
    spread = evidence.rows.query("metric == @metric + '_iqr'").groupby("method")["value"].mean()
    cases = {"": "this study's networks", "/configuration=paper": "the paper's configuration, random weights"}
    for suffix, networks in cases.items():
        student = next((m for m in (TAUGHT + suffix, "student" + suffix) if m in table.index), None)
        same = [m.removesuffix(suffix) for m in table.index if m.partition("/")[2] == suffix[1:]]
        base = (clip(same) if than == "clip" else than) + suffix
        if student is None or base not in table.index:
            yield _open(f"{networks}: not measured by this study")
            continue
        small, large = table.loc[student, metric], table.loc[base, metric]
        low = high = np.nan
        shown = [f"{x / 1e6:.3g} M" if metric == "parameters" else f"{x:.3g} ms" for x in (small, large)]
        detail = f"{networks}: {shown[0]} against {shown[1]} ({label(base.removesuffix(suffix))})"
        if student in spread.index and base in spread.index:
            runs = plan.paper.runs if suffix and plan.paper else plan.runs
            relative = MEDIAN / np.sqrt(runs) * np.hypot(spread[student] / small, spread[base] / large)
            low, high = (100 * (1 - small / large * (1 + 1.96 * way * relative)) for way in (1, -1))
            detail += f", {evidence.machine}, 95 % interval from the runs' interquartile ranges"
        measured = 100 * (1 - small / large)
        holds = bool((measured if np.isnan(low) else low) >= float(claim.paper))
        yield measured, low, high, holds, detail + ("" if suffix else evidence.stand_ins)


def _falls(evidence: Evidence, claim: Claim, conventional: str, relative: bool) -> Iterator[tuple]:
    """How much more another method's mAP falls across domains than the distilled student's."""
    names, rows = datasets(evidence.rows), evidence.rows
    crossed = [(train, test) for train in names for test in names if train != test]
    if not crossed:
        yield _open("one data set, so nothing to cross")
    for train, test in crossed:
        where = f"{evidence.data(train)} → {evidence.data(test)}"
        other = best_expert(rows, test) if conventional == "best expert" else conventional
        cells = [(m, t, test) for m in (other, TAUGHT) for t in (train, test)]
        fall = lambda there, home: 1 - there / home if relative else home - there  # noqa: B023, E731
        found = compare(rows, evidence.evaluations, lambda a, b, c, d: fall(a, b) - fall(c, d), cells)  # noqa: B023
        if found is None:
            yield _open(f"{where}: the study has not both {label(other)} and {label(TAUGHT)}")
            continue
        ours, theirs = (compare(rows, evidence.evaluations, fall, pair) for pair in (cells[2:], cells[:2]))
        unit = "%" if relative else "points"
        detail = f"{label(TAUGHT)} falls by {100 * ours.mean:.1f} {unit}, {label(other)} by {100 * theirs.mean:.1f}; "
        yield *_scaled(found), evidence.basis(where, found, detail)


ABOVE = "the 95 % interval is above 0"
CLAIMS = (
    Claim("1", "Dynamic selection: the MoE's gate beats the uniform ensemble (mAP, points)", "> 0",
          "mAP of moe:soft − moe:uniform", ABOVE, partial(_gains, better="moe:soft", worse="moe:uniform")),
    Claim("2a", "MoE-KD's student reaches 75.2 % mAP on VeRi-776", "75.2",
          f"mAP of {TAUGHT}, with CLIP and ALIGN as experts",
          "the 95 % interval over the seeds reaches 75.2 or lies above", partial(_reaches, layout="veri776")),
    Claim("2b", "MoE-KD's student reaches 76.1 % mAP on Market-1501", "76.1",
          f"mAP of {TAUGHT}, with CLIP and ALIGN as experts",
          "the 95 % interval over the seeds reaches 76.1 or lies above", partial(_reaches, layout="market1501")),
    Claim("3a", "The student has fewer parameters than the MoE (% fewer)", "94",
          "1 − parameters of student / of moe:soft", "at least 94",
          partial(_reductions, metric="parameters", than="moe:soft")),
    Claim("3b", "The student takes less time than the MoE (% less)", "50",
          "1 − latency of one picture, student / moe:soft", "all of the interval is at least 50",
          partial(_reductions, metric="latency_ms", than="moe:soft")),
    Claim("3c", "The student has fewer parameters than fine-tuned CLIP (% fewer)", "92",
          "1 − parameters of student / of the CLIP expert or its stand-in", "at least 92",
          partial(_reductions, metric="parameters", than="clip")),
    Claim("4a", "The MoE helps: it beats its best expert (mAP, points)", "> 0", "mAP of moe:soft − best single expert",
          ABOVE, partial(_gains, better="moe:soft", worse="expert:best")),
    Claim("4b", "KD helps: a student taught by the best expert beats the student alone (mAP, points)", "> 0",
          "mAP of student+kd:<best expert> − student", ABOVE,
          partial(_gains, better="student+kd:best", worse="student")),
    Claim("4c", "Together they help more: the MoE teaches better than the best expert (mAP, points)", "> 0",
          "mAP of student+kd:moe − student+kd:<best expert>, which is the interaction of MoE and KD", ABOVE,
          partial(_gains, better=TAUGHT, worse="student+kd:best")),
    Claim("4d", "MoE-KD's student beats the student alone (mAP, points)", "> 0", "mAP of student+kd:moe − student",
          ABOVE, partial(_gains, better=TAUGHT, worse="student")),
    *(Claim(f"5{letter}", f"Across domains mAP falls less with MoE-KD than with {name} ({unit})", "12.9 against 15.3",
            f"fall of {other} − fall of {TAUGHT}, each below the same method trained on the target"
            + (", relative to it" if relative else ""),
            ABOVE, partial(_falls, conventional=other, relative=relative))
      for letter, other, name, relative, unit in (
          ("a", "best expert", "the best fine-tuned expert", False, "points"),
          ("b", "best expert", "the best fine-tuned expert", True, "relative, %"),
          ("c", "student", "the student without KD", False, "points"),
          ("d", "student", "the student without KD", True, "relative, %"))),
)  # fmt: skip
