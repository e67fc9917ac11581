"""What trained networks are asked for: embeddings, evaluations, costs, each a unit of work, see `units.Unit`."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from reidlib import profiling
from reidlib.encoders import build
from reidlib.gates import GATES
from reidlib.making import load_embedder, load_gate, load_method, load_pixels, load_router, load_start
from reidlib.methods import Expert, Moe, parse
from reidlib.models import Embedder, MixtureOfExperts, RoutedExperts, Router
from reidlib.params import EncoderParams
from reidlib.peers import PeerNetwork
from reidlib.retrieval import EmbeddingSet, evaluate
from reidlib.training import Machine, embed
from reidlib.units import Store, Unit


def make_embeddings(unit: Unit, store: Store, folder: Path) -> dict[str, np.ndarray]:
    """What a trained embedder (or router) gives for all pictures of a part: embeddings float32 [N, D]."""
    network = unit.parents["network"]
    load = {"router": load_router, "start": load_start}.get(network.kind, load_embedder)
    model = load(network, store)
    pixels = load_pixels(unit.parents["pixels"], store)
    return {"embeddings": embed(model, pixels, unit.given["machine"], mirrored=unit.inputs["mirrored"])}


def make_peer_embeddings(unit: Unit, store: Store, folder: Path) -> dict[str, np.ndarray]:
    """What a peer gives for all pictures of a part: embeddings float32 [N, D]."""
    peer, pixels = PeerNetwork(unit.given["file"], unit.inputs["threads"]), load_pixels(unit.parents["pixels"], store)
    return {"embeddings": embed(peer, pixels, Machine("cpu"), mirrored=unit.inputs["mirrored"], batch=32)}


def make_raw(unit: Unit, store: Store, folder: None) -> dict[str, np.ndarray]:
    """Raw pixels: each picture shrunk to 16 x 16."""
    pixels = load_pixels(unit.parents["pixels"], store)
    some = (torch.from_numpy(pixels[start : start + 256].astype(np.float32)) for start in range(0, len(pixels), 256))
    small = torch.cat([torch.nn.functional.interpolate(part, (16, 16), mode="area") for part in some])
    return {"embeddings": (small.flip(3) if unit.inputs["mirrored"] else small).flatten(1).numpy()}


def make_averaged(unit: Unit, store: Store, folder: None) -> dict[str, np.ndarray]:
    """The mean of the embeddings of each picture and of its mirror image."""
    sides = [store.arrays(unit.parents[side])["embeddings"] for side in ("picture", "mirrored")]
    return {"embeddings": np.mean(sides, axis=0)}


def make_fused(unit: Unit, store: Store, folder: None) -> dict[str, np.ndarray]:
    """The experts' embeddings under a gate; or, overruled, of one expert alone; or of the one that a router chose."""
    parts = [torch.from_numpy(x) for x in expert_embeddings(unit, store)]
    if "gate" in unit.parents:
        gate = load_gate(unit.parents["gate"], store)
    else:
        gate = GATES[unit.inputs["gate"]]([x.shape[1] for x in parts], 0, 0).eval()
    with torch.inference_mode():
        if unit.inputs["expert"] is not None:
            fused = gate.alone(unit.inputs["expert"], parts[unit.inputs["expert"]])
        elif "choice" in unit.parents:
            choice = torch.from_numpy(store.arrays(unit.parents["choice"])["embeddings"]).argmax(1)
            fused = torch.stack([gate.alone(i, x) for i, x in enumerate(parts)])[choice, torch.arange(len(choice))]
        else:
            fused = gate(parts)
    return {"embeddings": fused.numpy()}


def expert_embeddings(unit: Unit, store: Store) -> list[np.ndarray]:
    """Of a fused unit, what each expert gives: float32 [N, D_i]."""
    return [store.arrays(p)["embeddings"] for name, p in unit.parents.items() if name.startswith("expert ")]


def make_evaluation(unit: Unit, store: Store, folder: Path) -> dict[str, np.ndarray]:
    """What `retrieval.evaluate` finds: mAP, mINP (float64 [1]), cmc (float64 [ranks]), ap (float64 [n_valid]), valid."""
    sets = []
    for part in ("query", "gallery"):
        sets.append(EmbeddingSet(store.arrays(unit.parents[part])["embeddings"], *unit.given[part]))
    found = evaluate(*sets)
    return {
        "mAP": np.array([found.mAP]), "mINP": np.array([found.mINP]), "cmc": np.asarray(found.cmc, float),
        "ap": np.asarray(found.ap, float), "valid": found.valid,
    }  # fmt: skip


def make_costs(unit: Unit, store: Store, folder: Path) -> None:
    """What the study's networks and its peers cost, measured side by side: costs.csv, see `profiling.profile`."""
    network = lambda method: unit.parents.get(f"network {method}")  # noqa: E731
    models = {method: load_method(method, network, unit.given["experts"], store) for method in unit.inputs["methods"]}
    models |= {method: PeerNetwork(file, unit.inputs["threads"]) for method, file in unit.given["peers"].items()}
    _profile(unit, folder, models, load_pixels(unit.parents["pictures"], store))


def make_paper_costs(unit: Unit, store: Store, folder: Path) -> None:
    """What networks with random weights cost, seeing noise."""
    shape = (unit.inputs["runs"].batch, 3, *unit.inputs["size"])
    noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    _profile(unit, folder, untrained(unit.inputs["networks"], unit.inputs["width"], unit.inputs["size"], noise), noise)


def _profile(unit: Unit, folder: Path, models: dict[str, nn.Module], pictures: np.ndarray) -> None:
    runs = unit.inputs["runs"]
    rows = profiling.profile(models, pictures, unit.given["machine"], runs.runs, runs.batch)
    rows.to_csv(folder / "costs.csv", index=False)


def untrained(
    encoders: dict[str, EncoderParams], width: int, size: tuple[int, int], pictures: np.ndarray
) -> dict[str, nn.Module]:
    """Experts, MoE, router and student with random weights: enough to measure what they cost.

    encoders: by method, "moe:router" for the router's. pictures: uint8 [N, 3, h, w]; the router is made to choose each of
    two experts for half of them.
    """
    torch.manual_seed(0)
    built = {str(parse(name)): build(encoder, encoder.size or tuple(size)) for name, encoder in encoders.items()}
    models = {name: Embedder(e, identities=2) for name, e in built.items() if not isinstance(parse(name), Moe)}
    experts = [model for name, model in models.items() if isinstance(parse(name), Expert)]
    gates = {gate: GATES[gate]([e.dim for e in experts], width, 2).eval() for gate in ("soft", "top1")}
    models["moe:soft"] = MixtureOfExperts(experts, gates["soft"])
    if "moe:router" in built:
        router = Router(built["moe:router"], len(experts)).eval()
        with torch.inference_mode():
            scores = router(torch.from_numpy(pictures))
        router.head.bias.data[0] -= (scores[:, 0] - scores[:, 1:].amax(1)).quantile(0.5)
        models["moe:router"] = RoutedExperts(router, experts, gates["top1"])
    return {f"{name}/configuration=paper": model.eval() for name, model in models.items()}
