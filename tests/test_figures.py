from types import SimpleNamespace

import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

matplotlib.use("Agg")

from matplotlib import pyplot as plt  # noqa: E402

from reidlib import figures, results  # noqa: E402
from reidlib.data import Dataset  # noqa: E402
from reidlib.params import EncoderParams  # noqa: E402
from reidlib.retrieval import EmbeddingSet, evaluate  # noqa: E402

METHODS = ["pixels", "expert:clip", "moe:soft", "student", "student+kd:moe"]


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    rows = [
        ("made_up", method, data, data, seed, metric, 0.5 + 0.1 * i + 0.01 * seed)
        for i, method in enumerate(METHODS) for data in ("vehicles", "people") for seed in (0, 1, 2)
        for metric in results.ACCURACY
    ]  # fmt: skip
    rows += [
        ("made_up", method, "vehicles", "vehicles", 0, metric, value * (i + 1))
        for i, method in enumerate(METHODS[1:])
        for metric, value in (("parameters", 4e5), ("macs", 3e7), ("latency_ms", 2.0))
    ]
    return pd.DataFrame(rows, columns=results.COLUMNS)


@pytest.fixture(scope="module")
def frame(tmp_path_factory) -> pd.DataFrame:
    """Pictures of 4 identities by 3 cameras, 2 each; identity 4 lacks camera 3; and one distractor."""
    folder, rows = tmp_path_factory.mktemp("pictures"), []
    ids = [(pid, camid) for pid in (1, 2, 3, 4) for camid in (3, 1, 2) if (pid, camid) != (4, 3)]
    for pid, camid in [*ids, *ids, (0, 1)]:
        path = folder / f"{len(rows)}.png"
        Image.new("RGB", (20, 30), (50 * pid, 60 * camid, 100)).save(path)
        rows.append((str(path), pid, camid))
    return pd.DataFrame(rows, columns=["path", "pid", "camid"])


@pytest.fixture
def study(tmp_path) -> SimpleNamespace:
    expert = SimpleNamespace(encoder=EncoderParams(name="timm:test_vit"), stands_in_for="CLIP")
    params = SimpleNamespace(title="A made-up study", note=None, publish_images=False, experts={"clip": expert})
    store = SimpleNamespace(root=tmp_path / "artifacts")
    return SimpleNamespace(name="made_up", params=params, results=tmp_path / "results", artifacts=store)


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_sample_sheet_has_an_identity_a_row_sorted_by_camera(frame):
    figure = figures.sample_sheet(frame, ids=10, per_id=4, seed=1)
    rows = np.array(figure.axes).reshape(4, 4)  # 4 identities, no distractor
    assert [row[0].get_ylabel() for row in rows] == ["pid 1", "pid 2", "pid 3", "pid 4"]
    for row, last in zip(rows, (3, 3, 3, 2)):
        cameras = [int(axes.get_title().split()[-1]) for axes in row]
        assert cameras == sorted(cameras) and set(cameras) == set(range(1, last + 1))
    assert np.array(figures.sample_sheet(frame, ids=2, per_id=99).axes).size == 2 * 6  # no more columns than pictures


def test_dataset_statistics(frame, tmp_path):
    dataset = Dataset("vehicles", tmp_path, frame[frame["pid"] > 0], frame[:3], frame)
    figure = figures.dataset_statistics({"a": dataset, "b": dataset})
    assert len(figure.axes) == 4
    left, right = figure.axes[:2]
    assert sum(bar.get_height() for bar in left.patches) == 4  # identities
    assert sum(bar.get_height() for bar in right.patches) == 22 + 3 + 23


