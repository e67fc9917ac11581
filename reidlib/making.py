"""How data and networks are made, from a unit's inputs and its parents, and how what was made is loaded again.

make_...(unit, store, folder)     makes it: see `units.Unit`
load_...(unit, store)             the trained network, freshly built, in evaluation mode, on the CPU
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_model, save_model
from torch import nn

from reidlib import losses, processes
from reidlib.content import write_atomically
from reidlib.data.store import decode
from reidlib.encoders import build
from reidlib.gates import GATES
from reidlib.methods import Expert, Method, Moe, Start, parse
from reidlib.models import Embedder, MixtureOfExperts, RoutedExperts, Router
from reidlib.pretraining import CaptionBatches, Pair, contrastive_loss, tokenize
from reidlib.training import FeatureBatches, OnlineTeacher, PictureBatches, TeacherCache, train
from reidlib.units import Store, Unit
from reidlib.weights import WeightsError, weights_identity

# data


def make_pixels(unit: Unit, store: Store, folder: Path) -> None:
    """All pictures of a part, decoded and resized: pixels.npy, uint8 [N, 3, h, w]."""
    decode(unit.given["paths"], tuple(unit.inputs["size"]), folder / "pixels.npy", title=unit.label)


def load_pixels(unit: Unit, store: Store) -> np.ndarray:
    """Decoded pictures uint8 [N, 3, h, w], mapped from disk."""
    return np.load(store.make(unit) / "pixels.npy", mmap_mode="r")


def make_captioned(unit: Unit, store: Store, folder: Path) -> dict[str, np.ndarray]:
    """Drawn pictures uint8 [N, 3, h, w] and their captions, as bytes."""
    import toydata  # here, for no real study needs it

    pixels, captions = toydata.captioned(**unit.inputs)
    return {"pixels": pixels, "captions": np.frombuffer("\n".join(captions).encode(), np.uint8)}


def load_captioned(unit: Unit, store: Store) -> tuple[np.ndarray, list[str]]:
    """Drawn pictures uint8 [N, 3, h, w] and a caption for each."""
    arrays = store.arrays(unit)
    return arrays["pixels"], arrays["captions"].tobytes().decode().split("\n")


# networks: each is built with its seed, trained, and kept as weights.safetensors and history.csv


def make_pretrained(unit: Unit, store: Store, folder: Path) -> None:
    """A miniature, pretrained contrastively on captioned pictures; its image tower is kept alone, too: tower.safetensors."""
    plan, (pixels, captions) = unit.inputs["plan"], load_captioned(unit.parents["captioned"], store)
    tokens, vocabulary = tokenize(captions)
    torch.manual_seed(plan.seed)
    pair = Pair(unit.inputs["encoder"], unit.inputs["encoder"].size, vocabulary, tokens.shape[1])
    batches = CaptionBatches(pixels, tokens, plan)
    _fit(
        unit, folder, pair, batches, contrastive_loss, plan.seed, plan.model_dump(include={"epochs", "lr", "weight_decay"})
    )
    if processes.first():
        write_atomically(folder / "tower.safetensors", lambda path: save_model(pair.tower, str(path)))


def make_embedder(unit: Unit, store: Store, folder: Path) -> None:
    """An expert, or a student without a teacher."""
    model = _new_embedder(unit, store)
    objective = partial(losses.reid_loss, recipe=unit.inputs["recipe"])
    _fit(unit, folder, model, _picture_batches(unit, store), objective)


def make_taught(unit: Unit, store: Store, folder: Path) -> None:
    """A student under a teacher, cached or online."""
    recipe, kd = unit.inputs["recipe"], unit.inputs["distillation"]
    if kd.teacher == "online":
        network = load_teacher(unit, store)
        width = network.dim
        accelerator = unit.given["machine"].accelerator()
        teacher = OnlineTeacher(network.to(accelerator.device), accelerator.mixed_precision)
    else:
        teacher = cached_teacher(unit, store)
        width = teacher.embedding.shape[-1]
    model = _new_embedder(unit, store, width)
    objective = partial(losses.distillation_loss, recipe=recipe, kd=kd)
    _fit(unit, folder, model, _picture_batches(unit, store, teacher), objective)


def make_gate(unit: Unit, store: Store, folder: Path) -> None:
    """A gate over the frozen experts, from their embeddings of each training picture and of its mirror image."""
    inputs, features = unit.inputs, _features(unit, store)
    torch.manual_seed(inputs["seed"])
    identities = int(unit.given["labels"].max()) + 1
    gate = GATES[inputs["gate"]]([f.shape[-1] for f in features], inputs["width"], identities)
    batches = FeatureBatches(features, unit.given["labels"], inputs["recipe"], inputs["seed"])
    objective = partial(losses.moe_loss, recipe=inputs["recipe"], balance=inputs["balance"])
    _fit(unit, folder, gate, batches, objective)


def make_router(unit: Unit, store: Store, folder: Path) -> None:
    """The router, which learns from pictures what the top-1 gate chose."""
    features = [torch.from_numpy(f) for f in _features(unit, store)]
    gate = load_gate(unit.parents["gate"], store)
    with torch.inference_mode():
        weights = gate.soft_weights([f.flatten(0, 1) for f in features])
    least = torch.finfo(weights.dtype).tiny  # a softmax may underflow to 0, whose logarithm is no target
    choice = weights.clamp_min(least).log().view(len(features[0]), 2, -1).numpy()
    router = _new_router(unit, store, len(features))
    batches = _picture_batches(unit, store, TeacherCache(choice, choice))
    _fit(unit, folder, router, batches, losses.routing_loss)


def load_embedder(unit: Unit, store: Store) -> Embedder:
    """An expert or a student."""
    shapes = _shapes(unit, store)
    width = shapes["projection.weight"][0] if "projection.weight" in shapes else None
    return _loaded(_new_embedder(unit, None, width), unit, store)


def load_start(unit: Unit, store: Store, folder: None = None) -> Embedder:
    """An expert before it is fine-tuned: its encoder as pretrained, and a neck that changes nothing."""
    return Embedder(_encoder(unit, store), identities=1).eval()


def load_gate(unit: Unit, store: Store) -> nn.Module:
    """A trained gate, which works on the experts' embeddings."""
    shapes = _shapes(unit, store)
    experts = sum(name.startswith("projections.") for name in shapes)  # in the file, 10 stands before 2
    dims = [shapes[f"projections.{i}.weight"][1] for i in range(experts)]
    gate = GATES[unit.inputs["gate"]](dims, unit.inputs["width"], shapes["neck.classifier.weight"][0])
    return _loaded(gate, unit, store)


