import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

matplotlib.use("Agg")

from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.colors import to_hex, to_rgba  # noqa: E402
from matplotlib.patches import FancyBboxPatch  # noqa: E402
from matplotlib.transforms import Bbox  # noqa: E402

from reidlib import answers, figures, params, results  # noqa: E402
from reidlib.data import Dataset  # noqa: E402
from reidlib.figures import pictures, style  # noqa: E402
from reidlib.figures.cost import _apart, _front  # noqa: E402
from reidlib.methods import ELSEWHERE, label  # noqa: E402
from reidlib.params import EncoderParams, Recipe  # noqa: E402
from reidlib.retrieval import EmbeddingSet, evaluate  # noqa: E402

METHODS = ["pixels", "expert:clip", "moe:soft", "student", "student+kd:moe"]
DEMO = Path(__file__).parent.parent / "params" / "demo.yaml"


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
def everything(table) -> pd.DataFrame:
    """`table` with what a whole study adds: variants, sizes and their costs, other domains, mixed training."""
    rows = [
        ("made_up", method, train, test, seed, "mAP", value + 0.01 * seed)
        for method, train, test, value in (
            ("student+kd:moe/terms=logit", "vehicles", "vehicles", 0.6),
            ("student/size=big", "vehicles", "vehicles", 0.95),
            ("student+kd:moe/size=big", "vehicles", "vehicles", 0.85),
            ("moe:soft", "vehicles", "people", 0.3), ("moe:soft", "people", "vehicles", 0.2),
            ("moe:soft", "vehicles+people", "people", 0.65), ("moe:soft", "vehicles+people", "vehicles", 0.6),
            ("student", "vehicles", "people", 0.25),
        )
        for seed in (0, 1, 2)
    ]  # fmt: skip
    rows += [
        ("made_up", method, "vehicles", "vehicles", 0, metric, value)
        for method, scale in (("student/size=big", 1.0), ("moe:soft/configuration=paper", 200.0))
        for metric, value in (("parameters", 5e6 * scale), ("macs", 4e8 * scale), ("latency_ms", 12.0 * scale))
    ]
    return pd.concat([table, pd.DataFrame(rows, columns=results.COLUMNS)], ignore_index=True)


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
    return SimpleNamespace(params=params, output=tmp_path / "made")


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def worded(axes) -> list[list[str]]:
    """Words about pictures, line by line: sorted by where the pictures lie."""
    by_height: dict[float, list] = {}
    for text in sorted(axes.texts, key=lambda text: text.xy[0]):
        by_height.setdefault(round(text.xy[1], 3), []).append(text.get_text())
    return [words for _, words in sorted(by_height.items())]


def overlaps(boxes) -> list[tuple[int, int]]:
    """Which of the bounding boxes share more than a hair's breadth."""
    boxes = [box.padded(-0.5) for box in boxes]
    return [(i, j) for i, a in enumerate(boxes) for j, b in enumerate(boxes[:i]) if a.overlaps(b)]


def studies() -> dict[str, params.StudyParams]:
    """Params the overview must suit: few experts and many, with and without router, terms and stand-ins."""
    demo = params.load(DEMO)
    many = {f"expert{i}": demo.experts["clip"] for i in range(4)}
    plain = {name: spec.model_copy(update={"stands_in_for": None}) for name, spec in demo.experts.items()}
    router = {"router": demo.student, "gates": ["soft", "top1", "router"]}
    kd = {"terms": demo.distillation.terms | {"relational": 0.0}, "teacher": "online"}
    more = {"terms": {"logit": 0.5, "attention_transfer": 2.0, "fitnet": 3.0, "crd": 4.0}}
    return {
        "demo": demo,
        "routed": demo.model_copy(update={"moe": demo.moe.model_copy(update=router)}),
        "not routed": demo.model_copy(update={"moe": demo.moe.model_copy(update={"router": None})}),
        "four": demo.model_copy(update={"experts": many}),
        "paper": demo.model_copy(update={
            "experts": plain, "distillation": demo.distillation.model_copy(update=kd)
        }),
        "other terms": demo.model_copy(update={"distillation": demo.distillation.model_copy(update=more)}),
        "no terms": demo.model_copy(update={"distillation": demo.distillation.model_copy(update={"terms": {}})}),
    }  # fmt: skip


@pytest.mark.parametrize("name", studies())
def test_the_overview_says_what_the_params_say(name):
    study = studies()[name]
    figure = figures.method_overview(study)
    (axes,) = figure.axes
    words = texts(axes)
    text = " ".join(words)
    for expert, spec in study.experts.items():
        assert label(f"expert:{expert}") in words and spec.encoder.name in words
        assert (f"stands in for {spec.stands_in_for}" in text) == bool(spec.stands_in_for)
    assert study.student.encoder.name in words
    kd = study.distillation
    headings = [word.replace("\n", "") for word in words]
    for term, weight in kd.terms.items():
        assert (term in headings) == (weight > 0) == (f"weight {weight:g}" in words)
    assert (f"distillation, teacher {kd.teacher}" in words) == bool(kd.terms)
    assert ("router" in words) == (study.moe.router is not None)


