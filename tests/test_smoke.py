"""The whole study at its smallest, as `make study STUDY=smoke` runs it: from nothing to the report."""

import base64
import json
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from project import environment, snakemake

ROOT = Path(__file__).parents[1]
NOTEBOOKS = [
    "01_data", "02_experts-align", "02_experts-clip", "03_moe-people", "03_moe-vehicles", "04_distillation-people",
    "04_distillation-vehicles", "05_ablations", "06_cross_domain", "07_efficiency", "08_report",
    "09_deployment",
]  # fmt: skip


def to_do(project: Path, *arguments: str) -> set[str]:
    """The rules that would run."""
    return set(
        re.findall(r"^(?:local)?rule (\w+):", snakemake(project, "--dry-run", "--verbose", *arguments), re.MULTILINE)
    )


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextmanager
def edited(file: Path, old: str, new: str):
    """A file changed and changed back."""
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    try:
        yield
    finally:
        file.write_text(text)


@pytest.fixture
def project(smoke) -> Path:
    """The project after a run of the smoke study, for tests that leave it as it was."""
    return smoke


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
    bars = re.findall(r"^\[\w+(?:-\w+)?\] .+ seed \d: 100%", log, re.MULTILINE)  # those inside training, and whose they are
    assert len(bars) > 20 and "[02_experts-clip] expert:clip vehicles seed 0: 100%" in bars, log


def test_results_hold_every_method_dataset_and_seed(project):
    results = pd.read_csv(project / "results/smoke/results.csv")
    assert list(results) == ["study", "method", "train_dataset", "test_dataset", "seed", "metric", "value"]
    trained = [
        "expert:clip", "expert:align", "moe:soft", "moe:top1", "moe:uniform", "moe:concat", "moe:router", "student",
        "student+kd:clip", "student+kd:align", "student+kd:uniform", "student+kd:moe",
    ]  # fmt: skip
    own = results[(results.metric == "mAP") & (results.train_dataset == results.test_dataset)]
    accuracy = own.set_index(["method", "train_dataset", "seed"]).value
    for method in trained:
        for dataset in ("vehicles", "people"):
            for seed in (0, 1):
                assert 0 < accuracy[method, dataset, seed] <= 1
    variants = {method for method in results.method.unique() if "/" in method}
    assert variants == {f"student+kd:moe/{what}" for what in ("terms=relational", "temperature=1", "teacher=online")} | {
        "student/size=byobnet", "student+kd:moe/size=byobnet", "moe:top1/expert=clip", "moe:top1/expert=align",
    }  # fmt: skip
    across = results[results.metric == "mAP"].set_index(["method", "train_dataset", "test_dataset", "seed"]).value
    assert 0 < across["student+kd:moe", "vehicles", "people", 1] <= 1
    assert 0 < across["moe:soft", "vehicles+people", "people", 1] <= 1
    assert {"parameters", "macs", "latency_ms", "throughput", "peak_memory_mb", "file_mb"} <= set(results.metric)


def test_tables_figures_and_provenance_are_written(project):
    folder = project / "results/smoke"
    for table in (
        "main", "efficiency", "ablation_grid", "ablation_gates", "ablation_kd", "ablation_sizes", "cross_domain",
        "deployment",
    ):  # fmt: skip
        for ending in ("csv", "md", "tex"):
            assert (folder / "tables" / f"{table}.{ending}").stat().st_size > 0
    figures = [
        "overview", "accuracy", "cmc-vehicles", "pareto", "ablation-kd", "ablation-teachers", "cross_domain", "gate-people",
        "gate-constant-vehicles", "gate-mixed", "embedding-people", "ranked-student-vehicles", "errs-vehicles", "training-clip",
    ]  # fmt: skip
    for figure in figures:
        assert (folder / "figures" / f"{figure}.png").exists() and (folder / "figures" / f"{figure}.svg").exists()
    provenance = json.loads((folder / "provenance.json").read_text())
    assert {"units", "evaluations", "costs", "environments", "files"} <= set(provenance)
    threads = {provenance["environments"][unit["environment"]]["threads"] for unit in provenance["evaluations"].values()}
    assert threads == {1}  # the params', whatever the machine has
    claims = pd.read_csv(folder / "claims.csv")
    # which of these claims hold hangs on noise and on the machine's load: tests/test_claims.py has verdicts of known numbers
    assert set(claims.verdict) <= {"holds", "does not hold", "undecided", "not measured"}
    assert (claims.verdict != "not measured").any()
    assert (claims.verdict[claims.claim.str.contains("VeRi-776")] == "not measured").all()


