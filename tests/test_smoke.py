"""The whole study at its smallest, as `make study STUDY=smoke` runs it: from nothing to the report."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = [
    "01_data", "02_experts-align", "02_experts-clip", "03_moe-people", "03_moe-vehicles", "04_distillation-people",
    "04_distillation-vehicles", "07_efficiency", "08_report",
]  # fmt: skip


def snakemake(project: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--config", "study=smoke", *arguments]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A copy of the project without anything that was made before, after a run of the smoke study."""
    project = tmp_path_factory.mktemp("project")
    for name in ("notebooks", "params", "reidlib", "scripts"):
        shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    shutil.copy(ROOT / "Snakefile", project)
    (project / "log").write_text(snakemake(project))
    return project


def test_every_notebook_is_executed_without_an_error(project):
    executed = sorted((project / "results/smoke/notebooks").glob("*.ipynb"))
    assert [path.stem for path in executed] == NOTEBOOKS
    for path in executed:
        cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
        assert all(cell.execution_count for cell in cells), path
        assert not [o for cell in cells for o in cell.outputs if o.output_type == "error"], path


def test_progress_is_visible(project):
    log = (project / "log").read_text()
    assert "steps (100%) done" in log  # which notebook of how many
    assert "[02_experts-clip] expert:clip vehicles seed 0: 100%" in log  # the bar inside training


def test_results_hold_every_method_dataset_and_seed(project):
    results = pd.read_csv(project / "results/smoke/results.csv")
    assert list(results) == ["study", "method", "train_dataset", "test_dataset", "seed", "metric", "value"]
    trained = [
        "expert:clip", "expert:align", "moe:soft", "moe:top1", "moe:uniform", "moe:concat", "student",
        "student+kd:clip", "student+kd:align", "student+kd:uniform", "student+kd:moe",
    ]  # fmt: skip
    accuracy = results[results.metric == "mAP"].set_index(["method", "train_dataset", "seed"]).value
    for method in trained:
        for dataset in ("vehicles", "people"):
            for seed in (0, 1):
                assert 0 < accuracy[method, dataset, seed] <= 1
    assert {"parameters", "macs", "latency_ms", "throughput", "peak_memory_mb", "file_mb"} <= set(results.metric)


def test_tables_figures_and_provenance_are_written(project):
    folder = project / "results/smoke"
    for table in ("main", "efficiency"):
        for ending in ("csv", "md", "tex"):
            assert (folder / "tables" / f"{table}.{ending}").stat().st_size > 0
    for figure in ("accuracy", "cmc-vehicles", "gate-people", "ranked-student-vehicles", "trade_off", "training-clip"):
        assert (folder / "figures" / f"{figure}.png").exists() and (folder / "figures" / f"{figure}.svg").exists()
    assert json.loads((folder / "provenance.json").read_text())["seeds"] == [0, 1]


def test_nothing_is_left_to_do_after_a_run(project):
    assert "Nothing to be done" in snakemake(project)
