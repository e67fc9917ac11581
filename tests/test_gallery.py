"""A gallery that is searched: exact where it is small, nearly so where it is large, filtered before, kept and changed."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from reidlib.data import DataError
from reidlib.gallery import Gallery


def table(n, seed=0, people=None, width=16):
    """n pictures of some people by four cameras over ten days."""
    rng = np.random.default_rng(seed)
    people = people or max(n // 10, 1)
    centres, pid = np.random.default_rng(99).normal(size=(people, width)), rng.integers(0, people, n)
    vectors = (centres[pid] + 0.3 * rng.normal(size=(n, width))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    time = pd.Timestamp("2026-11-01") + pd.to_timedelta(rng.integers(0, 10, n), "D")
    return pd.DataFrame({"path": [f"{seed}-{i}.jpg" for i in range(n)], "pid": pid, "camid": rng.integers(1, 5, n),
                         "time": time, "embedding": list(vectors)})  # fmt: skip


def by_hand(rows, asked, top, allowed=None):
    """Similarities of the best answers, [Q, top]."""
    vectors = np.stack(rows["embedding"].to_list())
    if allowed is not None:
        vectors = vectors[allowed]
    return -np.sort(-(asked @ vectors.T), axis=1)[:, :top]


def vectors(rows):
    return np.stack(rows["embedding"].to_list())


@pytest.mark.parametrize("exact", [None, True])
def test_a_small_gallery_answers_exactly(exact):
    rows, asked = table(500), vectors(table(7, seed=1, people=50))
    found = Gallery.build(rows, exact).search(asked, top=5)
    assert (
        found["query"].tolist() == [q for q in range(7) for _ in range(5)] and found["rank"].tolist() == [1, 2, 3, 4, 5] * 7
    )
    np.testing.assert_allclose(found["similarity"].to_numpy().reshape(7, 5), by_hand(rows, asked, 5), atol=1e-6)
    assert (found["path"] == rows["path"].to_numpy()[found["id"]]).all()


def test_a_large_one_finds_nearly_all():
    rows = table(30_000, people=3000)
    asked = vectors(table(200, seed=1, people=3000))
    gallery = Gallery.build(rows)
    assert type(gallery.index).__name__ == "IndexIVFFlat"
    found = gallery.search(asked, top=10)["similarity"].to_numpy().reshape(200, 10)
    assert (np.abs(found - by_hand(rows, asked, 10)) < 1e-6).mean() > 0.95


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize(
    "where", ["camid != 3", "camid == 2 and time >= '2026-11-05'", "time < '2026-11-02' and camid == 1 and pid < 40"]
)
def test_a_filter_is_applied_before_the_search(exact, where):
    rows, asked = table(4000), vectors(table(9, seed=1, people=400))
    allowed = rows.eval(where).to_numpy()
    found = Gallery.build(rows, exact).search(asked, top=8, where=where)
    assert allowed[found["id"]].all()
    expected = by_hand(rows, asked, 8, allowed)
    assert len(found) == expected.size
    same = np.abs(found["similarity"].to_numpy().reshape(expected.shape) - expected) < 1e-6
    assert same.all() if exact else same.mean() > 0.9


def test_cells_of_the_querys_own_camera_take_nobodys_place():
    """Where a camera's pictures look alike, the nearest cells hold those of the query's own, which is not allowed."""
    rng, people, width = np.random.default_rng(0), 1500, 64
    centres, looks = rng.normal(size=(people, width)), 0.75 * rng.normal(size=(6, width))

    def seen(pid, camid):
        shown = centres[pid] + looks[camid] + 0.5 * rng.normal(size=(len(pid), width))
        return (shown / np.linalg.norm(shown, axis=1, keepdims=True)).astype(np.float32)

    pid, camid = rng.integers(0, people, 24_000), rng.integers(0, 6, 24_000)
    rows = pd.DataFrame({"path": pid.astype(str), "pid": pid, "camid": camid, "embedding": list(seen(pid, camid))})
    asked = rng.integers(0, people, 100)
    found = Gallery.build(rows).search(seen(asked, np.zeros(100, int)), top=5, where="camid != 0")
    first = found[found["rank"] == 1]
    assert len(found) == 500 and (first["pid"].to_numpy() == asked).mean() > 0.9


@pytest.mark.parametrize("exact", [True, False])
def test_what_is_added_is_found_and_what_is_removed_is_not(exact, tmp_path):
    rows, more = table(2000), table(50, seed=5, people=200)
    gallery = Gallery.build(rows, exact)
    ids = gallery.add(more)
    assert ids.tolist() == list(range(2000, 2050)) and len(gallery) == gallery.index.ntotal == 2050
    assert gallery.search(vectors(more), top=1)["id"].tolist() == ids.tolist()
    assert gallery.remove([*ids[:10], 10**9]) == 10 and len(gallery) == gallery.index.ntotal == 2040
    assert not set(gallery.search(vectors(more), top=3)["id"]) & set(ids[:10])
    gallery.save(tmp_path / "gallery")
    again = Gallery.load(tmp_path / "gallery")
    pd.testing.assert_frame_equal(again.search(vectors(more), top=3), gallery.search(vectors(more), top=3))
    assert again.add(more).tolist() == list(range(2050, 2100))  # an id is never used again, over a restart either
    again.save(tmp_path / "gallery")
    assert [path.name for path in tmp_path.iterdir()] == ["gallery"] and len(Gallery.load(tmp_path / "gallery")) == 2090


def test_nothing_but_a_gallery_is_written_over(tmp_path):
    gallery = Gallery.build(table(20))
    (tmp_path / "crops").mkdir()
    (tmp_path / "crops" / "a.jpg").write_text("precious")
    for place in (tmp_path / "crops", tmp_path / "crops" / "a.jpg"):
        with pytest.raises(DataError, match="is no saved gallery, which would take its place"):
            gallery.save(place)
    assert (tmp_path / "crops" / "a.jpg").read_text() == "precious"
    (tmp_path / "empty").mkdir()
    gallery.save(tmp_path / "empty")
    assert len(Gallery.load(tmp_path / "empty")) == 20
    with pytest.raises(DataError, match="have a column id of their own"):
        Gallery.build(table(20).assign(id=0))
    gallery.table["odd"] = [object()] * 20  # what Parquet can't hold
    with pytest.raises(Exception):  # noqa: B017, pyarrow's own
        gallery.save(tmp_path / "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["crops", "empty"]  # no draft is left


def test_a_save_that_is_killed_before_the_new_takes_the_olds_place_says_where_the_old_is(tmp_path, monkeypatch):
    gallery, renamed = Gallery.build(table(20)), Path.rename
    gallery.save(tmp_path / "gallery")

    def killed(path, target):
        if target.name == "gallery":
            raise KeyboardInterrupt
        return renamed(path, target)

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        gallery.save(tmp_path / "gallery")
    with pytest.raises(DataError, match="saving it was cut off: rename .*old, which it was, to it") as error:
        Gallery.load(tmp_path / "gallery")
    renamed(Path(str(error.value).split("rename ")[1].split(",")[0]), tmp_path / "gallery")
    assert len(Gallery.load(tmp_path / "gallery")) == 20


def test_more_answers_than_there_are_pictures():
    rows = table(3)
    found = Gallery.build(rows).search(vectors(rows)[:1], top=10, where="camid > 0")
    assert len(found) == 3
    assert len(Gallery.build(rows).search(vectors(rows)[:1], where="camid > 9")) == 0


def test_what_is_wrong_is_named(tmp_path):
    rows = table(20)
    gallery = Gallery.build(rows)
    with pytest.raises(DataError, match="where: 'camera == 1' can't be asked of the columns path, pid, camid, time"):
        gallery.search(vectors(rows), where="camera == 1")
    with pytest.raises(DataError, match="the gallery's embeddings have 16 numbers, these 8"):
        gallery.add(table(3, width=8))
    with pytest.raises(DataError, match="a column embedding"):
        Gallery.build(rows.drop(columns="embedding"))
    with pytest.raises(DataError, match="must all be as wide"):
        Gallery.build(pd.concat([rows, table(3, width=8)]))
    with pytest.raises(DataError, match="none is no gallery"):
        Gallery.load(tmp_path / "none")
    gallery.save(tmp_path / "a")
    (tmp_path / "a" / "index.faiss").write_bytes(b"half")
    with pytest.raises(DataError, match="a is no gallery"):
        Gallery.load(tmp_path / "a")
    gallery.save(tmp_path / "a")
    gallery.remove([0])
    gallery.save(tmp_path / "b")
    (tmp_path / "a" / "index.faiss").write_bytes((tmp_path / "b" / "index.faiss").read_bytes())
    with pytest.raises(DataError, match="the index has 19 vectors, the table 20 rows"):
        Gallery.load(tmp_path / "a")
