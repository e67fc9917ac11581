"""A copy of this project, for tests that run whole studies in it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def copy_to(folder: Path) -> Path:
    """The project's code without anything that was made before, in `folder`."""
    for name in ("notebooks", "params", "profiles", "publishing", "reidlib", "report", "scripts", "toydata"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    for name in ("Snakefile", "README.md"):  # the latter is a page of the site
        shutil.copy(ROOT / name, folder)
    return folder


def environment(project: Path) -> dict[str, str]:
    """That a copy's own code is imported in."""
    return os.environ | {"PYTHONPATH": str(project)}


def snakemake(project: Path, *arguments: str, fails: bool = False) -> str:
    """Run the smoke study; what was printed."""
    command = [sys.executable, "-m", "snakemake", "--nocolor", "--cores", "2", "--config", "study=smoke", *arguments]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, env=environment(project))
    assert bool(done.returncode) == fails, done.stdout[-5000:] + done.stderr[-5000:]
    return done.stdout + done.stderr
