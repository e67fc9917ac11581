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


def provenance(study: Study) -> dict:
    """Where the results come from, without names of users, hosts or folders; written to provenance.json."""
    file = study.root / "params" / f"{study.name}.yaml"
    made = [f.with_name("made.json") for f in study.artifacts.root.rglob("weights.safetensors")]
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
        "training seconds": round(sum(json.loads(f.read_text())["seconds"] for f in made), 1),
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
    record = provenance(study)
    lines = [f"# {study.params.title}", study.params.note or ""]
    lines += [file.read_text() for file in sorted((study.results / "tables").glob("*.md"))]
    figures = sorted((study.results / "figures").glob("*.png"))
    lines += [f"![{file.stem}](figures/{file.name})" for file in figures]
    origin = pd.Series({what: str(value) for what, value in record.items()}, name="value").to_frame()
    lines += [origin.to_markdown(disable_numparse=True), ""]
    path = study.results / "README.md"
    path.write_text("\n\n".join(lines))
    return path
