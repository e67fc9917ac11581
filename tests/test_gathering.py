"""From units to results, and what may be published: nothing is made for it, nothing stale is taken, nothing half in place."""

import json
import shutil

import nbformat
import numpy as np
import pandas as pd
import pytest
import tiny

import publishing
from reidlib import agenda, gathering, results
from reidlib.gathering import accuracy, evaluations, gather
from reidlib.params import ParamsError
from reidlib.study import open_study


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with the smallest study, all its units made, and a notebook of each name that says nothing."""
    root = tmp_path_factory.mktemp("gathered")
    changes = {"ablations": None, "moe.router": None, "moe.gates": ["soft", "top1", "uniform"], "mixed": False}
    file = tiny.write(root, "small", changes)
    study = open_study(file)
    for of in agenda.evaluations(study.params):
        study.store.make(study.plan.evaluation(*of))
    study.store.make(study.plan.costs())
    empty = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("study = 'auto'")])
    (root / "notebooks").mkdir()
    for name in {name.partition("-")[0] for name in publishing.notebooks(study)}:
        nbformat.write(empty, root / "notebooks" / f"{name}.ipynb")
    return file


def execute(study) -> None:
    """What scripts/execute.py leaves of each notebook, with a figure and a table of its own."""
    for name in publishing.notebooks(study):
        folder = publishing.made(study, name)
        shutil.rmtree(folder, ignore_errors=True)
        for part in ("figures", "tables"):
            (folder / part).mkdir(parents=True)
            (folder / part / f"{name}.csv").write_text(name)
        (folder / "made.json").write_text(json.dumps({"state": publishing.state(study, name)}))
        executed = nbformat.v4.new_notebook(metadata={"papermill": {"output_path": str(folder), "duration": 1.0}})
        nbformat.write(executed, folder / f"{name}.ipynb")


def no_making(*_, **__):
    raise AssertionError("something was made")


def test_all_that_the_params_ask_for_is_gathered_and_nothing_is_made_for_it(project, monkeypatch):
    study = open_study(project)
    monkeypatch.setattr("reidlib.units.Store._make", no_making)
    found = gather(study)
    wanted = list(agenda.evaluations(study.params))
    mAP = found.rows[found.rows["metric"] == "mAP"]
    assert len(mAP) == len(wanted) and set(mAP["method"]) == {of.method for of in wanted}
    of = wanted[-1]
    evaluation = study.evaluate(of.method, of.train, of.seed, of.test)
    row = found.rows.query("method == @of.method and train_dataset == @of.train and test_dataset == @of.test")
    assert row.set_index("metric")["value"]["mAP"] == evaluation.mAP
    assert np.allclose(found.evaluations[f"{of}|ap"], evaluation.ap)
    pid = study.dataset(of.test).query["pid"].to_numpy()[evaluation.valid]
    assert (found.evaluations[f"{of.test}|pid"] == pid).all()
    assert found.provenance["evaluations"][str(of)]["unit"].startswith("evaluation/")
    traced = results.trace(found.provenance, mAP.iloc[-1])
    assert {"evaluated", "trained"} == set(traced) and traced["trained"]["unit"].startswith("embedder/")


def test_what_a_changed_study_has_not_made_is_refused_by_name_and_not_trained(project, monkeypatch):
    monkeypatch.setattr("reidlib.units.Store._make", no_making)
    with pytest.raises(ValueError, match=r"units are not finished(.|\n)*stale \(student.recipe.lr was 0.001, is 0.5\)"):
        gather(open_study(project, ["student.recipe.lr=0.5"]))
    with pytest.raises(ValueError, match="not finished(.|\n)*seed 7(.|\n)*missing"):
        gather(open_study(project, ["seeds=[0, 7]"]))
    with pytest.raises(ValueError, match="validation split"):
        gather(open_study(project, validation=0.5))


def test_rows_of_a_removed_setting_are_gone(project):
    study = open_study(project, ["distillation.teachers=[moe]"])
    study.store.make(study.plan.costs())  # the networks that are measured side by side are no others
    fewer = gather(study)
    assert "student+kd:clip" not in set(fewer.rows["method"]) and "student+kd:moe" in set(fewer.rows["method"])


def test_a_gate_that_only_its_loss_sets_apart_is_trained_and_evaluated_and_costs_what_the_soft_one_does(project):
    study, more = open_study(project), open_study(project, ["moe.gates=[soft, unbalanced, top1, uniform]"])
    added = {str(of) for of in agenda.evaluations(more.params)} - {str(of) for of in agenda.evaluations(study.params)}
    assert {of.partition("|")[0] for of in added} == {"moe:unbalanced"}
    assert more.plan.costs().key == study.plan.costs().key
    soft, free = (more.plan.network(f"moe:{gate}", "vehicles", 0).inputs["balance"] for gate in ("soft", "unbalanced"))
    assert (soft, free) == (1, 0)


def test_rows_of_notebooks_are_those_of_the_study(project):
    study = open_study(project)
    rows = accuracy(study, ["pixels", "student"])
    assert list(rows) == results.COLUMNS
    assert rows.query("metric == 'mAP'").groupby("method").size().to_dict() == {"pixels": 2, "student": 2}
    across = accuracy(study, ["pixels", "student"], across=True).query("metric == 'mAP'")
    assert across.groupby("method").size().to_dict() == {"pixels": 2, "student": 4}
    assert {f"{of}|ap" for of in ("pixels|vehicles|vehicles|0", "student|people|people|0")} <= set(evaluations(study, rows))


def test_a_study_is_published_whole_and_what_is_not_of_it_is_gone(project):
    study = open_study(project)
    execute(study)
    target = study.root / "results" / study.name
    (target / "figures").mkdir(parents=True)
    (target / "figures" / "of-a-renamed-expert.png").write_text("stale")
    assert publishing.publish(study) == target and publishing.is_published(study)
    assert sorted(path.stem for path in (target / "figures").iterdir()) == sorted(publishing.notebooks(study))
    assert sorted(path.stem for path in (target / "notebooks").iterdir()) == sorted(publishing.notebooks(study))
    notebooks = "".join(path.read_text() for path in (target / "notebooks").iterdir())
    assert '"duration": 1.0' in notebooks and str(study.root) not in notebooks
    read = results.read(target, params_file=project)
    assert read.marks == () and len(read.rows) == len(pd.read_csv(target / "results.csv"))
    (target / "results.csv").write_text((target / "results.csv").read_text().replace("0.", "1.", 1))
    assert not publishing.is_published(study)
    assert results.read(target).marks == ("results.csv was edited after it was published",)


@pytest.mark.parametrize("part", ["01_data", "08_report"])
def test_parts_that_are_missing_or_of_another_state_are_refused_by_name_and_what_is_published_stays(project, part):
    study = open_study(project)
    execute(study)
    target = publishing.publish(study)
    before = {path: path.read_bytes() for path in target.rglob("*") if path.is_file()}
    record = publishing.made(study, part) / "made.json"
    record.write_text(json.dumps({"state": "another"}))
    with pytest.raises(ValueError, match=f"notebook {part} was executed with other params, data or code"):
        publishing.publish(study)
    (publishing.made(study, part) / f"{part}.ipynb").unlink()
    with pytest.raises(ValueError, match=f"notebook {part} has not been executed"):
        publishing.publish(study)
    assert {path: path.read_bytes() for path in target.rglob("*") if path.is_file()} == before


def test_a_lost_unit_and_lost_results_are_to_be_made_again(project):
    study = open_study(project)
    execute(study)
    publishing.publish(study)
    executed = [publishing.made(study, name) / f"{name}.ipynb" for name in publishing.notebooks(study)]
    publishing.take_back(study)
    assert publishing.marker(study).exists() and all(file.exists() for file in executed)
    shutil.rmtree(study.root / "results" / study.name / "tables")
    publishing.take_back(study)
    assert not publishing.marker(study).exists() and all(file.exists() for file in executed)
    costs = study.store.folder(study.plan.costs())
    costs.rename(costs.with_name("lost"))
    publishing.take_back(study)
    costs.with_name("lost").rename(costs)
    assert not any(file.exists() for file in executed)


def test_a_notebooks_state_follows_its_code_the_params_and_the_units_and_no_words(project):
    study, name = open_study(project), "02_experts-clip"
    before = publishing.state(study, name)
    file = study.root / "notebooks" / "02_experts.ipynb"
    notebook = nbformat.read(file, as_version=4)

    def with_cells(*cells) -> str:
        nbformat.write(nbformat.v4.new_notebook(cells=[*notebook.cells, *cells]), file)
        try:
            return publishing.state(study, name)
        finally:
            nbformat.write(notebook, file)

    assert with_cells(nbformat.v4.new_markdown_cell("Other words")) == before
    assert with_cells(nbformat.v4.new_code_cell("# a comment")) == before
    assert with_cells(nbformat.v4.new_code_cell("1 + 1")) != before
    drawn = with_cells(nbformat.v4.new_code_cell("from reidlib import figures\nfigures.pareto"))
    assert drawn != before
    assert publishing.state(open_study(project, ["student.recipe.lr=0.5"]), name) != before
    assert publishing.state(open_study(project, ["title=Another"]), name) != before
    assert publishing.state(open_study(project), name) == before


def test_what_was_tried_is_shown_and_published_with_the_results(project):
    study = open_study(project)
    file = study.validation_file
    tried = pd.DataFrame([{"dataset": "vehicles", "method": "student", "setting": "student.recipe.lr=0.1", "mAP": 0.5}])
    tried.to_csv(file, index=False)
    try:
        execute(study)
        published = publishing.publish(study) / "validation.csv"
        assert published.read_text() == file.read_text() and gathering.tried(study).equals(tried)
    finally:
        file.unlink()
    assert gathering.tried(study).empty


def test_variants_may_be_trained_with_fewer_seeds(tmp_path):
    study = open_study(tiny.write(tmp_path, "fewer", {"seeds": [0, 1], "ablations.seeds": [0]}))
    seeds = {}
    for of in agenda.evaluations(study.params):
        seeds.setdefault(of.method, set()).add(of.seed)
    variants = [variant for found in agenda.variants(study.params).values() for variant in found]
    assert len(variants) == 8 and all(seeds[variant] == {0} for variant in variants)
    assert seeds["student"] == seeds["student+kd:moe"] == seeds["moe:top1"] == seeds["expert:clip"] == {0, 1}
    assert "Variants of the student have seed 0 alone, and so has what stands beside them." in study.params.remark


def test_nothing_is_trained_on_a_set_for_testing_alone(tmp_path):
    changes = {"datasets.people.test_only": True, "mixed": False}
    study = open_study(tiny.write(tmp_path, "crossed", changes))
    assert {of.train for of in agenda.evaluations(study.params)} == {"vehicles"}
    assert {of.test for of in agenda.evaluations(study.params) if of.method != "pixels"} == {"vehicles", "people"}
    units = study.plan.units()
    assert "pixels people query" in units and "pixels people train" not in units
    assert "03_moe-vehicles" in publishing.notebooks(study) and "03_moe-people" not in publishing.notebooks(study)
    for wrong in ({"mixed": True}, {"ablations.datasets": ["people"]}, {"datasets.vehicles.test_only": True}):
        with pytest.raises(ParamsError, match="to train on|is trained on"):
            open_study(tiny.write(tmp_path, "wrong", changes | wrong))


def test_a_set_can_be_trained_on_in_the_mixture_alone(tmp_path):
    """As it would be if it were trained on alone, too."""
    whole = open_study(tiny.write(tmp_path, "whole"))
    study = open_study(tiny.write(tmp_path, "part", {"datasets.people.test_only": True, "mixed": ["vehicles", "people"]}))
    trained = {of.train for of in agenda.evaluations(study.params)}
    assert trained == {"vehicles", "vehicles+people"}
    assert {of.train for of in agenda.evaluations(whole.params)} == trained | {"people"}
    assert "pixels people train" not in study.plan.units()  # decoded as a part of the mixture, and nothing else wants it
    for method in agenda.mixed_methods(study.params):
        of = agenda.Evaluated(method, "vehicles+people", "people", 0)
        assert study.plan.evaluation(*of).key == whole.plan.evaluation(*of).key, method
    for other, why in (([], "at least 2"), (["people"], "once"), (["vehicle"], "did you mean 'vehicles'")):
        with pytest.raises(ParamsError, match=why):
            open_study(tiny.write(tmp_path, "wrong", {"mixed": ["people", *other]}))
