"""What several tests share: code that seems edited, and the smallest study with all of it made."""

import os
import shutil
from pathlib import Path

import pytest
import tiny
from filelock import FileLock
from project import copy_to, snakemake


def _forget():
    from reidlib import sources  # in functions, for torch takes seconds and not every test needs it

    for cached in (sources._reached, sources._module, sources._definition):
        cached.cache_clear()


LONGEST = ("test_smoke.py", "test_interruptions.py")


def pytest_collection_modifyitems(items):
    """The files that take longest first: `make test` gives each file to the process that is free."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


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
    """A copy of the project, in a folder whose name has all that a name can have, after a run of the smoke study.

    One for all processes of the tests; undisturbed.csv are its results as they were before any test changed something.
    """
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared
    project = shared / "une étude [1] {of} mine, isn't it"
    with FileLock(shared / "smoke.lock"):
        if not project.exists():
            log = snakemake(copy_to(project))
            (project / "log").write_text(log)
            shutil.copy(project / "results/smoke/results.csv", project / "undisturbed.csv")
    return project
