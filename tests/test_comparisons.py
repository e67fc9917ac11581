"""Comparisons and their tables on made-up numbers: every query of a method has the same AP unless said otherwise."""

import re

import numpy as np
import pandas as pd
import pytest

from reidlib import comparisons, tables
from reidlib.methods import ELSEWHERE
from reidlib.results import COLUMNS

MAP = {  # method -> mAP on (vehicles, people)
    "expert:clip": (0.60, 0.70), "expert:align": (0.55, 0.80), "moe:soft": (0.70, 0.78), "moe:uniform": (0.66, 0.79),
    "student": (0.40, 0.50), "student+kd:clip": (0.50, 0.55), "student+kd:align": (0.48, 0.60),
    "student+kd:uniform": (0.52, 0.61), "student+kd:moe": (0.57, 0.58),
}  # fmt: skip
SEEDS = (0, 1, 2)


def made(cells: dict[tuple[str, str, str], float], spread=0.01, queries=6, seeds=SEEDS):
    """Rows and evaluations: a cell's mAP, the same for each seed; APs `spread` around it, alike for all methods."""
    rows, evaluations = [], {}
    for (method, train, test), mAP in cells.items():
        for seed in seeds:
            rows.append(("s", method, train, test, seed, "mAP", mAP))
            evaluations[f"{method}|{train}|{test}|{seed}|ap"] = mAP + spread * np.linspace(-1, 1, queries)
    return pd.DataFrame(rows, columns=COLUMNS), evaluations


def home(maps=MAP) -> dict:
    return {(m, d, d): value for m, both in maps.items() for d, value in zip(("vehicles", "people"), both)}


def cost(method: str, parameters: float, latency: float) -> pd.DataFrame:
    values = {"parameters": parameters, "macs": 2e9, "latency_ms": latency}
    return pd.DataFrame([("s", method, "vehicles", "vehicles", 0, *pair) for pair in values.items()], columns=COLUMNS)


def test_a_comparison_is_of_the_rows_with_the_interval_of_the_evaluations():
    rng = np.random.default_rng(0)
    rows, evaluations = made({("a", "d", "d"): 0.6, ("b", "d", "d"): 0.5})
    noise = {seed: rng.normal(0, 0.05, 6) for seed in SEEDS}
    for seed, own in noise.items():
        evaluations[f"a|d|d|{seed}|ap"] = evaluations[f"a|d|d|{seed}|ap"] + own - own.mean()
    found = comparisons.gain(rows, evaluations, "a", "b", "d")
    assert found.mean == pytest.approx(0.1) and found.low < 0.1 < found.high and found[3:6] == (3, 6, 0) and found.p < 0.05
    edited = rows.assign(value=rows["value"] + 0.03 * ((rows["method"] == "a") & (rows["seed"] == 1)))
    moved = comparisons.gain(edited, evaluations, "a", "b", "d")
    assert moved[:3] == pytest.approx([value + 0.01 for value in found[:3]])
    assert comparisons.gain(rows, evaluations, "a", "c", "d") is None


def test_queries_of_an_identity_are_resampled_together_where_it_is_known():
    rng = np.random.default_rng(1)
    rows, evaluations = made({("a", "d", "d"): 0.6, ("b", "d", "d"): 0.6}, queries=120)
    alike = np.repeat(rng.normal(0, 0.1, 20), 6)  # six queries each, which stand and fall together
    for seed in SEEDS:
        evaluations[f"a|d|d|{seed}|ap"] = evaluations[f"a|d|d|{seed}|ap"] + alike - alike.mean()
    apart = comparisons.gain(rows, evaluations, "a", "b", "d")
    together = comparisons.gain(rows, evaluations | {"d|pid": np.repeat(np.arange(20, dtype=np.int32), 6)}, "a", "b", "d")
    assert apart[3:6] == (3, 120, 0) and together[3:6] == (3, 120, 20)
    assert 2 < (together.high - together.low) / (apart.high - apart.low) < 3  # sqrt(6)
    assert together.p == pytest.approx(1, abs=0.3)


def test_only_seeds_that_both_have_are_compared():
    rows, evaluations = made({("a", "d", "d"): 0.6})
    other, more = made({("b", "d", "d"): 0.5}, seeds=(1, 7))
    rows.loc[rows["seed"] != 1, "value"] = 0.9
    found = comparisons.gain(pd.concat([rows, other]), evaluations | more, "a", "b", "d")
    assert (found.mean, found.seeds) == (pytest.approx(0.1), 1)


