"""The decoded store: right pixels, decoded once, whole or not at all, and every unreadable image named."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from reidlib.data import DataError
from reidlib.data import store as store_module
from reidlib.data.store import decode, gather, read_image


@pytest.fixture
def paths(tmp_path):
    rng = np.random.default_rng(0)
    made = []
    for i in range(6):
        file = tmp_path / f"{i}.png"
        Image.fromarray(rng.integers(0, 256, (32, 16, 3), dtype=np.uint8)).save(file)
        made.append(str(file))
    return made


def test_pixels_are_kept_when_the_size_is(paths, tmp_path):
    store = decode(pd.DataFrame({"path": paths}), (32, 16), tmp_path / "new" / "store.npy", workers=2)
    assert store.shape == (6, 3, 32, 16) and store.dtype == np.uint8 and isinstance(store, np.memmap)
    for row, path in zip(store, paths):
        assert np.array_equal(row.transpose(1, 2, 0), np.asarray(Image.open(path)))


def test_number_of_workers_does_not_matter(paths, tmp_path):
    one, three = (decode(paths, (20, 10), tmp_path / f"{n}.npy", workers=n) for n in (1, 3))
    assert np.array_equal(one, three)


def test_large_jpegs_and_grey_images(tmp_path):
    ramp = np.tile(np.linspace(0, 255, 640).astype(np.uint8), (1280, 1))
    Image.fromarray(ramp).convert("RGB").save(tmp_path / "large.jpg", quality=95)
    Image.fromarray(ramp).save(tmp_path / "grey.png")
    reduced, full = read_image(tmp_path / "large.jpg", (128, 64)), read_image(tmp_path / "grey.png", (128, 64))
    assert reduced.shape == full.shape == (128, 64, 3)
    assert np.abs(reduced.astype(int) - full).max() <= 3


def test_reopened_not_decoded_again(paths, tmp_path, monkeypatch):
    first = np.array(decode(paths, (8, 4), tmp_path / "store.npy"))
    monkeypatch.setattr(store_module, "read_image", lambda *_: pytest.fail("decoded again"))
    assert np.array_equal(decode(paths, (8, 4), tmp_path / "store.npy"), first)
    with pytest.raises(DataError, match=r"holds uint8 \(6, 3, 8, 4\), not uint8 \(5, 3, 8, 4\)"):
        decode(paths[:5], (8, 4), tmp_path / "store.npy")
    (tmp_path / "store.npy").write_bytes(b"")
    with pytest.raises(DataError, match="no readable store"):
        decode(paths, (8, 4), tmp_path / "store.npy")


def test_unreadable_images_are_all_named_and_nothing_is_left(paths, tmp_path):
    Image.effect_noise((64, 128), 50).save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:1500])
    (tmp_path / "text.jpg").write_text("no image")
    bad = [str(tmp_path / name) for name in ("cut.jpg", "text.jpg", "absent.jpg")]
    with pytest.raises(DataError) as error:
        decode(paths + bad, (8, 4), tmp_path / "stores" / "store.npy")
    message = str(error.value)
    assert "3 of 9 images" in message and "truncated" in message and all(path in message for path in bad)
    assert not list((tmp_path / "stores").iterdir())


def test_an_interrupted_run_leaves_nothing(paths, tmp_path, monkeypatch):
    def interrupt(path, size):
        if path == paths[3]:
            raise KeyboardInterrupt
        return read_image(path, size)

    monkeypatch.setattr(store_module, "read_image", interrupt)
    with pytest.raises(KeyboardInterrupt):
        decode(paths, (8, 4), tmp_path / "stores" / "store.npy", workers=1)
    assert not list((tmp_path / "stores").iterdir())


def test_a_full_disk_is_refused_before_work(paths, tmp_path, monkeypatch):
    monkeypatch.setattr(store_module.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(DataError, match="needs .* GB"):
        decode(paths, (8, 4), tmp_path / "store.npy")


def test_gather_copies_the_rows_asked_for(paths, tmp_path):
    store = decode(paths, (8, 4), tmp_path / "store.npy")
    batch = gather(store, [4, 0, 4])
    assert batch.dtype == torch.uint8 and batch.shape == (3, 3, 8, 4)
    assert np.array_equal(batch.numpy(), store[[4, 0, 4]])
    batch.zero_()
    assert store[4].any()
