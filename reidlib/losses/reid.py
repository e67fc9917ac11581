"""Terms of re-identification: identity and triplet loss."""

import math
from typing import NamedTuple

import pandas as pd
import torch
import torch.nn.functional as F

from reidlib.models import Output
from reidlib.params import Recipe


class Target(NamedTuple):
    """What a batch of B pictures should become."""

    pid: torch.Tensor  # int [B], 0 .. identities - 1
    embedding: torch.Tensor | None = None  # the teacher's, [B, D]
    logits: torch.Tensor | None = None  # the teacher's, [B, identities]


def identity_loss(logits: torch.Tensor, pid: torch.Tensor, label_smoothing: float) -> torch.Tensor:
    """Cross-entropy over the training identities with label smoothing (Szegedy et al. 2016). [B, I], [B] -> scalar."""
    return F.cross_entropy(logits.float(), pid, label_smoothing=label_smoothing)


def triplet_loss(feature: torch.Tensor, pid: torch.Tensor, margin: float | None) -> torch.Tensor:
    """Batch-hard triplet loss (Hermans et al. 2017) on Euclidean distances; soft margin where `margin` is None."""
    # here, for they pull in scipy.stats, which takes a second to import, and only training needs them
    from pytorch_metric_learning.distances import LpDistance
    from pytorch_metric_learning.losses import TripletMarginLoss
    from pytorch_metric_learning.miners import BatchHardMiner
    from pytorch_metric_learning.reducers import MeanReducer

    feature, euclidean = feature.float(), LpDistance(normalize_embeddings=False)
    hardest = BatchHardMiner(distance=euclidean)(feature, pid)
    loss = TripletMarginLoss(margin or 0.0, smooth_loss=margin is None, distance=euclidean, reducer=MeanReducer())
    return loss(feature, pid, hardest)


def reid_loss(output: Output, target: Target, recipe: Recipe) -> dict[str, torch.Tensor]:
    """The terms an expert or a plain student is trained with, each already weighted."""
    terms = {"identity": identity_loss(output.logits, target.pid, recipe.label_smoothing)}
    if recipe.triplet:
        feature = output.embedding if recipe.triplet_on == "embedding" else output.feature
        feature = feature if recipe.triplet_on == "raw" else F.normalize(feature.float())
        terms["triplet"] = recipe.triplet * triplet_loss(feature, target.pid, recipe.margin)
    return terms


def stands_still(history: pd.DataFrame, recipe: Recipe) -> str:
    """What to say of a training whose triplet term ended where the hardest positive is as far as the hardest negative; "" else.

    That is what a collapse looks like: all features shrink to a point or, on unit length, towards one direction (Hermans et
    al. 2017, section 3). A BNNeck hides it, for it spreads what is left.
    history: a row an epoch, with the term as weighted; there must be two at least.
    """
    level = recipe.triplet * (math.log(2) if recipe.margin is None else recipe.margin)
    if "triplet" not in history or len(history) < 2 or abs(history["triplet"].iloc[-1] - level) > 0.02 * level:
        return ""
    return (
        f"the triplet term ended at {level:.2f}, where the hardest positives are as far as the hardest negatives: "
        "features may have collapsed. Try triplet_on: embedding, or a lower lr"
    )
