"""The published layouts: what is read, what is tolerated with a note, what is refused and how."""

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from reidlib.data import LAYOUTS, DataError, Dataset, load, mixed, validation_split

MARKET = {
    "bounding_box_train": ["0002_c1s1_000451_03.jpg", "0002_c2s1_000551_01.jpg", "0007_c3s3_077419_03.jpg"],
    "bounding_box_test": [
        "-1_c1s1_000401_03.jpg",
        "0000_c1s1_000151_01.jpg",
        "0001_c1s1_001051_00.jpg",
        "0001_c2s1_001051_03.jpg",
    ],
    "query": ["0001_c1s1_001051_00.jpg"],
}
VERI = {
    "image_train": ["0001_c001_00016450_0.jpg", "0001_c002_00016450_0.jpg", "0003_c020_00016450_0.jpg"],
    "image_query": ["0002_c002_00030600_0.jpg"],
    "image_test": ["0002_c002_00030600_0.jpg", "0002_c003_00030600_0.jpg"],
}


def write_tree(folder: Path, tree: dict[str, list[str]]) -> Path:
    for sub, names in tree.items():
        (folder / sub).mkdir(parents=True)
        for name in names:
            Image.new("RGB", (8, 16)).save(folder / sub / name)
    return folder


@pytest.fixture
def market(tmp_path):
    return write_tree(tmp_path / "Market-1501-v15.09.15", MARKET)


@pytest.fixture
def veri(tmp_path):
    folder = write_tree(tmp_path / "VeRi", VERI)
    for sub, names in VERI.items():
        (folder / f"{sub.replace('image', 'name')}.txt").write_text("\r\n".join(names) + "\r\n")
    for sub, file in (("image_train", "train_label.xml"), ("image_test", "test_label.xml")):
        item = '<Item imageName="{}" colorID="5" typeID="{}" note="轿车" />'
        items = "\n".join(item.format(name, 1 + i) for i, name in enumerate(VERI[sub]))
        text = f'<?xml version="1.0" encoding="gb2312"?>\n<!-- 车 <Item imageName="x"> --><Items>\n{items}\n</Items>'
        (folder / file).write_bytes(text.encode("gb2312"))
    (folder / "list_color.txt").write_text("1 yellow\n5 red\n")
    (folder / "list_type.txt").write_text("1 sedan\n2 suv\n")
    return folder


def test_market(market):
    (market / "query" / "Thumbs.db").write_bytes(b"x")
    (market / "query" / "._0001_c1s1_001051_00.jpg").write_bytes(b"x")
    dataset = load("market1501", market.parent)
    assert dataset.train[["pid", "camid"]].values.tolist() == [[2, 1], [2, 2], [7, 3]]
    assert dataset.query[["pid", "camid"]].values.tolist() == [[1, 1]]
    assert dataset.gallery["pid"].tolist() == [-1, 0, 1, 1]
    assert all(Path(path).is_absolute() and Path(path).is_file() for path in dataset.gallery["path"])
    assert "query: 2 files in query are no images, left out: ._0001_c1s1_001051_00.jpg, Thumbs.db" in dataset.notes
    assert "gallery: 1 distractors (pid 0)" in dataset.notes
    summary = dataset.summary()
    assert summary.loc["gallery"].tolist() == [4, 1, 2, 1, 1, 2.0]
    assert summary.loc["train", "median images per id"] == 1.5


def test_root_may_be_the_folder_or_any_of_its_name(market):
    expected = load("market1501", market.parent).train
    renamed = market.rename(market.with_name("anything"))
    assert load("market1501", str(renamed)).train["pid"].equals(expected["pid"])


def test_images_without_identity_are_never_trained_on(market):
    Image.new("RGB", (8, 16)).save(market / "bounding_box_train" / "-1_c1s1_000001_00.jpg")
    dataset = load("market1501", market)
    assert dataset.train["pid"].min() > 0
    assert "train: 1 images without an identity (pid -1), left out" in dataset.notes


@pytest.mark.parametrize("split", ["train", "query"])
def test_identity_zero_outside_the_gallery_is_refused(market, split):
    """Here it means a distractor: in a set that is numbered from 0 one identity would be lost."""
    Image.new("RGB", (8, 16)).save(market / {"train": "bounding_box_train"}.get(split, split) / "0000_c1s1_000001_00.jpg")
    with pytest.raises(DataError, match=f"{split}: 1 images have the identity 0, .*; number identities from 1"):
        load("market1501", market)