@pytest.mark.parametrize("name", studies())
def test_in_the_overview_words_stay_in_their_boxes_and_boxes_apart(name):
    figure = figures.method_overview(studies()[name])
    figure.draw_without_rendering()
    (axes,) = figure.axes
    words = [text.get_window_extent() for text in axes.texts]
    assert not overlaps(words)
    boxes = [patch.get_window_extent() for patch in axes.patches if isinstance(patch, FancyBboxPatch)]
    for text, word in zip(axes.texts, words):
        assert figure.bbox.x0 <= word.x0 and word.x1 <= figure.bbox.x1
        inside = [box for box in boxes if box.contains(word.x0 + word.width / 2, word.y0 + word.height / 2)]
        smallest = min(inside, key=lambda box: box.width * box.height, default=None)
        fits = smallest is None or (smallest.x0 < word.x0 and word.x1 < smallest.x1 and smallest.y0 < word.y0)
        assert fits, f"'{text.get_text()}' leaves its box"
    for i, a in enumerate(boxes):
        for b in boxes[:i]:  # apart, or one in the other
            joint = Bbox.intersection(a, b)
            area = joint.width * joint.height if joint else 0
            assert area < 1 or area > 0.99 * min(a.width * a.height, b.width * b.height)


def test_sample_sheet_has_an_identity_a_row_sorted_by_camera(frame):
    figure = figures.sample_sheet(frame, ids=10, per_id=4, seed=1)
    (axes,) = figure.axes
    assert len(axes.images) == 16  # 4 identities, no distractor
    rows = worded(axes)
    assert [row[0] for row in rows[1::2]] == ["pid 1", "pid 2", "pid 3", "pid 4"]
    for row, last in zip(rows[::2], (3, 3, 3, 2)):
        cameras = [int(text.split()[-1]) for text in row]
        assert len(cameras) == 4 and cameras == sorted(cameras) and set(cameras) == set(range(1, last + 1))
    (axes,) = figures.sample_sheet(frame, ids=2, per_id=99).axes
    assert max(map(len, worded(axes))) == 6  # no more columns than pictures
    assert not overlaps([image.get_window_extent() for image in axes.images])


def test_dataset_statistics(frame, tmp_path):
    dataset = Dataset("vehicles", tmp_path, frame[frame["pid"] > 0], frame[:3], frame)
    figure = figures.dataset_statistics({"a": dataset, "b": dataset})
    assert len(figure.axes) == 4
    left, right = figure.axes[:2]
    assert sum(bar.get_height() for bar in left.patches) == 4  # identities
    assert sum(bar.get_height() for bar in right.patches) == 22 + 3 + 23
    for_testing = Dataset("elsewhere", tmp_path, frame[:0], frame[:3], frame)
    assert "testing alone" in texts(figures.dataset_statistics({"c": for_testing}).axes[0])[0]


