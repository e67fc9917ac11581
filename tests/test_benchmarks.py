import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from benchmarks import loading, page, peers, reaching, retrieval, search, timing, training
from reidlib.training import Machine

SETS = retrieval.draw("30x200x16")


def test_peers_rank_as_reidlib_does():
    expected = retrieval.our_evaluation(SETS)
    assert 0.1 < expected < 0.9
    for rank in [*peers.rankings().values(), peers.sorted_ranking]:
        assert retrieval.ranked(SETS, rank) == pytest.approx(expected, abs=1e-6)


def test_peers_rerank_as_reidlib_does():
    dense = peers.dense_rerank(*peers._distances(SETS.query, SETS.gallery))
    for distances in [dense, *(rerank(SETS.query, SETS.gallery) for rerank in peers.rerankings().values())]:
        np.testing.assert_allclose(distances, retrieval.our_rerank(SETS), rtol=0, atol=1e-4)


def test_torchreids_transforms():
    picture = Image.fromarray(np.full((128, 64, 3), 255, np.uint8))
    for names in (loading.FLIP, loading.ALL):
        batch = loading.augmented(names)(picture)
        assert batch.shape == (3, *loading.SIZE)
        white = [(1 - mean) / std for mean, std in zip(loading.MEAN, loading.STD)]
        np.testing.assert_allclose(batch[:, 0, 0] if names == loading.FLIP else batch.amax((1, 2)), white, rtol=1e-4)


@pytest.mark.skipif(not retrieval.CAN_RESET.exists(), reason="an earlier peak may hide the call's")
def test_memory_beyond_the_inputs():
    """In a process of its own: one that has opened a study keeps what it freed, and takes arrays from there."""
    code = (
        "import numpy as np; from benchmarks import retrieval; held = np.zeros(8_000_000)\n"
        "print(*retrieval.measure(lambda: np.ones_like(held).sum(), lambda: None))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, megabytes = map(float, run.stdout.split())
    assert seconds > 0 and megabytes == pytest.approx(64, abs=4)


def test_what_takes_too_long_is_left_out(monkeypatch):
    monkeypatch.setattr(retrieval, "PATIENCE", {"evaluation": 1.0})
    fast, slow = 1e-9, 1.0 / (20 * 100)  # seconds a distance: one second at the first size, four at the second
    monkeypatch.setattr(
        timing, "in_turns", lambda calls, *_, **__: (
            {name: np.full(2, (slow if "Python" in name else fast) * 20 * 100) for name in calls},
            dict.fromkeys(calls, 0.5),
        ),
    )  # fmt: skip
    table = timing.beside_peers("evaluation", Machine("cpu"), quick=True).set_index("size")
    runs = table.loc[list(retrieval.QUICK)[1]].set_index("method")["runs"]
    assert runs[retrieval.OURS] == 2 and (runs[[name for name in runs.index if "Python" in name]] == 0).all()
    said = page.shown(table.reset_index())
    assert (said["seconds"] == "left out").sum() == (runs == 0).sum() > 0
    legend = page.growth(table.reset_index()).legends[0]
    assert sum("left out beyond 20x100x16" in text.get_text() for text in legend.texts) == (runs == 0).sum()


def test_tables_become_a_page(tmp_path):
    for name in ("evaluation", "reranking"):
        table = timing.beside_peers(name, Machine("cpu"), quick=True)
        assert (table["low"] <= table["seconds"]).all() and (table["seconds"] <= table["high"]).all()
        assert table["difference"].max() < 1e-4
        table.to_csv(tmp_path / f"{name}.csv", index=False)
    rated = table.assign(case="teacher", items=32)
    rated.to_csv(tmp_path / "teacher.csv", index=False)
    page.lay_out(tmp_path)
    said = (tmp_path / "README.md").read_text()
    for name in ("evaluation", "reranking", "teacher"):
        assert (tmp_path / f"{name}.png").exists() and (tmp_path / f"{name}.svg").exists() and f"{name}.png" in said
    assert pd.read_csv(tmp_path / "teacher.csv")["machine"][0] in said


def test_training_is_timed_with_teacher_and_without():
    for name, run in (("training", training.run), ("teacher", training.run_teacher)):
        table = run(Machine("cpu"), quick=True)
        assert set(table["case"]) == {name} and (table["seconds"] > 0).all()
        said = " ".join(table["method"])
        assert all(
            part in said
            for part in {"training": ("expert:clip, bf16", "gate", "student's input"), "teacher": ("cached", "online")}[
                name
            ]
        )


def test_searches_find_what_the_product_finds():
    table = search.run(Machine("cpu"), quick=True)
    assert (table.loc[table["method"].isin([retrieval.OURS, retrieval.PRODUCT]), "recall"] == 1).all()  # small, so exact
    assert (table.loc[table["method"] == retrieval.OURS, "filtered"] == 1).all() and (table["recall"] > 0.8).all()
    said = page.shown(table)
    assert list(said.columns[-5:]) == ["queries / s", "found", "of one camera", "index (MB)", "build (s)"]


def test_searched_vectors_lie_as_a_students():
    """Not as white noise, in which nothing is near anything."""
    query, gallery, camid = search.draw("50x4000x512")
    assert gallery.shape == (4000, 512) and gallery.dtype == np.float32 and set(camid) == set(range(6))
    np.testing.assert_allclose(np.linalg.norm(gallery, axis=1), 1, rtol=1e-5)
    variances = np.sort(np.linalg.eigvalsh(np.cov(gallery.T)))[::-1]
    assert 20 < np.searchsorted(np.cumsum(variances) / variances.sum(), 0.5) < 40  # directions; of white noise 220
    similarity = np.sort(query @ gallery.T, axis=1)[:, ::-1]
    assert similarity[:, 0].mean() > 0.6 and np.median(similarity) < 0.05  # the same identity's and the others'


def test_an_index_that_is_long_to_build_is_left_out(monkeypatch):
    monkeypatch.setattr(search, "PATIENCE", 0)
    table = search.run(Machine("cpu"), quick=True)
    rest = table[table["runs"] == 0]
    assert set(rest["method"]) == set(search.METHODS) & set(table["method"]) and set(rest["size"]) == {"20x2000x16"}
    assert set(page.shown(table).loc[rest.index, "seconds"]) == {"left out"}


def test_time_to_accuracy(tmp_path):
    table = reaching.run(Machine("cpu"), quick=True)
    own = table[table["method"] == retrieval.OURS]
    assert own["epochs"].tolist() == [2, 3] and own["mAP"].between(0.1, 1).all() and (table["seconds"] > 0).all()
    table.to_csv(tmp_path / "reaching.csv", index=False)
    page.lay_out(tmp_path)
    assert (tmp_path / "reaching.png").exists()
    assert f" {100 * own['mAP'].iloc[0]:.1f} |" in (tmp_path / "README.md").read_text()
