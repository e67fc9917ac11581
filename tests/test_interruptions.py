"""Stop it whenever you like: a study that is killed again and again, at random moments, ends with the undisturbed run's numbers.

REIDLIB_KILLS=50 REIDLIB_SOAK=10 python -m pytest tests/test_interruptions.py      more than the tests' usual few
"""

import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
from project import copy_to, environment

from reidlib.results import ACCURACY

KILLS, SOAK = int(os.environ.get("REIDLIB_KILLS", 4)), int(os.environ.get("REIDLIB_SOAK", 0))
WAYS = [
    ("study.py", signal.SIGKILL), ("snakemake", signal.SIGKILL), ("ipykernel", signal.SIGKILL), ("study.py", signal.SIGINT),
    ("", signal.SIGKILL), ("execute.py", signal.SIGKILL), ("study.py", signal.SIGHUP), ("snakemake", signal.SIGTERM),
    ("study.py", signal.SIGTERM),
]  # fmt: skip


def start(project) -> subprocess.Popen:
    command = [sys.executable, "scripts/study.py", "smoke", "--cores", "2", "--nocolor"]
    with open(project / "log", "ab") as log:
        return subprocess.Popen(command, cwd=project, stdout=log, stderr=log, env=environment(project))


def running(project, name="") -> list[psutil.Process]:
    """The processes that work in a folder, those whose command holds `name`."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(project) and any(name in word for word in process.cmdline()):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            pass
    return found


def kill(project, name, number) -> bool:
    """Whether there was anything of that name."""
    found = running(project, name)
    for process in found if name in ("", "execute.py", "ipykernel") else found[:1]:
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            pass
    return bool(found)


def accuracy(results) -> pd.DataFrame:
    rows = pd.read_csv(results, float_precision="round_trip")
    return rows[rows["metric"].isin(ACCURACY)].reset_index(drop=True)


def interrupt(project, name, number, after) -> bool:
    """Start the study and stop it so after some seconds; whether there was still something to stop."""
    study = start(project)
    try:
        assert study.wait(after) == 0, (project / "log").read_text()[-3000:]
        return False
    except subprocess.TimeoutExpired:
        pass
    while not kill(project, name, number):  # between two notebooks there is no kernel
        if study.poll() is not None:
            return False
        time.sleep(0.1)
    if name in ("execute.py", "ipykernel"):  # what doesn't need that notebook goes on, till all of it is stopped
        time.sleep(3)
        kill(project, "study.py", signal.SIGTERM)
    gentle = (name, number) == ("snakemake", signal.SIGTERM)  # it starts nothing more and lets what runs come to its end
    limit = time.monotonic() + (180 if gentle else 25)
    while left := running(project):
        assert time.monotonic() < limit, f"after {number} to {name or 'all'}: {[p.cmdline() for p in left]}"
        time.sleep(0.2)
    study.wait()
    return study.returncode != 0


def test_a_study_that_is_killed_again_and_again_ends_with_the_same_numbers(tmp_path, request):
    """It gets on a little each time, so many kills are of several studies, one after another."""
    chance, killed, folders = random.Random(0), 0, []
    while killed < KILLS:
        project = copy_to(tmp_path / f"killed {len(folders)}")
        folders.append(project)
        while killed < KILLS:
            name, number = chance.choice(WAYS) if killed >= len(WAYS) else WAYS[killed]
            if not interrupt(project, name, number, chance.uniform(6, 26)):
                break
            killed += 1
            print(f"{len(folders)}. study, {killed}. kill: {number.name} to {name or 'all'}", file=sys.stderr)
        last = start(project)
        assert last.wait() == 0, (project / "log").read_text()[-5000:]
    undisturbed = accuracy(request.getfixturevalue("smoke") / "undisturbed.csv")  # last: another process has made it by now
    for project in folders:
        found = accuracy(project / "results/smoke/results.csv")
        pd.testing.assert_frame_equal(found, undisturbed, check_exact=True)


def test_a_second_run_waits_for_the_first_and_says_whose_it_is(tmp_path):
    project = copy_to(tmp_path / "twice")
    first = start(project)
    try:
        time.sleep(3)
        command = [sys.executable, "scripts/study.py", "smoke", "--cores", "1"]
        second = subprocess.run(command, cwd=project, capture_output=True, text=True, env=environment(project))
        assert second.returncode == 1 and f"smoke is being run by process {first.pid} on " in second.stderr
    finally:
        first.terminate()
        first.wait()


@pytest.mark.skipif(not SOAK, reason="takes minutes a round: REIDLIB_SOAK=10 runs ten")
def test_nothing_piles_up_over_many_runs_with_changed_params(tmp_path):
    project, chance = copy_to(tmp_path / "soak"), random.Random(0)
    params, sizes, left_before = project / "params/smoke.yaml", [], set(Path(tempfile.gettempdir()).iterdir())
    for _ in range(SOAK):
        assert start(project).wait() == 0, (project / "log").read_text()[-5000:]
        assert not running(project)
        left = {file for file in Path(tempfile.gettempdir()).iterdir() if not file.name.startswith("pytest")} - left_before
        assert not left
        prune = [sys.executable, "scripts/prune.py", "--yes"]
        subprocess.run(prune, cwd=project, check=True, capture_output=True, env=environment(project))
        sizes.append(sum(file.lstat().st_size for file in project.rglob("*") if "__pycache__" not in file.parts))
        line, value = chance.choice(
            [("  width: ", chance.randrange(32, 65, 8)), ("profiling: {runs: ", chance.randrange(2, 5))]
        )
        params.write_text(re.sub(rf"^{line}\d+", f"{line}{value}", params.read_text(), flags=re.MULTILINE))
    assert max(sizes) < 1.1 * sizes[0], sizes
