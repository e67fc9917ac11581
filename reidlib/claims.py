"""The ledger: what the paper's abstract claims, and whether it holds on a study's data.

Each claim is data: its statement, the paper's number, how ours is computed, and what counts as holding. `claims` measures
all of them from a study's results, a row for each claim and data set.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from reidlib.comparisons import Comparison, best_expert, best_taught, compare, gain, headroom, taught_by_experts
from reidlib.methods import TAUGHT, Student, label, parse, taught_by
from reidlib.results import Results, clip, configured, costs, datasets, measured_on
from reidlib.stats import holm

COLUMNS = ["claim", "paper", "on", "measured", "low", "high", "p", "p_holm", "verdict", "basis"]
HOLDS, FAILS, UNDECIDED, OPEN = VERDICTS = "holds", "does not hold", "undecided", "not measured"
LEVEL = 0.05  # of significance, after Holm's correction
SEEDS = 3  # fewer give no verdict on a difference between trained methods: how much they vary is hardly known then
PUBLISHED = {"veri776": ("VeRi-776", 1678), "market1501": ("Market-1501", 3368)}  # by layout: name, queries
NOT_CLIP = re.compile("siglip|coca", re.IGNORECASE)  # of open_clip's networks: trained otherwise than CLIP
MEDIAN = 1.2533 / 1.349  # a median's standard error times the square root of the runs, over the interquartile range
BEST = "best expert"  # stands for a data set's best single expert,
TAUGHT_BY_BEST = "student taught by the best expert"
BEST_TAUGHT = "student best taught by a single expert"


@dataclass(frozen=True)
class Claim:
    """One part of the abstract.

    number: of the abstract's claim, and a letter for each part of it. definition: how it is measured, for readers;
    measure: the same, which yields a `Line` for each data set or configuration. criterion: what counts as holding.
    """

    number: str
    statement: str
    paper: str
    definition: str
    criterion: str
    measure: Callable[[Results, "Claim"], Iterator["Line"]]


class Line(NamedTuple):
    """A claim as measured on one data set or configuration, in percent or points. p: of a difference that has a verdict."""

    on: str
    measured: float
    low: float
    high: float
    verdict: str
    basis: str
    p: float = np.nan


def claims(results: Results) -> pd.DataFrame:
    """The ledger: a row for each part of a claim and each data set or configuration it was measured on.

    Columns claim, paper, on (data or networks), measured, low, high (percent or points, as the claim says; low and high bound
    the 95 % interval, NaN where nothing varies), p (of a difference that its interval gives a verdict) and p_holm (corrected
    for all differences of the ledger, Holm 1979), verdict (of VERDICTS), basis (in words: what it rests on).
    """
    lines = [(f"{claim.number} {claim.statement}", claim.paper, *line) for claim in CLAIMS
             for line in claim.measure(results, claim)]  # fmt: skip
    ledger = pd.DataFrame(lines, columns=["claim", "paper", *Line._fields])
    asked = questions(ledger)
    ledger["p_holm"] = ledger["p"].map(dict(zip(asked["p"], holm(asked["p"]))))  # equal ones are equal when corrected
    decided = ledger["p"].notna() & (ledger["verdict"] != UNDECIDED)
    said = np.where(ledger["p_holm"] < LEVEL, "also", "not") + f" after Holm's correction for {len(asked)} differences"
    ledger.loc[decided, "basis"] += "; " + said[decided]
    return ledger[COLUMNS]


def questions(ledger: pd.DataFrame) -> pd.DataFrame:
    """The ledger's rows about a difference that has a verdict, each question once.

    Two claims may come to one: the best taught student may be the best expert's.
    """
    return ledger[ledger["p"].notna()].drop_duplicates(["on", "measured", "low", "high", "p"])


def write_claims(results: Results, ledger: pd.DataFrame) -> pd.DataFrame:
    """claims.csv in `results.output`; returns the ledger."""
    results.output.mkdir(parents=True, exist_ok=True)
    ledger.round(6).to_csv(results.output / "claims.csv", index=False)  # tables and README round to fewer digits
    return ledger


def definitions() -> pd.DataFrame:
    """What each claim is, how it is measured and what counts as holding: the ledger's rules."""
    rules = [(c.number, c.statement, c.paper, c.definition, c.criterion) for c in CLAIMS]
    return pd.DataFrame(rules, columns=["", "claim", "paper", "measured as", "holds where"]).set_index("")


