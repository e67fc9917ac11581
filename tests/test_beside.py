"""Two studies side by side, on made-up numbers, and one at two commits of a repository made for it."""

import subprocess
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from test_comparisons import home, made
from test_results import PARAMS

from reidlib import beside, figures, params, results


def study(tmp_path, cells, name="first", text=PARAMS, pids=6, **how) -> results.Results:
    file = tmp_path / name / "params" / "made_up.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    rows, evaluations = made(cells, **how)
    if pids:
        evaluations |= {f"{test}|pid": np.arange(pids) // 2 for test in ("vehicles", "people")}
    record = {"study": "made_up", "environments": {"0": {"commit": "0123456789abc"}}, "costs": {}}
    found = results.Results("made_up", params.load(file), rows, evaluations, record, tmp_path / name / "out")
    results.write(found, tmp_path / name / "results" / "made_up", file)
    return found


@pytest.fixture
def pair(tmp_path):
    before = study(tmp_path, home())
    after = {cell: value + (0.05 if cell[0] == "student" else 0) for cell, value in home().items()}
    del after["moe:uniform", "people", "people"]
    return before, study(
        tmp_path,
        after,
        "second",
        PARAMS.replace("epochs: 1, p: 4, lr: 0.001}}\ndist", "epochs: 2, p: 4, lr: 0.001}}\ndist"),
    )


def test_what_was_asked_differently_is_named_key_by_key(pair):
    assert beside.changed(*pair).iloc[:, 0].tolist() == ["student.recipe.epochs was 1, is 2"]
    assert beside.changed(pair[0], pair[0]).empty


def test_of_what_both_have_the_difference_has_a_paired_interval(pair):
    table = beside.accuracy(*pair).set_index(["method", "train_dataset"])
    assert len(table) == len(home())
    found = table.loc["student", "people"]
    assert found[["first", "second", "difference"]].tolist() == pytest.approx([0.5, 0.55, 0.05])
    assert found["low"] <= 0.05 <= found["high"] and found["high"] - found["low"] < 0.02  # all queries alike in both
    assert table.loc[("expert:clip", "vehicles"), "difference"] == 0
    gone = table.loc["moe:uniform", "people"]
    assert gone["first"] == pytest.approx(0.79) and gone[["second", "difference", "low"]].isna().all()


@pytest.mark.parametrize("other", [{"pids": 0}, {"pids": 8, "queries": 8}])
def test_where_the_queries_are_not_known_to_be_the_same_there_is_no_interval(tmp_path, other):
    first, second = study(tmp_path, home()), study(tmp_path, home(), "second", **other)
    table = beside.accuracy(first, second)
    assert (table["difference"] == 0).all() and table[["low", "high"]].isna().all(axis=None)


def test_of_other_pictures_of_the_same_identities_there_is_no_interval(tmp_path):
    def of(fingerprints):
        pair = [study(tmp_path / fingerprints, home(), name) for name in ("first", "second")]
        for found, fingerprint in zip(pair, fingerprints):
            found.provenance["data"] = dict.fromkeys(("vehicles", "people"), fingerprint)
        return beside.accuracy(*pair)[["low", "high"]]

    assert of("aa").notna().all(axis=None) and of("bc").isna().all(axis=None)


def test_the_table_is_for_reading_largest_fall_first(pair):
    table = beside.accuracy_table(beside.accuracy(*reversed(pair)))
    assert table.index[:2].tolist() == ["Student", "Student"]
    assert table.iloc[0]["difference (points)"].startswith("−5.0 [−5") and table.iloc[0]["tested on"] in (
        "vehicles",
        "people",
    )
    assert table.iloc[-1].to_list()[2:] == ["", "79.0", ""]


def test_only_verdicts_that_changed_are_shown(tmp_path):
    worse = {cell: value - (0.2 if cell[0] == "moe:soft" else 0) for cell, value in home().items()}
    found = beside.verdicts(study(tmp_path, home()), study(tmp_path, worse, "second"))
    assert found["claim"].str[:2].unique().tolist() == ["1 ", "4a"]
    vehicles = found[(found["measured on"] == "vehicles") & found["claim"].str.startswith("4a")].iloc[0]
    assert vehicles.tolist()[2:] == ["holds", "10.0", "does not hold", "−10.0"]
    assert beside.verdicts(study(tmp_path, home(), "a"), study(tmp_path, home(), "b")).empty


def test_no_verdict_is_lost_where_data_sets_are_called_alike_up_to_a_colon(tmp_path):
    text = PARAMS.replace("layout: veri776,", 'layout: veri776, title: "Own: day",').replace(
        "layout: market1501,", 'layout: market1501, title: "Own: night",'
    )
    assert text.count("title: ") == PARAMS.count("title: ") + 2
    worse = {cell: value - (0.2 if cell[0] == "student+kd:moe" else 0) for cell, value in home().items()}
    counts = []
    for name, words in (("plain", PARAMS), ("colons", text)):
        sides = (study(tmp_path, cells, f"{name} {i}", words) for i, cells in enumerate((home(), worse)))
        counts.append(len(beside.verdicts(*sides)))
    assert counts[0] == counts[1] > 2


def test_a_place_is_a_params_file_a_folder_or_a_commits_folder(tmp_path):
    root, git = (
        tmp_path / "first",
        ["git", "-C", str(tmp_path / "first"), "-c", "user.name=a", "-c", "user.email=a@example.org"],
    )
    study(tmp_path, home())
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "add", "results"], check=True)
    subprocess.run([*git, "commit", "--quiet", "-m", "as it was"], check=True)
    file = root / "results/made_up/results.csv"
    rows = pd.read_csv(file)
    rows.assign(value=rows["value"] + 0.01).to_csv(file, index=False)
    was, now = (beside.open_place(place, root) for place in ("HEAD:results/made_up", "results/made_up"))
    assert not was.marks and now.marks == ("results.csv was edited after it was published",)
    assert (now.rows["value"] - was.rows["value"]).round(9).eq(0.01).all()
    of_params = beside.open_place(str(root / "params/made_up.yaml"), root)
    pd.testing.assert_frame_equal(of_params.rows, now.rows)
    assert beside.name(was) == "made_up (0123456)"
    for place in ("HEAD:results/other", "nosuch:results/made_up"):
        with pytest.raises(ValueError, match=f"{place} has no results.csv .*<commit>:<folder>"):
            beside.open_place(place, root)
    with pytest.raises(ValueError, match="has no results.csv"):
        beside.open_place("results/other", root)


