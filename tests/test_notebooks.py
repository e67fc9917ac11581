"""The notebooks as they lie in git: stripped, parametrised, short; and the numbers in words are those of results/."""

import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from jupyter_server.services.contents.filemanager import FileContentsManager
from traitlets.config import Config

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def test_there_are_notebooks():
    assert len(NOTEBOOKS) >= 6


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code), "strip the outputs"
    parameters = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    assert len(parameters) == 1 and parameters[0].source.startswith("study = ")
    assert all(len(cell.source.splitlines()) <= 20 for cell in code)
    assert notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith("# ")
    assert notebook.metadata.kernelspec.name == "python3"


def test_tables_in_the_findings_are_those_of_the_results():
    shown = re.findall(r"<!-- (results/\S+) -->\n\n((?:\|.*\n)+)", (ROOT / "FINDINGS.md").read_text())
    assert shown, "FINDINGS shows no table of results"
    for file, table in shown:
        assert table in (ROOT / file).read_text(), f"FINDINGS' table is not that of {file}"


@pytest.mark.parametrize("page", ["README.md", "FINDINGS.md"])
def test_verdicts_in_words_are_those_of_the_ledgers(page):
    known = {"not measured"}
    for file in (ROOT / "results").glob("*/claims.csv"):
        for claim in pd.read_csv(file).dropna(subset="measured").itertuples():
            interval = "" if pd.isna(claim.low) else f" ({claim.low:.1f} to {claim.high:.1f})"
            verdict = {"holds": "**holds**"}.get(claim.verdict, claim.verdict)
            known.add(f"{claim.measured:.1f}{interval}, {verdict}")
    cells = [c.strip() for line in (ROOT / page).read_text().splitlines() for c in line.split("|")[2:-1]]
    shown = [cell for cell in cells if cell.endswith(("hold", "holds**", "undecided", "not measured"))]
    assert len(shown) > 10, f"{page} shows no verdicts"
    assert [cell for cell in shown if cell not in known] == []


def test_lab_saves_a_notebook_as_it_lies_in_git(tmp_path):
    """The hook of `make lab`, through Jupyter's own contents manager."""
    config = Config()
    code = (ROOT / "profiles/lab/jupyter_server_config.py").read_text()
    exec(compile(code, "jupyter_server_config.py", "exec"), {"c": config})
    manager = FileContentsManager(root_dir=str(tmp_path), config=config)
    for file in (ROOT / "notebooks").glob("*.ipynb"):
        notebook = nbformat.read(file, as_version=4)
        for count, cell in enumerate(notebook.cells):
            cell.metadata["execution"] = {"iopub.execute_input": "2026-01-01"}
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [nbformat.v4.new_output("stream", text="seen")], count
        notebook.metadata["widgets"] = {}
        manager.save({"type": "notebook", "content": notebook, "format": "json"}, file.name)
        assert nbformat.read(tmp_path / file.name, as_version=4) == nbformat.read(file, as_version=4)
    manager.save({"type": "file", "format": "text", "content": "a"}, "a.txt")
