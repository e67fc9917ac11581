"""Units of work: made once, found, resumed, made anew when what they depend on changes; their states, and why."""

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from reidlib import making, measuring, processes, provenance, remedies, sources, units
from reidlib.content import digest
from reidlib.gates import GATES
from reidlib.params import Augmentation, Recipe
from reidlib.provenance import git_state
from reidlib.training import Machine
from reidlib.units import FINISHED, HALF_DONE, MISSING, STALE, Store, Unit


def make_numbers(unit, store, folder):
    """Counts its calls in `given`, and can fail half-way."""
    unit.given.get("calls", []).append((folder / "checkpoint.pt").exists())
    (folder / "checkpoint.pt").write_text("half-way")
    if unit.given.get("fail"):
        raise KeyboardInterrupt
    time.sleep(unit.given.get("seconds", 0))
    return {"x": np.full(2, unit.inputs.get("lr", 0))}


def make_sum(unit, store, folder):
    return {"x": sum(store.arrays(parent)["x"] for parent in unit.parents.values())}


def numbers(lr=1, label="numbers", place="", **given):
    return Unit("numbers", label, make_numbers, {"lr": lr}, given=given, place=place)


def summed(*parents, make=make_sum, kind="sum", label="sum", **options):
    return Unit(kind, label, make, parents={f"part {i}": parent for i, parent in enumerate(parents)}, **options)


def test_what_is_finished_is_found_and_not_made_again(tmp_path):
    calls = []
    first = Store(tmp_path).make(numbers(calls=calls))
    again = Store(tmp_path).make(numbers(calls=calls))
    assert calls == [False] and again == first and not list(first.glob("checkpoint*"))
    assert {"arrays.safetensors", "unit.json"} <= {file.name for file in first.iterdir()}


def test_another_study_finds_it_too(tmp_path):
    calls = []
    assert Store(tmp_path, "a").make(numbers(calls=calls)) == Store(tmp_path, "b").make(numbers(calls=calls, label="mine"))
    assert calls == [False]


def test_other_inputs_are_made_anew_and_the_old_unit_stays(tmp_path):
    store, calls = Store(tmp_path), []
    one, other = store.make(numbers(1, calls=calls)), store.make(numbers(2, calls=calls))
    assert len(calls) == 2 and one != other and (one / "unit.json").exists()


def test_what_a_unit_is_made_from_is_made_first_and_once(tmp_path):
    store, calls = Store(tmp_path), []
    a, b = numbers(1, calls=calls), numbers(2, "b", calls=calls)
    assert (store.arrays(summed(a, b, a))["x"] == 4).all()
    assert len(calls) == 2 and store.state(a) == store.state(b) == (FINISHED, "")


def test_a_failure_leaves_no_finished_unit_and_the_next_call_goes_on_from_the_checkpoint(tmp_path):
    store, calls = Store(tmp_path), []
    with pytest.raises(KeyboardInterrupt):
        store.make(numbers(calls=calls, fail=True))
    assert store.state(numbers()) == (HALF_DONE, "") and store.record(numbers()) is None
    store.make(numbers(calls=calls))
    assert calls == [False, True] and not list(tmp_path.rglob("checkpoint*"))
    assert store.record(numbers())["made"]["resumed"] is True


def test_a_write_cut_short_does_not_count_as_finished(tmp_path, monkeypatch):
    def cut(arrays, path):
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    with monkeypatch.context() as patch, pytest.raises(OSError):
        patch.setattr(units, "save_file", cut)
        Store(tmp_path).make(numbers())
    assert Store(tmp_path).state(numbers())[0] == HALF_DONE
    assert (Store(tmp_path).arrays(numbers(3))["x"] == 3).all() and (Store(tmp_path).arrays(numbers())["x"] == 1).all()


def flip_a_bit(file):
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("damage", [
    flip_a_bit, lambda file: file.write_bytes(file.read_bytes()[:-4]), lambda file: file.write_bytes(b""), Path.unlink,
    lambda file: file.write_text("version https://git-lfs.github.com/spec/v1\n"),
], ids=["a bit", "cut short", "empty", "gone", "pointer"])  # fmt: skip
def test_a_damaged_file_is_named_set_aside_and_made_again(tmp_path, capsys, damage):
    calls, store = [], Store(tmp_path)
    folder = store.make(numbers(5, calls=calls))
    damage(folder / "arrays.safetensors")
    left = (folder / "arrays.safetensors").read_bytes() if (folder / "arrays.safetensors").exists() else None
    assert (store.arrays(numbers(5, calls=calls))["x"] == 5).all() and len(calls) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"'numbers': arrays.safetensors in {folder} is not what was written there" in said
    assert left is None or (folder / "damaged" / "arrays.safetensors").read_bytes() == left
    assert (store.arrays(numbers(5, calls=calls))["x"] == 5).all() and len(calls) == 2 and not capsys.readouterr().err