def test_the_best_expert_is_that_of_the_data_set():
    rows, _ = made(home() | {("expert:align", "people", "vehicles"): 0.99})
    assert comparisons.best_expert(rows, "vehicles") == "expert:clip"
    assert comparisons.best_expert(rows, "people") == "expert:align"
    assert comparisons.best_expert(rows, "people", {"vehicles": "align"}) == "expert:align"
    assert comparisons.best_expert(rows, "vehicles", {"vehicles": "align"}) == "expert:align"  # whatever the test set says


def test_the_best_taught_student_need_not_be_the_best_experts():
    rows, _ = made(home(MAP | {"student+kd:align": (0.51, 0.4), "student+kd:clip/temperature=2": (0.9, 0.9)}))
    assert comparisons.best_taught(rows, "vehicles") == "student+kd:align"
    assert comparisons.best_taught(rows, "people") == "student+kd:clip"
    assert comparisons.best_taught(*made(home({"student": (0.5, 0.5), "student+kd:moe": (0.6, 0.6)}))[:1], "people") is None


def test_headroom_is_what_the_best_for_each_query_would_gain():
    cells = {(method, "d", "d"): 0.5 for method in ("expert:clip", "expert:align", "moe:uniform", "moe:soft", "student")}
    rows, evaluations = made(cells, seeds=(0,))
    aps = {"expert:clip": [1.0, 0.0, 0.2], "expert:align": [0.0, 0.9, 0.1], "moe:uniform": [0.5, 0.6, 0.7]}
    evaluations |= {f"{method}|d|d|0|ap": np.array(ap) for method, ap in aps.items()}
    assert comparisons.headroom(rows, evaluations, "d") == pytest.approx((1 + 0.9 + 0.7) / 3 - 0.6)
    assert np.isnan(comparisons.headroom(rows[rows["method"] != "moe:uniform"], evaluations, "d"))


def test_the_grid_and_its_interaction():
    table = tables.grid_table(*made(home()))
    vehicles = table[table["data set"] == "vehicles"].drop(columns="data set")
    assert vehicles.T.to_dict("list") == {
        "CLIP expert (best on the test set)": ["60.0", "40.0", "50.0", "+10.0 [10.0, 10.0]"],
        "Uniform ensemble": ["66.0", "40.0", "52.0", "+12.0 [12.0, 12.0]"],
        "MoE, soft gate": ["70.0", "40.0", "57.0", "+17.0 [17.0, 17.0]"],
        "MoE − best expert (points)": ["+10.0 [10.0, 10.0]", "0.0", "+7.0 [7.0, 7.0]", "+7.0 [7.0, 7.0]"],
    }
    people = table[table["data set"] == "people"].iloc[-1]
    assert people["teacher itself"] == people["what KD adds (points)"] == "−2.0 [−2.0, −2.0]"


def test_the_grids_best_expert_is_the_one_that_was_chosen():
    table = tables.grid_table(*made(home()), {"vehicles": "align"})
    assert table.index[0] == "ALIGN expert (best on held-out identities)"
    assert table.index[4] == "ALIGN expert (best on the test set)", "for people none was named"
    assert table["teacher itself"].iloc[[0, 3]].tolist() == ["55.0", "+15.0 [15.0, 15.0]"]


def test_an_edited_result_changes_the_table():
    rows, evaluations = made(home())
    rows.loc[(rows["method"] == "student+kd:moe") & (rows["train_dataset"] == "vehicles"), "value"] += 0.1
    table = tables.grid_table(rows, evaluations)
    assert table["what KD adds (points)"].iloc[3] == "+17.0 [17.0, 17.0]"


def test_gates_beside_what_they_cost():
    rows, evaluations = made(home())
    rows = pd.concat([rows, cost("moe:soft", 150e6, 40.0), cost("expert:clip", 86e6, 30.0), cost("student", 1e6, 1.0)])
    table = tables.gates_table(rows, evaluations)
    assert list(table.index) == ["CLIP expert", "ALIGN expert", "MoE, soft gate", "Uniform ensemble"]
    soft = table.loc["MoE, soft gate"]
    assert soft["vehicles", "mAP (%)"] == "70.0" and soft["people", "vs uniform (points)"] == "−1.0 [−1.0, −1.0]"
    assert soft["cost", "latency (ms)"] == 40 and soft["cost", "parameters (M)"] == 150
    assert table.loc["Uniform ensemble", ("vehicles", "vs uniform (points)")] == ""
    assert np.isnan(table.loc["Uniform ensemble", ("cost", "latency (ms)")])


