import hashlib
import json

import numpy as np
import pandas as pd
import pytest

from reidlib import params, provenance, results, tables
from reidlib.artifacts import digest
from reidlib.retrieval import Evaluation
from reidlib.study import Study

METHODS = ["pixels", "expert:clip", "moe:soft", "student", "student+kd:moe", "student/size=96"]
PARAMS = """
title: A study of 100 % made-up numbers
note: Small_networks stand in.
seeds: [0, 1, 2]
device: cpu
datasets:
  vehicles: {layout: veri776, size: [16, 16], root: VeRi}
  people: {layout: market1501, size: [16, 16], root: Market}
experts:
  clip: {encoder: {name: "timm:test_vit"}, recipe: &r {epochs: 1, p: 4, lr: 0.001}, stands_in_for: CLIP ViT-B/16}
  align: {encoder: {name: "timm:test_byobnet"}, recipe: *r}
moe: {gates: [soft], width: 8, recipe: *r}
student: {encoder: {name: "timm:test_efficientnet"}, recipe: *r}
distillation: {teachers: [moe]}
"""


@pytest.fixture
def study(tmp_path, monkeypatch) -> Study:
    file = tmp_path / "params" / "made_up.yaml"
    file.parent.mkdir()
    file.write_text(PARAMS)

    def evaluate(self, method, train, seed, test=None):
        mAP = 0.5 + 0.01 * seed + 0.1 * METHODS.index(method) - (0.2 if test not in (None, train) else 0)
        ap = mAP + np.array([-0.04, -0.01, 0.01, 0.04])
        return Evaluation(mAP, mAP / 2, np.linspace(0.5, 1, 50), ap, np.ones(4, bool))

    def origin(self, method, dataset, seed):
        if method == "pixels":
            return None
        made = {"unit": f"{method}-{seed}/abc", "seconds": 2.5, "finished": "2026", "resumed": False}
        return made | provenance.origin()

    monkeypatch.setattr(Study, "evaluate", evaluate)
    monkeypatch.setattr(Study, "origin", origin)
    monkeypatch.setattr(Study, "fingerprint", lambda self, name: f"hash of {name}")
    return Study("made_up", params.load(file), tmp_path)


def costs(method: str, parameters: float, latency: float) -> pd.DataFrame:
    values = {"parameters": parameters, "latency_ms": latency}
    return pd.DataFrame({"method": method, "metric": values.keys(), "value": values.values(), "spread": [np.nan, 0.5]})


def test_accuracy_gives_the_contracts_rows(study):
    rows = results.accuracy(study, ["pixels", "student"])
    assert list(rows.columns) == ["study", "method", "train_dataset", "test_dataset", "seed", "metric", "value"]
    assert set(rows["metric"]) == {"mAP", "mINP", "rank-1", "rank-5", "rank-10"}
    counts = rows.groupby(["method", "train_dataset"]).size()
    assert counts["pixels", "people"] == 5 and counts["student", "people"] == 15  # pixels know no seed
    rank5 = rows.query("metric == 'rank-5'")["value"].to_numpy()
    assert rank5 == pytest.approx(np.linspace(0.5, 1, 50)[4])
    across = results.accuracy(study, ["student"], ["people"], test="vehicles")
    assert set(across["train_dataset"]) == {"people"} and set(across["test_dataset"]) == {"vehicles"}


def test_gather_puts_the_parts_in_the_studys_order_and_reads_back_exactly(study):
    results.keep(study, "2", results.accuracy(study, ["student+kd:moe", "student"], ["vehicles"]))
    results.keep(study, "1", results.accuracy(study, ["pixels"]))
    results.keep(study, "3", results.accuracy(study, ["student/size=96"], ["vehicles"]))
    results.keep(study, "4", results.accuracy(study, ["student"]))  # again, with equal values
    results.keep(study, "5", results.accuracy(study, []))  # of a study without ablations
    rows = results.gather(study)
    assert list(rows["method"].unique()) == ["pixels", "student", "student/size=96", "student+kd:moe"]
    assert list(rows.query("method == 'pixels'")["train_dataset"].unique()) == ["vehicles", "people"]
    assert list(rows["metric"][:5]) == ["mAP", "mINP", "rank-1", "rank-5", "rank-10"]
    assert not rows.duplicated(results.COLUMNS[:-1]).any() and len(rows) == 10 + 30 + 15 + 15
    pd.testing.assert_frame_equal(results.read(study), rows)


