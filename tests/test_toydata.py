"""The drawn data sets: layouts and names as published, the same bytes every time, identities that never leak."""

import ast
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import toydata
from toydata import dataset

NUMBERS = dict(train_ids=5, test_ids=4, cameras=3, images=2, seed=3)
NAMES = {"vehicles": r"(\d{4})_c(\d{3})_\d{8}_0\.jpg", "people": r"(-1|\d{4})_c(\d)s\d_\d{6}_\d{2}\.jpg"}


@pytest.fixture(scope="module", params=["vehicles", "people"])
def drawn(request, tmp_path_factory):
    """Domain, folder, and for each split its file names with pid and camid."""
    folder = toydata.write(request.param, tmp_path_factory.mktemp("data"), workers=1, **NUMBERS)
    splits = {}
    for split, part in dataset.PARTS[request.param].items():
        names = sorted(path.name for path in (folder / part).iterdir())
        matches = [re.fullmatch(NAMES[request.param], name) for name in names]
        assert all(matches), names
        splits[split] = {name: (int(m[1]), int(m[2])) for name, m in zip(names, matches)}
    return request.param, folder, splits


def _pids(split) -> set[int]:
    return {pid for pid, _ in split.values()}


def test_split(drawn):
    """Train and test identities are disjoint; each query can be matched in another camera's gallery pictures."""
    domain, folder, splits = drawn
    assert folder.name == {"vehicles": "VeRi", "people": "Market-1501-v15.09.15"}[domain]
    assert len(_pids(splits["train"])) == 5 and len(_pids(splits["query"])) == 4
    assert not _pids(splits["train"]) & (_pids(splits["query"]) | _pids(splits["gallery"]))
    gallery = set(splits["gallery"].values())
    for pid, camid in splits["query"].values():
        assert any(p == pid and c != camid for p, c in gallery)
    assert len(set(splits["query"].values())) == len(splits["query"])  # one per identity and camera
    views = defaultdict(list)
    for pid, camid in splits["train"].values():
        views[pid].append(camid)
    for seen in views.values():
        assert len(set(seen)) >= 2 and all(seen.count(camid) == 2 for camid in seen)


def test_market_has_junk_and_distractors(drawn):
    domain, _, splits = drawn
    extra = {-1, 0} if domain == "people" else set()
    assert _pids(splits["gallery"]) - _pids(splits["query"]) == extra
    assert not (_pids(splits["train"]) | _pids(splits["query"])) & {-1, 0}


def test_veri_lists(drawn):
    """The queries are in the gallery too, with the same bytes; lists and labels name every picture."""
    domain, folder, splits = drawn
    if domain == "people":
        pytest.skip("Market-1501 has no lists")
    for name in splits["query"]:
        assert (folder / "image_query" / name).read_bytes() == (folder / "image_test" / name).read_bytes()
    for split, word in (("train", "train"), ("query", "query"), ("gallery", "test")):
        assert sorted((folder / f"name_{word}.txt").read_text().split()) == sorted(splits[split])
    for split, word in (("train", "train"), ("gallery", "test")):
        head = (folder / f"{word}_label.xml").read_bytes()
        assert head.startswith(b'<?xml version="1.0" encoding="gb2312"?>')
        items = list(ElementTree.fromstring(head.decode("gb2312").split("\n", 1)[1]).iter("Item"))
        labels = {i.get("imageName"): (int(i.get("vehicleID")), int(i.get("cameraID")[1:])) for i in items}
        assert labels == splits[split]
        colours = {(i.get("vehicleID"), i.get("colorID"), i.get("typeID")) for i in items}
        assert len(colours) == len(_pids(splits[split]))


def test_same_bytes_whatever_the_workers(drawn, tmp_path, monkeypatch):
    domain, folder, _ = drawn
    monkeypatch.setattr(dataset, "BATCH", 16)
    again = toydata.write(domain, tmp_path, workers=2, **NUMBERS)
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    assert all((folder / file).read_bytes() == (again / file).read_bytes() for file in files)
    other = toydata.write(domain, tmp_path / "other", workers=1, **(NUMBERS | {"seed": 4}))
    first = next(iter((folder / dataset.PARTS[domain]["train"]).iterdir()))
    assert all(first.read_bytes() != path.read_bytes() for path in other.rglob("*.jpg"))


def test_interrupted_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(dataset, "_jpeg", fail)
    with pytest.raises(KeyboardInterrupt):
        toydata.write("people", tmp_path, workers=1, **NUMBERS)
    assert list(tmp_path.iterdir()) == []


def test_existing_folder_is_kept(tmp_path):
    (tmp_path / "VeRi").mkdir()
    assert toydata.write("vehicles", tmp_path, **NUMBERS) == tmp_path / "VeRi"
    assert not list((tmp_path / "VeRi").iterdir())


def test_neither_package_is_loaded_with_the_other():
    """toydata knows nothing of reidlib, which imports it inside functions only: a real study needs none of it."""
    code = "import sys, toydata; sys.exit('reidlib' in sys.modules)"
    root = Path(toydata.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0
    modules = list((root / "reidlib").rglob("*.py"))
    assert len(modules) > 10
    for module in modules:
        for node in ast.parse(module.read_text()).body:
            names = [a.name for a in getattr(node, "names", [])] + [getattr(node, "module", None) or ""]
            assert not any(name.split(".")[0] == "toydata" for name in names), module


def test_refuses():
    with pytest.raises(ValueError, match="animals.*vehicles, people"):
        toydata.write("animals", ".", **NUMBERS)
    with pytest.raises(ValueError, match="images is 1"):
        toydata.write("people", ".", **(NUMBERS | {"images": 1}))


@pytest.mark.parametrize("domain", ["vehicles", "people"])
def test_identities(domain):
    """All differ; some differ from the one before in one trait only; those of the captions are never the others'."""
    some = dataset.identities(domain, 400, seed=0)
    assert len(set(some)) == 400
    changes = [sum(x != y for x, y in zip(a, b)) for a, b in zip(some, some[1:])]
    assert 30 < changes.count(1) < 120 and 0 not in changes
    for seed in range(3):
        assert not set(dataset.identities(domain, 3000, seed, captioned=True)) & set(some)


def test_captioned():
    pictures, captions = toydata.captioned(["vehicles", "people"], 6, (48, 40), seed=1, workers=1)
    assert pictures.shape == (6, 3, 48, 40) and pictures.dtype == np.uint8 and pictures.std(axis=(1, 2, 3)).min() > 5
    assert [" seen from the " in caption for caption in captions] == [True, False] * 3
    words, longest = set(), 0
    for domain in toydata.DOMAINS:
        draw = toydata.DOMAINS[domain]
        for i, traits in enumerate(dataset.identities(domain, 2000, seed=5)):
            sentence = draw.caption(traits, 45 * i).split()
            words, longest = words | set(sentence), max(longest, len(sentence))
    assert len(words) < 150 and longest <= 20


def test_pictures_differ_more_between_identities_than_within(drawn):
    """In one camera, two pictures of an identity are closer in mean colour than of two identities, on average."""
    domain, folder, splits = drawn
    means = defaultdict(list)
    for name, key in splits["train"].items():
        picture = np.asarray(Image.open(folder / dataset.PARTS[domain]["train"] / name).resize((32, 32)), float)
        means[key].append(picture[8:24, 8:24].mean(axis=(0, 1)))
    within = [np.linalg.norm(a - b) for a, b in means.values()]
    between = [np.linalg.norm(means[k][0] - means[m][0]) for k in means for m in means if k[0] != m[0] and k[1] == m[1]]
    assert np.mean(within) < np.mean(between)