def test_any_format_of_picture_is_read_and_two_of_one_name_are_refused(market):
    whole = load("market1501", market)
    for i, file in enumerate(sorted((market / "bounding_box_train").iterdir())):
        Image.open(file).save(file.with_suffix((".bmp", ".WebP", ".tif")[i]))
        file.unlink()
    converted = load("market1501", market)
    assert converted.train[["pid", "camid"]].equals(whole.train[["pid", "camid"]]) and converted.notes == whole.notes
    shutil.copy(
        market / "bounding_box_train" / "0002_c1s1_000451_03.bmp", market / "bounding_box_train" / "0002_c1s1_000451_03.jpg"
    )
    with pytest.raises(
        DataError, match="2 images in bounding_box_train differ by extension alone: 0002_c1s1_000451_03.bmp"
    ):
        load("market1501", market)


def test_query_without_a_match_in_another_camera_is_noted(market):
    Image.new("RGB", (8, 16)).save(market / "query" / "0009_c1s1_001051_00.jpg")
    assert any("1 images have no match in another camera" in note for note in load("market1501", market).notes)


def test_everything_wrong_is_in_one_message(market):
    for i in range(6):
        (market / "bounding_box_train" / f"person{i}.jpg").write_bytes(b"x")
    Image.new("RGB", (8, 16)).save(market / "bounding_box_train" / "0001_c3s1_000001_00.jpg")
    shutil.rmtree(market / "query")
    with pytest.raises(DataError) as error:
        load("market1501", market)
    message = str(error.value)
    assert "6 names in bounding_box_train" in message and "person4.jpg, ..." in message and "person5" not in message
    assert "1 identities are in both train and gallery: 1" in message
    assert "the folder query is missing" in message and str(market) in message


def test_empty_folder_is_refused(market):
    (market / "query" / MARKET["query"][0]).unlink()
    with pytest.raises(DataError, match="query has no images"):
        load("market1501", market)


@pytest.mark.parametrize("camera", [1, 2])
def test_queries_that_none_can_match_are_refused(market, camera):
    """Of the query's own camera only, or of no query's identity at all: found at once, not after training."""
    (market / "bounding_box_test" / "0001_c2s1_001051_03.jpg").rename(
        market / "bounding_box_test" / f"{1 if camera == 1 else 8:04d}_c{camera}s1_001051_03.jpg"
    )
    with pytest.raises(DataError) as error:
        load("market1501", market)
    assert "no query has a match in another camera of the gallery" in str(error.value)
    assert ("all images are of camera 1" in str(error.value)) == (camera == 1)


def test_absent_data_says_where_it_looked_and_how_to_get_it(tmp_path):
    with pytest.raises(DataError, match="bounding_box_train.*nowhere.*v15.09.15.*does not exist.*home page"):
        load("market1501", tmp_path / "nowhere")
    with pytest.raises(DataError, match="image_train.*has none of them"):
        load("veri776", tmp_path)


def test_unknown_name_gives_the_nearest(tmp_path):
    with pytest.raises(ValueError, match="did you mean 'market1501'"):
        load("Market-1501", tmp_path)