# how they are measured: each yields lines


def _open(on: str, basis: str) -> Line:
    return Line(on, np.nan, np.nan, np.nan, OPEN, basis)


def _verdict(low: float, high: float, bound: float) -> str:
    """What an interval says of "at least `bound`"."""
    return HOLDS if low >= bound else FAILS if high < bound else UNDECIDED


def _difference(on: str, found: Comparison, basis: str) -> Line:
    """A difference in percent or points, claimed to be above zero, and its verdict where there are the seeds for one."""
    numbers = [100 * value for value in found[:3]]
    if np.isnan(found.low):
        return Line(on, *numbers, OPEN, f"{basis}; the queries of one identity give no interval")
    if found.seeds < SEEDS:
        return Line(on, *numbers, OPEN, f"{basis}; a difference between trained methods needs at least {SEEDS} seeds")
    return Line(on, *numbers, HOLDS if found.low > 0 else FAILS if found.high <= 0 else UNDECIDED, basis, found.p)


def _stand_ins(results: Results) -> str:
    experts = {name: expert for name, expert in results.params.experts.items() if expert.stands_in_for}
    names = ["a miniature of " * bool(expert.encoder.miniature) + name for name, expert in experts.items()]
    return f"; {' and '.join(names)} stand in for the paper's experts" if names else ""


def _other_experts(results: Results) -> str:
    """Which experts are not the paper's, an image encoder of CLIP and one of ALIGN, in words; "" where they are."""
    if stand_ins := _stand_ins(results):
        return stand_ins
    encoders = {name: expert.encoder for name, expert in results.params.experts.items()}
    paper = [encoder for encoder in encoders.values() if not (encoder.miniature or NOT_CLIP.search(encoder.name))]
    sources = sorted(encoder.source for encoder in paper)
    if sources == ["align", "open_clip"]:
        return ""
    return f": {', '.join(f'{name} ({encoder.name})' for name, encoder in encoders.items())}"


def _recipes(results: Results, *methods: str) -> str:
    """What to say where a student alone is set beside a taught one that was trained by another recipe; "" elsewhere."""
    taught = {bool(method.taught_by) for method in map(parse, methods) if isinstance(method, Student)}
    own = len(taught) > 1 and results.params.student.taught
    return "; the taught student and the one alone have a recipe each" if own else ""


def _data(results: Results, dataset: str) -> str:
    spec = results.params.datasets[dataset]
    return (spec.title or dataset) + (" (drawn by the library)" if spec.builtin else "")


def _chosen(results: Results, dataset: str, student: bool = False) -> str:
    """How the best expert, or the best student that a single expert taught, of a data set was chosen."""
    if student and len(taught_by_experts(results.rows, dataset)) == 1:
        return " (the only student that a single expert taught)"
    before = dataset in results.params.best_expert and not student
    how = "on validation identities" if before else "by mean mAP on the test set"
    return f" (best {'student' if student else 'expert'} chosen {how})"


def _basis(found: Comparison, detail: str = "") -> str:
    """What a number with an interval rests on, in words."""
    counts = f"{found.queries} queries" + (f" of {found.identities} identities" if found.identities else "")
    seeds = f"{found.seeds} seed{'s' * (found.seeds > 1)}"
    varied = [*["identities"] * bool(found.identities), "queries", *["seeds"] * (found.seeds > 1)]
    over = "queries alone" if len(varied) == 1 else f"{', '.join(varied[:-1])} and {varied[-1]}"
    unknown = "" if found.identities else "; identities were not kept, so it may be too narrow"
    return f"{detail}{counts}, {seeds}, 95 % interval over {over} ({'paired ' * bool(detail)}bootstrap){unknown}"


