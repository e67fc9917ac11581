"""What several tests share: code that seems edited, and the smallest study with all of it made."""

from pathlib import Path

import pytest
import tiny
from project import copy_to, snakemake


def _forget():
    from reidlib import sources  # in functions, for torch takes seconds and not every test needs it

    for cached in (sources._reached, sources._module, sources._definition):
        cached.cache_clear()


def pytest_collection_modifyitems(items):
    """A file's tests stay in one process, and those of the whole smoke study, which take longest, start first in another."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group("smoke" if _runs_smoke(item) else item.path.name))
    items.sort(key=lambda item: not _runs_smoke(item))


def _runs_smoke(item) -> bool:
    return "smoke" in getattr(item, "fixturenames", ())  # examples in docstrings have none


@pytest.fixture
def edited(monkeypatch):
    """edited("reidlib.models", "old", "new"): from now on, hashes are taken as if the module said `new`."""

    from reidlib import sources

    def edit(module, old, new):
        text = sources._TEXTS[module]
        assert text.count(old) == 1, f"{module} has {text.count(old)} times: {old}"
        monkeypatch.setitem(sources._TEXTS, module, text.replace(old, new))
        _forget()

    yield edit
    monkeypatch.undo()
    _forget()


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """The smallest study's params file and each method's evaluation on its vehicles, all made there. Read only."""
    from reidlib.study import open_study

    file = tiny.write(tmp_path_factory.mktemp("study"))
    study = open_study(file)
    return file, {method: study.evaluate(method, "vehicles", 0) for method in study.methods}


@pytest.fixture(scope="session")
def smoke(tmp_path_factory) -> Path:
    """A copy of the project, in a folder whose name has all that a name can have, after a run of the smoke study."""
    project = copy_to(tmp_path_factory.mktemp("une étude [1] {of} mine, isn't it"))
    (project / "log").write_text(snakemake(project))
    return project
