"""Notebook 08 on made-up results: it needs results/<study>/ and the params file alone, and follows an edited row."""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest

from reidlib import params, results

ROOT = Path(__file__).parents[1]
TABLES = {"main", "efficiency", "ablation_grid", "ablation_gates"}
MORE = {"efficiency_paper", "ablation_kd", "ablation_sizes", "cross_domain"}
PARAMS = """
title: Made-up numbers
seeds: [0, 1]
device: cpu
datasets:
  vehicles: {layout: veri776, size: [16, 16], root: VeRi}
  people: {layout: market1501, size: [16, 16], root: Market}
experts:
  clip: {encoder: {name: "timm:test_vit"}, recipe: &r {epochs: 1, p: 4, lr: 0.001}, stands_in_for: CLIP}
  align: {encoder: {name: "timm:test_byobnet"}, recipe: *r}
moe: {gates: [soft, top1, uniform, concat], width: 8, recipe: *r}
student: {encoder: {name: "timm:test_efficientnet"}, recipe: *r}
distillation: {teachers: [clip, align, uniform, moe], terms: {logit: 1}}
"""
ABLATIONS = """
mixed: true
ablations: {datasets: [people], terms: [logit], temperatures: [1], sizes: {big: {name: "timm:test_resnet"}}}
"""
DEPLOYED = ["expert:clip", "expert:align", "moe:soft", "moe:uniform", "student", "student+kd:moe"]
METHODS = ["pixels", *DEPLOYED[:4], "moe:top1", "moe:concat", "student", "student+kd:clip", "student+kd:align",
           "student+kd:uniform", "student+kd:moe"]  # fmt: skip
VARIANTS = ["student+kd:moe/terms=logit", "student+kd:moe/temperature=1", "student/size=big", "student+kd:moe/size=big"]


def made(folder: Path, text: str) -> Path:
    """A folder with a params file and results/made_up, as a study publishes them. Returns the params file."""
    file = folder / "params" / "made_up.yaml"
    file.parent.mkdir()
    file.write_text(text)
    found = params.load(file)
    own = [(method, name, name) for method in METHODS for name in found.datasets]
    cost, configurations = DEPLOYED, {"": {"runs": 4, "finished": "2028", "environment": "0"}}
    if found.ablations:
        own += [(method, "people", "people") for method in VARIANTS]
        own += [(method, "vehicles", "people") for method in DEPLOYED] + [(m, "people", "vehicles") for m in DEPLOYED]
        own += [(method, "vehicles+people", "people") for method in DEPLOYED]
        cost = [*DEPLOYED, *(f"{method}/configuration=paper" for method in DEPLOYED)]
        configurations |= {"paper": configurations[""]}
    rows, evaluations = [], {"people|pid": np.repeat(np.arange(10, dtype=np.int32), 2)}  # of the vehicles it was not kept
    for method, train, test in own:
        for seed in (0, 1):
            level = 0.5 + 0.1 * ("moe" in method) - 0.2 * ("student" in method) - 0.2 * (test not in train)
            noise = np.random.default_rng(len(method)).normal(0, 0.1, 20)
            ap = np.clip(level + 0.01 * seed + noise, 0, 1).astype(np.float32)
            name = f"{method}|{train}|{test}|{seed}"
            evaluations |= {f"{name}|ap": ap, f"{name}|cmc": np.linspace(ap.mean(), 1, 50, dtype=np.float32)}
            values = (ap.mean(dtype=float), ap.min(), 0.5, 0.6, 0.7)
            rows += [("made_up", method, train, test, seed, *pair) for pair in zip(results.ACCURACY, values)]
    for place, method in enumerate(cost, 1):
        measured = dict(zip(results.COSTS, (1e6 * place, 1e8 * place, 2.0 * place, 1e3, 9, 4))) | {"latency_ms_iqr": 0.1}
        rows += [("made_up", method, "vehicles", "vehicles", 0, *pair) for pair in measured.items()]
    trained = {"unit": "student/abc", "seconds": 2.5, "finished": "2026", "environment": "0"}
    provenance = {
        "study": "made_up", "data": {name: f"hash of {name}" for name in found.datasets}, "costs": configurations,
        "environments": {"0": {"device": "a CPU", "threads": 1, "packages": {"torch": "2.8.0"}}},
        "units": {f"student|{name}|0": trained for name in found.datasets},
        "evaluations": {name.removesuffix("|ap"): trained for name in evaluations if name.endswith("|ap")},
    }  # fmt: skip
    table = pd.DataFrame(rows, columns=results.COLUMNS)
    study = results.Results("made_up", found, table, evaluations, provenance, folder)
    results.write(study, folder / "results" / "made_up", file)
    return file