@pytest.mark.parametrize("summarised", [False, True])
def test_accuracy_bars_have_a_panel_a_data_set(table, summarised):
    figure = figures.accuracy_bars(results.summary(table) if summarised else table)
    assert [axes.get_title() for axes in figure.axes] == ["vehicles", "people"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [results.label(m) for m in METHODS]
    assert texts(figure.axes[1]) == ["51.0", "61.0", "71.0", "81.0", "91.0"]
    dots = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert len(dots) == (0 if summarised else 15)


def test_cmc_curves_differ_by_more_than_colour():
    methods = ["moe:soft", "moe:top1", "expert:clip"]
    figure = figures.cmc_curves({m: np.full((3, 50), 0.5) for m in methods}, "CMC")
    lines = figure.axes[0].lines
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 3
    assert len(lines[0].get_xdata()) == 20 and lines[0].get_ydata()[0] == 50


def test_ranked_lists_mark_right_and_wrong_without_colour(frame):
    order, correct = np.array([[0, 1, 2], [3, 4, 5]]), np.array([[True, False, True], [False, False, True]])
    figure = figures.ranked_lists(frame[:2].assign(ap=[0.25, 1.0]), frame, order, correct, "title")
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["query", "1 ✓", "2 ✗", "3 ✓", "", "1 ✗", "2 ✗", "3 ✓"]
    assert figure.axes[0].get_ylabel() == "AP 25 %"


def test_retrieval_examples_follow_the_protocol():
    rng = np.random.default_rng(0)
    gallery = pd.DataFrame({"pid": rng.integers(-1, 6, 80), "camid": rng.integers(1, 4, 80)})
    query = pd.DataFrame({"pid": rng.integers(1, 6, 30), "camid": rng.integers(1, 4, 30)})
    sets = {
        "query": EmbeddingSet(rng.normal(size=(30, 4)), query["pid"], query["camid"]),
        "gallery": EmbeddingSet(rng.normal(size=(80, 4)), gallery["pid"], gallery["camid"]),
    }
    found = evaluate(sets["query"], sets["gallery"])
    study = SimpleNamespace(
        embedding_set=lambda method, train, seed, test, part: sets[part],
        evaluate=lambda method, train, seed: found,
        dataset=lambda name: SimpleNamespace(query=query, gallery=gallery),
    )
    asked, shown, order, correct = figures.retrieval_examples(study, "student", "people", 0, rows=3, k=40)
    assert list(asked["ap"]) == [found.ap.min(), np.sort(found.ap)[round((len(found.ap) - 1) / 2)], found.ap.max()]
    for (_, row), places, hits in zip(asked.iterrows(), order, correct):
        listed = shown.iloc[places]
        assert not ((listed["pid"] == row["pid"]) & (listed["camid"] == row["camid"])).any()
        assert (listed["pid"] != -1).all() and ((listed["pid"] == row["pid"]) == hits).all()
        matches = ((gallery["pid"] == row["pid"]) & (gallery["camid"] != row["camid"])).sum()
        if hits.sum() == matches:  # all are listed, so the list alone gives the AP
            ranks = np.flatnonzero(hits) + 1
            assert np.mean(np.arange(1, matches + 1) / ranks) == pytest.approx(row["ap"])


def test_training_curves_have_a_panel_a_term():
    plain = pd.DataFrame({"epoch": [1, 2], "loss": [3.0, 2.0], "identity": [2.0, 1.0], "triplet": [1.0, 1.0]})
    figure = figures.training_curves({"a": plain, "b": plain.assign(logit=1.0)})
    shown = [axes.get_title() for axes in figure.axes if axes.axison]
    assert shown == ["loss, all terms", "identity", "triplet", "logit"]
    assert [len(axes.lines) for axes in figure.axes[:4]] == [2, 2, 2, 1]
    single = figures.training_curves({"a": plain[["epoch", "loss", "identity"]]})
    assert len(single.axes) == 1


def test_gate_weights_by_group():
    weights = pd.DataFrame({"camid": [1, 1, 2, 2], "clip": [0.2, 0.4, 1.0, 1.0], "align": [0.8, 0.6, 0.0, 0.0]})
    figure = figures.gate_weights(weights, ["clip", "align"])
    assert sum(bar.get_height() for bar in figure.axes[0].patches) == 4
    assert [label.get_text() for label in figure.axes[1].get_yticklabels()] == ["1", "2"]
    with pytest.raises(ValueError, match="no column 'type'; group by one of camid"):
        figures.gate_weights(weights, ["clip", "align"], by="type")


def test_trade_off_labels_every_method_with_a_cost(table):
    figure = figures.trade_off(table)
    assert len(figure.axes) == 2
    assert sorted(texts(figure.axes[0])) == sorted(
        ["CLIP expert (400 k)", "MoE, soft gate (800 k)", "Student (1.2 M)", "Student + KD from MoE (1.6 M)"]
    )
    given = figures.trade_off(results.summary(table), table[table["metric"].isin(["parameters", "latency_ms"])])
    assert texts(given.axes[0]) == texts(figure.axes[0])


def test_labels_are_moved_apart_and_stay_in_order():
    heights = figures._apart(np.array([0.0, 0.5, 0.5, 0.501, 0.99, 1.0]))
    assert (np.diff(heights) > 0.9 / 14).all() and heights.min() >= 0 and heights.max() <= 1


def test_efficiency_bars_print_every_value(table):
    figure = figures.efficiency_bars(table)
    assert [texts(axes)[0] for axes in figure.axes] == ["400 k", "30 M", "2"]
    assert all(axes.get_xscale() == "log" for axes in figure.axes)


def test_captioned_sheet():
    figure = figures.captioned_sheet(np.zeros((3, 3, 8, 8), np.uint8), ["a", "b", "c"], columns=2)
    assert [axes.get_xlabel() for axes in figure.axes if axes.axison] == ["a", "b", "c"]


def test_saved_figures_are_signed_and_the_same_each_time(study, table):
    files = []
    for _ in range(2):
        figure = figures.save(study, "bars", figures.accuracy_bars(table))
        assert "A made-up study (experts are stand-ins)" in figure.get_supxlabel()
        folder = study.results / "figures"
        files.append([(folder / f"bars.{suffix}").read_bytes() for suffix in ("png", "svg")])
    assert files[0] == files[1] and len(files[0][0]) < 300_000


def test_pictures_that_must_not_be_published_stay_private(study, frame):
    figures.save(study, "sheet", figures.sample_sheet(frame, ids=2, per_id=2))
    assert not (study.results / "figures").exists() and (study.artifacts.root / "figures" / "sheet.png").exists()
    study.params.publish_images = True
    figures.save(study, "sheet", figures.sample_sheet(frame, ids=2, per_id=2))
    assert (study.results / "figures" / "sheet.png").exists()
