"""What a recipe can ask for beyond the plain loop: stages of sizes, averaged weights, a faster head, unit features."""

import numpy as np
import pandas as pd
import pytest
import torch

from reidlib import losses
from reidlib.encoders import build
from reidlib.losses import Target
from reidlib.models import Embedder, Output
from reidlib.params import EncoderParams, ParamsError, Recipe, load
from reidlib.training import Machine, PictureBatches, parameter_groups, train

CPU = Machine(device="cpu")
SMALL, LARGE = (16, 8), (32, 16)


def student() -> Embedder:
    torch.manual_seed(0)
    return Embedder(build(EncoderParams(name="timm:test_byobnet"), LARGE), identities=4)


def batches(recipe: Recipe) -> PictureBatches:
    rng = np.random.default_rng(0)
    pixels = [rng.integers(0, 256, (16, 3, *size), np.uint8) for size in (LARGE, SMALL)]
    return PictureBatches(pixels[0], np.repeat(np.arange(4), 4), recipe, seed=0, stages=pixels[1:])


def fit(folder, recipe: Recipe, model: Embedder, objective=None) -> Embedder:
    objective = objective or (lambda output, target: losses.reid_loss(output, target, recipe))
    schedule = recipe.model_dump(include={"epochs", "lr", "layer_decay", "head_lr", "ema", "stages"})
    train(model, folder, batches=batches(recipe), objective=objective, machine=CPU, **schedule)
    return model


def weights(model: Embedder) -> torch.Tensor:
    return torch.cat([tensor.flatten().float() for tensor in model.state_dict().values()])


def test_first_epochs_are_seen_at_the_stages_size_and_the_last_ones_at_the_networks_own(tmp_path):
    recipe = Recipe(epochs=3, p=4, k=2, lr=1e-3, stages=[{"epochs": 2, "size": SMALL}])
    model, seen = student(), []
    model.encoder.network.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape[2:])))
    fit(tmp_path, recipe, model)
    steps = len(batches(recipe))
    assert seen == [SMALL] * 2 * steps + [LARGE] * steps and model.encoder.size == LARGE


def test_stages_must_leave_epochs_for_the_networks_own_size():
    with pytest.raises(ParamsError, match="leave some for the network's own size"):
        load("params/smoke.yaml", ["student.recipe.stages=[{epochs: 2, size: [24, 24]}]"])


def test_a_recipe_under_a_teacher_must_be_as_long_as_the_one_alone():
    with pytest.raises(ParamsError, match="student: taught has 5 epochs and recipe 2: give both as many"):
        load("params/smoke.yaml", ["student.taught={epochs: 5, lr: 1.0e-2}"])


@pytest.mark.parametrize("stop_after", [1, 2])
def test_stages_and_averaged_weights_are_carried_on_to_the_bit(tmp_path, stop_after):
    recipe = Recipe(epochs=3, p=4, k=2, lr=1e-2, ema=0.9, stages=[{"epochs": 2, "size": SMALL}])
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    whole = fit(tmp_path / "whole", recipe, student())
    steps = []

    def stops(output, target):
        steps.append(1)
        if len(steps) > stop_after * len(batches(recipe)):
            raise KeyboardInterrupt
        return losses.reid_loss(output, target, recipe)

    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "stopped", recipe, student(), stops)
    assert torch.equal(weights(fit(tmp_path / "stopped", recipe, student())), weights(whole))


def test_averaged_weights_are_not_the_last_ones(tmp_path):
    models = []
    for ema in (0.0, 0.9):
        (tmp_path / str(ema)).mkdir()
        models.append(fit(tmp_path / str(ema), Recipe(epochs=4, p=4, k=2, lr=1e-2, ema=ema), student()))
    far, near = ((weights(model) - weights(student())).norm() for model in models)
    assert 0 < near < 0.99 * far


def test_the_head_learns_at_its_own_rate():
    groups = parameter_groups(student(), weight_decay=0.0, layer_decay=0.5, head_lr=5.0)
    model = student()
    rates = {p.shape: group["lr_scale"] for group in groups for p in group["params"]}
    assert rates[model.neck.classifier.weight.shape] == 5
    inside = [group["lr_scale"] for group in groups[:-2] if group["params"]]
    assert max(inside) <= 1