def test_across_tests_on_every_data_set_but_pixels_learnt_nowhere(study):
    rows = results.accuracy(study, ["pixels", "student"], across=True)
    own = rows[rows["metric"] == "mAP"].groupby("method")[["train_dataset", "test_dataset"]].value_counts()
    assert own["student"].to_dict() == {(a, b): 3 for a in ("vehicles", "people") for b in ("vehicles", "people")}
    assert own["pixels"].to_dict() == {("vehicles", "vehicles"): 1, ("people", "people"): 1}


def test_evaluations_are_kept_and_gathered(study):
    rows = results.keep(study, "1", results.accuracy(study, ["pixels", "student"], across=True))
    kept = results.evaluations(study, rows)
    assert len(kept) == 2 * (2 + 12)
    assert kept["student|people|vehicles|1|ap"] == pytest.approx([0.57, 0.6, 0.62, 0.65])
    results.gather(study)
    read = results.read_evaluations(study)
    assert read.keys() == kept.keys() and all(np.array_equal(read[name], kept[name]) for name in kept)
    curves = results.cmc(read, ["student", "pixels", "moe:soft"], "people")
    assert curves["student"].shape == (3, 50) and curves["pixels"].shape == (1, 50) and "moe:soft" not in curves
    assert results.cmc(read, ["student"], "people", "vehicles")["student"][0] == pytest.approx(np.linspace(0.5, 1, 50))


def test_rows_without_their_evaluation_are_refused(study):
    rows = results.accuracy(study, ["student"], ["people"])
    results.keep(study, "1", rows.assign(value=rows["value"] + 0.001))
    with pytest.raises(ValueError, match=r"student\|people\|people\|0: no evaluation of mAP 0.801"):
        results.gather(study)
    results.keep(study, "1", rows.assign(method="student+kd:moe"))
    with pytest.raises(ValueError, match=r"student\+kd:moe\|people\|people\|0: no evaluation"):
        results.gather(study)
    assert not study.results.exists()


def test_what_was_never_run_says_how_to_run_it(study):
    for read in (results.read, results.read_evaluations, results.read_provenance):
        with pytest.raises(ValueError, match="make study STUDY=made_up"):
            read(study)


def test_a_part_kept_again_replaces_the_former(study):
    rows = results.accuracy(study, ["student"], ["people"])
    results.keep(study, "1", rows.assign(value=0.0))
    results.keep(study, "1", rows)
    assert results.gather(study)["value"].tolist() == rows["value"].tolist()


def test_contradicting_parts_are_refused_by_name(study):
    rows = results.accuracy(study, ["student"], ["people"])
    results.keep(study, "04", rows)
    results.keep(study, "05", rows.assign(value=rows["value"] + 0.001))
    with pytest.raises(ValueError, match=r"made_up student people people 0 mAP: 0.8 in part 04, 0.801 in part 05"):
        results.gather(study)


def test_no_parts_and_validation_are_refused(study):
    with pytest.raises(ValueError, match="no results yet"):
        results.gather(study)
    held_out = Study(study.name, study.params, study.root, validation=0.25)
    with pytest.raises(ValueError, match="validation"):
        results.keep(held_out, "1", results.accuracy(study, ["student"]))


def test_what_a_profile_lacks_is_filled_in_and_its_spread_kept(study):
    rows = results.keep(study, "07", costs("student", 4e6, 2.0))
    assert list(rows.columns) == results.COLUMNS
    assert set(rows["train_dataset"]) == set(rows["test_dataset"]) == {"vehicles"} and set(rows["seed"]) == {0}
    assert rows.set_index("metric")["value"].to_dict() == {"parameters": 4e6, "latency_ms": 2.0, "latency_ms_iqr": 0.5}


