"""Gates: how the frozen experts' embeddings become one, by a table.

A new gate is one class, mostly a Fusion with another `weights`, and its name in GATES; a params file lists it in
`moe.gates`. (A router, which looks at the picture before any expert has run, is in reidlib.models.)
"""

import torch
import torch.nn.functional as F
from torch import nn

from reidlib.neck import Neck, Output


class Fusion(nn.Module):
    """Fuses the experts' embeddings into one: each unit embedding is projected to a common width, and the projections
    are weighed per picture (Shazeer et al. 2017, "Outrageously Large Neural Networks"):

        z = sum_i w_i P_i x_i

    The projections start as slices of one orthogonal matrix: with width >= the sum of the experts' widths the untrained
    uniform fusion has exactly the cosines of a concatenation, so training starts from the plain ensemble and can only be
    blamed or praised for what it changes.

    Args:
        dims: width D_i of each expert's embedding.
        width: of the fused one.
        identities: number of training identities.
    """

    trained = True

    def __init__(self, dims: list[int], width: int, identities: int):
        super().__init__()
        self.dim = width
        self.projections = nn.ModuleList(nn.Linear(dim, width, bias=False) for dim in dims)
        orthogonal = nn.init.orthogonal_(torch.empty(width, sum(dims)))
        for projection, part in zip(self.projections, orthogonal.split(dims, dim=1)):
            projection.weight.data.copy_(part)
        self.gate = self.build_gate(dims)
        self.neck = Neck(width, identities)

    def build_gate(self, dims: list[int]) -> nn.Module | None:
        """The network that `weights` needs, if any."""
        return None

    def weights(self, embeddings: list[torch.Tensor]) -> torch.Tensor:
        """Weights [B, E] for the experts' embeddings, each [B, D_i]; rows sum to 1."""
        raise NotImplementedError

    def alone(self, expert: int, embeddings: torch.Tensor) -> torch.Tensor:
        """One expert's embeddings [B, D_i] as the fused embedding [B, width] where that expert is chosen."""
        return self.neck.norm(self.projections[expert](F.normalize(embeddings)))

    def forward(self, embeddings: list[torch.Tensor]):
        """Experts' embeddings, each [B, D_i] -> fused embedding [B, width], or an Output in training mode."""
        unit = [F.normalize(x) for x in embeddings]
        weights = self.weights(embeddings)
        projected = torch.stack([P(x) for P, x in zip(self.projections, unit)], dim=1)  # [B, E, width]
        feature = (weights.unsqueeze(2) * projected).sum(1)
        if not self.training:
            return self.neck.norm(feature)
        embedding, logits = self.neck(feature)
        return Output(feature, embedding, logits, weights=weights)


class Uniform(Fusion):
    """The same weight for all: a trained ensemble that selects nothing."""

    def weights(self, embeddings: list[torch.Tensor]) -> torch.Tensor:
        return uniform_weights(embeddings)


class Soft(Fusion):
    """All experts, weighed per picture: w = softmax(G [x_1, ..., x_E])."""

    def build_gate(self, dims: list[int]) -> nn.Module:
        gate = nn.Linear(sum(dims), len(dims))
        nn.init.zeros_(gate.weight)  # starts undecided
        nn.init.zeros_(gate.bias)
        return gate

    def soft_weights(self, embeddings: list[torch.Tensor]) -> torch.Tensor:
        """The gate's softmax [B, E]."""
        # unit vectors have entries of about 1/sqrt(D): bring the gate's input to about 1
        scale = (sum(x.shape[1] for x in embeddings) / len(embeddings)) ** 0.5
        return self.gate(torch.cat([F.normalize(x) for x in embeddings], dim=1) * scale).softmax(1)

    def weights(self, embeddings: list[torch.Tensor]) -> torch.Tensor:
        return self.soft_weights(embeddings)


class Quality(Fusion):
    """All experts, weighed per picture by how long their embeddings are and nothing else: a network's feature is short
    where it recognises little (Meng et al. 2021, "MagFace"). Two numbers can't learn the training pictures by heart."""

    def build_gate(self, dims: list[int]) -> nn.Module:
        last = nn.Linear(16, len(dims))
        nn.init.zeros_(last.weight)  # starts undecided
        nn.init.zeros_(last.bias)
        return nn.Sequential(nn.BatchNorm1d(len(dims), affine=False), nn.Linear(len(dims), 16), nn.GELU(), last)

    def weights(self, embeddings: list[torch.Tensor]) -> torch.Tensor:
        lengths = torch.stack([x.float().norm(dim=1) for x in embeddings], dim=1)
        return self.gate(lengths.clamp_min(1e-6).log()).softmax(1)


class Top1(Soft):
    """The largest weight alone, which becomes 1: dynamic selection, strictly."""

    def weights(self, embeddings: list[torch.Tensor]) -> torch.Tensor:
        soft = self.soft_weights(embeddings)
        chosen = F.one_hot(soft.argmax(1), len(embeddings)).to(soft.dtype)
        return chosen + (soft - soft.detach())  # forward: one expert; backward: the soft weights' gradient


class Concat(nn.Module):
    """The unit embeddings side by side: nothing is trained."""

    trained = False

    def __init__(self, dims: list[int], width: int, identities: int):
        super().__init__()
        self.dim = sum(dims)

    def weights(self, embeddings: list[torch.Tensor]) -> torch.Tensor:
        return uniform_weights(embeddings)

    def forward(self, embeddings: list[torch.Tensor]) -> torch.Tensor:
        """Experts' embeddings, each [B, D_i] -> [B, sum of D_i]."""
        return torch.cat([F.normalize(x) for x in embeddings], dim=1)


def uniform_weights(embeddings: list[torch.Tensor]) -> torch.Tensor:
    """1/E each, [B, E]."""
    return embeddings[0].new_full((len(embeddings[0]), len(embeddings)), 1 / len(embeddings))


GATES: dict[str, type[nn.Module]] = {
    "soft": Soft,
    "unbalanced": Soft,  # by another name: `moe.balance` has a weight for soft and none for this one
    "top1": Top1,
    "quality": Quality,
    "uniform": Uniform,
    "concat": Concat,
}
