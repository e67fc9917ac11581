"""From JPEG files to augmented training batches: the decoded store beside loaders that open each file in each epoch."""

import contextlib
import io
import os
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

import toydata
from benchmarks import peers
from benchmarks.timing import in_turns, rows
from reidlib.data import load
from reidlib.data.store import decode
from reidlib.encoders import Encoder
from reidlib.params import Recipe
from reidlib.sources import PROJECT
from reidlib.study import open_study
from reidlib.training import Machine, PictureBatches

IDS, QUICK = {48: 5, 192: 3}, {16: 1}  # drawn training identities, of about 11 pictures each: runs
SIZE = (256, 128)  # pixels, as the field trains on Market-1501
BATCH = 64
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as torchreid has them
FLIP, ALL = ["random_flip"], ["random_flip", "random_crop", "random_erase"]  # torchreid's default; what reidlib does


class Files(Dataset):
    """Pictures that are opened whenever they are asked for: transform(RGB picture)."""

    def __init__(self, paths: Sequence[str], transform: Callable):
        self.paths, self.transform = list(paths), transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int):
        with Image.open(self.paths[index]) as image:
            return self.transform(image.convert("RGB"))


def resized(image: Image.Image) -> torch.Tensor:
    """uint8 [3, h, w], resized as the store does."""
    pixels = np.asarray(image.resize(SIZE[::-1], Image.Resampling.BICUBIC))
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


def augmented(names: Sequence[str]) -> Callable:
    """torchreid's training transforms of these names, put together from torchvision's."""
    larger = tuple(round(1.125 * side) for side in SIZE)
    known = {
        "random_flip": transforms.RandomHorizontalFlip(),
        "random_crop": transforms.RandomApply([transforms.Resize(larger), transforms.RandomCrop(SIZE)]),
        "random_erase": transforms.RandomErasing(0.5, scale=(0.02, 0.4), ratio=(0.3, 1 / 0.3), value=MEAN),
    }
    picked = {name: known[name] for name in names}
    last = [picked.pop("random_erase")] if "random_erase" in picked else []
    normalised = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    return transforms.Compose([transforms.Resize(SIZE), *picked.values(), *normalised, *last])


def dataset(ids: int | None) -> Path:
    """A folder in Market-1501's layout: drawn, with so many training identities, or None: the real one."""
    if ids is None:
        return Path(os.environ["REIDLIB_DATA"]) / toydata.FOLDERS["people"]
    root = PROJECT / "artifacts" / "benchmarks" / f"people-{ids}"
    return toydata.write("people", root, train_ids=ids, test_ids=2, cameras=6, images=2, seed=0)


def methods(folder: Path, store: np.ndarray, workers: int, device: torch.device) -> dict[str, Callable[[], int]]:
    """By name: one epoch over the training pictures, which says how many they were."""
    train = load("market1501", folder).train
    labels = np.unique(train["pid"], return_inverse=True)[1]
    student = open_study("params/paper.yaml").params.student.recipe
    # reidlib's networks take uint8 and normalise by themselves; a loader's batches come normalised
    normalised = Encoder(nn.Identity(), SIZE, MEAN, STD).to(device)
    found = {
        f"epoch 1: reidlib, {workers} threads": partial(first_epoch, train, workers),
        f"epoch 1: Pillow DataLoader, {workers} workers": partial(
            drained, loader(Files(train["path"], resized), workers, drop_last=False)
        ),
        "later epochs: reidlib, uint8": partial(later_epoch, store, labels, student, len, device),
        "later epochs: reidlib, normalised": partial(
            later_epoch, store, labels, student, lambda images: len(normalised(images)), device
        ),
    }
    for said, names in (("flip", FLIP), ("flip, crop, erase", ALL)):
        theirs = torchreid_loader(folder, names, workers)
        name = f"later epochs: {theirs[0] if theirs else 'as torchreid does'}, {said}, {workers} workers"
        batches = theirs[1] if theirs else loader(Files(train["path"], augmented(names)), workers)
        found[name] = partial(drained, batches)
    return found


def loader(files: Files, workers: int, drop_last: bool = True) -> DataLoader:
    """Batches in random order."""
    return DataLoader(files, BATCH, shuffle=True, num_workers=workers, drop_last=drop_last)


def torchreid_loader(folder: Path, names: list[str], workers: int) -> tuple[str, DataLoader] | None:
    """torchreid's name and its own training loader of the folder; None where it is not installed."""
    if (peer := peers.found("torchreid", "torchreid")) is None:
        return None
    root = PROJECT / "artifacts" / "benchmarks" / "as-torchreid-wants-it" / folder.parent.name
    root.mkdir(parents=True, exist_ok=True)
    if not (root / "market1501").exists():
        (root / "market1501").symlink_to(folder.parent.resolve())
    with contextlib.redirect_stdout(io.StringIO()):
        manager = peer[1].data.ImageDataManager(
            root=str(root), sources="market1501", height=SIZE[0], width=SIZE[1], batch_size_train=BATCH,
            workers=workers, transforms=names, use_gpu=False,
        )  # fmt: skip
    return f"torchreid {peer[0]}", manager.train_loader


def first_epoch(train: pd.DataFrame, workers: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        return len(decode(train, SIZE, Path(folder) / "store.npy", workers))


def later_epoch(store: np.ndarray, labels: np.ndarray, recipe: Recipe, take: Callable, device: torch.device) -> int:
    seen = 0
    for (images,), _ in PictureBatches(store, labels, recipe, seed=0).epoch(1, device):
        seen += take(images)
    return seen


def drained(batches: DataLoader) -> int:
    seen = 0
    for batch in batches:
        seen += len(batch["img"] if isinstance(batch, dict) else batch)
    return seen


def run(machine: Machine, quick: bool = False) -> pd.DataFrame:
    """Rows of every number of files: drawn ones, and Market-1501's where REIDLIB_DATA has it."""
    plan = dict(QUICK if quick else IDS)
    real = Path(os.environ.get("REIDLIB_DATA") or "/nowhere") / toydata.FOLDERS["people"]
    if real.is_dir() and not quick:
        plan[None] = 1
    table, workers = [], os.cpu_count() or 1
    for ids, runs in plan.items():
        folder = dataset(ids)
        train = load("market1501", folder).train
        with tempfile.TemporaryDirectory() as temporary:
            store = decode(train, SIZE, Path(temporary) / "store.npy", workers)
            epochs = methods(folder, store, workers, machine.torch_device())
            seconds, seen = in_turns(epochs, runs, machine)
        table.append(rows("loading", str(len(train)), seconds, machine, items=seen))
    return pd.concat(table, ignore_index=True)