def cells() -> list:
    return [c for c in nbformat.read(ROOT / "notebooks" / "08_report.ipynb", as_version=4).cells if c.cell_type == "code"]


def run(file: Path, monkeypatch, output: Path) -> dict:
    """The code of notebook 08, cell by cell, in this process: the names it leaves."""
    monkeypatch.setenv("REIDLIB_OUTPUT", str(output))
    for module in ("study", "data", "models", "training"):
        monkeypatch.setitem(sys.modules, f"reidlib.{module}", None)  # importing them fails: no study, data or networks
    plt.switch_backend("agg")
    names: dict = {}
    for cell in cells():
        exec(cell.source, names)
        if "parameters" in cell.metadata.get("tags", []):
            names["study"] = str(file)
    plt.close("all")
    return names


def tables(output: Path) -> dict[str, str]:
    return {file.stem: file.read_text() for file in (output / "tables").glob("*.csv")}


def contents(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_the_report_follows_an_edited_row_and_leaves_what_is_published(tmp_path, monkeypatch):
    file, first, second = made(tmp_path, PARAMS + ABLATIONS), tmp_path / "first", tmp_path / "second"
    folder = tmp_path / "results" / "made_up"
    published = contents(folder)
    assert run(file, monkeypatch, first)["r"].marks == ()
    before, ledger = tables(first), pd.read_csv(first / "claims.csv")
    assert set(before) == TABLES | MORE
    assert {file.stem for file in (first / "figures").glob("*.png")} == {
        "overview", "accuracy", "cmc-vehicles", "cmc-people", "pareto", "ablation-teachers", "ablation-kd", "cross_domain",
    }  # fmt: skip
    rows = results.read(folder).rows
    edited = rows["method"].isin(["student+kd:moe"]) & (rows["train_dataset"] == "people") & (rows["metric"] == "mAP")
    rows.loc[edited & (rows["test_dataset"] == "people"), "value"] -= 0.123
    rows.to_csv(folder / "results.csv", index=False)
    published[folder / "results.csv"] = (folder / "results.csv").read_bytes()
    assert run(file, monkeypatch, second)["r"].marks == ("results.csv was edited after it was published",)
    after = tables(second)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"main", "ablation_grid", "ablation_kd", "ablation_sizes", "cross_domain"}
    moved = pd.read_csv(second / "claims.csv")["measured"] - ledger["measured"]
    kd = ledger["claim"].str.startswith("4d") & ledger["on"].str.startswith("people")
    assert moved[kd].tolist() == pytest.approx([-12.3], abs=0.011)
    assert "20 queries of 10 identities, 2 seeds" in ledger.loc[kd, "basis"].item()
    assert contents(folder) == published and not (tmp_path / "artifacts").exists()


def test_the_reports_first_output_are_the_results_with_their_marks(tmp_path, monkeypatch):
    parameters, opening, *_ = cells()
    assert "parameters" in parameters.metadata["tags"] and parameters.source.splitlines()[1].startswith('folder = ""')
    assert opening.source.splitlines()[-1] == "r"
    file = made(tmp_path, PARAMS)
    file.write_text(PARAMS.replace(", stands_in_for: CLIP", ""))
    r = run(file, monkeypatch, tmp_path / "made")["r"]
    shown = r._repr_markdown_().split("\n\n")
    assert "experts.clip.stands_in_for" in shown[0] and shown[0].startswith("> ⚠️") and shown[1] == "**Made-up numbers**"
    assert "stands in for CLIP" in (tmp_path / "made" / "figures" / "overview.svg").read_text()
    ledger = (tmp_path / "made" / "claims.csv").read_text()
    assert "clip stand in for the paper's experts" in ledger  # as the numbers were made, whatever the params say today


def test_the_report_of_one_data_set_without_ablations(tmp_path, monkeypatch):
    text = "\n".join(line for line in PARAMS.splitlines() if "people:" not in line)
    run(made(tmp_path, text), monkeypatch, tmp_path / "made")
    assert set(tables(tmp_path / "made")) == TABLES
    ledger = pd.read_csv(tmp_path / "made" / "claims.csv")
    assert set(ledger.loc[ledger["claim"].str.startswith("5"), "verdict"]) == {"not measured"}
