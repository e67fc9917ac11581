"""Networks that come with the project: they take a training's place where they are what is asked for, and nowhere else."""

import json
from pathlib import Path
from unittest.mock import ANY

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from reidlib import agenda, making, params
from reidlib.content import folder_name, plain
from reidlib.methods import parse
from reidlib.shipped import file_of, read_record, ship
from reidlib.study import open_study
from tests import tiny

ROOT = Path(__file__).parents[1]
STUDENT, TAUGHT = ("student", "vehicles", 0), ("student+kd:moe", "vehicles", 0)
CHANGES = {"student.recipe": tiny.RECIPE | {"epochs": 2, "frozen": 0.3}, "ablations": None, "shipped": "trained/tiny"}


def write(root, **changes):
    return tiny.write(root, changes=CHANGES | changes)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """A study that has trained and shipped a student and a taught one, and their scores before."""
    study = open_study(write(tmp_path_factory.mktemp("trained here")))
    scores = {where[0]: study.evaluate(*where) for where in (STUDENT, TAUGHT)}
    folder = study.root / study.params.shipped
    for where in (STUDENT, TAUGHT):
        ship(study.plan.training(*where), study.store, folder)
    return study, scores


@pytest.fixture
def elsewhere(shipped, tmp_path, monkeypatch):
    """opened(**changes): the study on a machine that has the shipped networks and nothing else, where none may be trained."""
    study, _ = shipped

    def opened(*overrides, validation=0.0, **changes):
        file = write(tmp_path, **changes)
        folder = tmp_path / "trained" / "tiny"
        if not folder.exists():
            folder.mkdir(parents=True)
            for source in (study.root / study.params.shipped).iterdir():
                (folder / source.name).write_bytes(source.read_bytes())
        return open_study(file, overrides, validation=validation)

    def refuse(*args, **options):
        raise AssertionError(f"{options['label']} is trained")

    monkeypatch.setattr(making, "train", refuse)
    return opened


def test_what_is_shipped_is_taken_for_trained_with_the_same_scores(shipped, elsewhere):
    _, scores = shipped
    study = elsewhere()
    for where in (STUDENT, TAUGHT):
        assert study.evaluate(*where).mAP == pytest.approx(scores[where[0]].mAP, abs=0.02)  # rounded to half precision
        assert list(study.history(*where)["epoch"]) == [1, 2]
    with pytest.raises(AssertionError, match="student\\+kd:clip vehicles seed 0 is trained|expert:clip|pretrain clip"):
        study.evaluate("student+kd:clip", "vehicles", 0)


def test_neither_teachers_nor_training_pictures_are_needed(elsewhere):
    study = elsewhere()
    study.store.make(study.plan.network(*TAUGHT))
    assert {folder.name for folder in (study.root / "artifacts" / "units").iterdir()} == {"embedder"}


def test_the_file_holds_what_training_changed_in_half_precision(shipped):
    study, _ = shipped
    unit = study.plan.training(*STUDENT)
    trained = load_file(study.store.make(unit) / "weights.safetensors")
    file = file_of(unit, study.root / "trained" / "tiny")
    kept = load_file(file)
    frozen = [name for name in trained if name not in kept]
    model = making.load_embedder(unit, study.store)
    assert {name for name, p in model.named_parameters() if not p.requires_grad} <= set(frozen)
    assert any(name.startswith("encoder.network.") for name in kept)
    for name, value in kept.items():
        assert str(value.dtype) == ("torch.float16" if value.ndim > 1 else str(trained[name].dtype)), name
        np.testing.assert_allclose(value.float(), trained[name].float(), rtol=1e-3, atol=1e-6)


