"""What weighing experts could give: one weight for all pictures, from one expert alone to another alone, beside the gates.

Nothing is chosen by it, for it is measured on the test set: it tells what a gate that weighs picture by picture is to beat.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from reidlib.methods import Expert, Moe
from reidlib.retrieval import EmbeddingSet, evaluate
from reidlib.study import Study


def joined(experts: Sequence[EmbeddingSet], weights: Sequence[float]) -> EmbeddingSet:
    """The experts' embeddings of the same pictures as one: its cosines are the means of theirs, weighted by `weights`.

    Unit vectors times the roots of their weights, side by side: (sqrt(a) x)·(sqrt(a) y) = a cos(x, y).
    experts: features [N, D_i] each; weights: one for each, that sum to 1. Returns features [N, sum of D_i]. Raises ValueError
    where there are more of one than of the other.
    """
    parts = [weight**0.5 * F.normalize(expert.features) for expert, weight in zip(experts, weights, strict=True)]
    return EmbeddingSet(torch.cat(parts, dim=1), experts[0].pid, experts[0].camid)


def constant(study: Study, dataset: str, seed: int, steps: int = 10) -> pd.DataFrame:
    """mAP on `dataset` by one weight for all pictures: columns weight, of the first expert, and mAP, a fraction.

    The other experts share the rest alike; a weight of 1 is the first expert alone, and the experts' equal share is the
    concatenation (with `flip_test` only nearly: there the mean of two pictures is taken before embeddings are made unit ones).
    Untrained: the projections of a gate and of the uniform ensemble could make their experts better or worse than that.
    """
    names = list(study.params.experts)
    sides = [
        [study.embedding_set(Expert(name=name), dataset, seed, None, part) for name in names]
        for part in ("query", "gallery")
    ]
    rows = []
    for weight in np.linspace(0, 1, steps + 1):
        weights = [weight, *[(1 - weight) / (len(names) - 1)] * (len(names) - 1)]
        rows.append((weight, evaluate(*(joined(experts, weights) for experts in sides)).mAP))
    return pd.DataFrame(rows, columns=["weight", "mAP"])


def of_gates(study: Study, gates: Sequence[str], dataset: str, seed: int) -> pd.DataFrame:
    """What trained gates do instead: columns method, weight, of the first expert, the mean over the gallery, and mAP."""
    first = next(iter(study.params.experts))
    rows = [
        (str(Moe(gate=gate)), study.gate_weights(gate, dataset, seed)[first].mean(),
         study.evaluate(Moe(gate=gate), dataset, seed).mAP)
        for gate in gates
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["method", "weight", "mAP"])