def _gains(results: Results, claim: Claim, better: str, worse: str, limit: bool = False) -> Iterator[Line]:
    """mAP of one method minus another's. limit: also say what the best choice among the experts would gain."""
    rows, evaluations = results.rows, results.evaluations
    for dataset in datasets(rows):
        best = best_expert(rows, dataset, results.params.best_expert)
        chosen = {BEST: best, TAUGHT_BY_BEST: str(taught_by(best)), BEST_TAUGHT: best_taught(rows, dataset)}
        a, b = (chosen.get(method, method) for method in (better, worse))
        found = gain(rows, evaluations, a, b, dataset) if b else None
        if found is None:
            both = f"both {label(a)} and {label(b)}" if b else "a student taught by a single expert"
            yield _open(_data(results, dataset), f"the study has not {both}")
            continue
        how = _chosen(results, dataset, worse == BEST_TAUGHT) if {better, worse} & {*chosen} else ""
        basis = _basis(found, f"{label(a)} − {label(b)}{how}, ") + _recipes(results, a, b)
        basis += _stand_ins(results)
        if limit and not np.isnan(most := headroom(rows, evaluations, dataset)):
            basis += f"; headroom: {100 * most:.1f}, were the best of experts and ensemble known for each query"
        yield _difference(_data(results, dataset), found, basis)


def _reaches(results: Results, claim: Claim, layout: str) -> Iterator[Line]:
    """mAP on a published data set, with the paper's own experts."""
    name, queries = PUBLISHED[layout]
    for dataset in datasets(results.rows):
        spec = results.params.datasets[dataset]
        found = compare(results.rows, results.evaluations, np.positive, [(TAUGHT, dataset, dataset)])
        if spec.builtin is None and spec.layout == layout and found is not None and found.queries == queries:
            numbers, basis = [100 * value for value in found[:3]], _basis(found)
            if others := _other_experts(results):
                yield Line(name, *numbers, OPEN, f"{basis}; other experts than the paper's{others}")
            else:
                yield Line(name, *numbers, _verdict(*numbers[1:], float(claim.paper)), basis)
            return
    has = "; ".join(_data(results, dataset) for dataset in datasets(results.rows))
    yield _open("", f"nothing was trained on {name}; this study trains on {has}")


def _reductions(results: Results, claim: Claim, metric: str, than: str) -> Iterator[Line]:
    """How much less the distilled student costs than another method, for this study's networks and the paper's."""
    cases = {None: "this study's networks", "paper": "the paper's experts and a student of ours, random weights"}
    for configuration, networks in cases.items():
        rows = configured(results.rows, configuration)
        table = costs(rows)
        student = next((method for method in (TAUGHT, "student") if method in table.index), None)
        base = clip(table.index, results.params.experts) if than == "clip" else than
        if student is None or base not in table.index:
            yield _open(networks, "not measured by this study")
            continue
        small, large = table.loc[student, metric], table.loc[base, metric]
        low = high = np.nan
        shown = [f"{x / 1e6:.3g} M" if metric == "parameters" else f"{x:.3g} ms" for x in (small, large)]
        detail = f"{shown[0]} against {shown[1]} ({label(base)})"
        spread = rows[rows["metric"] == f"{metric}_iqr"].groupby("method")["value"].mean()
        runs = results.provenance["costs"].get(configuration or "", {}).get("runs")  # those that were timed
        if student in spread.index and base in spread.index:
            detail += f", {measured_on(results)}"
        if runs and student in spread.index and base in spread.index:
            relative = MEDIAN / np.sqrt(runs) * np.hypot(spread[student] / small, spread[base] / large)
            half = stdtrit(runs - 1, 0.975) * relative  # right in 93 to 98 % from 3 runs on
            low, high = (100 * (1 - small / large * (1 + sign * half)) for sign in (1, -1))
            detail += f", 95 % interval from the interquartile ranges of {runs} runs of one session"
        measured = 100 * (1 - small / large)
        bounds = (measured, measured) if np.isnan(low) else (low, high)
        verdict = _verdict(*bounds, float(claim.paper))
        yield Line(networks, measured, low, high, verdict, detail + ("" if configuration else _stand_ins(results)))


