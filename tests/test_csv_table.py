"""The layout "csv": where the table may be, what it may hold, and what is said of a wrong one."""

import numpy as np
import pytest
from PIL import Image

from reidlib.data import DataError, load, validation_split

ROWS = [
    "path,pid,camid,split",
    "people/a.png,7,1,train",
    "people/b.png,7,2,train",
    "people/c.png,0012,1,train",
    "people/d.png,3,1,query",
    "people/d.png,3,1,gallery",
    "people/e.png,3,2,gallery",
    "people/f.png,-1,2,gallery",
]


@pytest.fixture
def folder(tmp_path):
    """A folder of pictures with its table, set.csv."""
    (tmp_path / "data" / "people").mkdir(parents=True)
    for name in "abcdefgh":
        Image.new("RGB", (8, 16)).save(tmp_path / "data" / "people" / f"{name}.png")
    return write(tmp_path / "data", ROWS)


def write(folder, rows):
    (folder / "set.csv").write_text("\n".join(rows) + "\n")
    return folder


def refused(folder, rows) -> str:
    with pytest.raises(DataError) as error:
        load("csv", write(folder, rows))
    return str(error.value)


def test_a_table(folder):
    dataset = load("csv", folder)
    assert dataset.name == "set" and dataset.root == folder
    assert dataset.train[["pid", "camid"]].values.tolist() == [[7, 1], [7, 2], [12, 1]]
    assert dataset.query["path"].tolist() == [str(folder / "people" / "d.png")]
    assert dataset.gallery["pid"].tolist() == [3, 3, -1] and dataset.gallery["pid"].dtype == np.int64
    assert list(dataset.gallery.columns) == ["path", "pid", "camid"]
    assert dataset.notes == ["gallery: 1 junk images (pid -1), ignored by evaluation"]


def test_where_the_table_may_be(folder, tmp_path, monkeypatch):
    expected = load("csv", folder).gallery
    same = lambda dataset: dataset.gallery.equals(expected) and dataset.root == folder  # noqa: E731
    assert same(load("csv", folder / "set.csv"))
    (folder / "._set.csv").write_bytes(b"left by macOS")
    assert same(load("csv", folder))
    (folder / "other.csv").write_text("x")
    with pytest.raises(DataError, match=r"holds 2 CSV files \(other.csv, set.csv\); name one with `table`"):
        load("csv", folder)
    assert same(load("csv", folder, table="set.csv"))
    elsewhere = (folder / "set.csv").rename(tmp_path / "elsewhere.csv")
    assert same(load("csv", folder, table=elsewhere))
    monkeypatch.chdir(tmp_path)
    assert same(load("csv", folder, table="elsewhere.csv"))
    with pytest.raises(DataError, match="nowhere.csv was not found, neither in .*data nor in"):
        load("csv", folder, table="nowhere.csv")
    (folder / "other.csv").unlink()
    with pytest.raises(DataError, match="data holds no CSV file"):
        load("csv", folder)
    with pytest.raises(DataError, match="nothing is none"):
        load("csv", tmp_path / "nothing", table=elsewhere)


def test_what_spreadsheets_write_is_read(folder):
    """A byte order mark, CRLF, blank lines, columns in another order, further ones; numbers as 3.0."""
    lines = ["camid,weather,split,path,pid,age"]
    for row in ROWS[1:]:
        path, pid, camid, split = row.split(",")
        lines += [f"{camid}.0,rain,{split},{path},{pid},4", ",,,,,"]
    (folder / "set.csv").write_bytes("\r\n".join([*lines, ""]).encode("utf-8-sig"))
    dataset = load("csv", folder)
    assert dataset.train[["pid", "camid"]].values.tolist() == [[7, 1], [7, 2], [12, 1]]
    assert dataset.gallery["weather"].tolist() == ["rain"] * 3 and dataset.gallery["age"].tolist() == ["4"] * 3


