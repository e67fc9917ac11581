import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from reidlib import params, results, tables
from reidlib.methods import ELSEWHERE

ROOT = Path(__file__).parents[1]
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
student: {encoder: {name: "timm:test_efficientnet"}, recipe: {epochs: 1, p: 4, lr: 0.001}}
distillation: {teachers: [moe], terms: {logit: 1.0}}
"""
ENVIRONMENTS = {
    "0": {"commit": "abc", "packages": {"torch": "2.8.0", "timm": "1.0"}, "device": "a CPU", "threads": 1},
    "1": {"commit": "c0ffee", "packages": {"torch": "2.8.0", "timm": "1.0"}, "device": "a GPU", "threads": 2},
}


def accuracy(methods, trained=("vehicles", "people"), test=None) -> pd.DataFrame:
    rows = [
        ("made_up", m, train, test or train, seed, metric, value)
        for m in methods for train in trained for seed in ((0,) if m == "pixels" else (0, 1, 2))
        for mAP in [0.5 + 0.01 * seed + 0.1 * METHODS.index(m) - (0.2 if test not in (None, train) else 0)]
        for metric, value in zip(results.ACCURACY, (mAP, mAP / 2, 0.5, 0.6, 0.7))
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=results.COLUMNS)


def costs(**by_method: tuple[float, float]) -> pd.DataFrame:
    """parameters and latency of each method."""
    rows = [
        ("made_up", method, "vehicles", "vehicles", 0, metric, value)
        for method, (parameters, latency) in by_method.items()
        for metric, value in (("parameters", parameters), ("latency_ms", latency), ("latency_ms_iqr", 0.5))
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=results.COLUMNS)


@pytest.fixture
def file(tmp_path) -> Path:
    file = tmp_path / "params" / "made_up.yaml"
    file.parent.mkdir()
    file.write_text(PARAMS)
    return file


@pytest.fixture
def found(file, tmp_path) -> results.Results:
    """Results as a study has just found them."""
    student = {"student": (4e6, 2.0), "student/configuration=paper": (3e6, 1.0)}
    rows = pd.concat([accuracy(["pixels", "student"]), accuracy(["student"], ["people"], "vehicles"), costs(**student)])
    keys = rows[rows["metric"] == "mAP"].drop_duplicates(results.COLUMNS[1:5])
    names = ["|".join(map(str, key)) for key in keys[results.COLUMNS[1:5]].to_numpy()]
    evaluations = {f"{name}|ap": np.array([0.1, 1 / 3], np.float32) for name in names}
    evaluations |= {f"{name}|cmc": np.linspace(0.5, 1, 50, dtype=np.float32) for name in names}
    made = {"unit": "u/abc", "seconds": 2.5, "finished": "2026", "environment": "0"}
    provenance = {
        "study": "made_up", "seeds": [0, 1, 2], "data": {"vehicles": "hash of vehicles", "people": "hash of people"},
        "environments": ENVIRONMENTS, "units": {f"student|{d}|{s}": made for d in ("vehicles", "people") for s in range(3)},
        "evaluations": {name: {"seconds": 0.5, "finished": "2027", "environment": "0"} for name in names},
        "costs": {c: {"runs": 4, "finished": "2028", "environment": "1"} for c in ("", "paper")},
    }  # fmt: skip
    return results.Results("made_up", params.load(file), rows, evaluations, provenance, tmp_path / "made")


@pytest.fixture
def folder(found, file, tmp_path) -> Path:
    results.write(found, tmp_path / "results" / "made_up", file)
    return tmp_path / "results" / "made_up"


@pytest.mark.parametrize("name", ["NA", "007", "none"])
def test_a_data_set_may_be_called_what_pandas_takes_for_something_else(found, folder, file, name):
    of = (found.rows[["train_dataset", "test_dataset"]] == "vehicles").all(axis=1) & (found.rows["metric"] == "rank-1")
    rows = found.rows[of].assign(train_dataset=name, test_dataset=name)
    results.write(replace(found, rows=rows), folder, file)
    pd.testing.assert_frame_equal(results.read(folder).rows, rows.reset_index(drop=True))


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda lines: [*lines, lines[1]], "this row stands in the file before"),
        (lambda lines: [*lines, lines[1].rpartition(",")[0].replace("mAP", "mAQ") + ","], "the value '' is no number"),
        (lambda lines: [*lines, lines[1].replace(",0,mAP", ",9,mAP")], "evaluations.safetensors has no pixels|vehicles|vehicles|9|ap"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_is_refused_by_its_line(folder, change, said):
    file = folder / "results.csv"
    lines = file.read_text().splitlines()
    assert ",0,mAP," in lines[1]
    file.write_text("\n".join(change(lines)) + "\n")
    with pytest.raises(ValueError, match=re.escape(f"{file}, line {len(lines) + 1}: {said}")):
        results.read(folder)


def test_what_is_written_reads_back_exactly(found, folder, file):
    assert {file.name for file in folder.iterdir()} == {*results.FILES, "provenance.json"}
    read = results.read(folder, folder.parent, file)
    pd.testing.assert_frame_equal(read.rows, found.rows.reset_index(drop=True), check_exact=True)
    assert read.evaluations.keys() == found.evaluations.keys()
    assert all(np.array_equal(read.evaluations[name], found.evaluations[name]) for name in found.evaluations)
    assert (read.study, read.params, read.output, read.folder) == ("made_up", found.params, folder.parent, folder)
    assert {k: v for k, v in read.provenance.items() if k != "files"} == found.provenance
    assert (folder / "params.yaml").read_bytes() == file.read_bytes()
    assert read.marks == () and read.warning == ""


@pytest.mark.parametrize("name, said", [
    ("start:clip", ["CLIP expert on people has 70.0 % mAP, no more than the 70.0 before it was fine-tuned"]),
    ("student", ["CLIP expert on people has 70.0 % mAP, no more than the 70.0 of the student alone"]),
    ("student+kd:moe", []),  # may be better: that is what it is for
    ("start:align", []),
])  # fmt: skip
def test_an_expert_that_is_no_part_to_build_of_is_named_on_every_page(found, name, said):
    value = lambda method, dataset: {"expert:clip": 0.7, name: 0.7 if dataset == "people" else 0.6}[method]  # noqa: E731
    rows = [
        ("made_up", method, dataset, dataset, 0, "mAP", value(method, dataset))
        for method in ("expert:clip", name) for dataset in ("vehicles", "people")
    ]  # fmt: skip
    rows += [("made_up", name, "vehicles", "people", 0, "mAP", 0.99)]  # elsewhere: says nothing
    made = replace(found, rows=pd.DataFrame(rows, columns=results.COLUMNS))
    assert results.broken_experts(made.rows) == said
    assert made.warning == "".join(f"> ⚠️ **Warning:** {text}." for text in said)


@pytest.mark.parametrize("name", results.FILES)
def test_an_edited_file_may_be_looked_at_and_is_marked(folder, name):
    edits = {
        "results.csv": lambda data: data.replace(b"0.81", b"0.91", 1),
        "params.yaml": lambda data: data + b"# a comment\n",
        "evaluations.safetensors": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    }
    (folder / name).write_bytes(edits[name]((folder / name).read_bytes()))
    read = results.read(folder)
    assert read.marks == (f"{name} was edited after it was published",)
    assert read.warning == f"> ⚠️ **Warning:** {name} was edited after it was published."
    assert read._repr_markdown_().startswith(read.warning)
    assert repr(read) == f"{len(read.rows)} results of made_up; {name} was edited after it was published"


def test_results_know_their_own_params_and_are_marked_where_todays_differ(folder, file):
    was = results.read(folder, params_file=file).params
    changed = PARAMS.replace(", stands_in_for: CLIP ViT-B/16", "").replace("seeds: [0, 1, 2]", "seeds: [0, 1]")
    file.write_text(changed.replace("terms: {logit: 1.0}", "terms: {embedding: 1.0}"))
    read = results.read(folder, params_file=file)
    assert read.params == was and read.params.experts["clip"].stands_in_for  # as the numbers were made
    assert read.marks == (
        "params/made_up.yaml has changed since: seeds was [0, 1, 2], is [0, 1], "
        'experts.clip.stands_in_for was "CLIP ViT-B/16", is null, '
        "distillation.terms.logit is gone, distillation.terms.embedding is new",
    )
    file.write_text(PARAMS.replace("timm:test_efficientnet\"}, recipe: {epochs: 1, p: 4, lr: 0.001}",
                                   "timm:test_efficientnet\"}, recipe: {epochs: 1, p: 4, lr: 0.002}"))  # fmt: skip
    marks = results.read(folder, params_file=file).marks
    assert marks == ("params/made_up.yaml has changed since: student.recipe.lr was 0.001, is 0.002",)
    file.write_text(PARAMS + "# a comment changes nothing\n")
    assert results.read(folder, params_file=file).marks == ()
    file.write_text("title: nothing else")
    assert results.read(folder, params_file=file).marks == ("params/made_up.yaml has changed since and can't be read now",)
    file.unlink()
    assert results.read(folder, params_file=file).marks == ()


@pytest.mark.parametrize("name", [*results.FILES, "provenance.json"])
def test_what_is_missing_is_named_with_the_remedy(folder, name):
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"has no {name}: run `make study STUDY=made_up` first"):
        results.read(folder)


def test_results_are_opened_by_their_params_file_and_show_elsewhere(folder, file, tmp_path, monkeypatch):
    monkeypatch.delenv("REIDLIB_OUTPUT", raising=False)
    opened = results.open_results(file)
    assert (opened.study, opened.folder) == ("made_up", folder)
    assert opened.output == tmp_path / "artifacts" / "made_up" / "explored"
    file.write_text(PARAMS.replace("[0, 1, 2]", "[0, 1]"))
    monkeypatch.setenv("REIDLIB_OUTPUT", str(tmp_path / "elsewhere"))
    folder.rename(tmp_path / "moved")
    opened = results.open_results(file, "moved")
    assert opened.output == tmp_path / "elsewhere" and len(opened.rows) and opened.marks
    with pytest.raises(ValueError, match="make study"):
        results.open_results(file)


def test_every_row_traces_to_what_made_it(found):
    record = found.provenance
    at = found.rows.set_index(results.COLUMNS[1:6], drop=False)
    trace = results.trace(record, at.loc["student", "people", "vehicles", 2, "rank-1"])
    assert list(trace.columns) == ["evaluated", "trained"]
    assert trace.loc["seconds"].tolist() == [0.5, 2.5] and trace.loc["unit", "trained"] == "u/abc"
    assert (trace.loc["commit"] == "abc").all() and (trace.loc["seed"] == 2).all()
    assert trace.loc["data set vehicles", "trained"] == "hash of vehicles"
    assert list(results.trace(record, at.loc["pixels", "people", "people", 0, "mAP"])) == ["evaluated"]
    for method in ("student", "student/configuration=paper"):
        cost = results.trace(record, at.loc[method, "vehicles", "vehicles", 0, "latency_ms"])
        assert cost["measured"]["commit"] == "c0ffee" and list(cost) == ["measured"]
    record["evaluations"][f"peer:small|{ELSEWHERE}|people|0"] = {"seconds": 1.5, "finished": "2027", "environment": "0"}
    peer = at.loc["student", "people", "people", 0, "mAP"].replace({"student": "peer:small"})
    peer["train_dataset"] = ELSEWHERE
    assert results.trace(record, peer).loc["data set people"].tolist() == ["hash of people"]
    unknown = at.loc["student", "people", "vehicles", 2, "rank-1"].replace({"student": "moe:soft"})
    with pytest.raises(ValueError, match="knows no rank-1 of moe:soft trained on people, seed 2"):
        results.trace(record, unknown)
    assert results.measured_on(found) == "a GPU, 2 threads, float32, torch 2.8.0"
    record["costs"]["paper"]["environment"] = "0"
    assert results.measured_on(found) == "a GPU, 2 threads, float32, torch 2.8.0 and a CPU, 1 thread, float32, torch 2.8.0"


def test_curves_of_those_evaluated_so(found):
    curves = results.cmc(found.evaluations, ["student", "pixels", "moe:soft"], "people")
    assert curves["student"].shape == (3, 50) and curves["pixels"].shape == (1, 50) and "moe:soft" not in curves
    assert curves["student"][0] == pytest.approx(np.linspace(0.5, 1, 50))


def test_methods_are_told_apart_by_what_they_are():
    rows = pd.concat([accuracy(METHODS), costs(**{"moe:soft/configuration=paper": (1, 1), "moe:soft": (2, 2)})])
    assert results.evaluated(rows, lambda method: True) == METHODS
    assert results.evaluated(rows, lambda method: method.kind == "student" and method.size == "96") == METHODS[-1:]
    assert list(results.select(rows)["method"].unique()) == METHODS[:-1]
    assert set(results.select(rows, ["student/size=96"])["method"]) == {"student/size=96"}
    parameters = lambda rows: results.costs(rows)["parameters"].to_dict()  # noqa: E731
    assert parameters(results.configured(rows, "paper")) == {"moe:soft": 1}
    assert parameters(results.configured(rows, None)) == {"moe:soft": 2}
    clip = lambda methods, **of: results.clip(methods, {n: SimpleNamespace(stands_in_for=s) for n, s in of.items()})  # noqa: E731
    assert clip(["moe:soft", "expert:vit_s", "expert:clip"]) == "expert:clip"
    assert clip(["moe:soft", "expert:vit_s", "expert:b"]) == "expert:vit_s" and clip(["moe:soft"]) == ""
    said = {"effnet": "ALIGN's EfficientNet-B7", "vit": "CLIP ViT-B/16"}
    assert clip(["expert:effnet", "expert:vit"], **said) == "expert:vit"  # whatever their order
    assert clip(["expert:effnet"], **said) == "expert:effnet"  # in which vit was not measured


# what these take apart is no method
APART = ("methods.py", "encoders.py", "towers.py", "weights.py", "networks.py", "reading.py", "sources.py")
CODE = [path for folder in ("reidlib", "publishing", "scripts") for path in sorted((ROOT / folder).rglob("*.py"))]
CODE = [path for path in CODE if path.name not in APART] + sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", CODE, ids=lambda path: path.stem)
def test_method_names_are_taken_apart_by_methods_alone(path):
    calls = "startswith|endswith|removeprefix|removesuffix|partition|split|fullmatch|match|contains|replace"
    taken_apart = rf"""({calls})\(f?r?\(?\\?["'](/|:|expert:|moe|student|best|, size)"""
    assert re.findall(taken_apart, path.read_text()) == []
    assert re.findall(r"""\\?["'](/|expert:|/size=|/configuration=)\\?["'] (not )?in """, path.read_text()) == []


def test_what_is_shown_needs_nothing_that_trains():
    modules = "results, comparisons, claims, tables, figures"
    code = f"import sys; from reidlib import {modules}; print('torch' in sys.modules, 'reidlib.study' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True).stdout
    assert said.split() == ["False", "False"]


def test_peers_stand_beside_what_was_trained_where_they_are_tested_and_nowhere_else():
    peers = [
        ("made_up", "peer:small", ELSEWHERE, dataset, 0, metric, 0.9)
        for dataset in ("vehicles", "people", "untrained") for metric in results.ACCURACY
    ]  # fmt: skip
    rows = pd.concat([accuracy(["student"], ["people"]), pd.DataFrame(peers, columns=results.COLUMNS)])
    assert results.datasets(rows) == ["people"]
    table = tables.main_table(rows, metrics=["mAP"])
    assert table["people", "mAP"].to_dict() == {"Student": table.iloc[0, 0], "small (peer)": "90.0"}
    assert list(table.columns) == [("people", "mAP")]
    with pytest.raises(ValueError, match="no method was tested on the data set it was trained on"):
        tables.main_table(rows[rows["method"] == "peer:small"])


def test_what_was_trained_on_several_at_once_does_not_count_for_what_was_trained_on_one():
    rows = pd.concat([accuracy(["student"], ["people"]), accuracy(["student"], ["people"], test="vehicles")])
    both = rows.assign(train_dataset="people+vehicles", value=rows["value"] / 2)
    table = tables.main_table(pd.concat([rows, both]), metrics=["mAP"])
    pd.testing.assert_frame_equal(table, tables.main_table(rows, metrics=["mAP"]))
    assert list(table.columns) == [("people", "mAP"), ("people → vehicles", "mAP")]


# tables


def test_intervals_in_the_main_table():
    rows = accuracy(METHODS)
    table = tables.main_table(rows, ["student", "pixels"], metrics=("mAP", "rank-1"))
    assert list(table.index) == ["Student", "Raw pixels"]
    assert list(table.columns) == [(d, m) for d in ("vehicles", "people") for m in ("mAP", "rank-1")]
    # seeds 0.80, 0.81, 0.82: standard deviation 0.01, t = 4.303
    assert table.loc["Student", ("people", "mAP")] == "81.0 ± 2.5"
    assert table.loc["Raw pixels", ("people", "mAP")] == "50.0"
    line = results.summary(rows).query("method == 'student' and train_dataset == 'people' and metric == 'mAP'").iloc[0]
    assert (line["mean"], line["seeds"]) == (pytest.approx(0.81), 3)
    assert line["high"] - line["mean"] == pytest.approx(4.303 * 0.01 / 3**0.5, rel=1e-3)
    every = ["Raw pixels", "CLIP expert", "MoE, soft gate", "Student", "Student + KD from MoE"]
    assert list(tables.main_table(rows).index) == every  # no variant


def test_other_data_sets_are_not_shown():
    there = accuracy(["student"], ["people"], "vehicles")
    rows = pd.concat([accuracy(["student"]), there])
    assert list(tables.main_table(rows, METHODS).columns.levels[0].sort_values()) == ["people", "vehicles"]
    with pytest.raises(ValueError, match="no method was tested on the data set it was trained on"):
        tables.main_table(there, METHODS)


def test_what_nothing_was_trained_on_is_shown_by_its_mAP():
    there = accuracy(["student"], ["people"], "cuhk")
    peers = there.assign(method="peer:small", train_dataset=ELSEWHERE)
    rows = pd.concat([accuracy(["student", "pixels"], ["people"]), there, peers])
    table = tables.main_table(rows, metrics=["rank-1", "mAP"])
    assert list(table.columns) == [("people", "rank-1"), ("people", "mAP"), ("people → cuhk", "mAP")]
    assert table["people → cuhk", "mAP"].map(bool).to_dict() == {"Student": True, "Raw pixels": False, "small (peer)": True}


def test_efficiency_is_compared_with_the_soft_gate_and_the_first_expert():
    rows = costs(
        **{"moe:soft": (100e6, 10.0), "expert:clip": (80e6, 8.0), "student": (6e6, 5.0), "student/size=96": (1e6, 1)}
    )
    table = tables.efficiency_table(rows)
    assert list(table.index) == ["MoE, soft gate", "CLIP expert", "Student"]
    assert table.loc["Student", "parameters vs MoE (% less)"] == 94
    assert table.loc["Student", "time vs MoE (% less)"] == 50
    assert table.loc["Student", "parameters vs CLIP expert (% less)"] == 92.5
    assert table.loc["Student", "time vs CLIP expert (% less)"] == 37.5
    assert table.loc["Student", "parameters (M)"] == 6
    assert table.loc["Student", "latency (ms)"] == 5 and table.loc["Student", "latency IQR (ms)"] == 0.5
    assert list(tables.efficiency_table(rows[rows["method"] == "student"]).filter(like="less")) == []


def test_the_papers_configuration_has_a_table_of_its_own():
    paper = {"moe:soft/configuration=paper": (150e6, 90), "student/configuration=paper": (3e6, 9)}
    rows = costs(**{"moe:soft": (100e6, 10.0), "student": (6e6, 5.0)}, **paper)
    assert tables.efficiency_table(rows)["parameters (M)"].to_dict() == {"MoE, soft gate": 100, "Student": 6}
    table = tables.efficiency_table(rows, "paper")
    assert table["parameters (M)"].to_dict() == {"MoE, soft gate": 150, "Student": 3}
    assert table.loc["Student", "time vs MoE (% less)"] == 90
    assert tables.efficiency_table(rows, "another").empty


def test_what_kd_adds_by_epochs():
    values = {"student": 0.6, "student+kd:moe": 0.7, "student/epochs=4": 0.3, "student+kd:moe/epochs=4": 0.5}
    values |= {"student/epochs=40": 0.72, "student+kd:moe/epochs=40": 0.72, "student+kd:moe/terms=logit": 0.9}
    rows = pd.DataFrame(
        [("made_up", m, "people", "people", 0, "mAP", v) for m, v in values.items()], columns=results.COLUMNS
    )
    evaluations = {f"{m}|people|people|0|ap": np.array([v - 0.1, v + 0.1], np.float32) for m, v in values.items()}
    table = tables.epochs_table(rows, evaluations, epochs=10)
    assert list(table.index) == ["people"] * 3 and list(table["epochs"]) == [4, 10, 40]
    assert np.allclose(table["gain (points)"], [20, 10, 0], atol=1e-4)
    assert np.allclose(table["taught (%)"], [50, 70, 72]) and (table["seeds"] == 1).all()
    assert (table["low"] <= table["gain (points)"]).all() and (table["gain (points)"] <= table["high"]).all()
    assert tables.epochs_table(rows[~rows["method"].str.contains("epochs")], evaluations, 10).empty
    more = rows[~rows["method"].str.contains("/")].assign(seed=1, value=0.9)  # a seed that the variants have not
    evaluations |= {f"{m}|people|people|1|ap": np.array([0.8, 1.0], np.float32) for m in more["method"]}
    pd.testing.assert_frame_equal(tables.epochs_table(pd.concat([rows, more]), evaluations, epochs=10), table)


def test_the_best_of_a_column_is_in_bold_where_rows_compete(found):
    table = pd.DataFrame({
        ("people", "mAP"): ["81.0 ± 2.5", "9.9", "81.0 ± 0.1"], ("people", "what KD adds (points)"): ["+1.0", "", "−2.0"],
        ("cost", "latency (ms)"): [20.0, 3.0, np.nan], ("cost", "latency IQR (ms)"): [0.1, 0.2, 0.3],
        ("cost", "throughput (pictures/s)"): [10.0, 200.0, 30.0], ("cost", "parameters vs MoE (% less)"): [1.0, 2.0, 3.0],
    }, index=["a", "b", "c"])  # fmt: skip
    tables.write_table(found, "t", table, "T", best=True)
    lines = [line for line in (found.output / "tables" / "t.md").read_text().splitlines() if line.startswith("| ")]
    bold = [re.findall(r"\*\*(.*?)\*\*", line) for line in lines]
    assert bold == [[], ["81.0 ± 2.5"], ["3.0", "200.0"], ["81.0 ± 0.1"]]
    assert (found.output / "tables" / "t.tex").read_text().count(r"\textbf") == 4
    assert "*" not in (found.output / "tables" / "t.csv").read_text()
    tables.write_table(found, "t", table, "T")
    assert "**" not in (found.output / "tables" / "t.md").read_text()


def test_tables_carry_caption_and_note(found):
    table = tables.main_table(accuracy(["pixels", "student"]))
    assert tables.write_table(found, "main", table, "Accuracy") is table
    folder = found.output / "tables"
    for suffix in ("md", "tex"):
        text = (folder / f"main.{suffix}").read_text().replace("\\", "")
        assert "Accuracy: A study of 100 % made-up numbers (experts are stand-ins)." in text
        assert "Small_networks stand in." in text
    assert "| 50.0 " in (folder / "main.md").read_text()  # digits as they were rounded
    assert pd.read_csv(folder / "main.csv", index_col=0).loc["Student", "people mAP"] == "81.0 ± 2.5"


def test_every_character_of_a_table_is_tex(found):
    table = pd.DataFrame({"a → b & c": ["81.0 ± 2.5", "−0.3 %"]}, index=["x_1", "#2 ~ ^ \\ {Σ}"])
    tables.write_table(found, "t", table, "100 % of it")
    text = (found.output / "tables" / "t.tex").read_text()
    body = text[text.index(r"\toprule") :]
    assert text.isascii() and r"100 \% of it" in text
    wanted = [r"\ensuremath{\pm}", r"\ensuremath{-}0.3 \%", r"x\_1", r"\#2", r"\& c", r"\textasciitilde", r"\{", r"\Sigma"]
    assert [tex for tex in wanted if tex not in body] == []


def test_stand_ins(found):
    assert results.stand_ins(found.params).values.tolist() == [["CLIP expert", "timm:test_vit", "CLIP ViT-B/16"]]
    own = params.StudyParams.model_validate_json(found.params.model_dump_json().replace('"CLIP ViT-B/16"', "null"))
    assert results.stand_ins(own).empty and results.title(own, "A") == "A: A study of 100 % made-up numbers"


def test_a_table_of_other_networks_has_not_the_studys_note(found):
    table = pd.DataFrame({"a": [1.0]}, index=["x"])
    tables.write_table(found, "paper", table, "The paper's networks", own_networks=False)
    text = (found.output / "tables" / "paper.md").read_text()
    assert text.startswith("The paper's networks.\n") and "stand" not in text


def test_an_empty_table_is_not_written_and_a_former_one_goes(found):
    table = pd.DataFrame({"a": ["1.0"], "b": [np.nan]}, index=["x"])
    elsewhere = replace(found, output=found.output / "elsewhere")
    assert tables.write_table(elsewhere, "t", table[:0], "T").empty and not elsewhere.output.exists()
    tables.write_table(found, "t", table, "T")
    assert "nan" not in "".join((found.output / "tables" / f"t.{suffix}").read_text() for suffix in ("md", "tex"))
    tables.write_table(found, "t", table[:0], "T")
    assert list((found.output / "tables").iterdir()) == []


def test_published_results_are_whole_and_name_no_machine_or_folder():
    for folder in sorted((ROOT / "results").iterdir()):
        if (folder / "results.csv").is_file():
            read = results.read(folder)
            assert read.marks == () and read.study == folder.name
            for _, row in read.rows.drop_duplicates(["method", "train_dataset", "test_dataset", "seed"]).iterrows():
                assert len(results.trace(read.provenance, row))
            for name, array in read.evaluations.items():
                assert np.isfinite(array).all(), name
            assert not re.search(r"/home|/work|/root|/tmp", json.dumps(read.provenance))
