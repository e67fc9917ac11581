"""One loop that trains everything: experts, gate, student, and the miniatures' contrastive pretraining.

What differs is handed in: `batches` says what a step sees, `objective` what it minimises.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs
from torch import nn

from reidlib import processes
from reidlib.data.augment import augment
from reidlib.data.batches import identity_batches
from reidlib.data.store import gather
from reidlib.losses import Target
from reidlib.models import Embedder, Router
from reidlib.params import Recipe
from reidlib.progress import Bar, load_checkpoint, save_checkpoint

Batch = tuple[tuple, Target | None]


@dataclass(frozen=True)
class Machine:
    """Where to compute and how precisely."""

    device: str = "auto"  # auto, cpu, cuda
    precision: str = "no"  # no (float32), bf16

    def accelerator(self) -> Accelerator:
        """accelerate's view of this machine; processes that were launched together meet here.

        Its precision is float32 in place of bf16 where that `crawls`. Raises ValueError where there is no such device.
        """
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("device: cuda, but torch finds no GPU here; set device to auto or cpu")
        # accelerate keeps the first settings for the life of the process; another study may have others
        AcceleratorState._reset_state(reset_partial_state=True)
        cpu = self.device == "cpu" or not torch.cuda.is_available()  # else accelerate takes what else there is, such as mps
        patience = InitProcessGroupKwargs(timeout=timedelta(days=1))  # others may train what these processes wait for
        precision = "no" if self.crawls() else self.precision
        return Accelerator(mixed_precision=precision, cpu=cpu, kwargs_handlers=[patience])

    def crawls(self) -> bool:
        """Whether bf16 is asked of a CPU for which torch has only a plain loop, forty times as slow as float32."""
        on_cpu = self.device == "cpu" or not torch.cuda.is_available()
        fast = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        return self.precision == "bf16" and on_cpu and not fast

    def torch_device(self) -> torch.device:
        return self.accelerator().device


@dataclass(frozen=True)
class TeacherCache:
    """What a frozen teacher gives for every training picture and its mirror image, computed once."""

    embedding: np.ndarray  # float32 [N, 2, D]: the picture, its mirror image
    logits: np.ndarray  # float32 [N, 2, identities]

    def targets(self, index: np.ndarray, flipped: torch.Tensor, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Embedding [B, D] and logits [B, identities] for the store's pictures `index`, mirrored where `flipped`."""
        row, side = torch.arange(len(index), device=images.device), flipped.long()
        both = (torch.from_numpy(of[index]).to(images.device) for of in (self.embedding, self.logits))
        return tuple(sides[row, side] for sides in both)


