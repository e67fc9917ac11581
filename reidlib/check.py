"""Whether a study can run: everything that would fail later is looked for before time is spent."""

import math
import shutil
from importlib.util import find_spec

import numpy as np
import torch

from reidlib import agenda, making, params
from reidlib.data import DataError
from reidlib.encoders import build
from reidlib.methods import Student, parse
from reidlib.peers import PeerNetwork
from reidlib.study import Study
from reidlib.training import Machine
from reidlib.weights import WeightsError

LEFT = 0.25  # of the peak learning rate: with less, another size comes late


def problems(study: Study) -> list[str]:
    """All that is missing or wrong, a message each; empty where the study can run.

    Data sets are opened, hashed and decoded (which is kept, so that it costs nothing later), every network is built with
    its pretrained weights, peers see a picture, recipes are held against the data, and the device is asked for.
    """
    found = [*_data(study), *_networks(study), *_peers(study), *_release(study.params)]
    if study.params.device == "cuda" and not torch.cuda.is_available():
        found.append("device: cuda, but torch finds no GPU here; set device to auto or cpu")
    if study.params.tracker and find_spec(study.params.tracker) is None:
        remedy = f"install it with .venv/bin/pip install {study.params.tracker}, or take tracker out of the params"
        found.append(f"tracker: the package {study.params.tracker} is not installed: {remedy}")
    try:
        if study.params.profiling.paper:
            study.plan.costs("paper")
    except params.ParamsError as error:
        found.append(f"profiling.paper: {error}")
    try:
        if not found:  # what else keeps the study from knowing what it has to make
            study.plan.units()
    except (DataError, WeightsError, ValueError) as error:
        found.append(str(error))
    return found


def _data(study: Study) -> list[str]:
    found = []
    trained = [*agenda.trained(study.params), agenda.mixed(study.params)]
    for name in dict.fromkeys([*study.params.datasets, *filter(None, trained)]):
        try:
            if lacking := _lacking_space(study, name, name in trained):
                found.append(f"data set '{name}': {lacking}")
                continue
            for part in [*["train"] * (name in trained), *["query", "gallery"] * ("+" not in name)]:
                making.load_pixels(study.plan.pixels(name, part), study.store)
            identities = len(np.unique(study.plan.data.labels(name))) if name in trained else 0
        except (DataError, ValueError) as error:
            found += [f"data set '{name}': {error}"] if "+" not in name else []
            continue
        for place, recipe in study.params.recipes.items():
            if name in trained and recipe.p > identities:
                found.append(f"{place}.p is {recipe.p}, but data set '{name}' has {identities} training identities")
    return found


def _lacking_space(study: Study, name: str, trained: bool) -> str:
    """What to say where the disk can't hold a data set's decoded pictures; "" where it can."""
    sizes = {tuple(stage.size) for recipe in study.params.recipes.values() for stage in recipe.stages if trained}
    wanted = [("train", size) for size in (None, *sizes)] if trained else []
    wanted += [(part, None) for part in ("query", "gallery") if "+" not in name]
    units = [study.plan.pixels(name, *of) for of in wanted]
    lacking = [unit for unit in units if not study.store.record(unit)]
    needed = sum(len(unit.given["paths"]) * 3 * math.prod(unit.inputs["size"]) for unit in lacking)
    free = shutil.disk_usage(study.root).free
    if needed < free:
        return ""
    return (
        f"its decoded pictures take {needed / 1e9:.1f} GB, and {free / 1e9:.1f} are free for {study.root / 'artifacts'}: make room "
        "there (make prune says what no study needs), or give it a smaller size"
    )


def oddities(study: Study) -> list[str]:
    """What doesn't keep a study from running and should be known: a message each."""
    found = []
    for name in study.params.datasets:
        dataset = study.dataset(name)
        found += [f"data set '{name}': {note}" for note in [*dataset.notes, *study.plan.data.shared_pictures(name)]]
    for place, network in study.params.networks.items():
        if Machine(study.params.device, network.precision or study.params.precision).crawls():
            found.append(f"{place}: this processor has no instructions for bf16 or AVX-512, so its precision is float32")
    found += _narrow(study)
    return found + [f"{place}.stages: {late}" for place, recipe in study.params.recipes.items() if (late := _late(recipe))]


def _narrow(study: Study) -> list[str]:
    """What to say where the experts' embeddings don't fit beside each other into the MoE's."""
    size = next(iter(study.params.datasets.values())).size
    encoders = {name: expert.encoder for name, expert in study.params.experts.items()}
    bare = {name: encoder.model_copy(update={"weights": None}) for name, encoder in encoders.items()}
    dims = {name: build(encoder, encoder.size or size).dim for name, encoder in bare.items()}
    if study.params.moe.width >= sum(dims.values()):
        return []
    whose = " + ".join(f"{dim} of {name}" for name, dim in dims.items())
    return [
        f"moe.width: {study.params.moe.width} is less than {whose}, so the untrained MoE is not the plain average of its experts"
    ]


def _late(recipe: params.Recipe) -> str:
    """What to say of a recipe that comes to the network's own size when hardly any learning rate is left; "" of another."""
    begins, warmup = sum(stage.epochs for stage in recipe.stages), min(recipe.warmup, recipe.epochs / 2)
    left = (1 + math.cos(math.pi * (begins - warmup) / (recipe.epochs - warmup))) / 2  # of the cosine that training follows
    if not recipe.stages or left >= LEFT:
        return ""
    return (
        f"the network's own size begins after {begins} of {recipe.epochs} epochs, at {left:.0%} of the peak learning "
        "rate: about half-way was better by far for MobileNetV2 on Market-1501's held-out identities"
    )


def _release(of: params.StudyParams) -> list[str]:
    """What keeps the network that the study hands on from being one that it trains."""
    if of.release is None:
        return []
    variants = [method for found in agenda.variants(of).values() for method in found]
    known = [method for method in [*agenda.methods(of), *variants] if isinstance(parse(method), Student)]
    if of.release.method not in known:
        return [f"release.method: '{of.release.method}' is none of this study's students: {', '.join(known)}"]
    if of.release.method in variants and of.release.dataset not in agenda.ablated(of):
        return [f"release.dataset: variants are trained on {', '.join(agenda.ablated(of))}, not on '{of.release.dataset}'"]
    return []


def _networks(study: Study) -> list[str]:
    found, size = [], next(iter(study.params.datasets.values())).size
    for place, encoder in study.params.encoders.items():
        try:
            network = build(encoder, encoder.size or size, study.plan.weights_root)
            trained = study.params.trained_by(place)
            if any(0 < recipe.frozen < 1 or recipe.layer_decay != 1 for recipe in trained):
                network.layers()
            for stage in (stage for recipe in trained for stage in recipe.stages):
                network.size = stage.size
                network.eval()(torch.zeros(1, 3, *stage.size, dtype=torch.uint8))
        except (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            found.append(f"{place}: {error}")
    return found


def _peers(study: Study) -> list[str]:
    found, size = [], next(iter(study.params.datasets.values())).size
    for method in map(parse, agenda.peers(study.params)):
        try:
            PeerNetwork(study.plan.peer_file(method), study.params.threads)(torch.zeros(1, 3, *size, dtype=torch.uint8))
        except RuntimeError as error:
            found.append(f"peers.{method.name}: {error}")
    return found