def test_intervals_in_the_main_table(study):
    rows = results.accuracy(study, METHODS)
    table = tables.main_table(rows, ["student", "pixels"], metrics=("mAP", "rank-1"))
    assert list(table.index) == ["Student", "Raw pixels"]
    assert list(table.columns) == [(d, m) for d in ("vehicles", "people") for m in ("mAP", "rank-1")]
    # seeds 0.80, 0.81, 0.82: standard deviation 0.01, t = 4.303
    assert table.loc["Student", ("people", "mAP")] == "81.0 ± 2.5"
    assert table.loc["Raw pixels", ("people", "mAP")] == "50.0"
    line = results.summary(rows).query("method == 'student' and train_dataset == 'people' and metric == 'mAP'").iloc[0]
    assert (line["mean"], line["seeds"]) == (pytest.approx(0.81), 3)
    assert line["high"] - line["mean"] == pytest.approx(4.303 * 0.01 / 3**0.5, rel=1e-3)


def test_other_data_sets_are_shown_across_only(study):
    there = results.accuracy(study, ["student"], ["people"], test="vehicles")
    rows = pd.concat([results.accuracy(study, ["student"]), there])
    assert list(tables.main_table(rows, METHODS).columns.levels[0].sort_values()) == ["people", "vehicles"]
    wide = tables.main_table(rows, METHODS, metrics=("mAP",), across=True)
    assert wide.loc["Student", ("people → vehicles", "mAP")].startswith("61.0")
    with pytest.raises(ValueError, match="across=True"):
        tables.main_table(there, METHODS)


def test_efficiency_is_compared_with_the_soft_gate_and_the_first_expert(study):
    rows = [costs("moe:soft", 100e6, 10.0), costs("expert:clip", 80e6, 8.0), costs("student", 6e6, 5.0)]
    rows.append(costs("student/size=96", 1e6, 1.0))
    table = tables.efficiency_table(results.keep(study, "07", pd.concat(rows)))
    assert list(table.index) == ["MoE, soft gate", "CLIP expert", "Student"]
    assert table.loc["Student", "parameters vs MoE (% less)"] == 94
    assert table.loc["Student", "time vs MoE (% less)"] == 50
    assert table.loc["Student", "parameters vs CLIP expert (% less)"] == 92.5
    assert table.loc["Student", "time vs CLIP expert (% less)"] == 37.5
    assert table.loc["Student", "parameters (M)"] == 6
    assert table.loc["Student", "latency (ms)"] == 5 and table.loc["Student", "latency IQR (ms)"] == 0.5


def test_the_papers_configuration_has_a_table_of_its_own(study):
    own = [costs("moe:soft", 100e6, 10.0), costs("student", 6e6, 5.0)]
    paper = [costs(f"{m}/configuration=paper", *c) for m, c in {"moe:soft": (150e6, 90), "student": (3e6, 9)}.items()]
    rows = results.keep(study, "07", pd.concat(own + paper))
    assert tables.efficiency_table(rows)["parameters (M)"].to_dict() == {"MoE, soft gate": 100, "Student": 6}
    table = tables.efficiency_table(rows, "paper")
    assert table["parameters (M)"].to_dict() == {"MoE, soft gate": 150, "Student": 3}
    assert table.loc["Student", "time vs MoE (% less)"] == 90
    assert tables.efficiency_table(rows, "another").empty


@pytest.mark.parametrize(
    "method, name",
    [
        ("expert:clip", "CLIP expert"),
        ("expert:vit_s", "vit_s expert"),
        ("student+kd:align", "Student + KD from ALIGN"),
        ("student+kd:moe/temperature=2", "Student + KD from MoE, temperature = 2"),
    ],
)
def test_labels(method, name):
    assert results.label(method) == name