def test_a_loss_that_is_not_finite_stops_at_its_step_and_leaves_the_checkpoint(tmp_path):
    recipe, calls = Recipe(epochs=2, p=4, k=2, lr=1e-3), []
    steps = len(batches(recipe))

    def breaks(output, target):
        calls.append(1)
        terms = losses.reid_loss(output, target, recipe)
        return terms | {"broken": terms["identity"] * float("nan")} if len(calls) == steps + 1 else terms

    with pytest.raises(FloatingPointError, match="broken.*at step 1 of epoch 2"):
        fit(tmp_path, recipe, student(), breaks)
    assert (tmp_path / "checkpoint.pt").exists() and len(calls) == steps + 1
    fit(tmp_path, recipe, student())


def test_the_triplet_on_unit_features_does_not_care_how_long_they_are():
    torch.manual_seed(0)
    features, pid = torch.randn(8, 4), torch.arange(4).repeat_interleave(2)

    def triplet(scale: float, on: str) -> float:
        output = Output(scale * features, features, torch.zeros(8, 4))
        return float(losses.reid_loss(output, Target(pid), Recipe(epochs=1, lr=1.0, triplet_on=on))["triplet"])

    assert triplet(1, "unit") == pytest.approx(triplet(40, "unit"))
    assert triplet(40, "raw") > 5 * triplet(1, "raw")


def test_the_triplet_on_embeddings_sees_nothing_else():
    torch.manual_seed(0)
    features, embedding, pid = torch.randn(8, 4), torch.randn(8, 4), torch.arange(4).repeat_interleave(2)

    def triplet(on: str, *output: torch.Tensor) -> float:
        recipe = Recipe(epochs=1, lr=1.0, triplet_on=on)
        return float(losses.reid_loss(Output(*output, torch.zeros(8, 4)), Target(pid), recipe)["triplet"])

    assert triplet("embedding", features, embedding) == triplet("unit", embedding, features)
    assert triplet("embedding", features, embedding) != triplet("unit", features, embedding)


@pytest.mark.parametrize("epochs, stages", [(24, [18]), (8, [6]), (2, [1]), (1, []), (48, [36])])
def test_a_recipe_over_other_epochs_keeps_its_stages_in_proportion(epochs, stages):
    recipe = Recipe(epochs=24, lr=1e-3, stages=[{"epochs": 18, "size": [8, 8]}]).lasting(epochs)
    assert recipe.epochs == epochs and [stage.epochs for stage in recipe.stages] == stages
    assert Recipe(**recipe.model_dump()) == recipe, "and is one that params could name"


@pytest.mark.parametrize("margin, weight, level", [(0.3, 1.0, 0.3), (0.3, 0.5, 0.15), (None, 1.0, 0.693)])
def test_a_triplet_term_that_stands_still_is_named(margin, weight, level):
    recipe = Recipe(epochs=3, lr=1.0, margin=margin, triplet=weight)

    def said(*triplet: float) -> str:
        return losses.stands_still(pd.DataFrame({"epoch": range(1, len(triplet) + 1), "triplet": triplet}), recipe)

    assert f"ended at {level:.2f}" in said(1.1 * level, 1.001 * level, 0.999 * level)
    assert said(2 * level, level, 0.5 * level) == "" and said(level) == ""
    assert losses.stands_still(pd.DataFrame({"epoch": [1, 2], "identity": [level, level]}), recipe) == ""


def test_features_that_are_all_one_give_the_term_at_which_it_stands_still():
    pid, one = torch.arange(4).repeat_interleave(2), torch.ones(8, 4)
    for margin in (0.3, None):
        recipe = Recipe(epochs=2, lr=1.0, margin=margin, triplet_on="unit")
        term = float(losses.reid_loss(Output(one, one, torch.zeros(8, 4)), Target(pid), recipe)["triplet"])
        assert losses.stands_still(pd.DataFrame({"epoch": [1, 2], "triplet": [term, term]}), recipe)