def test_variants_of_distillation_on_their_data_sets():
    base = "student+kd:moe"
    cells = home() | {(f"{base}/terms=logit", "people", "people"): 0.55, (f"{base}/size=big", "people", "people"): 0.9}
    table = tables.kd_table(*made(cells))
    assert list(table.columns.levels[0]) == ["people"]
    assert table["people", "vs base (points)"].to_dict() == {
        "Student": "−8.0 [−8.0, −8.0]", "Student + KD from MoE": "",
        "Student + KD from MoE, terms = logit": "−3.0 [−3.0, −3.0]",
    }  # fmt: skip
    assert tables.kd_table(*made(home())).empty


def test_sizes_are_compared_with_their_own_student_alone():
    big = {"student/size=big": 0.6, "student+kd:moe/size=big": 0.7}
    cells = home() | {(method, "people", "people"): mAP for method, mAP in big.items()}
    rows, evaluations = made(cells)
    rows = pd.concat([rows, cost("student/size=big", 9e6, 3.0)])
    table = tables.sizes_table(rows, evaluations)
    assert set(table.columns.get_level_values(0)) == {"people", "cost"}
    assert table.loc["Student + KD from MoE, size = big", ("people", "what KD adds (points)")] == "+10.0 [10.0, 10.0]"
    assert table.loc["Student + KD from MoE", ("people", "what KD adds (points)")] == "+8.0 [8.0, 8.0]"
    assert table.loc["Student, size = big", ("cost", "parameters (M)")] == 9
    assert tables.sizes_table(*made(home())).empty


def test_falls_in_points_relative_and_from_home():
    cells = home() | {("student", "people", "vehicles"): 0.3, ("student", "vehicles+people", "vehicles"): 0.44}
    rows, evaluations = made(cells)
    table = tables.cross_domain_table(rows, evaluations)
    assert table["trained on"].tolist() == ["people", "vehicles+people"] and set(table["tested on"]) == {"vehicles"}
    assert table["mAP (%)"].tolist() == ["30.0", "44.0"] and set(table["trained on the target (%)"]) == {"40.0"}
    assert table["fall (points)"].tolist() == ["+10.0 [10.0, 10.0]", "−4.0 [−4.0, −4.0]"]
    for text, wanted in zip(table["fall (%)"], (25, -10)):
        mean, low, high = (float(number) for number in re.findall(r"[\d.-]+", text.replace("−", "-")))
        assert mean == wanted and low <= mean <= high
    own = table["fall from its own test set (points)"]
    assert own.iloc[0].startswith("+20.0 [") and own.iloc[1] == ""
    assert tables.cross_domain_table(*made(home())).empty


def test_what_no_method_was_trained_on_and_peers_have_an_accuracy_and_no_fall_from_it():
    rows, evaluations = made(home() | {("student", "people", "streets"): 0.3, ("peer:a", ELSEWHERE, "streets"): 0.6})
    table = tables.cross_domain_table(rows, evaluations)
    assert table[["trained on", "tested on", "mAP (%)"]].to_numpy().tolist() == [
        ["people", "streets", "30.0"], [ELSEWHERE, "streets", "60.0"],
    ]  # fmt: skip
    own = [f"fall from its own test set ({unit})" for unit in ("points", "%")]
    assert table.columns.tolist() == ["trained on", "tested on", "mAP (%)", *own], "no column without a value"
    for column, wanted in zip(own, ("+20.0 [", "+40.0 [")):
        assert table.loc["Student", column].startswith(wanted) and table.loc["a (peer)", column] == ""


def test_differences_for_the_figure():
    found = comparisons.differences(*made(home()), ["moe:soft", "moe:top1"], "moe:uniform")
    assert list(found.columns) == ["method", "dataset", "mean", "low", "high", "seeds"]
    assert found.set_index("dataset")["mean"].to_dict() == pytest.approx({"vehicles": 0.04, "people": -0.01})


def test_variants_of_distillation_are_those_of_the_moes_student():
    base = "student+kd:moe"
    others = [base, f"{base}/size=big", "student+kd:clip/temperature=2", "student/size=big"]
    variants = [f"{base}/terms=a+b", f"{base}/temperature=2", f"{base}/teacher=online"]
    rows, _ = made({(method, "people", "people"): 0.5 for method in [*others, *variants]})
    assert comparisons.kd_variants(rows) == variants
