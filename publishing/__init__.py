"""Publishing: results/<study>/ is put in place at once, of parts that were all made by these params, this data, this code.

Notebooks write below artifacts/<study>/made/<notebook>/, each with the state it was executed in; `publish` gathers the
units, refuses parts of another state by name, and exchanges the folder. Nothing else writes to results/<study>/ but the
site of `make report`, which git ignores.
"""

import base64
import io
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import nbformat
from PIL import Image

from publishing import pages
from publishing.card import release
from reidlib import agenda, results
from reidlib.content import digest, write_atomically
from reidlib.data.hashes import file_hashes
from reidlib.gathering import gather
from reidlib.sources import reached, reached_from
from reidlib.study import Study
from reidlib.units import FINISHED

SITE = "report"  # of `make report`, not published


def notebooks(study: Study) -> list[str]:
    """The executed notebooks that belong to a study, by name, in the order in which they run: the report is the last."""
    experts, datasets = study.params.experts, agenda.trained(study.params)
    return ["01_data", *(f"02_experts-{name}" for name in experts), *(f"03_moe-{name}" for name in datasets),
            *(f"04_distillation-{name}" for name in datasets), "05_ablations", "06_cross_domain", "07_efficiency",
            *["09_deployment"] * bool(study.params.release), "08_report"]  # fmt: skip


def state(study: Study, notebook: str) -> str:
    """Hash of all that an executed notebook depends on: its code and what that reaches, the params, the study's units.

    notebook: a name of `notebooks`, or of a notebook's file.
    """
    file = study.root / "notebooks" / f"{notebook.partition('-')[0]}.ipynb"
    cells = [cell.source for cell in nbformat.read(file, as_version=4).cells if cell.cell_type == "code"]
    code = reached_from("\n".join(re.sub(r"^\s*[%!].*", "", source, flags=re.MULTILINE) for source in cells))
    units = sorted(unit.key for unit in study.plan.units().values())
    return digest([study.params, units, sorted(set(code.values()))])


def assembly_state(study: Study, parts: Sequence[str]) -> str:
    """Hash of all that a publication depends on: its notebooks' states, and how they are put together."""
    return digest([[state(study, name) for name in parts], sorted(set(reached(publish).values()))])


def made(study: Study, notebook: str) -> Path:
    """Where a notebook of `make study` is executed to, and what it writes lies."""
    return study.root / "artifacts" / study.name / "made" / notebook


def assemble(study: Study, folder: Path, parts: Sequence[str]) -> None:
    """Results, and what some executed notebooks have made, whole in `folder`.

    Raises ValueError naming what is missing or was made in another state: of other params, data or code.
    """
    found = gather(study)
    for name in parts:
        if not (made(study, name) / f"{name}.ipynb").exists():
            raise ValueError(f"{study.name}: notebook {name} has not been executed; run make study STUDY={study.name}")
        if json.loads((made(study, name) / "made.json").read_text())["state"] != state(study, name):
            raise ValueError(f"{study.name}: notebook {name} was executed with other params, data or code; "
                             f"run make study STUDY={study.name}")  # fmt: skip
    shutil.rmtree(folder, ignore_errors=True)
    results.write(found, folder, study.root / "params" / f"{study.name}.yaml")
    if study.validation_file.exists():
        shutil.copy(study.validation_file, folder / "validation.csv")
    if study.params.release:
        release(study, found, folder / "weights")
    (folder / "notebooks").mkdir()
    for name in parts:
        for part in ("figures", "tables", "claims.csv"):
            source = made(study, name) / part
            if source.is_dir():
                shutil.copytree(source, folder / part, dirs_exist_ok=True)
            elif source.exists():
                shutil.copy(source, folder / part)
        file = f"{name}.ipynb"
        _copy_notebook(made(study, name) / file, folder, study.params.publish_images)


def publish(study: Study) -> Path:
    """Put results/<study>/ in place, whole. Returns it. Raises as `assemble` does; what is published stays then."""
    target = study.root / "results" / study.name
    draft = target.with_name(f".{study.name}.draft")  # beside it, for a folder can't be renamed to another disk
    assemble(study, draft, notebooks(study))
    pages.write_readme(results.read(draft), draft)
    _exchange(draft, target)
    record = json.dumps(_hashes(target), indent=1)
    write_atomically(marker(study), lambda path: path.write_text(record))
    return target


def marker(study: Study) -> Path:
    """The file that says what was published: each file of results/<study>/ with its hash."""
    return study.root / "artifacts" / study.name / "published"


def take_back(study: Study) -> None:
    """Before a run: what only seems done is to be done again.

    The marker goes where results/<study>/ was deleted, edited or never there. Where every notebook has been executed and a
    unit is missing all the same, it was lost since: the executed notebooks go, for nobody else knows which of them made it.
    """
    if not is_published(study):
        marker(study).unlink(missing_ok=True)
    executed = [made(study, name) / f"{name}.ipynb" for name in notebooks(study)]
    if all(file.exists() for file in executed) and (study.state()["state"] != FINISHED).any():
        for file in executed:
            file.unlink()


def is_published(study: Study) -> bool:
    """Whether results/<study>/ is what was published last."""
    target = study.root / "results" / study.name
    return marker(study).exists() and target.is_dir() and json.loads(marker(study).read_text()) == _hashes(target)


def _exchange(draft: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    old = target.with_name(f".{target.name}.replaced")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    draft.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _hashes(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.relative_to(folder).parts[0] != SITE]
    return dict(zip((path.relative_to(folder).as_posix() for path in files), file_hashes(files)))


def _copy_notebook(executed: Path, folder: Path, publish_images: bool) -> None:
    """The executed notebook for readers, into notebooks/ of the results in `folder`: its pictures in 256 colours, a third of
    the bytes; without what was said of the run itself: bars, who waited for whom.

    Where the data's terms forbid to publish pictures, only those are kept that are figures published beside it.
    """
    figures = {file.read_bytes() for file in (folder / "figures").glob("*.png")}
    notebook = nbformat.read(executed, as_version=4)
    for path in ("input_path", "output_path"):  # on this machine
        notebook.metadata.get("papermill", {}).pop(path, None)
    for cell in notebook.cells:
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    for output in (output for cell in notebook.cells for output in cell.get("outputs", ())):
        data = output.get("data", {})
        if "image/png" not in data or (picture := base64.b64decode(data["image/png"])) in figures:
            continue
        if not publish_images:
            del data["image/png"]
            data["text/plain"] = "It shows pictures of the data, whose terms forbid to publish them."
            continue
        buffer = io.BytesIO()
        Image.open(io.BytesIO(picture)).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(
            buffer, "PNG", optimize=True
        )
        data["image/png"] = base64.b64encode(buffer.getvalue()).decode()
    nbformat.write(notebook, folder / "notebooks" / executed.name)