def test_tables_carry_caption_and_note(study):
    table = tables.main_table(results.accuracy(study, ["pixels", "student"]), METHODS)
    assert tables.write_table(study, "main", table, "Accuracy") is table
    folder = study.results / "tables"
    for suffix in ("md", "tex"):
        text = (folder / f"main.{suffix}").read_text().replace("\\", "")
        assert "Accuracy: A study of 100 % made-up numbers (experts are stand-ins)." in text
        assert "Small_networks stand in." in text
    assert "| 50.0 " in (folder / "main.md").read_text()  # digits as they were rounded
    assert "$\\pm$" in (folder / "main.tex").read_text() and "100 \\%" in (folder / "main.tex").read_text()
    assert pd.read_csv(folder / "main.csv", index_col=0).loc["Student", "people mAP"] == "81.0 ± 2.5"


def test_stand_ins(study):
    assert results.stand_ins(study).values.tolist() == [["CLIP expert", "timm:test_vit", "CLIP ViT-B/16"]]


def test_a_table_of_other_networks_has_not_the_studys_note(study):
    table = pd.DataFrame({"a": [1.0]}, index=["x"])
    tables.write_table(study, "paper", table, "The paper's networks", own_networks=False)
    text = (study.results / "tables" / "paper.md").read_text()
    assert text.startswith("The paper's networks.\n") and "stand" not in text


def test_an_empty_table_is_not_written_and_a_former_one_goes(study):
    table = pd.DataFrame({"a": ["1.0"], "b": [np.nan]}, index=["x"])
    tables.write_table(study, "t", table, "T")
    assert "nan" not in "".join((study.results / "tables" / f"t.{suffix}").read_text() for suffix in ("md", "tex"))
    assert tables.write_table(study, "t", table[:0], "T").empty
    assert list((study.results / "tables").iterdir()) == []


def test_every_row_traces_to_what_made_it(study, monkeypatch):
    here = provenance.origin()
    rows = results.keep(study, "04", results.accuracy(study, ["pixels", "student"], across=True))
    monkeypatch.setattr(results, "origin", lambda: here | {"commit": "c0ffee", "device": "a GPU", "threads": 2})
    results.keep(study, "07", costs("student", 4e6, 2.0))
    rows = results.gather(study)
    record = results.read_provenance(study)
    assert record["params"] == digest(study.params) and record["data set people"] == "hash of people"
    file = (study.root / "params" / "made_up.yaml").read_bytes()
    assert record["params file sha256"] == hashlib.sha256(file).hexdigest()
    assert list(record["environments"].values()) == [here, here | {"commit": "c0ffee", "device": "a GPU", "threads": 2}]
    assert record["units"]["student|people|2"] == {
        "unit": "student-2/abc", "seconds": 2.5, "finished": "2026", "resumed": False, "environment": 0,
    }  # fmt: skip
    assert len(record["units"]) == 6 and record["parts"]["04"]["params"] == digest(study.params)
    at = rows.set_index(["method", "train_dataset", "test_dataset", "seed", "metric"], drop=False)
    trace = results.trace(record, at.loc["student", "people", "vehicles", 2, "rank-1"])
    assert list(trace.columns) == ["evaluated", "trained"]
    assert trace.loc["part", "evaluated"] == "04" and trace.loc["seconds", "trained"] == 2.5
    assert (trace.loc["commit"] == here["commit"]).all() and (trace.loc["seed"] == 2).all()
    assert trace.loc["data set vehicles", "trained"] == "hash of vehicles"
    assert list(results.trace(record, at.loc["pixels", "people", "people", 0, "mAP"])) == ["evaluated"]
    cost = results.trace(record, at.loc["student", "vehicles", "vehicles", 0, "latency_ms"])
    assert cost.to_dict()["evaluated"]["commit"] == "c0ffee" and list(cost) == ["evaluated"]
    assert results.measured_on(record) == f"a GPU, 2 threads, torch {here['packages']['torch']}"


def test_provenance_tells_no_names_of_machine_or_folder(study):
    results.keep(study, "04", results.accuracy(study, ["student"]))
    results.gather(study)
    text = (study.results / "provenance.json").read_text()
    assert json.loads(text)["seeds"] == [0, 1, 2] and str(study.root) not in text and str(provenance.CODE) not in text