@dataclass(frozen=True)
class OnlineTeacher:
    """A frozen teacher that looks at each batch just as the student sees it, crop and erasing included: slow."""

    model: nn.Module  # an Embedder or a MixtureOfExperts, on the training device
    precision: str = "no"

    def targets(self, index: np.ndarray, flipped: torch.Tensor, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Embedding [B, D] and logits [B, identities] of the augmented `images`, uint8 [B, 3, H, W]."""
        with torch.no_grad(), torch.autocast(images.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            return processes.forward_shared(self.model.teach, (images,))


@dataclass(frozen=True)
class PictureBatches:
    """Identity-balanced, augmented batches of pictures; with a teacher, its targets too.

    Args:
        pixels: decoded store, uint8 [N, 3, h, w].
        labels: int [N], identities numbered from 0.
        stages: stores of the same pictures at the sizes of the recipe's stages, in order.
    """

    pixels: np.ndarray
    labels: np.ndarray
    recipe: Recipe
    seed: int
    teacher: TeacherCache | OnlineTeacher | None = None
    stages: Sequence[np.ndarray] = ()

    def index(self, epoch: int) -> np.ndarray:
        return identity_batches(self.labels, self.recipe.p, self.recipe.k, self.seed, epoch)

    def __len__(self) -> int:
        return len(self.index(0))

    def stage(self, epoch: int) -> int | None:
        """Which of the recipe's stages an epoch is of; None: it is past them."""
        ends = np.cumsum([stage.epochs for stage in self.recipe.stages])
        return next((number for number, end in enumerate(ends) if epoch < end), None)

    def epoch(self, epoch: int, device: torch.device) -> Iterator[Batch]:
        generator = torch.Generator(device).manual_seed(_mix(self.seed, epoch))
        pixels = self.pixels if self.stage(epoch) is None else self.stages[self.stage(epoch)]
        for index in self.index(epoch):
            images = gather(pixels, index).to(device, non_blocking=True)
            images, flipped = augment(images, generator, **self.recipe.augmentation.model_dump())
            pid = torch.from_numpy(self.labels[index]).to(device)
            yield (images,), Target(pid, *(self.teacher.targets(index, flipped, images) if self.teacher else ()))


@dataclass(frozen=True)
class FeatureBatches:
    """Identity-balanced batches of the frozen experts' embeddings, for the gate.

    Args:
        features: one float32 [N, 2, D_i] for each expert (the picture, its mirror image).
        labels: int [N], identities numbered from 0.
    """

    features: list[np.ndarray]
    labels: np.ndarray
    recipe: Recipe
    seed: int

    def index(self, epoch: int) -> np.ndarray:
        return identity_batches(self.labels, self.recipe.p, self.recipe.k, self.seed, epoch)

    def __len__(self) -> int:
        return len(self.index(0))

    def epoch(self, epoch: int, device: torch.device) -> Iterator[Batch]:
        sides = np.random.default_rng([self.seed, epoch, 1]).integers(0, 2, size=len(self.labels))
        for index in self.index(epoch):
            inputs = [torch.from_numpy(f[index, sides[index]]).to(device) for f in self.features]
            yield (inputs,), Target(torch.from_numpy(self.labels[index]).to(device))


def train(
    model: nn.Module,
    folder: Path,
    *,
    batches,
    objective: Callable[..., dict[str, torch.Tensor]],
    epochs: int,
    lr: float,
    weight_decay: float = 1e-4,
    warmup: float = 1.0,
    layer_decay: float = 1.0,
    head_lr: float = 1.0,
    ema: float = 0.0,
    stages: Sequence[dict] = (),
    seed: int = 0,
    machine: Machine = Machine(),
    label: str = "train",
) -> pd.DataFrame:
    """Train `model` in place with AdamW, linear warm-up and cosine decay; returns the history, one row an epoch.

    The model comes back in evaluation mode, on the CPU, wherever it was trained.

    Processes that were launched together share each batch and end, but for rounding, where one process ends.

    Args:
        folder: a checkpoint is kept here after each epoch; if there is one already, training goes on from it and
            ends where an uninterrupted run would have ended, to the bit on a CPU.
        batches: has len() and epoch(number, device), which yields (inputs, target).
        objective: (output, target) -> named terms, already weighted; their sum is minimised.
        warmup: epochs from a hundredth of `lr` to `lr`.
        layer_decay: factor on the learning rate from each of the encoder's layers to the one below.
        head_lr: factor on the learning rate of what is not the encoder: neck, classifier, projection.
        ema: decay a step (warmed up) of averaged weights, in which training ends; 0: it ends in the last ones.
        stages: "epochs" and "size" of each: the encoder sees this size first, its own afterwards.
    """
    # here, for timm takes seconds to import, and finished units need none
    from timm.scheduler import CosineLRScheduler
    from timm.utils import ModelEmaV3

    accelerator = machine.accelerator()
    # fused: one call for all parameters, where small networks on a CPU would spend a tenth of a step on many
    optimizer = torch.optim.AdamW(parameter_groups(model, weight_decay, layer_decay, head_lr), lr=lr, fused=True)
    steps = len(batches)
    warmup_steps = round(min(warmup, epochs / 2) * steps)
    scheduler = CosineLRScheduler(
        optimizer,
        t_initial=epochs * steps - warmup_steps,
        warmup_t=warmup_steps,
        warmup_lr_init=lr / 100,
        warmup_prefix=True,
        t_in_epochs=False,
    )
    # "evaluation mode" is accelerate's word for "without DistributedDataParallel": see processes.average_gradients
    model, optimizer = accelerator.prepare_model(model, evaluation_mode=True), accelerator.prepare(optimizer)
    averaged = ModelEmaV3(accelerator.unwrap_model(model), decay=ema, use_warmup=True) if ema else None
    sizes = [tuple(stage["size"]) for stage in stages for _ in range(stage["epochs"])]
    own_size = accelerator.unwrap_model(model).encoder.size if stages else None
    parts = {"model": accelerator.unwrap_model(model), "optimizer": optimizer}  # all that a training is carried on from
    parts |= {"averaged": averaged.module} if averaged else {}
    history: list[dict] = []
    if checkpoint := load_checkpoint(folder):
        history = checkpoint["history"]
        for name, part in parts.items():
            part.load_state_dict(checkpoint[name])
    with Bar(label, epochs, steps, len(history), shown=accelerator.is_main_process) as bar:
        for epoch in range(len(history), epochs):
            torch.manual_seed(_mix(seed, epoch))  # dropout and the like depend on the epoch alone, so resuming is exact
            model.train()
            if stages:
                accelerator.unwrap_model(model).encoder.size = sizes[epoch] if epoch < len(sizes) else own_size
            sums: dict[str, torch.Tensor] = {}
            for step, (inputs, target) in enumerate(batches.epoch(epoch, accelerator.device)):
                scheduler.step_update(min(epoch * steps + step, epochs * steps - 1))
                with accelerator.autocast():
                    output = processes.forward_shared(model, inputs)
                terms = objective(output, target)
                loss = sum(terms.values())
                if not torch.isfinite(loss):
                    values = {name: term.item() for name, term in terms.items()}
                    raise FloatingPointError(
                        f"{label}: the loss is {values} at step {step + 1} of epoch {epoch + 1}; lower its recipe's lr"
                    )
                accelerator.backward(loss)
                processes.average_gradients(model)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                if averaged:
                    averaged.update(accelerator.unwrap_model(model), step=epoch * steps + step)
                for name, term in terms.items():
                    sums[name] = sums.get(name, 0) + term.detach()
                bar.step()
            means = {name: float(total) / (step + 1) for name, total in sums.items()}
            history.append({"epoch": epoch + 1, "loss": sum(means.values()), **means})
            bar.epoch(history[-1])
            if epoch + 1 < epochs and accelerator.is_main_process:
                save_checkpoint(folder, {name: part.state_dict() for name, part in parts.items()} | {"history": history})
    if averaged:
        accelerator.unwrap_model(model).load_state_dict(averaged.module.state_dict())
    accelerator.unwrap_model(model, keep_fp32_wrapper=False).cpu().eval()
    return pd.DataFrame(history)


def parameter_groups(model: nn.Module, weight_decay: float, layer_decay: float, head_lr: float = 1.0) -> list[dict]:
    """Parameter groups for the optimizer: no weight decay on vectors, layer-wise learning rates in the encoder, and
    `head_lr` times the rate in the rest."""
    from timm.optim import param_groups_layer_decay, param_groups_weight_decay

    if not isinstance(model, (Embedder, Router)) or layer_decay == head_lr == 1:
        return param_groups_weight_decay(model, weight_decay)
    if layer_decay != 1:
        model.encoder.layers()  # refuses a network whose layers can't be told apart
    network = model.encoder.network
    groups = param_groups_layer_decay(network, weight_decay, layer_decay=layer_decay)
    inside = {id(p) for p in network.parameters()}
    rest = [(n, p) for n, p in model.named_parameters() if id(p) not in inside and p.requires_grad]
    for decay, members in (
        (weight_decay, [p for _, p in rest if p.ndim > 1]),
        (0.0, [p for _, p in rest if p.ndim <= 1]),
    ):
        if members:
            groups.append({"params": members, "weight_decay": decay, "lr_scale": head_lr})
    return groups  # timm's scheduler multiplies each group's lr_scale in


def embed(model: nn.Module, pixels: np.ndarray, machine: Machine, *, mirrored=False, batch=256) -> np.ndarray:
    """Embeddings of all pictures, block by block: uint8 [N, 3, h, w] -> float32 [N, D].

    mirrored: of their mirror images. The model is left on the device where it was.
    """
    accelerator = machine.accelerator()
    home, parts = next((p.device for p in model.parameters()), torch.device("cpu")), []
    model = model.to(accelerator.device).eval()
    try:
        with torch.inference_mode(), accelerator.autocast():
            for start in range(0, len(pixels), batch):
                images = gather(pixels, slice(start, start + batch)).to(accelerator.device)
                parts.append(model(images.flip(3) if mirrored else images).float().cpu().numpy())
    finally:
        model.to(home)
    return np.concatenate(parts)


def _mix(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])