def load_router(unit: Unit, store: Store) -> Router:
    """The trained router."""
    return _loaded(_new_router(unit, None, _shapes(unit, store)["head.weight"][0]), unit, store)


def load_teacher(unit: Unit, store: Store) -> nn.Module:
    """The network that teaches a student: an expert, or a mixture of all."""
    experts = [load_embedder(parent, store) for name, parent in unit.parents.items() if name.startswith("expert ")]
    return (
        MixtureOfExperts(experts, load_gate(unit.parents["gate"], store)).eval() if "gate" in unit.parents else experts[0]
    )


def cached_teacher(unit: Unit, store: Store) -> TeacherCache:
    """A student's teacher's embedding and logits of each training picture and its mirror image."""
    features = [torch.from_numpy(f) for f in _features(unit, store)]
    flat = [f.flatten(0, 1) for f in features]
    with torch.inference_mode():
        if "gate" in unit.parents:
            gate = load_gate(unit.parents["gate"], store)
            embedding, neck = gate(flat), gate.neck
        else:
            embedding, neck = flat[0], load_teacher(unit, store).neck
        logits = neck.classifier(embedding)
    sides = (len(features[0]), 2, -1)
    return TeacherCache(embedding.view(sides).numpy(), logits.view(sides).numpy())


def untrained(unit: Unit, store: Store) -> dict[str, torch.Tensor]:
    """What a network holds before it is trained, by name: all of an embedder; of others nothing, they are made from nothing."""
    state = _new_embedder(unit, store).state_dict() if unit.kind == "embedder" else {}
    return {name: value.contiguous() for name, value in state.items()}


