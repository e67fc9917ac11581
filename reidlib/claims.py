"""The ledger: what the paper's abstract claims, and whether it holds on a study's data.

Each claim is data: its statement, the paper's number, how ours is computed, and what counts as holding. `claims` measures
all of them from a study's results, a row for each claim and data set.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from reidlib.comparisons import Comparison, best_expert, by_seed, compare, gain
from reidlib.methods import TAUGHT, label, taught_by
from reidlib.results import Results, clip, configured, costs, datasets, measured_on
from reidlib.stats import seed_interval

COLUMNS = ["claim", "paper", "measured", "low", "high", "verdict", "basis"]
HOLDS, FAILS, OPEN = "holds", "does not hold", "not measured"
PUBLISHED = {"veri776": ("VeRi-776", 1678), "market1501": ("Market-1501", 3368)}  # by layout: name, queries
MEDIAN = 1.2533 / 1.349  # a median's standard error times the square root of the runs, over the interquartile range
BEST = "best expert"  # stands for a data set's best single expert,
TAUGHT_BY_BEST = "student taught by the best expert"


@dataclass(frozen=True)
class Claim:
    """One part of the abstract.

    number: of the abstract's claim, and a letter for each part of it. definition: how it is measured, for readers;
    measure: the same, which yields (measured, low, high, holds, basis) for each data set or configuration; holds is None
    where it is not measured. criterion: what counts as holding.
    """

    number: str
    statement: str
    paper: str
    definition: str
    criterion: str
    measure: Callable[[Results, "Claim"], Iterator[tuple]]


def claims(results: Results) -> pd.DataFrame:
    """The ledger: a row for each part of a claim and each data set or configuration it was measured on.

    Returns:
        Columns claim, paper, measured, low, high (percent or points, as the claim says; low and high bound the 95 %
        interval, NaN where nothing varies), verdict ("holds", "does not hold", "not measured"), basis.
    """
    lines = []
    for claim in CLAIMS:
        for measured, low, high, holds, basis in claim.measure(results, claim):
            verdict = OPEN if holds is None else HOLDS if holds else FAILS
            lines.append((f"{claim.number} {claim.statement}", claim.paper, measured, low, high, verdict, basis))
    return pd.DataFrame(lines, columns=COLUMNS)


def write_claims(results: Results, ledger: pd.DataFrame) -> pd.DataFrame:
    """claims.csv in `results.output`; returns the ledger."""
    results.output.mkdir(parents=True, exist_ok=True)
    ledger.round(2).to_csv(results.output / "claims.csv", index=False)
    return ledger


def definitions() -> pd.DataFrame:
    """What each claim is, how it is measured and what counts as holding: the ledger's rules."""
    rules = [(c.number, c.statement, c.paper, c.definition, c.criterion) for c in CLAIMS]
    return pd.DataFrame(rules, columns=["", "claim", "paper", "measured as", "holds where"]).set_index("")


# how they are measured: each yields (measured, low, high, holds, basis)


def _open(basis: str) -> tuple:
    return np.nan, np.nan, np.nan, None, basis


def _scaled(found: Comparison) -> tuple:
    """In percent or points, and whether all of the interval is above zero."""
    return 100 * found.mean, 100 * found.low, 100 * found.high, bool(found.low > 0)


def _stand_ins(results: Results) -> str:
    names = [name for name, expert in results.params.experts.items() if expert.stands_in_for]
    return f"; {' and '.join(names)} stand in for the paper's experts" if names else ""


def _data(results: Results, dataset: str) -> str:
    spec = results.params.datasets[dataset]
    return (spec.title or dataset) + (" (drawn by the library)" if spec.builtin else "")


def _basis(results: Results, data: str, found: Comparison, detail: str = "") -> str:
    """What a comparison rests on, in words."""
    of = "over queries and seeds" if found.seeds > 1 else "over queries only, for there is one seed"
    counts = f"{found.queries} queries, {found.seeds} seed{'s' * (found.seeds > 1)}"
    return f"{data}: {detail}{counts}, 95 % interval {of} (paired bootstrap){_stand_ins(results)}"


def _gains(results: Results, claim: Claim, better: str, worse: str) -> Iterator[tuple]:
    """mAP of one method minus another's."""
    for dataset in datasets(results.rows):
        best = best_expert(results.rows, dataset)
        a, b = ({BEST: best, TAUGHT_BY_BEST: str(taught_by(best))}.get(method, method) for method in (better, worse))
        found = gain(results.rows, results.evaluations, a, b, dataset)
        if found is None:
            yield _open(f"{_data(results, dataset)}: the study has not both {label(a)} and {label(b)}")
        else:
            yield *_scaled(found), _basis(results, _data(results, dataset), found, f"{label(a)} − {label(b)}, ")


