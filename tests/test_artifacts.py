"""The artifact store: made once, made anew when what it depends on changes, resumed after a failure."""

import json
import subprocess
import threading

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from reidlib import artifacts, provenance
from reidlib.artifacts import Store, code_version, digest
from reidlib.params import Augmentation, Recipe


class Trainer:
    """A train function that counts its calls and can fail."""

    def __init__(self, value=1.0, fail=False):
        self.value, self.fail, self.calls, self.found = value, fail, 0, []

    def __call__(self, model, folder):
        self.calls += 1
        self.found.append((folder / "checkpoint.pt").exists())
        (folder / "checkpoint.pt").write_text("half-way")
        nn.init.constant_(model.weight, self.value)
        if self.fail:
            raise KeyboardInterrupt
        return pd.DataFrame({"epoch": [1], "loss": [0.5]})


def weights(model):
    return model.weight.detach().numpy()


def test_the_same_key_is_loaded_and_not_trained_again(tmp_path):
    store, train = Store(tmp_path), Trainer(3.0)
    first = store.fit("unit", {"lr": 0.1}, nn.Linear(2, 2), train)
    model = nn.Linear(2, 2)
    again = Store(tmp_path).fit("unit", {"lr": 0.1}, model, train)
    assert train.calls == 1 and again == first
    assert (weights(model) == 3).all()
    assert {"weights.safetensors", "history.csv", "made.json", "key.json"} <= {f.name for f in first.iterdir()}
    assert not list(first.glob("checkpoint*"))


def test_a_changed_key_is_trained_anew_and_the_old_unit_stays(tmp_path):
    store, train = Store(tmp_path), Trainer()
    one = store.fit("unit", {"lr": 0.1}, nn.Linear(2, 2), train)
    other = store.fit("unit", {"lr": 0.2}, nn.Linear(2, 2), train)
    assert train.calls == 2 and one != other and (one / "weights.safetensors").exists()


def test_a_failure_leaves_no_finished_unit_and_the_next_call_goes_on_from_the_checkpoint(tmp_path):
    store, failing, train = Store(tmp_path), Trainer(fail=True), Trainer(2.0)
    with pytest.raises(KeyboardInterrupt):
        store.fit("unit", {}, nn.Linear(2, 2), failing)
    assert not list(tmp_path.rglob("weights.safetensors")) and list(tmp_path.rglob("checkpoint.pt"))
    model = nn.Linear(2, 2)
    store.fit("unit", {}, model, train)
    assert train.found == [True] and (weights(model) == 2).all()
    assert not list(tmp_path.rglob("checkpoint*"))


def test_a_write_cut_short_does_not_count_as_finished(tmp_path, monkeypatch):
    def cut(model, path):
        open(path, "wb").write(b"half")
        raise OSError("disk full")

    with monkeypatch.context() as patch, pytest.raises(OSError):
        patch.setattr(artifacts, "save_model", cut)
        Store(tmp_path).fit("unit", {}, nn.Linear(2, 2), Trainer())
    train = Trainer()
    Store(tmp_path).fit("unit", {}, nn.Linear(2, 2), train)
    assert train.calls == 1 and train.found == [True]


def test_two_that_ask_at_once_train_once(tmp_path):
    train, together = Trainer(5.0), threading.Barrier(2)
    models = [nn.Linear(2, 2), nn.Linear(2, 2)]

    def ask(model):
        together.wait()
        Store(tmp_path).fit("unit", {"lr": 0.1}, model, train)

    threads = [threading.Thread(target=ask, args=[model]) for model in models]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert train.calls == 1
    assert all((weights(model) == 5).all() for model in models)


def test_arrays_are_computed_once_and_come_back_as_they_were(tmp_path):
    calls = []
    whole = np.arange(12, dtype=np.float32).reshape(3, 4)

    def compute():
        calls.append(1)
        return {"turned": whole.T, "bytes": np.frombuffer(b"abc", np.uint8)}

    for _ in range(2):
        arrays = Store(tmp_path).arrays("a/b", {"n": 3}, compute)
        assert np.array_equal(arrays["turned"], whole.T) and arrays["bytes"].tobytes() == b"abc"
    assert len(calls) == 1