def test_identity_zero_is_an_ordinary_one(folder):
    dataset = load("csv", write(folder, [row.replace(",3,", ",0,") for row in ROWS]))
    assert dataset.gallery["pid"].tolist() == [1, 1, -1] and dataset.train["pid"].tolist() == [8, 8, 13]
    assert dataset.query["pid"].tolist() == [1] and dataset.summary().loc["gallery", "ids"] == 1
    assert dataset.summary()["distractors"].sum() == 0
    assert "identity 0 is a real one here: identities are numbered one higher than in set.csv" in dataset.notes
    message = refused(folder, [row.replace(",3,", ",0,") for row in [*ROWS, "people/g.png,0,1,train"]])
    assert "both train and query: 1\n" in message and "one higher" in message


def test_all_that_is_wrong_is_in_one_message(folder):
    words = [f"people/g.png,20,1,test{i}" for i in range(6)]
    numbers = ["people/g.png,,1,train", "people/g.png,x7,1,train", "people/g.png,8,1.5,train"]
    message = refused(
        folder, [*ROWS, *words, *numbers, "people/z.png,8,1,train", "./people/a.png,7,1,train", "people/h.png,3,1,train"]
    )
    assert "6 rows have a split that is none of train, query, gallery: line 9 'test0', line 10 'test1'" in message
    assert "line 13 'test4', ...\n" in message and "line 14" not in message
    assert "2 rows have a pid that is no whole number: line 15 '', line 16 'x7'\n" in message
    assert "1 rows have a camid that is no whole number: line 17 '1.5'\n" in message
    assert "train: 1 files are missing or none: people/z.png\n" in message
    assert "1 rows have a picture that stands in the same split before: line 19 'people/a.png'\n" in message
    assert "1 identities are in both train and gallery: 3\n" in message
    assert f"set in {folder} can't be used" in message and f"edit {folder / 'set.csv'}" in message


def test_line_numbers_count_blank_lines(folder):
    assert "line 11 'val'" in refused(folder, [*ROWS, "", "", "people/g.png,8,1,val"])


def test_columns_that_are_missing(folder):
    message = refused(folder, ["file,pid,camera,split", "people/a.png,1,1,train"])
    assert "set.csv has no column path, camid; it has file, pid, camera, split" in message


@pytest.mark.parametrize("content, said", [
    (b"", "has no column path, pid, camid, split; it has none"), (b"path,p\xff\n", "is no text in UTF-8"),
    (b'path,pid,camid,split\n"a,1,1,train\n', "is no readable CSV file: unexpected end of data in line 2"),
    (b"path,pid,camid,split,pid\n", "has several columns pid"),
])  # fmt: skip
def test_no_table(folder, content, said):
    (folder / "set.csv").write_bytes(content)
    with pytest.raises(DataError, match=f"set.csv {said}"):
        load("csv", folder)


def test_rows_that_would_be_lost_are_named(folder):
    message = refused(
        folder, [*ROWS, "people/g.png,7,1,train,1", 'people/h.png,7,1,"train', 'people/h.png,7,1,train"', "x,,,"]
    )
    assert (
        "2 rows have more fields than the header or reach over several lines (a quote too many?): line 9, line 10"
        in message
    )
    assert "line 12 ''" in message


def test_a_comma_at_the_end_of_each_row(folder):
    dataset = load("csv", write(folder, [ROWS[0], *(f"{row}," for row in ROWS[1:])]))
    assert dataset.train["pid"].tolist() == [7, 7, 12] and dataset.gallery["camid"].tolist() == [1, 2, 2]


def test_the_general_checks_hold(folder):
    assert "train has no images\n- query has no images\n- gallery has no images\n" in refused(folder, ROWS[:1])
    assert "gallery has no images" in refused(folder, [row for row in ROWS if "gallery" not in row])
    assert "all images are of camera 1" in refused(folder, [row.replace(",2,", ",1,") for row in ROWS])


def test_validation_split(folder):
    pictures = zip("abcgh", (7, 7, 12, 12, 13), (1, 2, 1, 2, 1))
    rows = [f"people/{name}.png,{pid},{camid},train" for name, pid, camid in pictures]
    dataset = load("csv", write(folder, [ROWS[0], *rows, *ROWS[4:]]))
    held = validation_split(dataset, 0.67, seed=0)
    assert held.train["pid"].nunique() == 1 and held.gallery["pid"].nunique() == 2
    assert set(held.query["path"]) <= set(held.gallery["path"]) < set(dataset.train["path"])
