"""Terms of the gate: those of re-ID on the fused embedding, load balancing, and what the router imitates."""

import torch

from reidlib.losses.distillation import logit_distillation
from reidlib.losses.reid import Target, reid_loss
from reidlib.models import Output
from reidlib.params import Recipe


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


def routing_loss(scores: torch.Tensor, target: Target) -> dict[str, torch.Tensor]:
    """The router learns the gate's soft choice (log weights as `target.logits`): KL(gate || router). [B, E]."""
    return {"routing": logit_distillation(scores, target.logits, temperature=1)}
