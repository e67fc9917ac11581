"""Terms of distillation: what the student learns from a teacher, by a table of terms.

A new term is one function, term(output, target, kd) -> scalar, and its name in TERMS; a params file gives it a weight
in `distillation.terms`.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from reidlib.losses.reid import Target, reid_loss
from reidlib.models import Output
from reidlib.params import DistillationParams, Recipe


def logit_distillation(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """T^2 KL(teacher || student) of softened identity probabilities (Hinton et al. 2015). [B, I] twice -> scalar."""
    student, teacher = (F.log_softmax(x.float() / temperature, dim=1) for x in (student, teacher))
    return temperature**2 * F.kl_div(student, teacher, log_target=True, reduction="batchmean")


def logit(output: Output, target: Target, kd: DistillationParams) -> torch.Tensor:
    """The teacher's identity probabilities, softened by kd.temperature: see `logit_distillation`. -> scalar."""
    return logit_distillation(output.logits, target.logits, kd.temperature)


def embedding(output: Output, target: Target, kd: DistillationParams) -> torch.Tensor:
    """Mean cosine distance of the student's projected embedding to the teacher's, [B, D] both. -> scalar."""
    return 1 - F.cosine_similarity(output.projected.float(), target.embedding.float()).mean()


def relational(output: Output, target: Target, kd: DistillationParams) -> torch.Tensor:
    """Mean squared difference of the batch's cosine matrices; embeddings [B, Ds], [B, Dt] -> scalar.

    After Tung and Mori 2019 ("Similarity-Preserving Knowledge Distillation"), who take products of features as they are, give
    each row of the matrix length 1 and divide by b^2: a weight of theirs is none of this term's.
    """
    student, teacher = (F.normalize(x.float()) for x in (output.embedding, target.embedding))
    difference = student @ student.T - teacher @ teacher.T
    b = len(difference)
    return difference.square().sum() / (b * (b - 1))  # the diagonal is zero


TERMS: dict[str, Callable] = {"logit": logit, "embedding": embedding, "relational": relational}


def distillation_loss(output: Output, target: Target, recipe: Recipe, kd: DistillationParams) -> dict[str, torch.Tensor]:
    """The student's terms under a teacher: those of re-ID, and the terms of distillation whose weight is not zero."""
    weights = {name: kd.terms.get(name, 0.0) for name in TERMS}  # in the table's order, whatever the params file's
    return reid_loss(output, target, recipe) | {
        name: weight * TERMS[name](output, target, kd) for name, weight in weights.items() if weight
    }