def test_a_damaged_unit_that_others_are_made_from_is_made_again_for_them_too(tmp_path):
    store, parent = Store(tmp_path), numbers(2)
    store.make(parent)
    flip_a_bit(store.folder(parent) / "arrays.safetensors")
    assert (store.arrays(summed(parent, parent))["x"] == 4).all()


def test_a_damaged_record_is_as_good_as_none(tmp_path):
    calls, store = [], Store(tmp_path)
    (store.make(numbers(calls=calls)) / "unit.json").write_text("{")
    assert store.state(numbers())[0] != FINISHED
    assert (store.arrays(numbers(calls=calls))["x"] == 1).all() and len(calls) == 2


def test_what_a_killed_process_was_writing_is_cleared_away(tmp_path):
    folder = Store(tmp_path).folder(numbers())
    folder.mkdir(parents=True)
    (folder / "arrays.safetensors.123.partial").write_text("half")
    Store(tmp_path).make(numbers())
    assert not list(folder.glob("*.partial"))


def test_who_waits_is_told_for_whom(tmp_path):
    """The other is a process: killed, it leaves no lock that anyone would have to remove."""
    code = f"""
import time
from pathlib import Path
from reidlib.units import Store
from tests.test_units import numbers
store = Store(Path({str(tmp_path)!r}))
folder = store.folder(numbers())
folder.mkdir(parents=True)
with store._alone(numbers(), folder):
    (folder / "ready").touch()
    time.sleep(60)
"""
    folder = Store(tmp_path).folder(numbers())
    other = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[1])
    while not (folder / "ready").exists():
        time.sleep(0.05)
    asked = [sys.executable, "-c", code[: code.index("folder")] + "store.make(numbers())"]
    waits = subprocess.Popen(asked, cwd=Path(__file__).parents[1], stderr=subprocess.PIPE, text=True)
    said = waits.stderr.readline()
    assert f"'numbers' is being made by process {other.pid} on " in said and "To make it here, stop that one." in said
    assert waits.poll() is None
    other.kill()
    assert waits.wait(30) == 0 and Store(tmp_path).state(numbers()) == (FINISHED, "")
    other.wait()