def test_the_record_says_how_and_where_it_was_trained(shipped):
    study, _ = shipped
    unit = study.plan.training(*TAUGHT)
    record = read_record(file_of(unit, study.root / "trained" / "tiny"))
    assert record["made"] == study.store.record(unit)["made"]
    assert record["inputs"]["recipe"]["epochs"] == 2 and record["unit"] == f"embedder/{unit.key}"
    assert str(study.root) not in json.dumps(record)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"student.recipe": CHANGES["student.recipe"] | {"lr": 0.002}}, "student.recipe.lr was 0.001, is 0.002"),
        ({"student.taught": CHANGES["student.recipe"] | {"lr": 0.002}}, "student.taught.lr was 0.001, is 0.002"),
        ({"distillation.temperature": 2.0}, "distillation.temperature was 4.0, is 2.0"),
        ({"experts.clip.recipe": tiny.RECIPE | {"lr": 0.002}}, "its data or its teachers were others"),
    ],
)
def test_another_recipe_of_it_or_its_teacher_is_trained_anew(elsewhere, capsys, change, said):
    study = elsewhere(**change)
    where = STUDENT if "student.recipe" in change else TAUGHT
    unit = study.plan.network(*where)
    assert unit.stands_for is None and unit.key == study.plan.training(*where).key
    assert f"is not what is asked for ({said}): it is trained anew" in capsys.readouterr().err


def test_code_does_not_count_and_the_files_bytes_do(elsewhere, edited):
    plan = elsewhere().plan
    trained, taken, asked = plan.training(*STUDENT).key, plan.network(*STUDENT).key, plan.training(*TAUGHT).asked
    edited("reidlib.data.augment", "if jitter:", "if jitter > 0:")
    after = elsewhere().plan
    assert after.training(*STUDENT).key != trained and after.network(*STUDENT).key == taken
    assert after.training(*TAUGHT).asked == after.network(*TAUGHT).asked == asked
    edited("reidlib.towers", 'fixed["dynamic_img_size"] = True', 'fixed["dynamic_img_size"] = False')
    assert elsewhere().plan.network(*STUDENT).key != taken, "what builds it decides what it makes of a picture"
    taken = elsewhere().plan.network(*STUDENT).key
    file = file_of(after.training(*STUDENT), after.root / "trained" / "tiny")
    state, record = load_file(file), read_record(file)
    name = next(name for name, value in state.items() if value.ndim > 1)
    save_file(state | {name: state[name] * 2}, file, metadata={"record": json.dumps(record)})
    assert elsewhere().plan.network(*STUDENT).key != taken


def test_a_validation_split_takes_none(elsewhere, capsys):
    study = elsewhere(validation=0.25)
    assert study.plan.network(*STUDENT).stands_for is None
    assert capsys.readouterr().err == ""


def test_a_damaged_file_is_named(elsewhere):
    study = elsewhere()
    file = file_of(study.plan.training(*STUDENT), study.root / "trained" / "tiny")
    file.write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(ValueError, match=f"{file.name} is no shipped network"):
        elsewhere().plan.network(*STUDENT)


def test_what_is_not_trained_is_not_shipped(tmp_path):
    study = open_study(write(tmp_path))
    with pytest.raises(ValueError, match="'student vehicles seed 0' is not trained here yet: run scripts/train.py first"):
        ship(study.plan.training(*STUDENT), study.store, tmp_path / "trained")


@pytest.mark.parametrize("name", ["market1501", "cuhk03"])
def test_what_comes_with_the_project_is_what_its_params_ask_for(name):
    """As far as can be told without the data: a key that the schema gains must not have it all trained anew."""
    study = params.load(ROOT / f"params/{name}.yaml")
    (trained_on,) = agenda.trained(study)
    variants = [variant for found in agenda.variants(study).values() for variant in found]
    students = [method for method in [*agenda.methods(study), *variants] if parse(method).kind.startswith("student")]
    specs = {method: agenda.varied(study, parse(method))[0] for method in students}
    specs |= {f"expert:{name}": spec for name, spec in study.experts.items()}
    where = [(method, trained_on) for method in specs]
    where += [(method, agenda.mixed(study)) for method in agenda.mixed_methods(study) if method in specs]
    files = {file.name: read_record(file)["inputs"] for file in (ROOT / study.shipped).glob("*.safetensors")}
    for method, dataset in where:
        recipe = plain(specs[method].recipe)
        if dataset != trained_on:  # of the union's pictures other epochs make the same number of steps
            recipe |= {"epochs": ANY, "stages": ANY}
        for seed in study.ablations.seeds if method in variants else study.seeds:
            file = f"{folder_name(f'{method} {dataset} seed {seed}')}.safetensors"
            inputs = files.pop(file)
            assert inputs["encoder"] == plain(specs[method].encoder.model_copy(update={"weights": None})), file
            assert inputs["recipe"] == recipe, file
    assert not files
