"""What each network is trained to minimise: identity and triplet losses, load balancing, and the distillation terms."""

from typing import NamedTuple

import torch
import torch.nn.functional as F

from reidlib.models import Output
from reidlib.params import DistillationParams, Recipe


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
        terms["triplet"] = recipe.triplet * triplet_loss(output.feature, target.pid, recipe.margin)
    return terms


def balance_loss(weights: torch.Tensor) -> torch.Tensor:
    """Squared coefficient of variation of the experts' mean weights (Shazeer et al. 2017). [B, E] -> scalar."""
    importance = weights.mean(0)
    return importance.var(unbiased=False) / importance.mean().square()


def moe_loss(output: Output, target: Target, recipe: Recipe, balance: float) -> dict[str, torch.Tensor]:
    """The gate's terms: those of re-ID, and the load-balancing term with the weight `balance`."""
    terms = reid_loss(output, target, recipe)
    if balance:
        terms["balance"] = balance * balance_loss(output.weights)
    return terms


def logit_distillation(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """T^2 KL(teacher || student) of softened identity probabilities (Hinton et al. 2015). [B, I] twice -> scalar."""
    student, teacher = (F.log_softmax(x.float() / temperature, dim=1) for x in (student, teacher))
    return temperature**2 * F.kl_div(student, teacher, log_target=True, reduction="batchmean")


def embedding_distillation(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean cosine distance of the student's projected embedding to the teacher's. [B, D] twice -> scalar."""
    return 1 - F.cosine_similarity(student.float(), teacher.float()).mean()


def relational_distillation(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of the batch's cosine matrices, row-wise similarity as in Tung and Mori 2019
    ("Similarity-Preserving Knowledge Distillation"). [B, Ds], [B, Dt] -> scalar."""
    student, teacher = (F.normalize(x.float()) for x in (student, teacher))
    difference = student @ student.T - teacher @ teacher.T
    b = len(difference)
    return difference.square().sum() / (b * (b - 1))  # the diagonal is zero


def distillation_loss(output: Output, target: Target, recipe: Recipe, kd: DistillationParams) -> dict[str, torch.Tensor]:
    """The student's terms under a teacher: those of re-ID, and the distillation terms whose weight is not zero."""
    terms = reid_loss(output, target, recipe)
    if kd.logit:
        terms["logit"] = kd.logit * logit_distillation(output.logits, target.logits, kd.temperature)
    if kd.embedding:
        terms["embedding"] = kd.embedding * embedding_distillation(output.projected, target.embedding)
    if kd.relational:
        terms["relational"] = kd.relational * relational_distillation(output.embedding, target.embedding)
    return terms


def routing_loss(scores: torch.Tensor, target: Target) -> dict[str, torch.Tensor]:
    """The router learns the gate's soft choice (log weights as `target.logits`): KL(gate || router). [B, E]."""
    return {"routing": logit_distillation(scores, target.logits, temperature=1)}
