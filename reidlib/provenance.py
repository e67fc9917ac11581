"""Where results come from, and the page that shows them."""

import datetime
import hashlib
import json
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from reidlib.profiling import machine_name
from reidlib.study import Study

PACKAGES = ("torch", "torchvision", "timm", "transformers", "open_clip_torch", "numpy")
TABLES = ("main", "efficiency")  # the order on the page; others follow by name
FIGURES = {  # by how their names begin, in the order on the page
    "accuracy": "Accuracy of every method",
    "trade_off": "Accuracy against cost",
    "efficiency": "Cost",
    "cmc": "CMC",
    "moe": "The Mixture-of-Experts beside its experts",
    "gate": "What the gate learnt",
    "students": "Students beside their teachers",
    "training": "Training",
    "pretraining": "Pretraining of the miniatures",
    "ranked-student": "What the student finds, from the worst query to the best",
    "samples": "The data",
}


def provenance(study: Study) -> dict:
    """Where the results come from, without names of users, hosts or folders; written to provenance.json."""
    file = study.root / "params" / f"{study.name}.yaml"
    changes = _git(study.root, "status", "--porcelain", "--", ".", ":(exclude)results")  # results change with every run
    record = {
        "study": study.name,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": _git(study.root, "rev-parse", "HEAD"),
        "uncommitted changes": None if changes is None else bool(changes),
        "params file sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "seeds": study.params.seeds,
        **{f"data set {name}": study.fingerprint(name) for name in study.params.datasets},
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
        "device": machine_name(study.machine),
        "precision": study.params.precision,
    }
    study.results.mkdir(parents=True, exist_ok=True)
    (study.results / "provenance.json").write_text(json.dumps(record, indent=1) + "\n")
    return record


def _git(root: Path, *arguments: str) -> str | None:
    """What git says; None where there is no git or no repository."""
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def write_readme(study: Study) -> Path:
    """results/<study>/README.md: every table and figure on one page, with what they come from. Returns its path."""
    folder = study.results
    lines = [f"# {study.params.title}", study.params.note or "", "## Tables"]
    lines += [file.read_text() for file in _in_order((folder / "tables").glob("*.md"), TABLES)]
    for prefix, heading in FIGURES.items():
        files = sorted((folder / "figures").glob(f"{prefix}*.png"))
        lines += [f"## {heading}"] * bool(files) + [f"![{file.stem}](figures/{file.name})" for file in files]
    notebooks = _in_order((folder / "notebooks").glob("*.ipynb"))
    lines += ["## The executed notebooks", "\n".join(f"* [{file.stem}](notebooks/{file.name})" for file in notebooks)]
    origin = pd.Series({what: str(value) for what, value in provenance(study).items()}, name="value").to_frame()
    lines += ["## Where it comes from", origin.to_markdown(disable_numparse=True), ""]
    path = folder / "README.md"
    path.write_text("\n\n".join(lines))
    return path


def _in_order(files, first: tuple[str, ...] = ()) -> list[Path]:
    """Files by name, those named in `first` ahead."""
    return sorted(files, key=lambda file: (first.index(file.stem) if file.stem in first else len(first), file.stem))