def test_a_key_counts_by_content_not_by_order():
    recipe = Recipe(epochs=1, lr=0.1)
    assert digest({"a": 1, "r": recipe}) == digest({"r": Recipe(epochs=1, lr=0.1, augmentation=Augmentation()), "a": 1})
    assert digest({"r": recipe}) != digest({"r": recipe.model_copy(update={"lr": 0.2})})
    assert digest({"size": (1, 2)}) == digest({"size": [1, 2]})


def test_a_unit_tells_where_and_when_it_was_made(tmp_path):
    store = Store(tmp_path / "somebody")
    with pytest.raises(KeyboardInterrupt):
        store.fit("unit", {"lr": 1}, nn.Linear(2, 2), Trainer(fail=True))
    folders = [store.fit("unit", {"lr": lr}, nn.Linear(2, 2), Trainer()) for lr in (1, 2)]
    store.arrays("numbers", {}, lambda: {"x": np.zeros(2)})
    resumed, made = (json.loads((folder / "made.json").read_text()) for folder in folders)
    assert resumed["resumed"] is True and made["resumed"] is False
    assert made["seconds"] >= 0 and made["finished"][:2] == "20"
    assert made["packages"]["torch"] == torch.__version__.partition("+")[0]
    assert made["threads"] == torch.get_num_threads()
    assert made["device"] == provenance.device_name() != "" and made["python"].startswith("3.")
    assert {"commit", "uncommitted changes"} < set(made)
    arrays = json.loads(next(tmp_path.rglob("numbers/*/made.json")).read_text())
    assert set(arrays) == set(made) - {"resumed", "processes"}
    assert str(tmp_path) not in json.dumps([made, arrays])


def test_commit_and_changes_of_a_repository_but_for_its_results(tmp_path):
    assert provenance.git_state(tmp_path) == {"commit": None, "uncommitted changes": None}
    author = ["-c", "user.name=a", "-c", "user.email=b"]
    (tmp_path / "code.py").write_text("1\n")
    for command in (["init", "-q"], ["add", "code.py"], [*author, "commit", "-qm", "x"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "results.csv").touch()
    state = provenance.git_state(tmp_path)
    assert len(state["commit"]) == 40 and state["uncommitted changes"] is False
    (tmp_path / "code.py").write_text("2\n")
    assert provenance.git_state(tmp_path)["uncommitted changes"] is True


CODE = '''
"""A module."""
def double(x):
    """Twice x."""
    # as it says
    return 2 * x
'''


@pytest.mark.parametrize(
    "changed, same",
    [
        (CODE.replace("A module", "The module"), True),
        (CODE.replace("Twice x", "Two x"), True),
        (CODE.replace("    # as it says\n", ""), True),
        (CODE.replace("2 * x", "(2  *  x)"), True),
        (CODE.replace('"""Twice x."""', "pass"), False),
        (CODE.replace("2 * x", "3 * x"), False),
        (CODE.replace("def double(x)", "def double(x, y=0)"), False),
        (CODE.replace("return 2 * x", 'return "2 * x"'), False),
    ],
)
def test_code_counts_but_comments_docstrings_and_layout_do_not(changed, same):
    assert changed != CODE
    assert (artifacts._skeleton(changed) == artifacts._skeleton(CODE)) is same


def test_code_version_differs_between_modules_and_stays():
    assert code_version(("losses",)) == code_version(("losses",)) != code_version(("models",))


def test_weights_come_back_into_a_model_with_shared_and_buffered_tensors(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.norm = nn.Linear(3, 3, bias=False), nn.BatchNorm1d(3)
            self.b = nn.Linear(3, 3, bias=False)
            self.b.weight = self.a.weight

    def train(model, folder):
        model.train()
        model.norm(model.a(torch.randn(8, 3)))
        return pd.DataFrame()

    trained, loaded = Tied(), Tied()
    Store(tmp_path).fit("tied", {}, trained, train)
    Store(tmp_path).fit("tied", {}, loaded, train)
    assert all(torch.equal(a, b) for a, b in zip(trained.state_dict().values(), loaded.state_dict().values()))
    assert loaded.a.weight is loaded.b.weight