def _falls(results: Results, claim: Claim, conventional: str, relative: bool) -> Iterator[Line]:
    """How much more another method's mAP falls across domains than the distilled student's."""
    names, rows = datasets(results.rows), results.rows
    tested = [*names, *(name for name, dataset in results.params.datasets.items() if dataset.test_only)]
    crossed = [(train, test) for train in names for test in tested if train != test]
    if not crossed:
        yield _open("", "one data set, so nothing to cross")
    for train, test in crossed:
        where = f"{_data(results, train)} → {_data(results, test)}"
        base = test if test in names else train  # where nothing was trained on the target alone
        other = best_expert(rows, base, results.params.best_expert) if conventional == BEST else conventional
        cells = [(m, *pair) for m in (other, TAUGHT) for pair in ((train, test), (base, base))]
        fall = lambda there, home: 1 - there / home if relative else home - there  # noqa: B023, E731
        found = compare(rows, results.evaluations, lambda a, b, c, d: fall(a, b) - fall(c, d), cells)  # noqa: B023
        if found is None:
            yield _open(where, f"the study has not both {label(other)} and {label(TAUGHT)}")
            continue
        ours, theirs = (compare(rows, results.evaluations, fall, pair) for pair in (cells[2:], cells[:2]))
        unit = "%" if relative else "points"
        how = _chosen(results, base) if conventional == BEST else ""
        below = "" if base == test else f" below its own on {_data(results, base)}, as nothing learnt from the target alone"
        detail = (
            f"{label(TAUGHT)} falls by {100 * ours.mean:.1f} {unit}{below}, "
            f"{label(other)}{how} by {100 * theirs.mean:.1f}; "
        )
        recipes = _recipes(results, TAUGHT, other)
        yield _difference(where, found, _basis(found, detail) + recipes + _stand_ins(results))


ABOVE = "the 95 % interval is above 0"
CLAIMS = (
    Claim("1", "Dynamic selection: the MoE's gate beats the uniform ensemble (mAP, points)", "> 0",
          "mAP of moe:soft − moe:uniform", ABOVE, partial(_gains, better="moe:soft", worse="moe:uniform", limit=True)),
    Claim("2a", "MoE-KD's student reaches 75.2 % mAP on VeRi-776", "75.2",
          f"mAP of {TAUGHT}, with CLIP and ALIGN as experts",
          "all of the 95 % interval is at least 75.2", partial(_reaches, layout="veri776")),
    Claim("2b", "MoE-KD's student reaches 76.1 % mAP on Market-1501", "76.1",
          f"mAP of {TAUGHT}, with CLIP and ALIGN as experts",
          "all of the 95 % interval is at least 76.1", partial(_reaches, layout="market1501")),
    Claim("3a", "The student has fewer parameters than the MoE (% fewer)", "94",
          "1 − parameters of student / of moe:soft", "at least 94",
          partial(_reductions, metric="parameters", than="moe:soft")),
    Claim("3b", "The student takes less time than the MoE (% less)", "50",
          "1 − latency of one picture, student / moe:soft", "all of the 95 % interval is at least 50",
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
    Claim("4e", "The MoE is the best teacher: its student beats the best of those that an expert taught (mAP, points)",
          "> 0", "mAP of student+kd:moe − best student+kd:<expert>", ABOVE,
          partial(_gains, better=TAUGHT, worse=BEST_TAUGHT)),
    *(Claim(f"5{letter}", f"Across domains mAP falls less with MoE-KD than with {name} ({unit})", "12.9 against 15.3",
            f"fall of {other} − fall of {TAUGHT}, each below the same method trained on the target (where nothing was "
            "trained there: below its own mAP on the data set it was trained on)" + ", relative to it" * relative,
            ABOVE, partial(_falls, conventional=other, relative=relative))
      for letter, other, name, relative, unit in (
          ("a", BEST, "the best fine-tuned expert", False, "points"),
          ("b", BEST, "the best fine-tuned expert", True, "relative, %"),
          ("c", "student", "the student without KD", False, "points"),
          ("d", "student", "the student without KD", True, "relative, %"))),
)  # fmt: skip
