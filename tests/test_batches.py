"""P x K batches and batched augmentation: deterministic, balanced, and within what they promise."""

import numpy as np
import pytest
import torch

from reidlib.data import augment as augment_module
from reidlib.data.augment import MEAN_COLOR, augment
from reidlib.data.batches import identity_batches


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images():
    return torch.randint(0, 256, (40, 3, 64, 32), dtype=torch.uint8, generator=generator())


def test_batches_have_k_images_of_each_of_p_identities():
    pids = np.random.default_rng(0).permutation(np.repeat(np.arange(30) * 7, np.arange(30) % 9 + 1))
    batches = identity_batches(pids, p=5, k=4, seed=0, epoch=0)
    drawn = pids[batches].reshape(len(batches), 5, 4)
    assert (drawn == drawn[:, :, :1]).all()
    assert all(len(set(row)) == 5 for row in drawn[:, :, 0])


def test_seed_and_epoch_alone_decide():
    pids = np.repeat(np.arange(20), 6)
    first = identity_batches(pids, 4, 3, seed=1, epoch=5)
    identity_batches(pids, 4, 3, seed=1, epoch=6)
    assert np.array_equal(first, identity_batches(pids.tolist(), 4, 3, seed=1, epoch=5))
    assert not np.array_equal(first, identity_batches(pids, 4, 3, seed=1, epoch=6))
    assert not np.array_equal(first, identity_batches(pids, 4, 3, seed=2, epoch=5))


def test_an_epoch_uses_each_image_once_and_nearly_all():
    pids = np.repeat(np.arange(100), 8)
    batches = identity_batches(pids, p=8, k=4, seed=0, epoch=0)
    assert len(np.unique(batches)) == batches.size
    assert batches.size >= 0.9 * len(pids)


def test_identities_appear_equally_often():
    pids = np.repeat(np.arange(60), 8)
    drawn = np.concatenate([pids[identity_batches(pids, 6, 4, 0, epoch)].ravel() for epoch in range(20)])
    counts = np.bincount(drawn, minlength=60)
    assert counts.min() >= 0.85 * counts.max()


def test_few_images_repeat_as_little_as_possible():
    pids = [0, 0, 0, 1, 2, 2]
    (batch,) = identity_batches(pids, p=3, k=4, seed=0, epoch=0)
    times = np.bincount(batch, minlength=6)
    assert times[3] == 4 and times[4:].tolist() == [2, 2] and sorted(times[:3]) == [1, 1, 2]


def test_what_is_left_over_gets_its_turn():
    pids = np.repeat(np.arange(4), 5)
    seen = np.unique(np.concatenate([identity_batches(pids, 4, 4, 0, epoch).ravel() for epoch in range(30)]))
    assert len(seen) == len(pids)


def test_impossible_batches_are_refused():
    with pytest.raises(ValueError, match="p=9 different identities, but there are only 3"):
        identity_batches([1, 1, 2, 3], p=9, k=2, seed=0, epoch=0)
    with pytest.raises(ValueError, match="p >= 2"):
        identity_batches([1, 1, 2, 3], p=1, k=2, seed=0, epoch=0)


@pytest.mark.parametrize("jitter", [0.0, 0.3])
def test_augment_keeps_shape_and_type_and_its_input(images, jitter):
    before = images.clone()
    out, flipped = augment(images, generator(), jitter=jitter)
    assert out.shape == images.shape and out.dtype == torch.uint8
    assert flipped.shape == (40,) and flipped.dtype == torch.bool and 0 < flipped.sum() < 40
    assert torch.equal(images, before)
    again, _ = augment(images, generator(), jitter=jitter)
    other, _ = augment(images, generator(1), jitter=jitter)
    assert torch.equal(out, again) and not torch.equal(out, other)


@pytest.mark.parametrize("jitter", [0.0, 0.3])
@pytest.mark.parametrize("pad", [0, 1, 10, 40])
def test_image_by_image_gives_the_bits_of_all_at_once(images, monkeypatch, jitter, pad):
    each, flipped = augment(images, generator(), pad=pad, jitter=jitter)
    monkeypatch.setattr(augment_module, "_crop_and_flip_each", augment_module._crop_and_flip_at_once)
    monkeypatch.setattr(augment_module, "_fill_each", augment_module._fill_at_once)
    at_once, same = augment(images, generator(), pad=pad, jitter=jitter)
    assert torch.equal(each, at_once) and torch.equal(flipped, same)