def _reaches(results: Results, claim: Claim, layout: str) -> Iterator[tuple]:
    """mAP on a published data set, with the paper's own experts."""
    name, queries = PUBLISHED[layout]
    for dataset in datasets(results.rows):
        spec = results.params.datasets[dataset]
        values = by_seed(results.rows, TAUGHT, dataset, dataset)
        found = compare(results.rows, results.evaluations, np.positive, [(TAUGHT, dataset, dataset)])
        if spec.builtin is None and spec.layout == layout and found is not None and found.queries == queries:
            if _stand_ins(results):
                yield _open(f"{name} was run with other experts than the paper's{_stand_ins(results)}")
                return
            low, high = seed_interval(values)[1:] if found.seeds > 1 else (found.low, found.high)
            over = f"{found.seeds} seeds, Student's t" if found.seeds > 1 else "one seed, bootstrap over queries"
            basis = f"{name}: {queries} queries, {over}"
            yield 100 * found.mean, 100 * low, 100 * high, bool(100 * high >= float(claim.paper)), basis
            return
    has = ", ".join(_data(results, dataset) for dataset in results.params.datasets)
    yield _open(f"{name} was not run; this study's data: {has}")


def _reductions(results: Results, claim: Claim, metric: str, than: str) -> Iterator[tuple]:
    """How much less the distilled student costs than another method, for this study's networks and the paper's."""
    cases = {None: "this study's networks", "paper": "the paper's configuration, random weights"}
    for configuration, networks in cases.items():
        rows = configured(results.rows, configuration)
        table = costs(rows)
        student = next((method for method in (TAUGHT, "student") if method in table.index), None)
        base = clip(table.index) if than == "clip" else than
        if student is None or base not in table.index:
            yield _open(f"{networks}: not measured by this study")
            continue
        small, large = table.loc[student, metric], table.loc[base, metric]
        low = high = np.nan
        shown = [f"{x / 1e6:.3g} M" if metric == "parameters" else f"{x:.3g} ms" for x in (small, large)]
        detail = f"{networks}: {shown[0]} against {shown[1]} ({label(base)})"
        spread = rows[rows["metric"] == f"{metric}_iqr"].groupby("method")["value"].mean()
        runs = results.provenance["costs"].get(configuration or "", {}).get("runs")  # those that were timed
        if student in spread.index and base in spread.index:
            detail += f", {measured_on(results.provenance)}"
        if runs and student in spread.index and base in spread.index:
            relative = MEDIAN / np.sqrt(runs) * np.hypot(spread[student] / small, spread[base] / large)
            low, high = (100 * (1 - small / large * (1 + 1.96 * sign * relative)) for sign in (1, -1))
            detail += f", 95 % interval from the interquartile ranges of {runs} runs"
        measured = 100 * (1 - small / large)
        holds = bool((measured if np.isnan(low) else low) >= float(claim.paper))
        yield measured, low, high, holds, detail + ("" if configuration else _stand_ins(results))


def _falls(results: Results, claim: Claim, conventional: str, relative: bool) -> Iterator[tuple]:
    """How much more another method's mAP falls across domains than the distilled student's."""
    names, rows = datasets(results.rows), results.rows
    crossed = [(train, test) for train in names for test in names if train != test]
    if not crossed:
        yield _open("one data set, so nothing to cross")
    for train, test in crossed:
        where = f"{_data(results, train)} → {_data(results, test)}"
        other = best_expert(rows, test) if conventional == BEST else conventional
        cells = [(m, t, test) for m in (other, TAUGHT) for t in (train, test)]
        fall = lambda there, home: 1 - there / home if relative else home - there  # noqa: B023, E731
        found = compare(rows, results.evaluations, lambda a, b, c, d: fall(a, b) - fall(c, d), cells)  # noqa: B023
        if found is None:
            yield _open(f"{where}: the study has not both {label(other)} and {label(TAUGHT)}")
            continue
        ours, theirs = (compare(rows, results.evaluations, fall, pair) for pair in (cells[2:], cells[:2]))
        unit = "%" if relative else "points"
        detail = f"{label(TAUGHT)} falls by {100 * ours.mean:.1f} {unit}, {label(other)} by {100 * theirs.mean:.1f}; "
        yield *_scaled(found), _basis(results, where, found, detail)


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
          ABOVE, partial(_gains, better="moe:soft", worse=BEST)),
    Claim("4b", "KD helps: a student taught by the best expert beats the student alone (mAP, points)", "> 0",
          "mAP of student+kd:<best expert> − student", ABOVE,
          partial(_gains, better=TAUGHT_BY_BEST, worse="student")),
    Claim("4c", "Together they help more: the MoE teaches better than the best expert (mAP, points)", "> 0",
          "mAP of student+kd:moe − student+kd:<best expert>, which is the interaction of MoE and KD", ABOVE,
          partial(_gains, better=TAUGHT, worse=TAUGHT_BY_BEST)),
    Claim("4d", "MoE-KD's student beats the student alone (mAP, points)", "> 0", "mAP of student+kd:moe − student",
          ABOVE, partial(_gains, better=TAUGHT, worse="student")),
    *(Claim(f"5{letter}", f"Across domains mAP falls less with MoE-KD than with {name} ({unit})", "12.9 against 15.3",
            f"fall of {other} − fall of {TAUGHT}, each below the same method trained on the target"
            + (", relative to it" if relative else ""),
            ABOVE, partial(_falls, conventional=other, relative=relative))
      for letter, other, name, relative, unit in (
          ("a", BEST, "the best fine-tuned expert", False, "points"),
          ("b", BEST, "the best fine-tuned expert", True, "relative, %"),
          ("c", "student", "the student without KD", False, "points"),
          ("d", "student", "the student without KD", True, "relative, %"))),
)  # fmt: skip