def frames(**changes) -> tuple[pd.DataFrame, ...]:
    """Three splits as a layout from outside would have them, with some columns of some splits changed."""
    made = {
        "train": {"path": ["a.png", "b.png", "c.png"], "pid": [1, 1, 2], "camid": [1, 2, 1]},
        "query": {"path": ["d.png"], "pid": [3], "camid": [1]},
        "gallery": {"path": ["d.png", "e.png", "f.png"], "pid": [3, 3, 4], "camid": [1, 2, 2]},
    }
    return tuple(pd.DataFrame(columns | changes.get(split, {})) for split, columns in made.items())


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A layout put into the table from outside, as load(what it reads)."""
    for name in "abcdef":
        Image.new("RGB", (8, 16)).save(tmp_path / f"{name}.png")

    def load_read(read) -> Dataset:
        monkeypatch.setitem(LAYOUTS, "mine", read)
        return load("mine", tmp_path)

    return load_read


def test_a_layout_from_outside(mine, tmp_path):
    dataset = mine(lambda root: frames(train={"pid": ["1", "1", "2"], "view": ["front", "back", "front"]}))
    assert dataset.name == "mine" and dataset.root == tmp_path
    assert dataset.train["path"].tolist() == [str(tmp_path / f"{name}.png") for name in "abc"]
    assert dataset.train["pid"].dtype == dataset.gallery["camid"].dtype == np.int64
    assert dataset.train["view"].tolist() == ["front", "back", "front"]
    own = Dataset("My pictures", tmp_path, *frames(), notes=["a note"], problems=["a problem"], remedy="Ask me.")
    with pytest.raises(DataError, match=r"My pictures in .* can't be used:\n- a problem\nAsk me\.$"):
        mine(lambda root: own)
    own.problems.clear()
    assert mine(lambda root: own).notes[0] == "a note"


@pytest.mark.parametrize(
    "changes, problem",
    [
        ({"train": {"pid": [1, 1, 3]}}, "1 identities are in both train and gallery: 3"),
        ({"train": {"pid": [3, 1, 1]}}, "1 identities are in both train and query: 3"),
        ({"train": {"pid": [1, 1, 1]}}, "train has one identity only"),
        ({"train": {"path": ["a.png", "b.png", "z.png"]}}, "train: 1 files are missing or none: z.png"),
        ({"train": {"path": ["a.png", "b.png", "a.png"]}}, "train: 1 images are listed more than once: a.png"),
        ({"query": {"camid": [2]}}, "1 images have two identities or cameras: d.png"),
        ({"gallery": {"pid": [3, 3.5, 4]}}, "gallery: 1 pids are no whole numbers from -1 to 2.53: 3.5"),
        ({"gallery": {"pid": [3, 3, -2]}}, "gallery: 1 pids are no whole numbers from -1 to 2.53: -2"),
        ({"gallery": {"camid": [1, 2, None]}}, "gallery: 1 camids are no whole numbers from 0 to 2.53: nan"),
        ({"gallery": {"pid": [3, 3, 2.0**53]}}, "gallery: 1 pids are no whole numbers"),
        ({"gallery": {"pid": [3, 3, 10**30]}}, "gallery: 1 pids are no whole numbers .*: 1000000000000000000000000000000"),
        ({"gallery": {"camid": [1, 1, 1]}}, "no query has a match .* all images are of camera 1"),
        ({"query": {"pid": [-1]}}, "query has no images"),
    ],
)
def test_the_general_checks_hold_for_a_layout_from_outside(mine, changes, problem):
    with pytest.raises(DataError, match=problem):
        mine(lambda root: frames(**changes))


def test_all_that_the_general_checks_find_is_in_one_message(mine):
    with pytest.raises(DataError) as error:
        mine(lambda root: (*frames(train={"pid": [1, 1, 3]})[:2], frames()[2].drop(columns="camid")))
    assert "1 identities are in both train and query: 3\n" in str(error.value)
    assert "gallery has no column camid" in str(error.value)


def test_an_option_that_a_layout_does_not_have(market):
    with pytest.raises(ValueError, match="Layout 'market1501': .*'table'"):
        load("market1501", market, table="x.csv")


def test_mixed_shares_neither_identities_nor_cameras(mine):
    """Cameras may be numbered from 0, as other libraries have them."""
    from_zero = {split: {"camid": [c - 1 for c in ids]} for split, ids in
                 {"train": [1, 2, 1], "query": [1], "gallery": [1, 2, 2]}.items()}  # fmt: skip
    first, second = mine(lambda root: frames()), mine(lambda root: frames(**from_zero))
    for pair in ({"a": first, "b": second}, {"b": second, "a": first}):
        both = mixed(pair)
        test = pd.concat([both.query, both.gallery])
        for column in ("pid", "camid"):
            sets = [set(test.loc[test["domain"] == domain, column]) for domain in "ab"]
            assert not sets[0] & sets[1] and len(sets[0]) == len(sets[1]) == 2
    assert mixed({"a": first, "b": first}).train["camid"].tolist() == [1, 2, 1, 3, 4, 3]


def test_veri_with_labels(veri):
    dataset = load("veri776", veri.parent)
    assert dataset.train[["pid", "camid"]].values.tolist() == [[1, 1], [1, 2], [3, 20]]
    assert dataset.train["type"].tolist()[:2] == ["sedan", "suv"]
    assert dataset.train["type"].isna().tolist() == [False, False, True]  # type 3 has no name
    assert dataset.query["color"].tolist() == ["red"]
    assert "train: 1 images have no type" in dataset.notes


def test_veri_labels_may_be_broken_or_absent(veri):
    xml = veri / "train_label.xml"
    xml.write_bytes(xml.read_bytes().replace("轿".encode("gb2312"), b"\xff\xff").replace(b"</Items>", b"<Items"))
    assert load("veri776", veri).train["color"].tolist() == ["red"] * 3
    for file in veri.glob("*_label.xml"):
        file.unlink()
    dataset = load("veri776", veri)
    assert list(dataset.train.columns) == ["path", "pid", "camid"]
    assert "labels: train_label.xml is missing" in dataset.notes


def test_veri_lists_decide(veri):
    Image.new("RGB", (8, 16)).save(veri / "image_test" / "0009_c001_00000000_0.jpg")
    dataset = load("veri776", veri)
    assert 9 not in dataset.gallery["pid"].tolist()
    left_out = "gallery: 1 images in image_test are not in name_test.txt, left out: 0009_c001_00000000_0.jpg"
    assert left_out in dataset.notes
    (veri / "name_test.txt").unlink()
    assert 9 in load("veri776", veri).gallery["pid"].tolist()
    (veri / "image_train" / VERI["image_train"][0]).unlink()
    with pytest.raises(DataError, match=f"1 files of name_train.txt are not in image_train: {VERI['image_train'][0]}"):
        load("veri776", veri)


def test_validation_split_parts_identities(tmp_path):
    train = [f"{pid:04d}_c{cam}s1_{shot:06d}_00.jpg" for pid in range(10, 20) for cam in (1, 2) for shot in range(3)]
    dataset = load("market1501", write_tree(tmp_path / "m", MARKET | {"bounding_box_train": train}))
    held = validation_split(dataset, 0.3, seed=1)
    assert held.train["pid"].nunique() == 7 and len(held.gallery) == 3 * 6
    assert not set(held.train["pid"]) & set(held.gallery["pid"])
    assert not held.query.duplicated(["pid", "camid"]).any() and len(held.query) == 3 * 2
    assert set(held.query["path"]) <= set(held.gallery["path"]) <= set(dataset.train["path"])
    assert held.query.equals(validation_split(dataset, 0.3, seed=1).query)
    assert not held.query.equals(validation_split(dataset, 0.3, seed=2).query)
    with pytest.raises(ValueError, match="0 of 10 training identities"):
        validation_split(dataset, 0.01, seed=0)
    dataset.train["camid"] = 1
    with pytest.raises(DataError, match="none of the 3 training identities held out is seen by two cameras"):
        validation_split(dataset, 0.3, seed=1)


def test_the_real_market1501():
    root = Path(os.environ.get("REIDLIB_DATA", ""))
    if "REIDLIB_DATA" not in os.environ or not (root / "Market-1501-v15.09.15").is_dir():
        pytest.skip("the environment variable REIDLIB_DATA names no folder that holds Market-1501-v15.09.15")
    summary = load("market1501", root).summary()
    assert summary[["images", "ids"]].values.tolist() == [[12936, 751], [3368, 750], [19732, 750]]
    assert summary.loc["gallery", ["junk", "distractors"]].tolist() == [3819, 2798]
    assert summary["cameras"].tolist() == [6, 6, 6]


@pytest.mark.parametrize("name, pictures", [("vehicle2cam", 1134), ("cuhk01", 3884), ("cuhk03_pair1", 8177)])
def test_a_split_that_comes_with_the_project_keeps_identities_apart(name, pictures):
    table = pd.read_csv(Path(__file__).parents[1] / f"params/splits/{name}.csv")
    train, query, gallery = (table[table["split"] == split] for split in ("train", "query", "gallery"))
    assert not {*train["pid"]} & ({*query["pid"]} | {*gallery["pid"]}) and {*query["path"]} <= {*gallery["path"]}
    found = query.merge(gallery, on="pid")
    assert {*found.loc[found["camid_x"] != found["camid_y"], "path_x"]} == {*query["path"]}  # none without a match
    assert table["path"].nunique() == pictures and table.groupby("path")["pid"].nunique().max() == 1