def test_draws_stay_what_they_are():
    """Trained networks can be made again only while a seed gives the same pictures."""
    images = torch.arange(2 * 3 * 16 * 8).reshape(2, 3, 16, 8).remainder(256).byte()
    out, flipped = augment(images, generator(), pad=2, erase=1.0)
    assert flipped.tolist() == [True, False] and out.long().sum((1, 2, 3)).tolist() == [29239, 38115]
    assert out[0, 0, :, 3].tolist() == [0, 0, 3, 11, 19, 27, 35, 43, 124, 124, 124, 124, 124, 91, 99, 107]


def test_flip_of_flip_is_the_image(images):
    once, flipped = augment(images, generator(), flip=1, pad=0, erase=0)
    assert flipped.all() and torch.equal(once, images.flip(3))
    assert torch.equal(augment(once, generator(), flip=1, pad=0, erase=0)[0], images)


def test_nothing_switched_on_changes_nothing(images):
    out, flipped = augment(images, generator(), flip=0, pad=0, erase=0)
    assert torch.equal(out, images) and not flipped.any()


def test_crops_are_shifts_with_a_black_border(images):
    images = images.clamp(min=1)
    pad = 3
    out, _ = augment(images, generator(), flip=0, pad=pad, erase=0)
    padded = torch.nn.functional.pad(images, (pad,) * 4)
    shifts = set()
    for before, after in zip(padded, out):
        windows = {(y, x): before[:, y : y + 64, x : x + 32] for y in range(2 * pad + 1) for x in range(2 * pad + 1)}
        shifts |= {shift for shift, window in windows.items() if torch.equal(window, after)}
    assert len(shifts) > 15
    assert {y for y, _ in shifts} == {x for _, x in shifts} == set(range(2 * pad + 1))


def test_a_flipped_crop_is_the_mirror_image_of_the_crop(images):
    crop, _ = augment(images, generator(), flip=0, pad=4, erase=0)
    mirrored, _ = augment(images, generator(), flip=1, pad=4, erase=0)
    assert torch.equal(mirrored, crop.flip(3))


@pytest.mark.parametrize("height, width", [(256, 128), (128, 128), (64, 192)])
def test_erasing_is_a_rectangle_of_the_promised_size(height, width):
    images = torch.zeros(400, 3, height, width, dtype=torch.uint8)
    out, _ = augment(images, generator(), flip=0, pad=0, erase=1)
    mask = out.ne(0).all(1)
    assert torch.equal(out, mask[:, None] * torch.tensor(MEAN_COLOR, dtype=torch.uint8)[:, None, None])
    rows, columns = mask.any(2).sum(1), mask.any(1).sum(1)
    area = mask.sum((1, 2))
    assert torch.equal(area, rows * columns)
    fraction = area / (height * width)
    assert fraction.min() > 0.015 and fraction.max() < 0.41 and 0.19 < fraction.mean() < 0.23
    aspect = rows / columns
    assert aspect.min() > 0.27 and aspect.max() < 3.7


def test_erasing_happens_as_often_as_asked():
    images = torch.zeros(2000, 3, 16, 8, dtype=torch.uint8)
    out, _ = augment(images, generator(), flip=0, pad=0, erase=0.25)
    assert 0.21 < out.flatten(1).any(1).float().mean() < 0.29


def test_jitter_keeps_within_its_strength():
    grey = torch.full((200, 3, 4, 4), 120, dtype=torch.uint8)
    out, _ = augment(grey, generator(), flip=0, pad=0, erase=0, jitter=0.1)
    assert torch.equal(out, out[:, :, :1, :1].expand(grey.shape))
    ratio = out[:, :, 0, 0].float() / 120
    assert 0.78 < ratio.min() < 0.95 and 1.05 < ratio.max() < 1.23
    assert (out[:, 0] != out[:, 1]).any()


def test_augment_refuses_other_than_uint8_batches(images):
    with pytest.raises(TypeError, match="uint8 batch"):
        augment(images.float(), generator())
