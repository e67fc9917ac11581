"""The Snakefile without its work: several studies at once, and what a Slurm cluster would be asked for."""

import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
TRAINS = {"experts", "moe", "distillation", "ablations", "cross_domain", "efficiency"}

# stands in for scripts/execute.py: a notebook waits for the other study's to start
MEET = """
import sys, time
from pathlib import Path
done, study = Path(sys.argv[2]), Path(sys.argv[sys.argv.index("study") + 1]).stem
Path(f"{study}-{done.stem}").touch()
other = Path(f"{'twin' if study == 'smoke' else 'smoke'}-{done.stem}")
limit = time.monotonic() + 60
while not other.exists():
    if time.monotonic() > limit:
        sys.exit(f"{other} never started")
    time.sleep(0.05)
done.touch()
"""


@pytest.fixture
def project(tmp_path) -> Path:
    """The project without anything that was made before."""
    for name in ("notebooks", "profiles", "publishing", "reidlib", "scripts", "Snakefile", "toydata"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "params", tmp_path / "params")
    shutil.copy(tmp_path / "params/smoke.yaml", tmp_path / "params/twin.yaml")
    return tmp_path


def snakemake(project: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "snakemake", "--nocolor", *arguments]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def test_the_slurm_profile_says_what_each_node_of_each_study_needs(project):
    executor = () if find_spec("snakemake_executor_plugin_slurm") else ("--executor", "dryrun")
    log = snakemake(project, "--dry-run", "--profile", "profiles/slurm", *executor, "--config", "study=smoke paper")
    nodes = {}
    for node in re.split(r"\n(?=rule )", log)[1:]:
        if study := re.search(r"study=(\w+)", node):
            need = {name: int(number) for name, number in re.findall(r"(mem_mb|runtime|gpu)=(\d+)", node)}
            said = re.search(r"threads: (\d+)", node)
            need["threads"] = int(said[1]) if said else 1
            nodes.setdefault((study[1], re.match(r"rule (\w+):", node)[1]), need)
    assert {rule for _, rule in nodes} == TRAINS | {"data", "deployment", "gather", "report", "publish"} and len(
        nodes
    ) == 21
    assert nodes["paper", "experts"]["threads"] == 8 and nodes["smoke", "experts"]["threads"] == 1  # the params'
    for (_, rule), need in nodes.items():
        assert need["mem_mb"] >= 8000 and need["runtime"] >= 60 and 1 <= need["threads"] <= 8
        assert need.get("gpu") == (1 if rule in TRAINS else None)


def test_nodes_of_two_studies_run_at_once(project):
    (project / "scripts").unlink()
    (project / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "orphans.py", project / "scripts")
    (project / "scripts" / "execute.py").write_text(MEET)
    snakemake(project, "--cores", "4", "--until", "experts", "--config", "study=smoke twin")
    assert sorted(p.name for p in project.glob("*-*")) == sorted(
        f"{study}-{node}" for study in ("smoke", "twin") for node in ("01_data", "02_experts-align", "02_experts-clip")
    )


def test_a_users_own_kernel_by_the_same_name_is_not_taken(project, monkeypatch):
    for folder in (project / "own/kernels/python3", project / "home/.local/share/jupyter/kernels/python3"):
        folder.mkdir(parents=True)
        (folder / "kernel.json").write_text('{"argv": ["false"], "display_name": "mine", "language": "python"}')
    cell = nbformat.v4.new_code_cell("import sys; print(sys.prefix)")
    nbformat.write(
        nbformat.v4.new_notebook(cells=[cell], metadata={"language_info": {"name": "python"}}), project / "a.ipynb"
    )
    monkeypatch.setenv("JUPYTER_PATH", str(project / "own"))
    monkeypatch.setenv("HOME", str(project / "home"))
    command = [sys.executable, "scripts/execute.py", "a.ipynb", "done/a.ipynb"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True)
    assert done.returncode == 0 and f"[a] {sys.prefix}" in done.stdout, done.stderr


def test_a_folder_with_other_things_is_not_emptied_for_a_notebook(project):
    cell = nbformat.v4.new_code_cell("1")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), project / "a.ipynb")
    for done, code in (("b.ipynb", 1), ("scripts/b.ipynb", 1), ("done/b.ipynb", 0), ("done/b.ipynb", 0)):
        command = [sys.executable, "scripts/execute.py", "a.ipynb", done]
        run = subprocess.run(command, cwd=project, capture_output=True, text=True)
        assert run.returncode == code and ("name a folder of its own" in run.stderr) == bool(code), run.stderr
    assert (project / "a.ipynb").exists() and (project / "scripts/execute.py").exists()


def test_a_kernel_that_is_killed_is_told_with_what_to_do(project):
    cell = nbformat.v4.new_code_cell("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    nbformat.write(
        nbformat.v4.new_notebook(cells=[cell], metadata={"language_info": {"name": "python"}}), project / "a.ipynb"
    )
    command = [sys.executable, "scripts/execute.py", "a.ipynb", "done/a.ipynb"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "[a] its kernel was killed from outside, most often by the system for want of memory" in done.stderr
