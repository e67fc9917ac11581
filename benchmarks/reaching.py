"""How long until the student finds people it was not trained on: this project's training, and torchreid's own.

A quarter of the training identities is held out. Both begin from the same network and weights, on the same pictures, each with
a recipe of its own: ours the study's, cut to so many epochs, each schedule trained from nothing; torchreid's that of its own
configuration files (softmax with smoothed labels, AMSGrad, 32 pictures of 256 x 128 a batch, five epochs of the classifier
alone) with the two augmentations its model zoo names for this network, tested after each epoch. Testing does not count.
"""

import contextlib
import io
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from benchmarks import peers
from benchmarks.retrieval import OURS
from benchmarks.timing import machine_name
from reidlib import encoders, params
from reidlib.data.dataset import SPLITS, Dataset
from reidlib.retrieval import EmbeddingSet, evaluate
from reidlib.sources import PROJECT
from reidlib.study import Study
from reidlib.training import Machine

GOAL = 0.6  # mAP on the identities held out
HELD_OUT = 0.25
EPOCHS = (2, 3, 4, 6, 9, 15)  # of our schedules, shortest first, until one reaches the goal
PATIENCE = 6  # times as long as ours took, after which theirs is stopped
FIXED, MOST = 5, 60  # epochs of theirs: of the classifier alone, and all
SIZE = (256, 128)


def run(machine: Machine, quick: bool = False) -> pd.DataFrame:
    """Rows of all points: case, method, epochs, seconds of training from nothing, mAP on held-out identities, machine."""
    name, goal = ("smoke", 1.0) if quick else ("market1501", GOAL)
    read = params.load(
        f"params/{name}.yaml", [f"device={machine.device}", f"threads={torch.get_num_threads()}", "shipped=null"]
    )
    at = {"weights_root": str(PROJECT / (read.weights_root or ".")), "data_root": str(PROJECT / (read.data_root or "."))}
    read = read.model_copy(update=at)
    points = {OURS: ours(read, EPOCHS[:2] if quick else EPOCHS)}
    if (peer := peers.found("torchreid", "torchreid")) is not None:
        points[f"torchreid {peer[0]}"] = theirs(peer[1], read, machine, 2 if quick else MOST, 1 if quick else FIXED)
    rows, limit = [], float("inf")
    for method, found in points.items():
        for epochs, seconds, mAP in found:
            row = {"case": "reaching", "method": method, "epochs": epochs, "seconds": seconds, "mAP": mAP}
            rows.append(row | {"goal": goal, "machine": machine_name(machine)})
            print(f"  {method}, {epochs} epochs, {seconds:.0f} s: mAP {100 * mAP:.1f}", flush=True)
            if mAP >= goal or seconds > limit:
                break
        limit = PATIENCE * rows[-1]["seconds"]
    return pd.DataFrame(rows)


def ours(read: params.StudyParams, schedules: tuple[int, ...]) -> Iterator[tuple[int, float, float]]:
    """Epochs, seconds and mAP of each schedule, in a folder of its own: pictures are decoded in that time too."""
    dataset = next(iter(read.datasets))
    for epochs in schedules:
        with tempfile.TemporaryDirectory() as root:
            student = read.student.model_copy(update={"recipe": read.student.recipe.lasting(epochs)})
            study = Study("reaching", read.model_copy(update={"student": student}), Path(root), HELD_OUT)
            study.dataset(dataset)  # drawn, where it is a built-in one
            start = time.perf_counter()
            study.model("student", dataset, 0)
            seconds = time.perf_counter() - start
            yield epochs, seconds, study.evaluate("student", dataset, 0).mAP


class Theirs(nn.Module):
    """A network as torchreid's engine wants it: [B, 3, h, w] -> logits [B, C] in training, features [B, D] else."""

    def __init__(self, encoder: nn.Module, identities: int):
        super().__init__()
        self.encoder, self.classifier = encoder, nn.Linear(encoder.dim, identities)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.encoder.network(images)
        return self.classifier(features) if self.training else features


def theirs(
    torchreid, read: params.StudyParams, machine: Machine, epochs: int, fixed: int
) -> Iterator[tuple[int, float, float]]:
    """Epochs, seconds and mAP of one training, after each epoch."""
    dataset, gpu = next(iter(read.datasets)), machine.torch_device().type == "cuda"
    with tempfile.TemporaryDirectory() as root:
        study = Study("reaching", read, Path(root), HELD_OUT)
        data = study.dataset(dataset)
        encoder = encoders.build(read.student.encoder, SIZE, study.plan.weights_root)
        with quiet():
            torch.manual_seed(0)
            manager = held_out(torchreid, data, gpu)
            model = Theirs(encoder, manager.num_train_pids).to(machine.torch_device())
            optimizer = torchreid.optim.build_optimizer(model, optim="amsgrad", lr=3e-4)
            scheduler = torchreid.optim.build_lr_scheduler(optimizer, lr_scheduler="single_step", stepsize=20)
            engine = torchreid.engine.ImageSoftmaxEngine(manager, model, optimizer, scheduler, gpu, label_smooth=True)
        engine.max_epoch, seconds = epochs, 0.0
        for engine.epoch in range(epochs):
            start = time.perf_counter()
            with quiet():
                engine.train(fixbase_epoch=fixed, open_layers=["classifier"])
            seconds += time.perf_counter() - start
            yield engine.epoch + 1, seconds, tested(engine, manager)


def held_out(torchreid, data: Dataset, gpu: bool):
    """torchreid's data manager of a data set's splits, as its image data sets are: (path, pid, camid), training ids from 0."""
    ids = {pid: number for number, pid in enumerate(sorted(data.train["pid"].unique()))}
    splits = [getattr(data, split)[["path", "pid", "camid"]] for split in SPLITS]
    splits[0] = splits[0].assign(pid=splits[0]["pid"].map(ids))
    rows = [[(str(path), int(pid), int(camid)) for path, pid, camid in split.to_numpy()] for split in splits]

    class HeldOut(torchreid.data.ImageDataset):
        def __init__(self, root="", **given):
            super().__init__(*rows, **given)

    name = uuid.uuid4().hex  # torchreid takes each name once
    torchreid.data.register_image_dataset(name, HeldOut)
    return torchreid.data.ImageDataManager(
        sources=name, height=SIZE[0], width=SIZE[1], transforms=["random_flip", "random_crop"], use_gpu=gpu,
        batch_size_train=32, batch_size_test=100, workers=min(2, torch.get_num_threads() - 1),
    )  # fmt: skip


@torch.no_grad()
def tested(engine, manager) -> float:
    """mAP of torchreid's network on what is held out, by reidlib's evaluation."""
    engine.set_model_mode("eval")
    sets = []
    for part in ("query", "gallery"):
        batches = [(engine.extract_features(b["img"].to(next(engine.model.parameters()).device)).cpu().numpy(),
                    b["pid"].numpy(), b["camid"].numpy()) for b in manager.test_loader[manager.sources[0]][part]]  # fmt: skip
        sets.append(EmbeddingSet(*(np.concatenate(column) for column in zip(*batches))))
    return evaluate(*sets).mAP


def quiet() -> contextlib.AbstractContextManager:
    """Without what torchreid prints."""
    return contextlib.redirect_stdout(io.StringIO())