def _new_embedder(unit: Unit, store: Store | None, teacher_dim: int | None = None) -> Embedder:
    """Freshly built; with a store, from its pretrained weights."""
    encoder = _encoder(unit, store)
    identities = int(unit.given["labels"].max()) + 1
    model = Embedder(encoder, identities, teacher_dim)
    model.encoder.freeze(unit.inputs["recipe"].frozen)
    return model


def _new_router(unit: Unit, store: Store | None, experts: int) -> Router:
    router = Router(_encoder(unit, store), experts)
    router.encoder.freeze(unit.inputs["recipe"].frozen)
    return router


def _encoder(unit: Unit, store: Store | None):
    pretrained = unit.parents.get("pretrained")
    tower = store.make(pretrained) / "tower.safetensors" if pretrained and store else None
    torch.manual_seed(unit.inputs["seed"])  # after what may draw numbers of its own
    spec = unit.given["encoder"] if store else unit.inputs["encoder"]  # with the name of its weights, or without
    encoder = build(spec, tuple(unit.inputs["size"]), unit.given["weights_root"])
    if (
        store
        and "@" in (asked := unit.inputs["weights"] or "")
        and weights_identity(spec, unit.given["weights_root"]) != asked
    ):
        raise WeightsError(
            f"'{unit.label}' was to start from {asked}, and the model hub has a newer one since: run it again"
        )
    if tower is not None:
        load_model(encoder.network, str(tower))
    return encoder


def _picture_batches(unit: Unit, store: Store, teacher=None) -> PictureBatches:
    pixels = load_pixels(unit.parents["pixels"], store)
    stages = [load_pixels(unit.parents[f"pixels {number}"], store) for number in range(len(unit.inputs["recipe"].stages))]
    return PictureBatches(pixels, unit.given["labels"], unit.inputs["recipe"], unit.inputs["seed"], teacher, stages)


def _features(unit: Unit, store: Store) -> list[np.ndarray]:
    """Each expert's embeddings of the training pictures and their mirror images, float32 [N, 2, D]."""
    of = {name.removeprefix("features "): name for name in unit.parents if name.startswith("features ")}
    sides = [
        [store.arrays(unit.parents[f"{side} {name}"])["embeddings"] for side in ("features", "mirrored")] for name in of
    ]
    return [np.stack(both, axis=1) for both in sides]


def _fit(unit: Unit, folder: Path, model: nn.Module, batches, objective: Callable, seed=None, schedule=None) -> None:
    if schedule is None:
        seed = unit.inputs["seed"]
        wanted = {"epochs", "lr", "weight_decay", "warmup", "layer_decay", "head_lr", "ema", "stages"}
        schedule = unit.inputs["recipe"].model_dump(include=wanted)
    history = train(
        model,
        folder,
        batches=batches,
        objective=objective,
        seed=seed,
        machine=unit.given["machine"],
        label=unit.label,
        **schedule,
    )
    if processes.first():
        history.to_csv(folder / "history.csv", index=False)
        write_atomically(folder / "weights.safetensors", lambda path: save_model(model, str(path)))


def _loaded(model: nn.Module, unit: Unit, store: Store) -> nn.Module:
    load_model(model, str(store.make(unit) / "weights.safetensors"))
    return model.eval()


def _shapes(unit: Unit, store: Store) -> dict[str, list[int]]:
    with safe_open(store.make(unit) / "weights.safetensors", "np") as file:
        return {name: file.get_slice(name).get_shape() for name in file.keys()}


# whole methods


def load_method(
    method: str | Method, network: Callable[[Method], Unit | None], experts: Sequence[str], store: Store
) -> nn.Module:
    """A method as one module, uint8 [B, 3, H, W] -> embedding [B, D], in evaluation mode, on the CPU.

    network: the unit that is trained for a method alone, None where nothing is; experts: the study's, by name.
    """
    method = parse(method)
    if not isinstance(method, Moe):
        return (load_start if isinstance(method, Start) else load_embedder)(network(method), store)
    parts = [load_embedder(network(Expert(name=name)), store) for name in experts]
    if method.gate == "router":
        gate = load_gate(network(Moe(gate="top1")), store)
        return RoutedExperts(load_router(network(method), store), parts, gate).eval()
    unit = network(method)
    gate = load_gate(unit, store) if unit else GATES[method.gate]([part.dim for part in parts], 0, 0)
    return MixtureOfExperts(parts, gate).eval()
