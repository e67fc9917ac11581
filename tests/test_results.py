import json
import subprocess

import numpy as np
import pandas as pd
import pytest

from reidlib import params, results
from reidlib.retrieval import Evaluation
from reidlib.study import Study

METHODS = ["pixels", "expert:clip", "moe:soft", "student", "student+kd:moe"]
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
        return Evaluation(mAP, mAP / 2, np.linspace(0.5, 1, 50), np.array([mAP]), np.array([True]))

    monkeypatch.setattr(Study, "evaluate", evaluate)
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
    variant = results.accuracy(study, ["student"], ["vehicles"]).assign(method="student/size=96")
    results.keep(study, "3", variant)
    results.keep(study, "4", results.accuracy(study, ["student"]))  # again, with equal values
    rows = results.gather(study)
    assert list(rows["method"].unique()) == ["pixels", "student", "student/size=96", "student+kd:moe"]
    assert list(rows.query("method == 'pixels'")["train_dataset"].unique()) == ["vehicles", "people"]
    assert list(rows["metric"][:5]) == ["mAP", "mINP", "rank-1", "rank-5", "rank-10"]
    assert not rows.duplicated(results.COLUMNS[:-1]).any() and len(rows) == 10 + 30 + 15 + 15
    pd.testing.assert_frame_equal(results.read(study), rows)


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
    table = results.main_table(rows, ["student", "pixels"], metrics=("mAP", "rank-1"))
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
    assert list(results.main_table(rows, METHODS).columns.levels[0].sort_values()) == ["people", "vehicles"]
    wide = results.main_table(rows, METHODS, metrics=("mAP",), across=True)
    assert wide.loc["Student", ("people → vehicles", "mAP")].startswith("61.0")
    with pytest.raises(ValueError, match="across=True"):
        results.main_table(there, METHODS)


def test_efficiency_is_compared_with_the_soft_gate(study):
    rows = pd.concat([costs("moe:soft", 100e6, 10.0), costs("student", 6e6, 5.0)])
    table = results.efficiency_table(results.keep(study, "07", rows))
    assert list(table.index) == ["MoE, soft gate", "Student"]
    assert table.loc["Student", "parameters vs MoE (% less)"] == 94
    assert table.loc["Student", "time vs MoE (% less)"] == 50
    assert table.loc["Student", "parameters (M)"] == 6


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
    table = results.main_table(results.accuracy(study, ["pixels", "student"]), METHODS)
    assert results.write_table(study, "main", table, "Accuracy") is table
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


def test_provenance_tells_no_names_of_machine_or_folder(study, monkeypatch):
    monkeypatch.setattr(Study, "fingerprint", lambda self, name: f"hash of {name}")
    record = results.provenance(study)
    assert record["data set people"] == "hash of people"
    assert record["commit"] is None and record["uncommitted changes"] is None
    text = (study.results / "provenance.json").read_text()
    assert json.loads(text) == record and str(study.root) not in text
    author = ["-c", "user.name=a", "-c", "user.email=b"]
    for command in (["init", "-q"], ["add", "params"], [*author, "commit", "-qm", "x"]):
        subprocess.run(["git", *command], cwd=study.root, check=True)
    (study.root / ".gitignore").write_text("artifacts/\n.gitignore\n")
    record = results.provenance(study)
    assert len(record["commit"]) == 40 and record["uncommitted changes"] is False  # results don't count
    (study.root / "params" / "made_up.yaml").write_text(PARAMS + "\n")
    assert results.provenance(study)["uncommitted changes"] is True


def test_the_page_shows_every_table_and_figure(study, monkeypatch):
    monkeypatch.setattr(Study, "fingerprint", lambda self, name: "hash")
    results.write_table(study, "main", results.main_table(results.accuracy(study, ["student"]), METHODS), "Accuracy")
    (study.results / "figures").mkdir()
    (study.results / "figures" / "cmc.png").touch()
    text = results.write_readme(study).read_text()
    assert "(figures/cmc.png)" in text and "81.0 ± 2.5" in text and "Small_networks" in text
    assert "nan" not in text and str(study.root) not in text
