"""A trained network kept over a change of code: only where code alone changed and a new first epoch is the old one."""

import json

import pytest

import reidlib.training
from reidlib.adopting import adopt
from reidlib.study import open_study
from reidlib.units import FINISHED, HALF_DONE
from tests import tiny

WHERE = ("student", "vehicles", 0)
HARMLESS = ("if jitter:", "if jitter > 0:")
COUNTS = ("images = _crop_and_flip(images, draws[1:3], flipped, pad)", "images = images * 1")


@pytest.fixture
def study(tmp_path):
    changes = {"student.recipe": tiny.RECIPE | {"epochs": 3}, "ablations": None}
    study = open_study(tiny.write(tmp_path, changes=changes))
    study.store.make(study.plan.network(*WHERE))
    return study


def again(study, *overrides):
    """The study as another process opens it."""
    return open_study(study.root / "params" / "tiny.yaml", overrides)


def train_an_epoch(study, monkeypatch, where=WHERE):
    class Stopped(Exception):
        pass

    def stop(folder, state, save=reidlib.training.save_checkpoint):
        save(folder, state)
        raise Stopped

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(reidlib.training, "save_checkpoint", stop)
        study.store.make(study.plan.network(*where))


def test_a_network_is_adopted_when_an_epoch_by_the_new_code_is_the_old_one(study, edited, monkeypatch):
    old = study.plan.network(*WHERE)
    edited("reidlib.data.augment", *HARMLESS)
    new = again(study)
    unit = new.plan.network(*WHERE)
    assert unit.key != old.key
    with pytest.raises(ValueError, match="is stale: train an epoch of it under the new code"):
        adopt(new.store, unit, "jitter is never negative")
    train_an_epoch(new, monkeypatch)
    assert new.store.state(unit)[0] == HALF_DONE
    assert adopt(new.store, unit, "jitter is never negative") == 1
    assert new.store.state(unit) == (FINISHED, "")
    for file in ("weights.safetensors", "history.csv"):
        assert (new.store.folder(unit) / file).read_bytes() == (study.store.folder(old) / file).read_bytes()
    made = json.loads((new.store.folder(unit) / "unit.json").read_text())["made"]
    before = json.loads((study.store.folder(old) / "unit.json").read_text())["made"]
    [adopted] = made.pop("adopted")
    assert made == before
    assert (
        adopted["from"] == f"embedder/{old.key}" and adopted["why"] == "jitter is never negative" and adopted["epochs"] == 1
    )
    assert adopted["changed"] == ["code has changed: reidlib.data.augment.augment"]
    assert not list(new.store.folder(unit).glob("checkpoint*"))
    with pytest.raises(ValueError, match="is finished"):
        adopt(new.store, unit, "again")


def test_other_losses_are_refused(study, edited, monkeypatch):
    """The tests' `edited` changes what keys see of code, not what runs: the change that counts is made to the history."""
    edited("reidlib.data.augment", *COUNTS)
    new = again(study)
    with monkeypatch.context() as patch:
        patch.setattr(reidlib.training, "augment", lambda images, generator, **_: (images, images[:, 0, 0, 0] > 255))
        train_an_epoch(new, monkeypatch)
    with pytest.raises(ValueError, match="the change counts, so go on training: 1,"):
        adopt(new.store, new.plan.network(*WHERE), "it seemed harmless")
    assert new.store.state(new.plan.network(*WHERE))[0] == HALF_DONE


def test_more_than_code_is_refused(study, edited, monkeypatch):
    edited("reidlib.data.augment", *HARMLESS)
    new = again(study, "student.recipe.lr=0.002")
    train_an_epoch(new, monkeypatch)
    with pytest.raises(ValueError, match="more than code.*student.recipe.lr was 0.001, is 0.002"):
        adopt(new.store, new.plan.network(*WHERE), "no")


def test_what_was_never_finished_is_not_adopted(study, monkeypatch):
    new = again(study)
    unit = new.plan.network("student", "people", 0)
    train_an_epoch(new, monkeypatch, ("student", "people", 0))
    with pytest.raises(ValueError, match="no finished one of before"):
        adopt(new.store, unit, "no")
