"""Pictures per second in training, in the paper's configuration with random weights; and what the teacher costs."""

import contextlib
import copy
import dataclasses
import io
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from torch import nn

from benchmarks import peers
from benchmarks.timing import in_turns, rows
from reidlib import losses
from reidlib import params as studies
from reidlib.encoders import build
from reidlib.gates import Soft
from reidlib.models import Embedder, MixtureOfExperts
from reidlib.params import Recipe, StudyParams
from reidlib.training import FeatureBatches, Machine, OnlineTeacher, PictureBatches, TeacherCache, train

IDENTITIES = 751  # Market-1501's
STEPS = 2  # of each timed run
SIZES, ON_GPU, QUICK = {4: 3, 8: 3, 32: 3, 64: 3}, {16: 7, 64: 7}, {4: 1}  # pictures a batch: runs
LARGE = 16  # pictures a batch from which the student is also compiled, which takes a minute; experts too slow for a CPU
SIZES_TEACHER = {8: 3, 16: 3}  # nothing is trained but the student
K = 4  # pictures of an identity in a batch, at most


def configuration(quick: bool = False) -> tuple[StudyParams, tuple[int, int]]:
    """params/paper.yaml and the size of Market-1501's pictures; or the smallest study's, and its first data set's."""
    params = studies.load("params/smoke.yaml" if quick else "params/paper.yaml")
    return params, params.datasets[next(iter(params.datasets)) if quick else "market1501"].size


def untrained(params: StudyParams, size: tuple[int, int]) -> dict[str, Embedder]:
    """Experts and student with random weights, in evaluation mode."""
    torch.manual_seed(0)
    encoders = {f"expert:{name}": expert.encoder for name, expert in params.experts.items()} | {
        "student": params.student.encoder
    }
    built = {n: build(e.model_copy(update={"weights": None}), e.size or size) for n, e in encoders.items()}
    return {name: Embedder(encoder, identities=2).eval() for name, encoder in built.items()}


def sizes(machine: Machine, quick: bool, on_cpu: dict[int, int]) -> dict[int, int]:
    return QUICK if quick else ON_GPU if machine.torch_device().type == "cuda" else on_cpu