def test_accuracy_bars_have_a_panel_a_data_set(table):
    figure = figures.accuracy_bars(table)
    assert [axes.get_title() for axes in figure.axes] == ["vehicles", "people"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [label(m) for m in METHODS]
    assert texts(figure.axes[1]) == ["51.0", "61.0", "71.0", "81.0", "91.0"]
    (dots,) = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert len(dots.get_xdata()) == 15


def test_accuracy_bars_leave_variants_and_mixed_training_out_unless_asked(table, everything):
    figure = figures.accuracy_bars(everything)
    assert [axes.get_title() for axes in figure.axes] == ["vehicles", "people"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [label(m) for m in METHODS]
    assert texts(figure.axes[0]) == ["51.0", "61.0", "71.0", "81.0", "91.0"]
    some = figures.accuracy_bars(everything, methods=["student", "student/size=big"])
    assert texts(some.axes[0]) == ["81.0", "96.0"]


@pytest.fixture
def differences() -> pd.DataFrame:
    rows = [
        ("student+kd:moe/terms=logit", -0.05, -0.08, -0.02, "vehicles"),
        ("student+kd:moe/terms=embedding", 0.01, -0.01, 0.03, "vehicles"),
        ("student+kd:moe/temperature=1", 0.02, 0.01, 0.03, "vehicles"),
        ("student+kd:moe/terms=logit", 0.001, np.nan, np.nan, "people"),
    ]
    return pd.DataFrame(rows, columns=["method", "mean", "low", "high", "dataset"])


def test_ablation_bars_tell_by_their_fill_whether_zero_is_left_out(differences):
    figure = figures.ablation_bars(differences, "Terms")
    vehicles, people = figure.axes
    points = [line for line in vehicles.lines if line.get_marker() == "o"]
    assert [float(line.get_xdata()[0]) for line in points] == pytest.approx([-5, 1, 2])
    assert [line.get_markerfacecolor() != "white" for line in points] == [True, False, True]
    whiskers = [collection.get_segments()[0][:, 0] for collection in vehicles.collections]
    np.testing.assert_allclose(whiskers, [[-8, -2], [-1, 3], [1, 3]])
    assert texts(vehicles) == ["−5.0", "+1.0", "+2.0"] and texts(people) == ["+0.1"]
    assert [line.get_markerfacecolor() for line in people.lines if line.get_marker() == "o"] == ["white"]
    zero = vehicles.lines[0]
    assert list(zero.get_xdata()) == [0, 0]
    names = [label.get_text() for label in vehicles.get_yticklabels()]
    assert names == ["terms = logit", "terms = embedding", "temperature = 1"]
    assert "Student + KD from MoE" in vehicles.get_xlabel().replace("\n", " ")
    between = [line.get_ydata()[0] for line in vehicles.lines if line.get_ydata()[0] == line.get_ydata()[-1] == 1.5]
    assert len(between) == 1  # terms end, temperatures begin


def test_ablation_bars_of_different_methods_name_them_in_full(differences):
    gates = differences.assign(method=["moe:top1", "moe:uniform", "moe:concat", "moe:top1"])
    names = [label.get_text() for label in figures.ablation_bars(gates).axes[0].get_yticklabels()]
    assert names == ["MoE, top-1 gate", "Uniform ensemble", "Concatenation"]


def test_cross_domain_heatmap_has_a_map_a_method_on_one_scale(study, everything):
    figure = figures.cross_domain_heatmap(everything)
    moe, student, bar = figure.axes
    assert [moe.get_title(), student.get_title()] == ["MoE, soft gate", "Student"]  # tested across; no variant
    assert [label.get_text() for label in moe.get_yticklabels()] == ["vehicles", "people", "vehicles\n+ people"]
    assert [label.get_text() for label in moe.get_xticklabels()] == ["vehicles", "people"]
    assert texts(moe) == ["71.0", "31.0", "21.0", "71.0", "61.0", "66.0"]
    assert texts(student) == ["81.0", "26.0", "–", "81.0", "–", "–"]
    assert moe.collections[0].norm is student.collections[0].norm
    assert (student.collections[0].norm.vmin, student.collections[0].norm.vmax) == pytest.approx((21, 81))
    assert bar.get_ylabel() == "mAP (%), bold: trained there"
    assert [text.get_fontweight() for text in moe.texts] == ["bold", "normal", "normal", "bold", "bold", "bold"]
    figures.save(study, "cross", figure)  # holds no picture of the data, so it may be published
    assert (study.output / "figures" / "cross.png").exists()
    with pytest.raises(ValueError, match="no method was tested on another data set"):
        figures.cross_domain_heatmap(everything, methods=["pixels"])


def test_cross_domain_heatmap_of_one_training_set_has_a_row_a_method(everything):
    axes, _ = figures.cross_domain_heatmap(everything[everything["train_dataset"] == "vehicles"]).axes
    assert axes.get_title() == "trained on vehicles"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["MoE, soft gate", "Student"]
    assert texts(axes) == ["71.0", "31.0", "81.0", "26.0"]
    assert [text.get_fontweight() for text in axes.texts] == ["bold", "normal", "bold", "normal"]


def test_cross_domain_heatmap_writes_dark_on_light_and_light_on_dark(everything):
    axes = figures.cross_domain_heatmap(everything).axes[0]
    mesh = axes.collections[0]
    for text, value in zip(axes.texts, mesh.get_array().ravel()):
        back, ink = (np.array(matplotlib.colors.to_rgb(c)) for c in (mesh.cmap(mesh.norm(value)), text.get_color()))
        assert contrast(back, ink) > 3


def contrast(a: np.ndarray, b: np.ndarray) -> float:
    """Of two sRGB colours, 1 to 21: Web Content Accessibility Guidelines 2.2."""
    linear = [np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) for c in (a, b)]
    low, high = sorted(float(c @ [0.2126, 0.7152, 0.0722]) for c in linear)
    return (high + 0.05) / (low + 0.05)


def test_cmc_curves_differ_by_more_than_colour():
    methods = ["moe:soft", "moe:top1", "expert:clip"]
    figure = figures.cmc_curves({m: np.full((3, 50), 0.5) for m in methods}, "CMC")
    lines = figure.axes[0].lines
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 3
    assert len(lines[0].get_xdata()) == 20 and lines[0].get_ydata()[0] == 50


def test_search_lists_show_each_query_and_its_answers_with_their_similarity(frame):
    paths = frame["path"].tolist()
    rows = [(paths[q], rank, 1 - rank / 10, paths[q + rank]) for q in (0, 1) for rank in (1, 2, 3)]
    figure = figures.search_lists(pd.DataFrame(rows, columns=["query", "rank", "similarity", "path"]), "title")
    words = [text.get_text() for text in figure.axes[0].texts]
    assert len(figure.axes[0].images) == 8 and words == ["query", *["0.90", "0.80", "0.70"] * 2]
    alone = figures.search_lists(pd.DataFrame(columns=["query", "rank", "similarity", "path"]))
    assert "no picture but the query" in texts(alone.axes[0])[0]


def test_pictures_are_shown_as_networks_are_given_them(tmp_path):
    thermal = np.linspace(0, 3000, 64 * 32).reshape(64, 32).astype(np.uint16)
    Image.fromarray(thermal).save(file := tmp_path / "thermal.png")
    rows = pd.DataFrame([(str(file), 1, 0.5, str(file))], columns=["query", "rank", "similarity", "path"])
    shown = figures.search_lists(rows, "title").axes[0].images[0].get_array()
    assert 110 < shown.mean() < 145 and shown.min() < 5  # not nearly white


def test_ranked_lists_mark_right_and_wrong_without_colour(frame):
    order, correct = np.array([[0, 1, 2], [3, 4, 5]]), np.array([[True, False, True], [False, False, True]])
    figure = figures.ranked_lists(frame[:2].assign(ap=[0.25, 1.0]), frame, order, correct, "title")
    (axes,) = figure.axes
    assert worded(axes) == [["query", "1 ✓", "2 ✗", "3 ✓"], ["AP 25 %"], ["1 ✗", "2 ✗", "3 ✓"], ["AP 100 %"]]
    frames = [patch.get_edgecolor() for patch in axes.patches]
    right, wrong = style.RIGHT, style.WRONG
    expected = [style.INK, right, wrong, right, style.INK, wrong, wrong, right]
    assert frames == [to_rgba(colour) for colour in expected]
    # the first query has one match, found at once: what comes after could not be right
    figure = figures.ranked_lists(frame[:2].assign(matches=[1, 9]), frame, order, correct)
    (axes,) = figure.axes
    assert worded(axes) == [["query", "1 ✓", "2", "3"], ["1 ✗", "2 ✗", "3 ✓"]]
    assert axes.patches[2].get_edgecolor() == axes.patches[3].get_edgecolor() == to_rgba(pictures.DONE)


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
    asked, shown, order, correct = answers.retrieval_examples(study, "student", "people", 0, rows=3, k=40)
    assert list(asked["ap"]) == [found.ap.min(), np.sort(found.ap)[round((len(found.ap) - 1) / 2)], found.ap.max()]
    for (_, row), places, hits in zip(asked.iterrows(), order, correct):
        listed = shown.iloc[places]
        assert not ((listed["pid"] == row["pid"]) & (listed["camid"] == row["camid"])).any()
        assert (listed["pid"] != -1).all() and ((listed["pid"] == row["pid"]) == hits).all()
        matches = ((gallery["pid"] == row["pid"]) & (gallery["camid"] != row["camid"])).sum()
        if hits.sum() == matches:  # all are listed, so the list alone gives the AP
            ranks = np.flatnonzero(hits) + 1
            assert np.mean(np.arange(1, matches + 1) / ranks) == pytest.approx(row["ap"])


@pytest.fixture
def compared(frame) -> SimpleNamespace:
    """A study of 4 queries, one an identity, by camera 1; the student knows 1 and 4, the teacher 1, 2 and 3."""
    query = frame[(frame["camid"] == 1) & (frame["pid"] > 0)].drop_duplicates("pid")
    gallery = frame[(frame["camid"] != 1) | (frame["pid"] == 0)]
    known = {"student": {1, 4}, "moe:soft": {1, 2, 3}}
    turn = 2 * np.pi / 4

    def embedding_set(method, train, seed, test, part):
        rows = query if part == "query" else gallery
        # an unknown identity's query looks like the next identity
        seen = [pid + (part == "query" and pid not in known[method]) for pid in rows["pid"]]
        angle = turn * np.array(seen) + 0.01 * np.arange(len(rows)) / len(rows)
        return EmbeddingSet(np.stack([np.cos(angle), np.sin(angle)], 1), rows["pid"], rows["camid"])

    return SimpleNamespace(
        embedding_set=embedding_set,
        evaluate=lambda method, train, seed: evaluate(
            *(embedding_set(method, train, seed, None, part) for part in ("query", "gallery"))
        ),
        dataset=lambda name: SimpleNamespace(query=query, gallery=gallery),
    )


def test_comparison_lists_hold_queries_that_only_the_teacher_knows(compared):
    found = answers.comparison_lists(compared, "student", "moe:soft", "people", 0, rows=4, k=3)
    assert set(found.query["pid"]) == {2, 3} and (found.found, found.reverse, found.queries) == (2, 1, 4)
    (_, student, worse), (_, teacher, better) = found.lists.values()
    assert not student[:, 0].any() and teacher[:, 0].all() and (better > worse).all() and (np.diff(worse) >= 0).all()
    for order, correct, _ in found.lists.values():
        listed = found.gallery["pid"].to_numpy()[order]
        np.testing.assert_array_equal(listed == found.query["pid"].to_numpy()[:, None], correct)
    assert len(answers.comparison_lists(compared, "student", "moe:soft", "people", 0, rows=1).query) == 1


def test_comparison_lists_are_those_of_a_plain_search():
    rng = np.random.default_rng(1)
    gallery = pd.DataFrame({"pid": rng.integers(-1, 6, 80), "camid": rng.integers(1, 4, 80)})
    query = pd.DataFrame({"pid": rng.integers(1, 6, 60), "camid": rng.integers(1, 4, 60)})
    centres, frames = rng.normal(size=(8, 4)), {"query": query, "gallery": gallery}
    sets = {
        method: {part: EmbeddingSet(centres[f["pid"]] + rng.normal(size=(len(f), 4)), f["pid"], f["camid"])
                 for part, f in frames.items()} for method in ("student", "moe:soft")
    }  # fmt: skip
    study = SimpleNamespace(
        embedding_set=lambda method, train, seed, test, part: sets[method][part],
        evaluate=lambda method, train, seed: evaluate(sets[method]["query"], sets[method]["gallery"]),
        dataset=lambda name: SimpleNamespace(**frames),
    )
    right = {}
    for method, own in sets.items():
        unit = {part: x.features / x.features.norm(dim=1, keepdim=True) for part, x in own.items()}
        near = (unit["query"] @ unit["gallery"].T).numpy()
        for i, (pid, camid) in enumerate(query[["pid", "camid"]].to_numpy()):
            listed = (gallery["pid"] != -1) & ~((gallery["pid"] == pid) & (gallery["camid"] == camid))
            best = np.argmax(np.where(listed, near[i], -2))
            right[method, i] = gallery["pid"][best] == pid
    such = [i for i in range(60) if right["moe:soft", i] and not right["student", i]]
    reverse = [i for i in range(60) if right["student", i] and not right["moe:soft", i]]
    found = answers.comparison_lists(study, "student", "moe:soft", "people", 0, rows=99)
    assert (found.found, found.reverse, found.queries) == (len(such), len(reverse), 60) and such and reverse
    asked = found.query[list(query)].to_numpy()
    assert sorted(map(tuple, asked)) == sorted(map(tuple, query.iloc[such].to_numpy()))
    for pid, camid, matches in found.query[["pid", "camid", "matches"]].to_numpy():
        assert matches == ((gallery["pid"] == pid) & (gallery["camid"] != camid)).sum()


def test_paired_lists_show_both_methods_beside_a_query(compared):
    figure = figures.paired_lists(answers.comparison_lists(compared, "student", "moe:soft", "people", 0, k=3))
    (axes,) = figure.axes
    assert len(axes.images) == 2 * (1 + 2 * 3) and texts(axes).count("query") == 2
    firsts = [text for text in texts(axes) if text.startswith("1 ")]
    assert firsts == ["1 ✗", "1 ✓", "1 ✗", "1 ✓"]  # student, teacher, twice
    lists = [text for text in texts(axes) if "AP" in text]
    assert [text.split("\n")[0] for text in lists] == ["Student", "MoE, soft gate"] * 2
    said = figure.get_suptitle().replace("\n", " ")
    assert "wrong by “Student”, right by “MoE, soft gate”: 2 of 4 queries" in said and "other way round: 1" in said


def test_paired_lists_say_so_where_there_is_no_such_query(compared):
    def perfect(method, train, seed, test, part):
        rows = getattr(compared.dataset(train), part)
        return EmbeddingSet(np.eye(5)[rows["pid"]], rows["pid"], rows["camid"])

    compared.embedding_set = perfect
    found = answers.comparison_lists(compared, "student", "moe:soft", "people", 0)
    (axes,) = figures.paired_lists(found).axes
    assert "0 of 4 queries" in texts(axes)[0].replace("\n", " ") and not axes.images


def clouds(spread: float, seed: int = 0) -> EmbeddingSet:
    """6 pictures of each of 15 identities around a direction of their own, 9 distractors and 9 junk, and one alone."""
    pid = np.array([*np.repeat(np.arange(1, 16), 6), *[0] * 9, *[-1] * 9, 99])
    rng = np.random.default_rng(seed)
    features = np.eye(120)[pid] + spread * rng.normal(size=(len(pid), 120))
    return EmbeddingSet(features, pid, np.arange(len(pid)) % 4)


def test_embedding_map_shows_the_same_identities_by_colour_and_shape():
    figure = figures.embedding_map({"student": clouds(0.02), "moe:soft": clouds(0.02, seed=1)}, ids=12)
    shown = []
    for axes in figure.axes:
        assert [len(points.get_offsets()) for points in axes.collections] == [6] * 12
        shown.append([points.get_label() for points in axes.collections])
        looks = {(to_hex(p.get_facecolor()[0]), p.get_paths()[0].vertices.tobytes()) for p in axes.collections}
        assert len(looks) == 12 and len({shape for _, shape in looks}) == 12  # told apart without colour too
    assert shown[0] == shown[1] and not {"pid 0", "pid -1", "pid 99"} & set(shown[0])
    assert [axes.get_title() for axes in figure.axes] == ["Student", "MoE, soft gate"]
    (all_of_them,) = figures.embedding_map({"student": clouds(0.02)}, ids=99).axes
    assert {points.get_label() for points in all_of_them.collections} == {f"pid {pid}" for pid in range(1, 16)}
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == shown[0]


def test_embedding_map_keeps_together_what_is_together_and_is_the_same_each_time():
    places = []
    for _ in range(2):
        (axes,) = figures.embedding_map({"student": clouds(0.02)}, ids=5).axes
        places.append(np.stack([points.get_offsets() for points in axes.collections]))
    np.testing.assert_array_equal(*places)
    centres = places[0].mean(1)
    own = np.linalg.norm(places[0] - centres[:, None], axis=2).max()
    apart = np.linalg.norm(centres[:, None] - centres, axis=2)[~np.eye(5, dtype=bool)].min()
    assert own < apart


def test_embedding_map_refuses_what_cannot_be_compared():
    other = clouds(0.02)
    other = EmbeddingSet(other.features, other.pid[::-1].copy(), other.camid)
    with pytest.raises(ValueError, match="moe:soft: other pictures than student"):
        figures.embedding_map({"student": clouds(0.02), "moe:soft": other})
    with pytest.raises(ValueError, match="at least 2 identities"):
        figures.embedding_map({"student": EmbeddingSet(np.eye(3), [0, 1, 1], [0, 0, 1])})


def test_training_curves_have_a_panel_a_term():
    plain = pd.DataFrame({"epoch": [1, 2], "loss": [3.0, 2.0], "identity": [2.0, 1.0], "triplet": [1.0, 1.0]})
    figure = figures.training_curves({"a": plain, "b": plain.assign(logit=1.0)})
    shown = [axes.get_title() for axes in figure.axes if axes.axison]
    assert shown == ["loss, all terms", "identity", "triplet", "logit"]
    assert [len(axes.lines) for axes in figure.axes[:4]] == [2, 2, 2, 1]
    single = figures.training_curves({"a": plain[["epoch", "loss", "identity"]]})
    assert len(single.axes) == 1


def test_training_curves_say_where_each_ones_pictures_change_their_size():
    plain = pd.DataFrame({"epoch": range(1, 7), "loss": np.arange(6.0)})
    of = lambda *stages: Recipe(epochs=6, lr=1e-3, stages=[{"epochs": n, "size": [8, 8]} for n in stages])  # noqa: E731
    lines = {}
    for case, recipes in {"alike": [of(2), of(2)], "apart": [of(2), of(1, 3)], "none": [of(), of()]}.items():
        figure = figures.training_curves({"a": plain, "b": plain}, dict(zip("ab", recipes)))
        drawn = [line for line in figure.axes[0].lines if line.get_linestyle() == ":"]
        lines[case] = {(line.get_xdata()[0], line.get_color()) for line in drawn}
    hues = [line.get_color() for line in figure.axes[0].lines[:2]]
    assert lines == {"alike": {(2.5, style.INK)}, "apart": {(2.5, hues[0]), (1.5, hues[1]), (4.5, hues[1])}, "none": set()}


def test_gate_weights_by_group():
    weights = pd.DataFrame({"camid": [1, 1, 2, 2], "clip": [0.2, 0.4, 1.0, 1.0], "align": [0.8, 0.6, 0.0, 0.0]})
    figure = figures.gate_weights(weights, ["clip", "align"])
    assert sum(bar.get_height() for bar in figure.axes[0].patches) == 4
    assert [label.get_text() for label in figure.axes[1].get_yticklabels()] == ["1 (2)", "2 (2)"]
    with pytest.raises(ValueError, match="no column 'type'; group by one of camid"):
        figures.gate_weights(weights, ["clip", "align"], by="type")


@pytest.mark.filterwarnings("error")  # such as of what the next release of a library drops
def test_one_weight_for_all_is_a_curve_with_its_best_named_and_the_gates_beside_it():
    curve = pd.DataFrame({"weight": [0, 0.5, 1], "mAP": [0.6, 0.8, 0.7]})
    gates = pd.DataFrame({"method": ["moe:soft", "moe:quality"], "weight": [0.4, 0.6], "mAP": [0.75, 0.82]})
    axes = figures.constant_weights(curve, gates, "clip").axes[0]
    line, *marks = axes.lines
    assert line.get_ydata().tolist() == pytest.approx([60, 80, 70])
    assert [(m.get_xdata()[0], m.get_ydata()[0]) for m in marks] == [pytest.approx((0.4, 75)), pytest.approx((0.6, 82))]
    assert [text.get_text() for text in axes.texts] == ["best: 80.0 at 0.5"]
    shown = [text.get_text() for text in axes.get_legend().get_texts()]
    assert shown == ["one weight for all pictures", "MoE, soft gate: 75.0", "MoE, quality gate: 82.0"]
    assert len(figures.constant_weights(curve, gates[:0], "clip").axes[0].lines) == 1  # no gate that weighs


def test_gate_weights_by_several_columns():
    weights = pd.DataFrame({
        "camid": [3, 1, 20, 1], "type": ["van", "sedan", None, "van"], "domain": ["vehicles"] * 3 + ["people"],
        "clip": [0.1, 0.2, 0.3, 0.9], "align": [0.9, 0.8, 0.7, 0.1],
    })  # fmt: skip
    figure = figures.gate_weights(weights, ["clip", "align"], by=["camid", "type", "domain"])
    _, cameras, types, domains = figure.axes
    groups = [[label.get_text() for label in axes.get_yticklabels()] for axes in (cameras, types, domains)]
    assert groups == [["1 (2)", "3 (1)", "20 (1)"], ["sedan (1)", "van (2)"], ["people (1)", "vehicles (3)"]]
    assert [axes.get_ylabel() for axes in (cameras, types, domains)] == ["camera", "type", "data set"]
    means = sorted(float(line.get_xdata()[0]) for line in domains.lines if line.get_marker() == "D")
    assert means == pytest.approx([0.2, 0.9])
    assert domains.get_xlabel() == "weight of the CLIP expert" and not cameras.get_xlabel()


def test_pareto_front_is_what_nothing_beats():
    rng = np.random.default_rng(0)
    for _ in range(20):
        cost, value = rng.integers(0, 6, (2, 12)).astype(float)  # with ties
        beaten = [
            any((cost[j] <= cost[i] and value[j] >= value[i]) and (cost[j] < cost[i] or value[j] > value[i])
                for j in range(12)) for i in range(12)
        ]  # fmt: skip
        np.testing.assert_array_equal(_front(cost, value), ~np.array(beaten))


def test_the_plateau_is_over_epochs_with_the_gain_beside():
    columns = ["epochs", "alone (%)", "taught (%)", "gain (points)", "low", "high", "seeds"]
    lines = [(5, 30, 50, 20, 15, 22, 1), (20, 50, 58, 8, 2, 10, 1), (80, 60, 60, 0, -2, 3, 1)]
    figure = figures.plateau(pd.DataFrame(lines, columns=columns, index=["people"] * 3))
    left, right = figure.axes
    assert np.allclose([line.get_ydata() for line in left.lines], [[30, 50, 60], [50, 58, 60]])
    assert np.allclose(right.lines[0].get_ydata(), [20, 8, 0]) and left.get_xticks().tolist() == [5, 20, 80]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["Student", "Student + KD from MoE"]
    assert left.get_title() == "people: mAP, 1 seed"


def test_pareto_shows_methods_with_costs_and_students_of_other_sizes(everything):
    figure = figures.pareto(everything)
    latency, names, parameters = figure.axes[:3]
    shown = [*METHODS[1:], "student/size=big", "student+kd:moe/size=big"]  # no pixels, no terms, not the paper's sizes
    named = [*map(label, METHODS[1:]), "Student, big", "Student + KD from MoE, big"]
    assert sorted(texts(names)) == sorted(named)
    for axes in (latency, parameters):
        points = {line.get_label(): line for line in axes.lines if line.get_label() in shown}
        assert set(points) == set(shown)
        filled = {m for m, line in points.items() if line.get_markerfacecolor() != "white"}
        assert filled == {"expert:clip", "moe:soft", "student+kd:moe", "student/size=big"}
        assert to_hex(points["moe:soft"].get_markerfacecolor()) == style.COLOURS["moe"]
        front = axes.lines[0]
        assert front.get_label() == "Pareto front" and front.get_drawstyle() == "steps-post"
        np.testing.assert_allclose(front.get_ydata(), [61, 71, 91, 96])
        assert (np.diff(front.get_xdata()) > 0).all()
    twin = {line.get_label(): line.get_xdata()[0] for line in latency.lines}
    assert twin["student+kd:moe/size=big"] == twin["student/size=big"] == 12  # one network, measured once
    other = everything[everything["method"] == "student+kd:moe"].assign(method="student+kd:align")
    other = other[other["metric"].isin(results.ACCURACY) & (other["seed"] < 2)]
    latency, names, _ = figures.pareto(pd.concat([everything, other])).axes[:3]
    twin = {line.get_label(): line.get_xdata()[0] for line in latency.lines}
    assert twin["student+kd:align"] == twin["student"], "the same network too"
    assert "Student + KD from ALIGN (2 seeds)" in texts(names)


@pytest.mark.parametrize("which", ["everything", "beside_peers"])
def test_pareto_labels_do_not_overlap(which, request):
    figure = figures.pareto(request.getfixturevalue(which))
    figure.draw_without_rendering()
    for left, names, right in np.array(figure.axes).reshape(-1, 3):
        words = [text.get_window_extent() for text in names.texts]
        assert len(words) >= 4 and not overlaps(words)
        for word in words:  # nor reach into the panels
            assert left.get_window_extent().x1 < word.x0 and word.x1 < right.get_window_extent().x0


@pytest.fixture
def beside_peers(everything) -> pd.DataFrame:
    rows = []
    for i, peer in enumerate(("peer:large", "peer:small")):
        rows += [("made_up", peer, ELSEWHERE, test, 0, "mAP", 0.88 - 0.2 * i) for test in ("vehicles", "people", "streets")]
        values = (("parameters", 2e6 / (1 + 9 * i)), ("macs", 1e8), ("latency_ms", 5.0 / (1 + 4 * i)))
        rows += [("made_up", peer, "vehicles", "vehicles", 0, *pair) for pair in values]
    return pd.concat([everything, pd.DataFrame(rows, columns=results.COLUMNS)], ignore_index=True)


def test_pareto_shows_peers_with_a_marker_of_their_own_and_says_what_they_are(everything, beside_peers):
    figure = figures.pareto(beside_peers)
    latency, names, _ = figure.axes[:3]
    assert len(figure.axes) == 6 and {"large (peer)", "small (peer)"} <= set(texts(names))
    points = {line.get_label(): line for line in latency.lines}
    assert {points[peer].get_marker() for peer in ("peer:large", "peer:small")} == {style.MARKERS["peer"]}
    assert points["peer:small"].get_markerfacecolor() != "white", "cheaper than all: on the front"
    said = [[text.get_text() for text in f.legends[0].get_texts()] for f in (figures.pareto(everything), figure)]
    assert said[1][:1] == said[0] and said[1][1].startswith("peer: trained elsewhere")
    assert len(set(style.MARKERS.values())) == len(set(style.COLOURS.values())) == len(style.MARKERS) == len(style.COLOURS)


def test_peers_have_a_bar_beside_the_others_and_no_map_of_domains(beside_peers):
    bars = figures.accuracy_bars(beside_peers)
    assert [axes.get_title() for axes in bars.axes] == ["vehicles", "people"]
    assert texts(bars.axes[0])[-2:] == ["88.0", "68.0"]
    *maps, _ = figures.cross_domain_heatmap(beside_peers).axes
    assert [axes.get_title() for axes in maps] == ["MoE, soft gate", "Student"]


def test_labels_are_moved_apart_and_stay_in_order():
    heights = _apart(np.array([0.0, 0.5, 0.5, 0.501, 0.99, 1.0]))
    assert (np.diff(heights) > 0.9 / 14).all() and heights.min() >= 0 and heights.max() <= 1


def test_efficiency_bars_print_every_value(table):
    figure = figures.efficiency_bars(table)
    assert [texts(axes)[0] for axes in figure.axes] == ["400 k", "30 M", "2"]
    assert all(axes.get_xscale() == "log" for axes in figure.axes)


def test_efficiency_bars_leave_variants_out_unless_asked(table, everything):
    assert texts(figures.efficiency_bars(everything).axes[0]) == texts(figures.efficiency_bars(table).axes[0])
    paper = figures.efficiency_bars(everything, methods=["moe:soft/configuration=paper"])
    assert texts(paper.axes[0]) == ["1 G"]


def test_captioned_sheet():
    figure = figures.captioned_sheet(np.zeros((3, 3, 8, 8), np.uint8), ["a", "b", "c"], columns=2)
    assert worded(figure.axes[0]) == [["a", "b"], ["c"]]


def test_saved_figures_are_signed_and_the_same_each_time(study, table):
    files = []
    for _ in range(2):
        figures.save(study, "bars", figure := figures.accuracy_bars(table))
        assert "A made-up study (experts are stand-ins)" in figure.get_supxlabel()
        folder = study.output / "figures"
        files.append([(folder / f"bars.{suffix}").read_bytes() for suffix in ("png", "svg")])
    assert files[0] == files[1] and len(files[0][0]) < 300_000


def test_pictures_that_must_not_be_published_stay_private(study, frame):
    figures.save(study, "sheet", figures.sample_sheet(frame, ids=2, per_id=2))
    assert not (study.output / "figures").exists() and (study.output / "private" / "figures" / "sheet.png").exists()
    study.params.publish_images = True
    figures.save(study, "sheet", figures.sample_sheet(frame, ids=2, per_id=2))
    assert (study.output / "figures" / "sheet.png").exists()


def test_importing_and_drawing_leave_matplotlibs_settings_as_they_are(tmp_path):
    code = f"""
import matplotlib, pathlib
before = dict(matplotlib.rcParams)
from reidlib import figures, params
figures.write(figures.method_overview(params.load({str(DEMO)!r})), pathlib.Path({str(tmp_path)!r}), "overview")
print([key for key, value in before.items() if matplotlib.rcParams[key] != value])
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=DEMO.parents[1], check=True)
    assert said.stdout.split() == ["[]"] and (tmp_path / "overview.svg").exists()


def test_a_figure_shown_elsewhere_looks_as_the_file_does(table):
    """Matplotlib makes and spaces ticks when it draws, which in a notebook is after the function has returned."""
    history = pd.DataFrame({"epoch": range(1, 9), "loss": np.arange(8.0), "identity": np.arange(8.0) ** 2, "triplet": 1.0})
    histories = {"a": history, "b": history.assign(logit=1.0)}
    for draw in (lambda: figures.training_curves(histories), lambda: figures.pareto(table)):
        shown, kept = draw(), draw()
        shown.draw_without_rendering()
        with plt.rc_context(style.STYLE):
            kept.draw_without_rendering()
        for here, there in zip(shown.axes, kept.axes, strict=True):
            assert here.get_position().bounds == pytest.approx(there.get_position().bounds)
            for axis, other in ((here.xaxis, there.xaxis), (here.yaxis, there.yaxis)):
                assert list(axis.get_ticklocs()) == list(other.get_ticklocs())
                for a, b in zip(axis.get_major_ticks(), other.get_major_ticks(), strict=True):
                    assert a.label1.get_fontsize() == b.label1.get_fontsize() == 9
                    assert a.label1.get_color() == b.label1.get_color() == style.GREY
                    assert a.gridline.get_color() == b.gridline.get_color()