def test_results_of_older_rules_are_refused_by_name(tmp_path):
    root = tmp_path / "first"
    study(tmp_path, home())
    file = root / "results/made_up/params.yaml"
    file.write_text(file.read_text() + "no_longer: 1\n")
    subprocess.run(["git", "-C", root, "init", "--quiet"], check=True)
    subprocess.run(["git", "-C", root, "add", "-f", "results"], check=True)
    subprocess.run(["git", "-C", root, "-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-qm", "old"], check=True)
    with pytest.raises(ValueError, match=r"(?s)HEAD:results/made_up is of other rules.*no_longer"):
        beside.open_place("HEAD:results/made_up", root)


def test_the_figure_has_a_line_for_each_method_in_common(pair):
    compared = beside.accuracy(*pair)
    assert beside.in_common(compared)
    figure = figures.side_by_side(compared, ("then", "now"))
    vehicles, people = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["vehicles", "people"]
    assert len(vehicles.lines[0].get_xdata()) == 9 and len(people.lines[0].get_xdata()) == 8
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["then", "now"]
    alone = replace(pair[0], rows=pair[0].rows[pair[0].rows["method"] == "pixels"])
    with pytest.raises(ValueError, match="in common"):
        figures.side_by_side(beside.accuracy(alone, pair[1]))
    assert not beside.in_common(beside.accuracy(alone, pair[1]))
    plt.close("all")
