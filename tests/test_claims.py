"""The ledger's verdicts on made-up numbers, on both sides of each bound."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml

from reidlib import claims
from reidlib.methods import ELSEWHERE
from reidlib.params import StudyParams
from reidlib.results import COLUMNS, Results

PARAMS = """
title: Made up
seeds: [0, 1, 2]
datasets:
  a: {layout: veri776, size: [16, 16], root: VeRi}
  b: {layout: market1501, size: [16, 16], builtin: {domain: people, train_ids: 8, test_ids: 8, cameras: 2, images: 2}}
experts:
  clip: {encoder: {name: "timm:test_vit"}, recipe: &r {epochs: 1, p: 4, lr: 0.001}}
  align: {encoder: {name: "timm:test_byobnet"}, recipe: *r, stands_in_for: ALIGN}
moe: {gates: [soft, uniform], width: 8, recipe: *r}
student: {encoder: {name: "timm:test_efficientnet"}, recipe: *r}
distillation: {teachers: [clip, align, moe], terms: {logit: 1}}
profiling: {runs: 4000}  # of today: the times of these results came of fewer
"""
MAP = {  # (train, test) -> mAP of each method
    ("a", "a"): {"expert:clip": 0.60, "expert:align": 0.55, "moe:soft": 0.70, "moe:uniform": 0.72, "student": 0.40,
                 "student+kd:clip": 0.50, "student+kd:moe": 0.58},
    ("b", "b"): {"expert:clip": 0.50, "student": 0.40, "student+kd:clip": 0.30, "student+kd:moe": 0.60},
    ("b", "a"): {"expert:clip": 0.40, "expert:align": 0.5, "student": 0.24, "student+kd:moe": 0.43},
    ("a", "b"): {"expert:clip": 0.40, "student": 0.35, "student+kd:moe": 0.45},
}  # fmt: skip


def made(maps=MAP, queries=6, noise=0.0, seeds=(0, 1, 2)) -> tuple[pd.DataFrame, dict]:
    rng, rows, evaluations = np.random.default_rng(0), [], {}
    for (train, test), own in maps.items():
        for method, mAP in own.items():
            for seed in seeds:
                ap = mAP + noise * rng.standard_normal(queries)
                rows.append(("s", method, train, test, seed, "mAP", ap.mean()))
                evaluations[f"{method}|{train}|{test}|{seed}|ap"] = ap
    return pd.DataFrame(rows, columns=COLUMNS), evaluations


def costs(costs: dict[str, tuple[float, float, float]]) -> pd.DataFrame:
    names = ("parameters", "latency_ms", "latency_ms_iqr")
    rows = [("s", m, "a", "a", 0, *pair) for m, values in costs.items() for pair in zip(names, values)]
    return pd.DataFrame(rows, columns=COLUMNS)


def params(change=lambda tree: None) -> StudyParams:
    tree = yaml.safe_load(PARAMS)
    change(tree)
    return StudyParams.model_validate(tree)


def ledger_of(params: StudyParams, rows: pd.DataFrame, evaluations: dict, runs: dict | None = None) -> pd.DataFrame:
    """The ledger of such results; runs: timed runs by configuration."""
    environment = {"device": "a fast CPU", "threads": 1, "packages": {"torch": "2.8.0"}}
    costs = {configuration: {"runs": n, "environment": "0"} for configuration, n in (runs or {}).items()}
    provenance = {"environments": {"0": environment}, "costs": costs}
    return claims.claims(Results("s", params, rows, evaluations, provenance, Path("nowhere")))


def only(ledger: pd.DataFrame, number: str) -> pd.DataFrame:
    return ledger[ledger["claim"].str.startswith(f"{number} ")].reset_index(drop=True)


def test_gains_on_both_sides_of_zero():
    ledger = ledger_of(params(), *made())
    assert list(ledger.columns) == ["claim", "paper", "on", "measured", "low", "high", "p", "p_holm", "verdict", "basis"]
    selection = only(ledger, "1")
    assert selection["measured"][0] == pytest.approx(-2) and selection["verdict"][0] == "does not hold"
    assert selection["verdict"][1] == "not measured" and "moe" in selection["basis"][1].lower()
    assert only(ledger, "4a")["measured"][0] == pytest.approx(10) and only(ledger, "4a")["verdict"][0] == "holds"
    assert only(ledger, "4b")["measured"].tolist() == pytest.approx([10, -10])
    assert only(ledger, "4b")["verdict"].tolist() == ["holds", "does not hold"]
    assert only(ledger, "4c")["measured"].tolist() == pytest.approx([8, 30])
    assert only(ledger, "4d")["measured"].tolist() == pytest.approx([18, 20])
    assert only(ledger, "4d")["on"].tolist() == ["a", "b (drawn by the library)"]
    basis = only(ledger, "4d")["basis"][0]
    assert "6 queries, 3 seeds" in basis and "align stand in" in basis


def test_a_gain_whose_interval_holds_zero_is_undecided():
    clear, noisy = (only(ledger_of(params(), *made(noise=n)), "4d").iloc[0] for n in (0.01, 0.2))
    assert clear["low"] > 0 and clear["verdict"] == "holds"
    assert noisy["low"] < 0 < noisy["measured"] and noisy["verdict"] == "undecided"
    lost = MAP[("a", "a")] | {"student+kd:moe": 0.2}
    row = only(ledger_of(params(), *made({("a", "a"): lost}, noise=0.01)), "4d").iloc[0]
    assert row["high"] < 0 and row["verdict"] == "does not hold"


def test_identities_are_resampled_where_they_are_known_and_the_basis_says_so():
    rows, evaluations = made()
    known = evaluations | {"a|pid": np.array([1, 1, 2, 2, 3, 3])}
    basis = only(ledger_of(params(), rows, known), "4d")["basis"]
    assert "6 queries of 3 identities, 3 seeds, 95 % interval over identities, queries and seeds" in basis[0]
    assert "95 % interval over queries and seeds (paired bootstrap); identities were not kept" in basis[1]
    assert "over identities, queries and seeds" in only(ledger_of(params(), rows, known), "5a")["basis"][1]


def test_holms_correction_is_over_the_ledgers_differences():
    ledger = ledger_of(params(), *made())
    given = ledger["basis"].str.extract(r"; (also|not) after Holm's correction for (\d+) differences$")
    differences = ledger["claim"].str.startswith(("1", "4", "5")) & (ledger["verdict"] != "not measured")
    # where one expert alone has taught, 4e asks what 4c asks, on a and on b: that is one question
    assert given[0].notna().equals(differences) and set(given[1].dropna()) == {str(differences.sum() - 2)}
    assert set(given[0].dropna()) == {"also"}  # nothing varies, so nothing is left to chance
    assert ledger["p"].notna().equals(differences) and ledger["p_holm"].notna().equals(differences)
    weak = {("a", "a"): {"student": 0.4, "student+kd:clip": 0.44, "student+kd:moe": 0.44, "expert:clip": 0.5}}
    ledger = ledger_of(params(), *made(weak, queries=60, noise=0.05))
    row = only(ledger, "4b").iloc[0]
    assert row["verdict"] == "holds" and row["basis"].endswith("; not after Holm's correction for 3 differences")
    assert row["p"] < 0.05 < row["p_holm"] <= 3 * row["p"] and len(claims.questions(ledger)) == 3
    assert only(ledger, "4c")["verdict"][0] == "undecided" and "Holm" not in only(ledger, "4c")["basis"][0]


def test_peers_change_no_claim():
    peer = {(ELSEWHERE, test): {"peer:best": 0.99} for test in ("a", "b", "c")}
    with_peers, alone = made(MAP | peer), made()
    of_peer = costs({"student": (3e6, 1, 0.1), "moe:soft": (4e7, 9, 0.1), "peer:best": (1, 0.01, 0.001)})
    own = of_peer[of_peer["method"] != "peer:best"]
    ledgers = [
        ledger_of(params(), pd.concat([rows, cost]), evaluations)
        for (rows, evaluations), cost in ((with_peers, of_peer), (alone, own))
    ]
    pd.testing.assert_frame_equal(*ledgers)


def test_headroom_stands_beside_the_first_claim():
    rows, evaluations = made()
    for seed in (0, 1, 2):
        evaluations[f"expert:clip|a|a|{seed}|ap"] = np.array([0.9, 0.6, 0.6, 0.5, 0.5, 0.5])
    basis = only(ledger_of(params(), rows, evaluations), "1")["basis"]
    assert "headroom: 3.0, were the best of experts and ensemble known for each query" in basis[0]  # 0.18 / 6
    assert "headroom" not in basis[1]


def test_the_best_expert_is_the_one_that_is_best():
    values = {"expert:clip": 0.5, "expert:align": 0.6, "moe:soft": 0.7, "student": 0.4, "student+kd:clip": 0.45,
              "student+kd:align": 0.52, "student+kd:moe": 0.58}  # fmt: skip
    ledger = ledger_of(params(), *made({("a", "a"): values}))
    measured = [only(ledger, number)["measured"][0] for number in ("4a", "4b", "4c")]
    assert measured == pytest.approx([10, 12, 6])
    assert (
        "Student + KD from ALIGN − Student (best expert chosen by mean mAP on the test set), "
        in only(ledger, "4b")["basis"][0]
    )
    before = params(lambda tree: tree.update(best_expert={"a": "clip"}))
    ledger = ledger_of(before, *made({("a", "a"): values}))
    assert [only(ledger, number)["measured"][0] for number in ("4a", "4b", "4c", "4e")] == pytest.approx([20, 5, 13, 6])
    assert (
        "Student + KD from CLIP − Student (best expert chosen on validation identities), " in only(ledger, "4b")["basis"][0]
    )
    assert "Student + KD from ALIGN (best student chosen by mean mAP on the test set), " in only(ledger, "4e")["basis"][0]


def test_a_recipe_for_taught_students_alone_is_in_the_basis_of_what_compares_them_with_one_that_is_not():
    def apart(tree: dict) -> None:
        tree["student"]["taught"] = tree["student"]["recipe"] | {"lr": 0.1}

    same, own = (ledger_of(params(change), *made()) for change in (lambda tree: None, apart))
    assert not same["basis"].str.contains("recipe").any()
    told = own["claim"][own["basis"].str.contains("the taught student and the one alone have a recipe each")]
    assert set(told.str.split().str[0]) == {"4b", "4d", "5c", "5d"}


def test_the_moes_student_is_compared_with_the_best_taught_too():
    ledger = ledger_of(params(), *made({("a", "a"): MAP["a", "a"] | {"student+kd:align": 0.53}}))
    assert [only(ledger, number)["measured"][0] for number in ("4c", "4e")] == pytest.approx([8, 5])
    assert "Student + KD from ALIGN (best student chosen by mean mAP on the test set), " in only(ledger, "4e")["basis"][0]
    alone = only(ledger_of(params(), *made()), "4e").iloc[0]
    assert "Student + KD from CLIP (the only student that a single expert taught), " in alone["basis"]
    none = {method: mAP for method, mAP in MAP["a", "a"].items() if method != "student+kd:clip"}
    row = only(ledger_of(params(), *made({("a", "a"): none})), "4e").iloc[0]
    assert row["verdict"] == "not measured" and "has not a student taught by a single expert" in row["basis"]


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_fewer_than_three_seeds_give_no_verdict_about_a_difference(seeds):
    ledger = ledger_of(params(), *made(seeds=seeds))
    differences = ledger[ledger["claim"].str.startswith(("1", "4", "5"))]
    assert set(differences["verdict"]) == {"not measured"} and not differences["basis"].str.contains("Holm").any()
    row = only(ledger, "4d").iloc[0]
    assert (row["measured"], row["low"], row["high"]) == pytest.approx((18, 18, 18))  # shown all the same
    assert f"{len(seeds)} seed" in row["basis"] and row["basis"].endswith("trained methods needs at least 3 seeds")
    assert ("over queries alone" in row["basis"]) == (len(seeds) == 1)


def test_an_edited_row_changes_the_verdict():
    rows, evaluations = made()
    rows.loc[(rows["method"] == "moe:soft") & (rows["train_dataset"] == "a"), "value"] += 0.03
    row = only(ledger_of(params(), rows, evaluations), "1").iloc[0]
    assert row["measured"] == pytest.approx(1) and row["verdict"] == "holds"


def test_the_papers_accuracy_needs_the_papers_data_and_experts():
    for number, name in (("2a", "VeRi-776"), ("2b", "Market-1501")):
        row = only(ledger_of(params(), *made()), number).iloc[0]
        assert row["verdict"] == "not measured" and np.isnan(row["measured"])
        assert row["basis"].startswith(f"nothing was trained on {name}; this study trains on a")
    published = made(queries=1678)
    row = only(ledger_of(params(), *published), "2a").iloc[0]
    assert row["verdict"] == "not measured" and "other experts" in row["basis"] and row["measured"] == pytest.approx(58)
    other = params(lambda tree: tree["experts"]["align"].pop("stands_in_for"))  # it is not said, and they are others
    row = only(ledger_of(other, *published), "2a").iloc[0]
    assert row["verdict"] == "not measured" and row["basis"].endswith(
        "other experts than the paper's: clip (timm:test_vit), align (timm:test_byobnet)"
    )

    def papers(tree):
        recipe = tree["experts"]["clip"]["recipe"]
        encoders = {"clip": "open_clip:ViT-B-16-quickgelu", "align": "align:kakaobrain/align-base"}
        tree["experts"] = {name: {"encoder": {"name": of}, "recipe": recipe} for name, of in encoders.items()}

    def siglip(tree):
        papers(tree)
        tree["experts"]["clip"]["encoder"]["name"] = "open_clip:ViT-B-16-SigLIP"

    assert "ViT-B-16-SigLIP" in only(ledger_of(params(siglip), *published), "2a").iloc[0]["basis"]  # open_clip has it, but
    real = params(papers)
    row = only(ledger_of(real, *published), "2a").iloc[0]
    assert row["measured"] == pytest.approx(58) and row["verdict"] == "does not hold" and "1678" in row["basis"]

    def level(base: float, seeds: tuple[int, ...] = (0, 1, 2), apart: float = 0.0) -> pd.Series:
        """The claim's line of students of base, base + 1 and base + 2 %; apart: identities of four queries each differ so."""
        rows, evaluations = made(queries=1678, seeds=seeds)
        for seed in seeds:
            of = f"student+kd:moe|a|a|{seed}"
            evaluations[f"{of}|ap"] = base + 0.01 * seed + apart * np.where(np.arange(1678) // 4 % 2, 1, -1)
            taught = rows[["method", "train_dataset", "test_dataset", "seed"]].astype(str).agg("|".join, axis=1) == of
            rows.loc[taught, "value"] = evaluations[f"{of}|ap"].mean()
        evaluations["a|pid"] = np.arange(1678) // 4
        return only(ledger_of(real, rows, evaluations), "2a").iloc[0]

    row = level(0.74)  # 75.2 lies within the interval; all queries are alike, so it is that over the seeds
    assert (row["measured"], row["high"]) == pytest.approx((75, 75 + 4.302653 / 3**0.5), abs=0.1)
    assert row["verdict"] == "undecided" and row["basis"].endswith(
        "1678 queries of 420 identities, 3 seeds, 95 % interval over identities, queries and seeds (bootstrap)"
    )
    row = level(0.79)
    assert row["low"] > 75.2 and row["verdict"] == "holds"
    row = level(0.79, apart=0.6)  # the seeds say the same, but other identities might not
    assert row["low"] < 75.2 and row["verdict"] == "undecided"
    row = level(0.74, seeds=(0,))
    assert row["verdict"] == "does not hold" and "1 seed," in row["basis"]


def test_a_test_set_of_one_identity_has_no_interval_and_spoils_no_other():
    rows, evaluations = made()
    one = evaluations | {"a|pid": np.array([7] * 6)}
    ledger, before = (ledger_of(params(), rows, x) for x in (one, evaluations))
    row = only(ledger, "4d").iloc[0]
    assert row["measured"] == pytest.approx(18) and np.isnan(row["low"]) and row["verdict"] == "not measured"
    assert "the queries of one identity give no interval" in row["basis"]
    assert only(ledger, "4d")["low"][1] == only(before, "4d")["low"][1]


def test_reductions_of_this_study_and_of_the_papers_configuration():
    measured = {
        "moe:soft": (100e6, 10, 0.4), "expert:clip": (80e6, 8, 0.4), "student+kd:moe": (6e6, 5.2, 0.2),
        "expert:align/configuration=paper": (62e6, 50, 1), "moe:soft/configuration=paper": (150e6, 100, 1),
        "expert:clip/configuration=paper": (86e6, 60, 1), "student/configuration=paper": (2.6e6, 4, 0.1),
    }  # fmt: skip
    rows, evaluations = made()
    ledger = ledger_of(params(), pd.concat([rows, costs(measured)]), evaluations, {"": 4, "paper": 3})
    parameters, time, clip = (only(ledger, number) for number in ("3a", "3b", "3c"))
    assert parameters["measured"].tolist() == pytest.approx([94, 100 * (1 - 2.6 / 150)])
    assert parameters["verdict"].tolist() == ["holds", "holds"] and np.isnan(parameters["low"]).all()
    assert clip["measured"].tolist() == pytest.approx([92.5, 100 * (1 - 2.6 / 86)])
    assert time["measured"].tolist() == pytest.approx([48, 96])
    assert time["verdict"].tolist() == ["undecided", "holds"]
    error = 1.2533 / 1.349 / 2 * np.hypot(0.2 / 5.2, 0.4 / 10)  # four runs
    assert time["low"][0] == pytest.approx(100 * (1 - 0.52 * (1 + 3.182446 * error)))  # Student's t
    assert "5.2 ms against 10 ms (MoE, soft gate), a fast CPU" in time["basis"][0] and "of 4 runs" in time["basis"][0]
    assert "of 3 runs" in time["basis"][1]
    untold = only(ledger_of(params(), pd.concat([rows, costs(measured)]), evaluations), "3b")
    assert np.isnan(untold["low"]).all() and untold["measured"].tolist() == time["measured"].tolist()
    assert "6 M against 100 M" in parameters["basis"][0]
    assert "random weights" in time["on"][1]
    few = measured | {"student+kd:moe": (6.1e6, 4, 0.2)}
    rows = pd.concat([rows, costs({m: few[m] for m in ("moe:soft", "student+kd:moe")})])
    ledger = ledger_of(params(), rows, evaluations)
    assert only(ledger, "3a")["verdict"].tolist() == ["does not hold", "not measured"]
    assert only(ledger, "3c")["verdict"].tolist() == ["not measured", "not measured"]


def test_time_near_the_bound_needs_the_whole_interval():
    rows, evaluations = made()
    near = costs({"moe:soft": (1e8, 10, 1), "student": (1e6, 4.9, 1)})
    row = only(ledger_of(params(), pd.concat([rows, near]), evaluations, {"": 4}), "3b").iloc[0]
    assert row["measured"] == pytest.approx(51) and row["low"] < 50 and row["verdict"] == "undecided"
    one = only(ledger_of(params(), pd.concat([rows, near]), evaluations, {"": 1}), "3b").iloc[0]
    assert np.isnan(one["low"]) and np.isnan(one["high"])  # how much it varies is not known
    far = costs({"moe:soft": (1e8, 10, 0.1), "student": (1e6, 6, 0.1)})
    row = only(ledger_of(params(), pd.concat([rows, far]), evaluations, {"": 4}), "3b").iloc[0]
    assert row["high"] < 50 and row["verdict"] == "does not hold"


def test_falls_in_points_and_relative_against_both_conventions():
    ledger = ledger_of(params(), *made())
    # a → b: expert 50 to 40, student 40 to 35, distilled 60 to 45; b → a: 60 to 40, 40 to 24, 58 to 43
    points = {"5a": [10 - 15, 20 - 15], "5c": [5 - 15, 16 - 15]}
    for number, wanted in points.items():
        assert only(ledger, number)["measured"].tolist() == pytest.approx(wanted)
        assert only(ledger, number)["verdict"].tolist() == ["does not hold", "holds"]
    assert only(ledger, "5b")["measured"].tolist() == pytest.approx([20 - 25, 100 / 3 - 1500 / 58])
    assert only(ledger, "5d")["measured"].tolist() == pytest.approx([12.5 - 25, 40 - 1500 / 58])
    on, basis = only(ledger, "5a").loc[1, ["on", "basis"]]
    assert on == "b (drawn by the library) → a"
    assert basis.startswith("Student + KD from MoE falls by 15.0 points, CLIP expert (b")
    assert ") by 20.0; 6 queries" in basis
    one = {pair: own for pair, own in MAP.items() if pair == ("a", "a")}
    ledger = ledger_of(params(lambda tree: tree["datasets"].pop("b")), *made(one))
    assert only(ledger, "5a")["verdict"].tolist() == ["not measured"]


def test_where_nothing_was_trained_on_the_target_the_fall_is_below_a_methods_own_test_set():
    only_a = {pair: own for pair, own in MAP.items() if pair[0] == "a"}
    ledger = ledger_of(params(lambda tree: tree["datasets"]["b"].update(test_only=True)), *made(only_a))
    # from a to b: expert 60 to 40, student 40 to 35, distilled 58 to 45
    assert only(ledger, "5a")["measured"].tolist() == pytest.approx([20 - 13])
    assert only(ledger, "5b")["measured"].tolist() == pytest.approx([100 / 3 - 1300 / 58])
    assert only(ledger, "5c")["measured"].tolist() == pytest.approx([5 - 13])
    on, basis = only(ledger, "5a").loc[0, ["on", "basis"]]
    assert on == "a → b (drawn by the library)"
    assert basis.startswith("Student + KD from MoE falls by 13.0 points below its own on a,")
    assert only(ledger, "4d")["measured"].tolist() == pytest.approx([18])  # no other claim is measured there


def test_every_claim_is_in_the_ledger_and_defined(tmp_path):
    ledger = ledger_of(params(), *made())
    rules = claims.definitions()
    assert {line.split()[0] for line in ledger["claim"]} == set(rules.index)
    assert {number[0] for number in rules.index} == set("12345")
    assert set(ledger["verdict"]) <= {"holds", "does not hold", "undecided", "not measured"}
    assert claims.write_claims(SimpleNamespace(output=tmp_path / "made"), ledger) is ledger
    read = pd.read_csv(tmp_path / "made" / "claims.csv")
    assert list(read.columns) == claims.COLUMNS and len(read) == len(ledger)
    assert read["measured"].dropna().tolist() == pytest.approx(ledger["measured"].dropna().tolist(), abs=0.005)