def shown(notebook: Path) -> list[bytes]:
    """The pictures in an executed notebook."""
    outputs = [output for cell in nbformat.read(notebook, as_version=4).cells for output in cell.get("outputs", ())]
    pictures = [output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", ())]
    return [base64.b64decode(picture) for picture in pictures]


def test_every_figure_is_shown_in_the_notebook_that_drew_it(project):
    for notebook in sorted((project / "results/smoke/notebooks").glob("*.ipynb")):
        drawn = sorted((project / "artifacts/smoke/made" / notebook.stem / "figures").glob("*.png"))
        pictures = shown(notebook)
        assert [file.name for file in drawn if file.read_bytes() not in pictures] == []
        assert len(drawn) > 1 or notebook.stem[:2] in ("01", "06", "07", "09")


def printed(notebook: Path) -> str:
    outputs = [output for cell in nbformat.read(notebook, as_version=4).cells for output in cell.get("outputs", ())]
    return "".join(output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in outputs)


def test_the_student_that_is_handed_on_is_exported_and_compared(project):
    exported = pd.read_csv(project / "results/smoke/tables/deployment.csv", index_col="network")
    assert [*exported.index] == ["torch", "ONNX", "ONNX, int8"]
    assert (exported[["latency (ms)", "throughput (pictures/s)"]] > 0).all(axis=None)
    assert exported["mAP (%)"]["torch"] == exported["mAP (%)"]["ONNX"]
    assert "similarity" in printed(project / "results/smoke/notebooks/09_deployment.ipynb")
    assert "in 32 and in 8 bits" in (project / "results/smoke/README.md").read_text()


def test_a_notebook_to_explore_finds_what_the_study_has_made(project):
    before = content(project / "results/smoke")
    notebook, done = "notebooks/00_quickstart.ipynb", project / "00_quickstart/00_quickstart.ipynb"
    command = [sys.executable, "scripts/execute.py", notebook, str(done), "-p", "study", "params/smoke.yaml"]
    subprocess.run(command, cwd=project, check=True, env=environment(project))
    assert all(word in printed(done) for word in ("mAP", "after re-ranking"))
    outputs = [output for cell in nbformat.read(done, as_version=4).cells for output in cell.get("outputs", ())]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert content(project / "results/smoke") == before  # exploring changes nothing that is published


def test_a_site_is_built_of_the_results(project):
    before = content(project / "results/smoke")
    env = environment(project)
    subprocess.run([sys.executable, "scripts/report.py", "params/smoke.yaml", "made"], cwd=project, check=True, env=env)
    page = (project / "results/smoke/report/index.html").read_text()
    assert "not measured" in page and "figures" in page
    assert {name: data for name, data in content(project / "results/smoke").items() if name[:7] != "report/"} == before


def test_status_says_that_all_is_finished(project):
    command = [sys.executable, "-m", "reidlib", "status", "params/smoke.yaml"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, env=environment(project))
    assert done.returncode == 0 and re.search(r"smoke: \d+ finished$", done.stdout.strip()), done.stdout + done.stderr


def test_nothing_is_left_to_do_after_a_run(project):
    assert "Nothing to be done" in snakemake(project)


def test_a_docstring_runs_nothing_again_and_a_figure_what_draws_it(project):
    with edited(project / "reidlib/figures/style.py", "One style for all figures", "The one style of all figures"):
        assert to_do(project) == set()
    with edited(project / "reidlib/figures/cost.py", "alpha=0.5", "alpha=0.6"):  # pareto's
        assert to_do(project) == {"report", "publish", "all"}


def test_deleted_or_edited_results_are_published_again(project):
    published = content(project / "results/smoke")
    shutil.rmtree(project / "results/smoke")
    assert to_do(project) == {"publish", "all"}
    snakemake(project)
    published.pop("report/index.html", None)
    again = content(project / "results/smoke")
    same = [name for name in again if name not in ("provenance.json", "README.md")]  # which tell when they were gathered
    assert {name: again[name] for name in same} == {name: published[name] for name in same}
    (project / "results/smoke/results.csv").write_text("edited")
    snakemake(project)
    assert content(project / "results/smoke")["results.csv"] == again["results.csv"]


def test_a_study_that_failed_fails_again_and_publishes_nothing(project):
    before = content(project / "results/smoke")
    notebook = project / "notebooks/04_distillation.ipynb"
    with edited(notebook, "tables.main_table(rows)", "tables.main_table(rows, 1 / 0)"):
        for _ in range(2):
            assert "ZeroDivisionError" in snakemake(project, fails=True)
            assert content(project / "results/smoke") == before
    snakemake(project)
    assert "Nothing to be done" in snakemake(project)