def test_two_that_ask_at_once_make_it_once(tmp_path):
    calls, barrier, found = [], threading.Barrier(2), []

    def ask():
        barrier.wait()
        found.append(Store(tmp_path).arrays(numbers(5, calls=calls, seconds=0.2))["x"])

    threads = [threading.Thread(target=ask) for _ in range(2)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(calls) == 1 and len(found) == 2 and (np.stack(found) == 5).all()


def test_arrays_come_back_as_they_were(tmp_path):
    whole = np.arange(12, dtype=np.float32).reshape(3, 4)
    unit = Unit("a", "a", lambda *_: {"turned": whole.T, "bytes": np.frombuffer(b"abc", np.uint8)})
    for _ in range(2):
        arrays = Store(tmp_path).arrays(unit)
        assert np.array_equal(arrays["turned"], whole.T) and arrays["bytes"].tobytes() == b"abc"


def test_what_is_cheap_is_never_written_but_what_it_is_made_from_is(tmp_path):
    store = Store(tmp_path)
    cheap = summed(numbers(1), numbers(2, "b"), kind="cheap", kept=False)
    assert (store.arrays(cheap)["x"] == 3).all() and not (tmp_path / "units" / "cheap").exists()
    assert (store.arrays(summed(cheap))["x"] == 3).all() and not (tmp_path / "units" / "cheap").exists()
    assert len(list((tmp_path / "units" / "numbers").iterdir())) == 2


def test_what_is_made_may_be_read_by_whoever_may_read_its_folder(tmp_path):
    store = Store(tmp_path)
    for kind, mode in (("all", 0o755), ("own", 0o700)):
        unit = Unit(kind, kind, lambda *_: {"x": np.zeros(1)})
        folder = store.folder(unit)
        folder.mkdir(parents=True)
        folder.chmod(mode)
        store.make(unit)
        modes = [(folder / name).stat().st_mode & 0o777 for name in ("unit.json", "arrays.safetensors")]
        assert modes == [mode & 0o666] * 2


def test_it_is_made_with_the_studys_threads_whatever_torch_had_and_torch_has_them_back(tmp_path):
    before, seen = torch.get_num_threads(), []
    unit = lambda kept: Unit("t", "t", lambda *_: seen.append(torch.get_num_threads()) or {"x": np.zeros(1)}, kept=kept)  # noqa: E731
    try:
        torch.set_num_threads(2)
        Store(tmp_path, threads=3).arrays(unit(kept=True))
        Store(tmp_path, threads=1).arrays(unit(kept=False))
        with pytest.raises(KeyboardInterrupt):
            Store(tmp_path, threads=1).make(numbers(fail=True))
        assert seen == [3, 1] and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_unit_tells_where_and_when_it_was_made_and_no_names_of_folders(tmp_path):
    store = Store(tmp_path / "somebody")
    store.make(unit := numbers())
    made = store.record(unit)["made"]
    assert made["seconds"] >= 0 and made["finished"][:2] == "20" and made["resumed"] is False and made["processes"] == 1
    environment = made["environment"]
    assert environment["packages"]["torch"] == torch.__version__.partition("+")[0]
    assert environment["threads"] == 1 and environment["device"] == provenance.device_name() != ""
    assert {"commit", "uncommitted changes", "python"} < set(environment)
    assert "somebody" not in json.dumps(store.record(unit))


def test_code_that_was_edited_meanwhile_makes_with_a_warning_or_not_at_all(tmp_path, monkeypatch, capsys):
    unit, store = Unit("raw", "raw", make_numbers, uses=(measuring.make_raw,)), Store(tmp_path)
    monkeypatch.setattr(sources, "edited", lambda: {"reidlib.measuring": "reidlib/measuring.py"})
    store.make(unit)
    assert "reidlib/measuring.py was edited" in capsys.readouterr().err
    monkeypatch.delitem(sys.modules, "reidlib.measuring")
    store.make(unit)  # is there already
    with pytest.raises(RuntimeError, match="restart the kernel"):
        store.make(replace(unit, inputs={"lr": 2}))
    assert store.state(replace(unit, inputs={"lr": 2}))[0] == STALE


# keys


def test_a_key_counts_content_and_no_order_of_names():
    recipe = Recipe(epochs=1, lr=0.1)
    assert digest({"a": 1, "r": recipe}) == digest({"r": Recipe(epochs=1, lr=0.1, augmentation=Augmentation()), "a": 1})
    assert digest({"r": recipe}) != digest({"r": recipe.model_copy(update={"lr": 0.2})})
    assert digest({"size": (1, 2)}) == digest({"size": [1, 2]})


def test_a_key_counts_kind_inputs_parents_and_code_and_nothing_else():
    unit, a, b = summed(numbers(1), numbers(2)), numbers(1), numbers(2)
    same = [
        replace(unit, label="other"), replace(unit, given={"machine": Machine("cuda")}), replace(unit, place="student"),
        replace(unit, parents={"x": a, "y": b}),
    ]  # fmt: skip
    others = [
        replace(unit, kind="total"), replace(unit, inputs={"seed": 1}), replace(unit, parents={"part 0": b, "part 1": a}),
        replace(unit, parents={"part 0": a}), replace(unit, uses=(nn.Linear,)),
    ]  # fmt: skip
    assert {other.key for other in same} == {unit.key}
    assert unit.key not in {other.key for other in others} and len({other.key for other in others}) == len(others)


def test_a_key_counts_the_code_that_makes_it_and_that_it_names(edited):
    plain = Unit("fused", "fused", measuring.make_fused)
    named = replace(plain, uses=(GATES["uniform"],))
    before = plain.key, named.key
    edited("reidlib.gates", "1 / len(embeddings)", "2 / len(embeddings)")
    assert replace(plain).key == before[0] and replace(named).key != before[1]
    edited("reidlib.measuring", "fused = gate(parts)", "fused = gate(parts[::-1])")
    assert replace(plain).key != before[0]


# states


def test_the_four_states_and_why(tmp_path):
    store = Store(tmp_path)
    assert store.state(numbers(place="student.recipe")) == (MISSING, "")
    store.make(numbers(place="student.recipe"))
    assert store.state(numbers(place="student.recipe")) == (FINISHED, "")
    assert store.state(numbers(2, place="student.recipe")) == (STALE, "student.recipe.lr was 1, is 2")
    with pytest.raises(KeyboardInterrupt):
        store.make(numbers(2, fail=True))
    assert store.state(numbers(2, place="student.recipe")) == (HALF_DONE, "student.recipe.lr was 1, is 2")
    assert store.state(numbers(place="student.recipe")) == (FINISHED, ""), "the first is still there"
    assert Store(tmp_path, "another study").state(numbers(3)) == (MISSING, "")


@pytest.mark.parametrize("kept", [True, False])
def test_the_deepest_cause_is_told(tmp_path, kept):
    """Through a parent that is kept, and through one that never is."""
    store = Store(tmp_path)
    top = lambda lr: summed(summed(numbers(lr, place="experts.clip"), kind="mid", label="mid", kept=kept))  # noqa: E731
    store.make(top(1))
    assert store.state(top(2)) == (STALE, "experts.clip.lr was 1, is 2")


def test_changed_code_and_inputs_that_came_or_went_are_told(tmp_path):
    store, unit = Store(tmp_path), summed(numbers(1), inputs={"size": [8, 8], "old": 1}, place="moe")
    store.make(unit)
    assert store.state(replace(unit, uses=(nn.Linear,))) == (STALE, "code has changed: torch.nn.modules.linear.Linear")
    state, why = store.state(replace(unit, inputs={"size": [8, 4], "new": 2}))
    assert state == STALE
    assert why == "moe.size was [8, 8], is [8, 4]; moe.old is gone; moe.new is new"
    assert store.state(summed(numbers(1), numbers(2, "b"), inputs={"size": [8, 8], "old": 1})) == (STALE, "another part 1")


def test_state_makes_and_writes_nothing(tmp_path):
    Store(tmp_path).state(summed(numbers(fail=True)))
    assert not list(tmp_path.iterdir())


def test_a_study_that_finds_a_unit_holds_all_that_it_is_made_from(tmp_path):
    unit = lambda: summed(summed(numbers(1, "expert:clip a"), kind="mid", label="mid", kept=False))  # noqa: E731
    Store(tmp_path, "maker").make(unit())
    Store(tmp_path, "finder").make(unit())
    held = {link.name: link.resolve() for link in (tmp_path / "finder" / "units").iterdir()}
    assert set(held) == {"sum", "expert-clip-a"} and all((folder / "unit.json").exists() for folder in held.values())


# networks, processes, repositories


def test_weights_come_back_into_a_model_with_shared_and_buffered_tensors(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.norm = nn.Linear(3, 3, bias=False), nn.BatchNorm1d(3)
            self.b = nn.Linear(3, 3, bias=False)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(self.norm(self.a(x)))

    class Batches:
        def __len__(self):
            return 2

        def epoch(self, epoch, device):
            return iter([((torch.randn(8, 3),), None)] * 2)

    trained = Tied()
    schedule = {"epochs": 1, "lr": 0.1}
    make = lambda unit, store, folder: making._fit(  # noqa: E731
        unit, folder, trained, Batches(), lambda output, target: {"x": output.square().mean()}, 0, schedule
    )
    unit, store = Unit("tied", "tied", make, given={"machine": Machine("cpu")}), Store(tmp_path)
    assert {"weights.safetensors", "history.csv"} <= {file.name for file in store.make(unit).iterdir()}
    loaded = making._loaded(Tied(), unit, store)
    assert not torch.equal(loaded.a.weight, Tied().a.weight) and loaded.norm.num_batches_tracked == 2
    assert all(torch.equal(a, b) for a, b in zip(trained.state_dict().values(), loaded.state_dict().values()))
    assert loaded.a.weight is loaded.b.weight and not loaded.training


def test_a_gate_over_a_dozen_experts_is_loaded_in_their_order(tmp_path):
    dims = list(range(3, 15))
    gate = GATES["soft"](dims, 8, 5)
    make = lambda unit, store, folder: making.save_model(gate, str(folder / "weights.safetensors"))  # noqa: E731
    loaded = making.load_gate(Unit("gate", "gate", make, {"gate": "soft", "width": 8}), Store(tmp_path))
    assert [p.weight.shape[1] for p in loaded.projections] == dims


def test_one_of_several_processes_that_have_not_met_makes_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RuntimeError, match="have not met"):
        Store(tmp_path).make(numbers())
    assert processes.launched() == 2 and not list(tmp_path.rglob("unit.json"))


def repository(folder):
    folder.mkdir(exist_ok=True)
    (folder / "code.py").write_text("1\n")
    author = ["-c", "user.name=a", "-c", "user.email=b"]
    for command in (["init", "-q"], ["add", "code.py"], [*author, "commit", "-qm", "x"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


def test_commit_and_changes_of_a_repository_but_for_its_results(tmp_path):
    assert git_state(tmp_path) == {"commit": None, "uncommitted changes": None}
    repository(tmp_path)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "results.csv").touch()
    state = git_state(tmp_path)
    assert len(state["commit"]) == 40 and state["uncommitted changes"] is False
    (tmp_path / "code.py").write_text("2\n")
    assert git_state(tmp_path)["uncommitted changes"] is True


def test_the_commit_is_that_of_the_code_that_runs_whatever_is_committed_meanwhile(tmp_path):
    """Code is read at the start, and what it makes may be finished days later."""
    root = repository(tmp_path / "project")
    shutil.copytree(sources.PROJECT / "reidlib", root / "reidlib", ignore=shutil.ignore_patterns("__pycache__"))
    code = """
import subprocess, sys
from reidlib import units
subprocess.run(["git", "add", "reidlib"], check=True)
subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=b", "commit", "-qm", "meanwhile"], check=True)
from reidlib import provenance
made = provenance.code()
print(made["commit"], made["uncommitted changes"])
"""
    first = git_state(root)["commit"]
    done = subprocess.run([sys.executable, "-B", "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [first, "True"] and git_state(root)["commit"] != first


def test_a_repository_around_the_code_is_another_ones(tmp_path):
    inside = repository(tmp_path) / "vendored"
    inside.mkdir()
    assert git_state(inside) == {"commit": None, "uncommitted changes": None}
    os.symlink(tmp_path, tmp_path.parent / f"{tmp_path.name}-link")
    assert git_state(tmp_path.parent / f"{tmp_path.name}-link")["commit"]


def make_too_much(unit, store, folder):
    """Meets what a full disk or a small memory does, for real."""
    if unit.inputs["what"] == "disk":
        with open("/dev/full", "wb", buffering=0) as full:
            full.write(b"0")
    if unit.inputs["what"] == "memory":
        torch.empty(2**55, dtype=torch.uint8)
    if unit.inputs["what"] == "numpy":
        np.empty(2**55, np.uint8)
    (folder / "unit.json").mkdir()  # something else that is wrong


@pytest.mark.parametrize(
    "what, said",
    [
        ("disk", "no space left for "),
        ("memory", "no memory for it"),
        ("numpy", "no memory"),
    ],
)
def test_a_machine_that_has_no_room_is_named_with_the_unit_and_what_to_do(tmp_path, what, said):
    unit = Unit("too much", "expert:clip", make_too_much, {"what": what})
    with pytest.raises(RuntimeError, match=f"'expert:clip': {said}.*What is finished is kept: run it again then"):
        Store(tmp_path).make(unit)
    assert Store(tmp_path).state(unit) == (MISSING, "")


@pytest.mark.parametrize(
    "number, file, said",
    [
        (errno.ENOSPC, "project/artifacts/a", "no space left for {}/project: make room there (make prune"),
        (errno.ENOSPC, "elsewhere/a", "no space left for {}/elsewhere/a: make room there"),
        (errno.EACCES, "project/artifacts/a", "{}/project can't be written"),
        (errno.EACCES, "elsewhere/vit.pt", "{}/elsewhere/vit.pt can't be read or written"),
    ],
)
def test_the_disk_or_the_file_that_is_at_fault_is_named(tmp_path, number, file, said):
    error = OSError(number, os.strerror(number), str(tmp_path / file))
    assert remedies.remedy_of(error, tmp_path / "project").startswith(said.format(tmp_path))


def test_another_error_is_left_as_it_is(tmp_path):
    with pytest.raises(OSError, match="unit.json"):
        Store(tmp_path).make(Unit("too much", "expert:clip", make_too_much, {"what": ""}))