def pictures(size: tuple[int, int], batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise in the place of pictures, uint8 [STEPS x batch, 3, h, w], and its labels, K of each identity or all two."""
    noise = np.random.default_rng(0).integers(0, 256, (STEPS * batch, 3, *size), dtype=np.uint8)
    return noise, np.repeat(np.arange(STEPS * batch // per_identity(batch)), per_identity(batch))


def per_identity(batch: int) -> int:
    return K if batch >= 4 * K else 2


def of_batch(recipe: Recipe, batch: int) -> Recipe:
    return recipe.model_copy(update={"p": batch // per_identity(batch), "k": per_identity(batch)})


def steps(model: nn.Module, batches, objective: Callable, recipe: Recipe, machine: Machine) -> None:
    """One epoch of `reidlib.training.train`, which is STEPS steps here."""
    keep = recipe.model_dump(include={"lr", "weight_decay", "layer_decay"})
    once = {"epochs": 1, "warmup": 0.0}  # and so no checkpoint
    train(model, Path("unused"), batches=batches, objective=objective, machine=machine, **once, **keep)


def input_alone(batches: PictureBatches, device) -> None:
    for _ in batches.epoch(0, device):
        pass


class AsTheirs(nn.Module):
    """An Embedder as torchreid's engine wants it: normalised float pictures [B, 3, h, w] -> logits, feature."""

    def __init__(self, model: Embedder):
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        feature = self.model.encoder.network(images)
        return self.model.neck(feature)[1], feature


def torchreid_steps(model: Embedder, batch: int, size: tuple[int, int], device: torch.device):
    """torchreid's name and STEPS steps of its triplet engine on batches that are ready; None where it is missing."""
    if (peer := peers.found("torchreid", "torchreid")) is None:
        return None
    pids = torch.arange(IDENTITIES).repeat_interleave(per_identity(batch))[:batch]
    ready = [{"img": torch.randn(batch, 3, *size), "pid": pids} for _ in range(STEPS)]
    data = SimpleNamespace(train_loader=ready, test_loader=None, num_train_pids=IDENTITIES)
    theirs = AsTheirs(model).to(device)
    with contextlib.redirect_stdout(io.StringIO()):
        optimizer = peer[1].optim.build_optimizer(theirs)
        engine = peer[1].engine.ImageTripletEngine(data, theirs, optimizer, use_gpu=device.type == "cuda")
    engine.epoch, engine.max_epoch = 0, 1
    return f"torchreid {peer[0]}", engine.train


def compiled(model: Embedder) -> nn.Module | None:
    """The model under torch.compile; None where there is no C++ compiler, which it needs on a CPU."""
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        return None
    return torch.compile(model)


def run(machine: Machine, quick: bool = False) -> pd.DataFrame:
    """Rows of every batch size: experts, gate and student in both precisions, and the student's input by itself."""
    (params, size), table, device = configuration(quick), [], machine.torch_device()
    for batch, runs in sizes(machine, quick, SIZES).items():
        pixels, labels = pictures(size, batch)
        models = untrained(params, size)
        large = device.type == "cpu" and batch >= LARGE
        recipes = {} if large else {f"expert:{name}": expert.recipe for name, expert in params.experts.items()}
        recipes = {name: of_batch(recipe, batch) for name, recipe in (recipes | {"student": params.student.recipe}).items()}
        fresh = lambda name: Embedder(copy.deepcopy(models[name].encoder), IDENTITIES)  # noqa: B023, E731
        calls: dict[str, Callable[[], object]] = {}

        def step(name: str, model: nn.Module, how: Machine = machine) -> Callable[[], None]:
            recipe = recipes[name]  # noqa: B023
            batches = PictureBatches(pixels, labels, recipe, seed=0)  # noqa: B023
            return partial(steps, model, batches, partial(losses.reid_loss, recipe=recipe), recipe, how)

        for precision, said in (("no", "float32"), ("bf16", "bf16")):
            how = dataclasses.replace(machine, precision=precision)
            calls |= {f"{name}, {said}": step(name, fresh(name), how) for name in recipes}
        if batch >= LARGE and (model := compiled(fresh("student"))) is not None:
            calls["student, float32, torch.compile"] = step("student", model)
        recipe = of_batch(params.moe.recipe, batch)
        dims = [models[f"expert:{name}"].dim for name in params.experts]
        gate = Soft(dims, params.moe.width, IDENTITIES)
        features = [np.random.default_rng(0).standard_normal((len(labels), 2, dim), np.float32) for dim in dims]
        objective = partial(losses.moe_loss, recipe=recipe, balance=params.moe.balance.get("soft", 0.0))
        batches = FeatureBatches(features, labels, recipe, seed=0)
        calls["gate, float32"] = partial(steps, gate, batches, objective, recipe, machine)
        batches = PictureBatches(pixels, labels, recipes["student"], seed=0)
        calls["the student's input alone"] = partial(input_alone, batches, device)
        if (peer := torchreid_steps(fresh("student"), batch, pixels.shape[2:], device)) is not None:
            calls[f"student, float32, {peer[0]}'s engine"] = peer[1]
        seconds, _ = in_turns(calls, runs, machine)
        table.append(rows("training", str(batch), seconds, machine, items=dict.fromkeys(calls, STEPS * batch)))
    return pd.concat(table, ignore_index=True)


def run_teacher(machine: Machine, quick: bool = False) -> pd.DataFrame:
    """Rows of every batch size: the student's distillation from the Mixture-of-Experts, cached and online."""
    (params, size), table, rng = configuration(quick), [], np.random.default_rng(0)
    device = machine.torch_device()
    for batch, runs in sizes(machine, quick, SIZES_TEACHER).items():
        pixels, labels = pictures(size, batch)
        models = untrained(params, size)
        experts = [models[f"expert:{name}"] for name in params.experts]
        fusion = Soft([expert.dim for expert in experts], params.moe.width, IDENTITIES)
        moe, recipe = MixtureOfExperts(experts, fusion).eval().to(device), of_batch(params.student.recipe, batch)
        said = [rng.standard_normal((len(labels), 2, width), np.float32) for width in (moe.dim, IDENTITIES)]
        objective = partial(losses.distillation_loss, recipe=recipe, kd=params.distillation)
        calls = {}
        for precision in ("no", "bf16"):
            how = dataclasses.replace(machine, precision=precision)
            for name, teacher in (("cached", TeacherCache(*said)), ("online", OnlineTeacher(moe, precision))):
                student = Embedder(copy.deepcopy(models["student"].encoder), IDENTITIES, moe.dim)
                batches = PictureBatches(pixels, labels, recipe, seed=0, teacher=teacher)
                name = f"{name} teacher, {'float32' if precision == 'no' else precision}"
                calls[name] = partial(steps, student, batches, objective, recipe, how)
        seconds, _ = in_turns(calls, runs, machine)
        table.append(rows("teacher", str(batch), seconds, machine, items=dict.fromkeys(calls, STEPS * batch)))
    return pd.concat(table, ignore_index=True)
