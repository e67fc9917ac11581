"""Notebook 08 on made-up results: it needs results/<study>/ and the params file alone, and follows an edited row."""

import os
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest

from reidlib import params, provenance, results
from reidlib.retrieval import Evaluation
from reidlib.study import Study

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
distillation: {teachers: [clip, align, uniform, moe]}
"""
ABLATIONS = """
mixed: true
ablations: {datasets: [people], terms: [logit], temperatures: [1], sizes: {big: {name: "timm:test_resnet"}}}
"""


def evaluate(self, method, train, seed, test=None):
    level = 0.5 + 0.1 * ("moe" in method) - 0.2 * ("student" in method) - 0.2 * ((test or train) not in train)
    ap = np.clip(level + 0.01 * seed + np.random.default_rng(len(method)).normal(0, 0.1, 20), 0, 1)
    return Evaluation(ap.mean(), ap.min(), np.linspace(ap.mean(), 1, 50), ap, np.ones(20, bool))


def origin(self, method, dataset, seed):
    return {"unit": f"{method}-{seed}/abc", "seconds": 2.5, "finished": "2026", "resumed": False, **provenance.origin()}


def costs(methods, suffix="") -> pd.DataFrame:
    values = {"parameters": 1e6, "macs": 1e8, "latency_ms": 2.0, "throughput": 1e3, "peak_memory_mb": 9, "file_mb": 4}
    rows = [
        (method + suffix, *pair, 0.1) for n, method in enumerate(methods, 1) for pair in
        ((metric, value * n) for metric, value in values.items())
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["method", "metric", "value", "spread"])


def made(folder: Path, monkeypatch, text: str) -> Study:
    """A study of which only results/ and the params file are left."""
    file = folder / "params" / "made_up.yaml"
    file.parent.mkdir()
    file.write_text(text)
    with monkeypatch.context() as patch:
        patch.setattr(Study, "evaluate", evaluate)
        patch.setattr(Study, "origin", origin)
        patch.setattr(Study, "fingerprint", lambda self, name: f"hash of {name}")
        study = Study("made_up", params.load(file), folder)
        results.keep(study, "02", results.accuracy(study, study.methods))
        deployed = ["student", "student+kd:moe", "moe:soft", "moe:uniform", "expert:align", "expert:clip"]
        results.keep(study, "07", costs(deployed))
        if study.params.ablations:
            variants = [variant for varied in study.variants.values() for variant in varied]
            results.keep(study, "05", results.accuracy(study, variants, study.params.ablations.datasets))
            across = [results.accuracy(study, deployed, trained, across=True) for trained in (None, [study.mixed])]
            results.keep(study, "06", pd.concat(across))
            results.keep(study, "07-paper", costs(deployed, "/configuration=paper"))
        results.gather(study)
    os.rename(folder / "artifacts", folder / "gone")
    return study


def run(study: Study, monkeypatch) -> None:
    """The code of notebook 08, cell by cell, in this process."""
    for what in ("dataset", "pixels", "model", "evaluate", "fingerprint"):
        monkeypatch.setattr(Study, what, lambda *_, **__: pytest.fail("the report asks for data or networks"))
    plt.switch_backend("agg")
    names: dict = {}
    for cell in nbformat.read(ROOT / "notebooks" / "08_report.ipynb", as_version=4).cells:
        if cell.cell_type == "code":
            exec(cell.source, names)
            if "parameters" in cell.metadata.get("tags", []):
                names["study"] = str(study.root / "params" / "made_up.yaml")
    plt.close("all")


def tables(study: Study) -> dict[str, str]:
    return {file.stem: file.read_text() for file in (study.results / "tables").glob("*.csv")}


def test_the_report_follows_an_edited_row(tmp_path, monkeypatch):
    study = made(tmp_path, monkeypatch, PARAMS + ABLATIONS)
    run(study, monkeypatch)
    page = (study.results / "README.md").read_text()
    before, ledger = tables(study), pd.read_csv(study.results / "claims.csv")
    assert set(before) == TABLES | MORE
    pictures = {file.stem for file in (study.results / "figures").glob("*.png")}
    assert pictures == {"overview", "accuracy", "cmc-vehicles", "cmc-people", "pareto", "ablation-teachers",
                        "ablation-kd", "cross_domain"}  # fmt: skip
    assert not (tmp_path / "artifacts").exists()
    rows = results.read(study)
    edited = rows["method"].isin(["student+kd:moe"]) & (rows["train_dataset"] == "people") & (rows["metric"] == "mAP")
    rows.loc[edited & (rows["test_dataset"] == "people"), "value"] -= 0.123
    rows.to_csv(study.results / "results.csv", index=False)
    run(study, monkeypatch)
    after = tables(study)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"main", "ablation_grid", "ablation_kd", "ablation_sizes", "cross_domain"}
    moved = pd.read_csv(study.results / "claims.csv")["measured"] - ledger["measured"]
    kd = ledger["claim"].str.startswith("4d") & ledger["basis"].str.startswith("people")
    assert moved[kd].tolist() == pytest.approx([-12.3], abs=0.011)
    assert (study.results / "README.md").read_text() != page


def test_the_report_of_one_data_set_without_ablations(tmp_path, monkeypatch):
    text = "\n".join(line for line in PARAMS.splitlines() if "people:" not in line)
    study = made(tmp_path, monkeypatch, text)
    run(study, monkeypatch)
    assert set(tables(study)) == TABLES
    ledger = pd.read_csv(study.results / "claims.csv")
    assert set(ledger.loc[ledger["claim"].str.startswith("5"), "verdict"]) == {"not measured"}
    assert (study.results / "README.md").exists()
